"""Graphs into tables: the union of a data set and of its line graphs, as packed batches gather from it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from plstm_graph.data.stacked import StackedGraphs, first
from plstm_graph.errors import DataError, first_line
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.plan import Graph
from plstm_graph.transforms import line_dag

Sizes = list[np.ndarray]
"""How much of everything each graph has: nodes, columns, edges, pairs, ..., a row [G] for each kind of thing."""

NODES = 0
"""The row of ``Sizes`` with the nodes."""
STAYS = -1
"""In place of such a row: numbers that mean the same in every batch."""
LOOP = -(2**30)
"""Stored as the edge of a column that is a self-loop: negative after any move, so that one clamp gives -1."""


class Attribute(NamedTuple):
    """A tensor attribute of all graphs, one after the other along its first dimension, which in a batch is ``dim``.

    ``kind`` is the row of ``Sizes`` that says how much of it each graph has; ``growth`` the row that says by how much
    its values grow from one graph of a batch to the next (``edge_index``: by the nodes), or None.
    """

    value: Tensor
    dim: int
    kind: int
    growth: int | None


class Table(NamedTuple):
    """Rows of int32 numbers, stored thing by thing so that what a graph has stands together, [things, rows]; ``kind``
    is the row of ``Sizes`` that counts the things."""

    value: Tensor
    kind: int


class Lines(NamedTuple):
    """The line graphs of all graphs.

    Attributes:
        tables: ``nodes`` and ``pairs`` have the rows of :class:`Plan`; ``edges`` the level, the rows of the plan and
            those of the plan after pruning; ``kept`` (pairs kept) the rows of the latter, then the number before
            pruning; ``column`` the edge of each column.
        growth: for each row of each table in turn, 1 + the row of ``Sizes`` that it numbers, or 0 where it stays.
        graphs: for each row of ``Plan.graphs`` of each plan, the row of pointers and sizes [2 · kinds] that it copies.
        along: direction of the columns, bool [M].
        large, large_levels: ``Plan.large`` and ``Plan.levels`` where no graph counts as large, as in every new plan.
        levels, merged: of each graph, on the host: number of levels, and whether several columns became one edge, [G].
    """

    tables: dict[str, Table]
    growth: Tensor
    graphs: Tensor
    along: Tensor
    large: Tensor
    large_levels: Tensor
    levels: np.ndarray
    merged: np.ndarray


def unite(graphs: Sequence[Data]) -> tuple[Batch, Data]:
    """All graphs as one batch on the host, after a check that they are alike, and the last one."""
    if not len(graphs):
        raise DataError("there are no graphs to pack; is the split empty?")
    if isinstance(graphs, StackedGraphs) and graphs.parts is not None:
        return graphs.union(), first(graphs.take([len(graphs) - 1]))
    for number, graph in enumerate(graphs):
        if not isinstance(graph, Data) or isinstance(graph, Batch):
            raise DataError(f"packed graphs must be PyG Data objects, got {type(graph).__name__} as number {number}")
    wanted = set(graphs[0].keys())
    for number, graph in enumerate(graphs):
        if odd := wanted ^ set(graph.keys()):
            names = ", ".join(sorted(odd))
            raise DataError(f"all graphs must have the same attributes, but graphs 0 and {number} differ in {names}")
    try:
        union = Batch.from_data_list(list(graphs)).cpu()
    except (RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"the graphs do not fit into one batch: {first_line(error)}") from error
    if "ptr" not in union:
        raise DataError("graphs must tell how many nodes they have: by x, edge_index or num_nodes")
    return union, graphs[-1]


def row_of(sizes: Sizes, counts: np.ndarray) -> int:
    """The row of ``sizes`` that says the same, or a new one."""
    for number, known in enumerate(sizes):
        if np.array_equal(known, counts):
            return number
    sizes.append(counts)
    return len(sizes) - 1


def attribute(union: Batch, key: str, sizes: Sizes) -> Attribute:
    """An attribute of the union, so far without its growth."""
    value, slices, shifts = union[key], union._slice_dict[key], union._inc_dict[key]
    plain = type(value) is Tensor and value.layout == torch.strided and not value.is_nested
    if not plain or slices.dim() != 1 or shifts.dim() != 1:
        raise DataError(
            f"attribute {key!r} ({type(value).__name__}) cannot be packed: it must be a dense tensor, a number or text "
            "in each graph; leave it out (exclude_keys), or use PyG's DataLoader"
        )
    dim = (union.__cat_dim__(key, value, union._store) or 0) % value.dim()
    return Attribute(value.movedim(dim, 0).contiguous(), dim, row_of(sizes, slices.diff().numpy()), None)


def growth(union: Batch, last: Data, key: str) -> np.ndarray:
    """Growth of values from each graph to the next, [G]; PyG keeps the sums, without the last graph's part."""
    own = int(last.__inc__(key, last[key], last._store))
    return np.append(union._inc_dict[key].diff().numpy(), own)


def pack_lines(union: Batch, order: str, prune: bool, sizes: Sizes) -> Lines:
    """The line graph of the union and its plans as tables; what they number joins ``sizes``."""
    if "edge_index" not in union:
        raise DataError("line graphs need edge_index; without it pack with order=None")
    dag = line_dag(union, order)
    plans = [view.plan() for view in ((dag, dag.prune()) if prune else (dag,))]
    count = len(sizes[NODES])
    edge = row_of(sizes, _padded(plans[0].graphs[Graph.EDGES], count))
    pairs = [row_of(sizes, _padded(plan.graphs[Graph.PAIRS], count)) for plan in plans]
    column = row_of(sizes, union._slice_dict["edge_index"].diff().numpy())
    ends = [[NODES, NODES, pair, STAYS, pair, STAYS, edge, edge, column, column] for pair in pairs]
    lists = [2 * [pair, edge, edge] for pair in pairs]
    edges = [dag.level.int()[None], *(plan.edges for plan in plans)]
    found = {
        "nodes": (NODES, plans[0].nodes, [edge, STAYS, edge, STAYS]),
        "edges": (edge, torch.cat(edges), [STAYS, *(row for rows in ends for row in rows)]),
        "pairs": (pairs[0], plans[0].pairs, lists[0]),
        "column": (column, torch.where(dag.column < 0, LOOP, dag.column).int()[None], [edge]),
    }
    if prune:
        found["kept"] = pairs[1], torch.cat([plans[1].pairs, dag.kept_pairs.int()[None]]), [*lists[1], pairs[0]]
    copied = [row for pair in pairs for kind in (NODES, edge, pair) for row in (kind, len(sizes) + kind)]
    return Lines(
        {name: Table(value.t().contiguous(), kind) for name, (kind, value, _) in found.items()},
        torch.tensor([1 + row for *_, rows in found.values() for row in rows], device="cpu"),
        torch.tensor(copied, device="cpu"),
        dag.column_along,
        plans[0].large,
        plans[0].levels,
        *(_padded(numbers, count) for numbers in _levels_and_merged(dag)),
    )


def _padded(numbers: Tensor, size: int) -> np.ndarray:
    """Add zeros for the last graphs if they have no nodes: a LineDAG does not know of them."""
    return np.pad(numbers.long().numpy(), (0, size - len(numbers)))


def _levels_and_merged(dag: LineDAG) -> tuple[Tensor, Tensor]:
    """Number of levels of each graph, and whether several of its columns became one edge, [G] each."""
    nothing = dag.level.new_zeros(dag.num_graphs)
    levels = nothing.scatter_reduce(0, dag.edge_graph, dag.level + 1, "amax")
    readings = torch.bincount((2 * dag.column + dag.column_along)[dag.column >= 0], minlength=2 * dag.num_edges)
    return levels, nothing.scatter_reduce(0, dag.edge_graph, readings.view(-1, 2).amax(1), "amax") > 1

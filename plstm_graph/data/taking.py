"""What a batch takes out of packed graphs: which slices, and the line graph that they make."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from plstm_graph.data.packing import NODES, Lines
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.derived import Known
from plstm_graph.line_dag.plan import Edge, Graph, Pair, Plan
from plstm_graph.line_dag.topology import Levels, Topology


class Chosen(NamedTuple):
    """The graphs of a batch, on the host.

    Attributes:
        graphs: their numbers, [B].
        sizes, ends: how much they have of everything, [rows, B], and the pointers that follow, [rows, B + 1].
        work, classes: ``work`` and ``host`` of the plan. Like a LineDAG it ends with the last graph that has nodes.
        live: graphs of the line graph.
        own: graphs that fill nothing up; they stand first.
    """

    graphs: np.ndarray
    sizes: np.ndarray
    ends: np.ndarray
    work: Tensor
    classes: Tensor
    live: int
    own: int


class Slices(NamedTuple):
    """Choice of graphs on the device.

    Attributes:
        places, owners: for each kind of thing, where those of the batch stand in the union, and in which graph of the
            batch, [things].
        moves: how far numbers move: first those that stay, then for each row of sizes, [1 + rows, B + 1].
        ends_sizes, work: of ``Chosen``, one after the other for each kind, [2 · kinds, B + 1] and [2, B + 1].
    """

    places: tuple[Tensor, ...]
    owners: tuple[Tensor, ...]
    moves: Tensor
    ends_sizes: Tensor
    work: Tensor


class Picked:
    """A batch as the host knows it, before anything of it is on the device.

    Args:
        packed: the graphs, :class:`plstm_graph.data.PackedGraphs`.
        chosen: which of them.
        rows: all that the device has to be told, int64 [rows, columns]; of filled batches always as many.
        filled: whether it is filled up; None if nobody asked for that.
    """

    def __init__(self, packed: Any, chosen: Chosen, rows: np.ndarray, filled: bool | None) -> None:
        self.packed, self.chosen, self.rows, self.filled = packed, chosen, rows, filled

    @property
    def examples(self) -> int:
        """Graphs that fill nothing up."""
        return self.chosen.own

    @torch.inference_mode(False)
    def batch(self) -> Batch:
        """The batch itself."""
        return self.of(send(self.rows, self.packed.device))

    def of(self, sent: Tensor) -> Batch:
        """The batch from its rows on the device. Sent in their place, those of another filled batch make that one,
        but for what is known of it on the host."""
        batch: Batch = self.packed.made(self.chosen, sent, self.filled)
        return batch


def in_rows(parts: list[np.ndarray], columns: int) -> np.ndarray:
    """All rows below each other, padded with zeros."""
    rows = np.zeros((sum(map(len, parts)), columns), dtype=np.int64)
    start = 0
    for part in parts:
        rows[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return rows


def send(rows: np.ndarray, device: torch.device, into: Tensor | None = None) -> Tensor:
    """In one copy to the device, for which the host does not wait.

    Args:
        into: what takes it there; a new tensor without.
    """
    host = torch.from_numpy(rows)
    host = host.pin_memory() if device.type == "cuda" else host
    return host.to(device, non_blocking=True) if into is None else into.copy_(host, non_blocking=True)


def line_dag_of(lines: Lines, chosen: Chosen, slices: Slices) -> LineDAG:
    """The line graph of a batch, with the plans that it would make itself."""
    taken = {}
    growths = slices.moves.int().index_select(0, lines.growth).t().contiguous()
    widths = [table.value.size(1) for table in lines.tables.values()]
    for (name, (value, kind)), shift in zip(lines.tables.items(), growths.split(widths, 1), strict=True):
        moved = value.index_select(0, slices.places[kind]).add_(shift.index_select(0, slices.owners[kind]))
        taken[name] = moved.t().contiguous()
    edge, column = lines.tables["edges"].kind, lines.tables["column"].kind
    # One by one, each in memory of its own: torch.compile looks at where in its memory a tensor begins.
    level, src, dst = (taken["edges"][row].long() for row in range(1 + Edge.DST + 1))
    prev, next = (taken["pairs"][row].long() for row in (Pair.BY_NEXT_PREV, Pair.BY_NEXT_NEXT))
    live, own = chosen.live + 1, chosen.graphs[: min(chosen.live, chosen.own)]
    topology = Topology(
        *(src, dst, prev, next),
        column=taken["column"][0].long().clamp_(min=-1),
        column_along=lines.along.index_select(0, slices.places[column]),
        graph_ptr=slices.ends_sizes[NODES, :live],
        edge_ptr=slices.ends_sizes[edge, :live],
        num_nodes=int(chosen.ends[NODES, -1]),
        max_nodes=int(chosen.sizes[NODES, : chosen.live].max(initial=0)),
        max_edges=int(chosen.sizes[edge, : chosen.live].max(initial=0)),
        merged=bool(lines.merged[own].any()),
    )
    levels = Levels(level, int(lines.levels[own].max(initial=0)))
    known = _known(lines, chosen, slices, taken)
    known["levels"] = levels
    return LineDAG.of(topology, **known)


def _known(lines: Lines, chosen: Chosen, slices: Slices, taken: dict[str, Tensor]) -> Known:
    columns, end = chosen.work.size(1), 1 + len(Edge)
    graphs = slices.ends_sizes.index_select(0, lines.graphs)[:, :columns].int()
    rest = (slices.work[:, :columns].int(), chosen.classes, lines.large, lines.large_levels)
    plan = Plan(graphs[: len(Graph)], taken["nodes"], taken["edges"][1:end], taken["pairs"], *rest)
    along, against = plan.edges[Edge.ALONG : Edge.AGAINST + 1].long()
    known: Known = {"tables": {False: plan}, "edge_ids": (along, against)}
    if "kept" in taken:
        kept = taken["kept"]
        pruned = Plan(graphs[len(Graph) :], taken["nodes"], taken["edges"][end:], kept[: len(Pair)], *rest)
        known |= {"tables": {False: plan, True: pruned}, "kept": kept[len(Pair)].long()}
    return known

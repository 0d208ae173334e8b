"""Fill: batches of packed graphs brought to one size by a filler behind their graphs, as CUDA graphs need them.

A filler is rows of every table: nodes without features, self-loops as columns and as edges, which no list of pairs
names. It is the last graph of a PyG batch but stands in no work list, and nothing of a loss may come from it.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from plstm_graph.data.packing import NODES, Attribute, Table
from plstm_graph.errors import DataError
from plstm_graph.line_dag.plan import Host, Work, members, room_of, size_class

SPREAD = 4.0
"""Room for so many standard deviations of a sum over a batch: of a normal one, 1 in 30,000 has more."""
FILLER_NODES = 64
"""The filler has at least so many nodes, over which its self-loops are spread: sums over them stay small, since in half
precision an infinite number would make gradients NaN even where nothing of it is asked for."""
RARE = 3
"""Room for so many more graphs of each size class, since few graphs are not distributed normally."""


class Capacity(NamedTuple):
    """Sizes of every filled batch.

    Attributes:
        graphs: graphs of the data set in a batch, B.
        things: rows of each kind, those of the filler included, [kinds].
        classes: graphs of each size class and their room, rows ``GRAPHS`` and ``ROOM`` of ``Plan.host``, [2, classes].
    """

    graphs: int
    things: np.ndarray
    classes: np.ndarray

    @property
    def columns(self) -> int:
        """Columns of the plan's graphs: those of the batch, the filler, an empty one, and what ``work`` takes."""
        return max(self.graphs + 2, int(self.classes[0].sum()))

    def rest(self, things: np.ndarray) -> np.ndarray | None:
        """Rows of each kind for the filler of a batch of so many things, or None if they are too many."""
        rest: np.ndarray = self.things - things
        return rest if (rest >= least(len(rest))).all() else None

    def holds(self, classes: Tensor) -> bool:
        """Tell whether there are places for all graphs of each size class, see ``Plan.host``."""
        return bool((classes[[Host.GRAPHS, Host.ROOM]].numpy() <= self.classes).all())

    def work(self, work: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """``work`` and ``host`` of a plan, each class filled up with the empty graph (its graphs with most edges still
        stand last)."""
        filled = work.new_zeros(len(Work), self.columns)
        filled[Work.GRAPH] = self.graphs + 1
        taken = 0
        for here, end in zip(classes[Host.GRAPHS].tolist(), self.classes[0].cumsum().tolist(), strict=True):
            filled[:, end - here : end] = work[:, taken : taken + here]
            taken += here
        host = torch.zeros_like(classes)
        host[[Host.GRAPHS, Host.ROOM]] = torch.from_numpy(self.classes)
        return filled, host


def capacity(sizes: np.ndarray, nodes: Tensor, edges: Tensor, graphs: int) -> Capacity:
    """A size that batches of ``graphs`` graphs seldom exceed.

    Args:
        sizes: how many things of each kind each graph has, [kinds, G].
        nodes, edges: of each graph, [G].
    """
    classes = size_class(nodes, edges)
    each = members(classes)
    slots = torch.stack([each, each * room_of(nodes, edges, classes)])
    slots[:, -1] = 0  # no graph that tiles do not serve
    places = _most(slots.numpy(), graphs) + RARE * slots.amax(-1).numpy()
    return Capacity(graphs, _most(sizes, graphs) + least(len(sizes)), places)


def _most(each: np.ndarray, graphs: int) -> np.ndarray:
    """Bound that a sum over so many graphs seldom exceeds, from what each graph has in the last dimension."""
    most: np.ndarray = np.ceil(each.mean(-1) * graphs + SPREAD * each.std(-1) * graphs**0.5).astype(np.int64)
    return most


def least(kinds: int) -> np.ndarray:
    """Rows of each kind that the filler has at least."""
    rows = np.ones(kinds, dtype=np.int64)
    rows[NODES] = FILLER_NODES
    return rows


def with_filler(packed: Any, graphs: int) -> Any:
    """Copy ``PackedGraphs`` with room behind them for the fillers of batches of ``graphs`` graphs.

    Raises:
        DataError: it has fewer graphs, or one with duplicate columns, whose features cannot be averaged unless the
            GPU is waited for.
    """
    lines = packed.lines
    if packed.capacity is not None:
        raise DataError("these graphs have room for fillers already; begin with those that have none")
    if graphs < 1:
        raise DataError(f"a filled batch has at least 1 graph besides its filler, not {graphs}")
    if len(packed) < graphs:
        raise DataError(f"there are {len(packed)} graphs, none of whose batches has {graphs}")
    if lines is not None and lines.merged.any():
        raise DataError(f"graph {int(lines.merged.argmax())} has duplicate columns in edge_index; coalesce() it first")
    edge = NODES if lines is None else lines.tables["edges"].kind
    nodes, edges = (torch.from_numpy(packed.sizes[row]) for row in (NODES, edge))
    found = capacity(packed.sizes[: packed.kinds], nodes, edges, graphs)
    ends = packed.first[:, -1] + packed.sizes[:, -1]

    def spread(rows: Tensor) -> Tensor:
        return torch.arange(len(rows), device=rows.device, dtype=rows.dtype) % FILLER_NODES

    def longer(attribute: Attribute) -> Attribute:
        value, _, kind, grows = attribute
        more = value.new_zeros(int(found.things[kind]), *value.shape[1:])
        if grows is not None:
            more += int(ends[grows])
        if grows == NODES:
            more += spread(more).view(-1, *[1] * (more.dim() - 1))
        return attribute._replace(value=torch.cat([value, more]))

    if lines is not None:
        growth = lines.growth.cpu().numpy()
        starts = np.append(0, ends)[growth]  # the filler's first node, edge, ..., or zero
        tables, row = {}, 0
        for name, (value, kind) in lines.tables.items():
            rows = slice(row, row + value.size(1))
            new = value.new_tensor(starts[rows]).repeat(int(found.things[kind]), 1)
            new[:, growth[rows] == 1 + NODES] += spread(new).unsqueeze(-1)
            tables[name], row = Table(torch.cat([value, new]), kind), rows.stop
        along = lines.along.new_zeros(int(found.things[lines.tables["column"].kind]))
        lines = lines._replace(tables=tables, along=torch.cat([lines.along, along]))
    return replace(
        packed,
        first=np.hstack([packed.first, ends[:, None]]),
        attributes={name: longer(attribute) for name, attribute in packed.attributes.items()},
        objects={},
        lines=lines,
        capacity=found,
    )

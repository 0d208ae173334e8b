"""Plan: everything a kernel looks up, as a few int32 tables that one line graph computes once and all layers share.

The tables are written for the edges as they point; a reversed reading swaps rows (src with dst, lists of entering with
lists of exiting pairs), so that one plan serves both directions.
"""

from collections.abc import Callable, Hashable
from enum import IntEnum
from functools import cache, cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.line_dag.pairs import Meetings
from plstm_graph.line_dag.topology import Levels, Topology

TILES = (32, 64, 128, 256)
"""Widths of a gating matrix in the parallel form, each twice the one before: a graph takes the first one that holds its
nodes, see ``size_class``."""
EVERY = len(TILES) + 1
"""So many size classes are all: no graph counts as large."""
EDGES_PER_COLUMN = 4
"""A graph of a tile has at most this many edges for each of its columns, since a program walks them one by one."""
NARROW = 64
"""Edges a level, on average, up to which a large graph counts as deep: the whole chip waits longer for a level than it
works on it, so columns of states go through all levels by themselves, see ``ops/triton/columns.py``. On an H200, 1,000
levels with H = 8 and K = V = 16: 1.2 ms by columns and 8.2 level by level at 4 edges a level, 4.2 and 9.2 at 64, 13.8
and 11.0 at 200."""
WIDEST = 256
"""Padded K + V up to which the parallel form serves: rows of queries, keys, values and their gradients in registers."""


class Graph(IntEnum):
    """Rows of ``Plan.graphs``: first node, edge and place in the pair lists of each graph, and how many it has."""

    NODE, NODES, EDGE, EDGES, PAIR, PAIRS = range(6)


class Node(IntEnum):
    """Rows of ``Plan.nodes``: where in ``Edge.BY_DST`` the edges stand that arrive and in ``Edge.BY_SRC`` those that
    leave, and how many there are."""

    ARRIVING, ARRIVE, LEAVING, LEAVE = range(4)


class Edge(IntEnum):
    """Rows of ``Plan.edges``: end points; where in the pair lists the pairs stand that enter and exit, and how many;
    edges sorted by dst and by src; the caller's columns along and against each edge."""

    SRC, DST, ENTERING, ENTER, EXITING, EXIT, BY_DST, BY_SRC, ALONG, AGAINST = range(10)


class Pair(IntEnum):
    """Rows of ``Plan.pairs``, two lists: pairs by next (number, prev, next) and by prev (number, next, prev)."""

    BY_NEXT, BY_NEXT_PREV, BY_NEXT_NEXT, BY_PREV, BY_PREV_NEXT, BY_PREV_PREV = range(6)


class LargeNode(IntEnum):
    """Columns of ``Plan.large`` where it lists nodes: the node; how far the number of an edge of its graph lies above
    the edge's place among the edges of all large graphs; and the node's column of ``Plan.nodes``."""

    NODE, SHIFT, ARRIVING, ARRIVE, LEAVING, LEAVE = range(6)


class LargeEdge(IntEnum):
    """Columns of ``Plan.large`` where it lists edges: the edge; the shift of its graph as for nodes; and the beginning
    of the edge's column of ``Plan.edges``."""

    EDGE, SHIFT, SRC, DST, ENTERING, ENTER, EXITING, EXIT = range(8)


class LargeLevel(IntEnum):
    """Planes of ``Plan.levels``: first place of each level in ``Plan.large``; for deep graphs the most pairs that enter
    and that exit one edge of it."""

    PLACE, ENTER, EXIT = range(3)


class Host(IntEnum):
    """Rows of ``Plan.host``, one column per class: its graphs, their nodes and edges, and their room in all."""

    GRAPHS, NODES, EDGES, ROOM = range(4)


class Work(IntEnum):
    """Rows of ``Plan.work``: the graph, and where its room begins. The room of a graph holds a row of a tile's columns
    for each edge and each node, twice for each node beyond the narrowest tile: it counts in units of that tile."""

    GRAPH, ROOM = range(2)


class Tables(NamedTuple):
    """Tables of a line graph. G graphs, N nodes, E edges, P pairs; int32 on the dag's device, except ``host``.

    Attributes:
        graphs: [6, G], rows as in :class:`Graph`.
        nodes: [4, N], :class:`Node`.
        edges: [10, E], :class:`Edge`.
        pairs: [6, P], :class:`Pair`.
        work: graphs class by class (see :func:`size_class`), in each the one with the most edges last, [2, G],
            :class:`Work`.
        host: sizes of each class on the host, int64 [4, len(TILES) + 1], :class:`Host`.
        large: the N' nodes of large graphs, :class:`LargeNode`, then their E' edges, :class:`LargeEdge`: those of all
            wide graphs level by level, then each deep graph's, see :data:`NARROW`; two unused rows at the end, so that
            compiled code need not tell none and one from many, [N' + E' + 2, 8].
        levels: :class:`LargeLevel`, a row for all wide graphs and one for each of the D deep ones, whose last two
            places are the end of its edges, [3, 1 + D, levels + 2].
    """

    graphs: Tensor
    nodes: Tensor
    edges: Tensor
    pairs: Tensor
    work: Tensor
    host: Tensor
    large: Tensor
    levels: Tensor


class Launches(NamedTuple):
    """Numbers that launches on a GPU take from the sizes of a plan.

    Attributes:
        graphs, edges, pairs: in all.
        counts: graphs of each class that tiles serve.
        walks: programs of a walk.
        programs, programs_back: of the attention for each head, and of its backward pass, for which wide graphs take
            two kinds of programs.
        room: numbers of states and matrices.
        large_nodes, large_edges: of the graphs that tiles do not serve.
        wide, deep: of those graphs, so many are.
    """

    graphs: int
    edges: int
    pairs: int
    counts: tuple[int, ...]
    walks: int
    programs: int
    programs_back: int
    room: int
    large_nodes: int
    large_edges: int
    wide: int
    deep: int


class Plan(Tables):
    """The tables, and what backends work out from their sizes once for all layers; a copy begins without that."""

    @cached_property
    def filled(self) -> bool:
        """Tell whether there are nodes that no graph in ``work`` has: those of a filler, see ``data/filling.py``."""
        return int(self.host[Host.NODES].sum()) != self.nodes.size(1)

    @cached_property
    def places(self) -> dict[int, list[int]]:
        """Where parts of a tensor of gates begin, by heads; see :func:`plstm_graph.ops.flat.places`."""
        return {}

    @cached_property
    def launches(self) -> dict[Hashable, Launches]:
        """Numbers for launches, by the layout of their tensors."""
        return {}

    def __reduce__(self) -> tuple[type["Plan"], tuple[Tensor, ...]]:
        return Plan, tuple(self)


def size_class(nodes: Tensor, edges: Tensor) -> Tensor:
    """Class of each graph from its own size alone: the number of the first tile that holds it, or ``len(TILES)``."""
    width = torch.maximum(nodes, (edges + (EDGES_PER_COLUMN - 1)) // EDGES_PER_COLUMN)
    # Not torch.bucketize, which wakes up all threads of the host for a few hundred numbers.
    return (width.unsqueeze(-1) > _constant(TILES, nodes.device)).sum(-1)


@cache
def _constant(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Sent to a device once: sending waits for it."""
    return torch.tensor(numbers, device=device)


def served_classes(keys: int, values: int) -> int:
    """Count the classes that the parallel form serves for this K and V; graphs beyond are for the recurrent form."""
    padded = sum(max(16, 1 << (width - 1).bit_length()) for width in (keys, values))
    return len(TILES) if padded <= WIDEST else 0


def members(classes: Tensor) -> Tensor:
    """A row for each class, with ones for its graphs, from the class of each graph, [classes, G]."""
    return (classes == torch.arange(len(TILES) + 1, device=classes.device).unsqueeze(-1)).long()


def room_of(nodes: Tensor, edges: Tensor, classes: Tensor) -> Tensor:
    """Room of each graph, see :class:`Work`; none for those that no tile holds."""
    units = tuple(tile // TILES[0] for tile in TILES)
    per_edge = _constant((*units, 0), nodes.device)[classes]
    per_node = _constant((*(unit * (1 + (unit > 1)) for unit in units), 0), nodes.device)[classes]
    return per_edge * edges + per_node * nodes


class Sized(NamedTuple):
    """Sizes of graphs, and what follows from each one's alone: its class and its room, [G] each."""

    nodes: Tensor
    edges: Tensor
    classes: Tensor
    room: Tensor

    @classmethod
    def of(cls, nodes: Tensor, edges: Tensor) -> "Sized":
        """From the sizes, on their device."""
        classes = size_class(nodes, edges)
        return cls(nodes, edges, classes, room_of(nodes, edges, classes))


def class_table(sized: Sized) -> Tensor:
    """``host`` of a plan from the sizes of its graphs, on their device."""
    rows = torch.stack([torch.ones_like(sized.nodes), sized.nodes, sized.edges, sized.room])
    return (rows.unsqueeze(1) * members(sized.classes)).sum(-1)


def work_of(sized: Sized) -> Tensor:
    """``work`` of a plan from the sizes of its graphs, on their device."""
    graph = torch.sort(torch.add(sized.edges, sized.classes, alpha=2**40), stable=True).indices
    room = sized.room[graph]
    return torch.stack([graph, room.cumsum(0) - room]).int()


def make_plan(
    lines: Topology, meetings: Meetings, edge_ids: tuple[Tensor, Tensor], classes: tuple[int, ...] | None = None
) -> Plan:
    """The plan of a line graph, none of its graphs counted as large.

    Args:
        lines: as the edges point.
        meetings: of its edges and pairs.
        edge_ids: columns along and against each edge, [E] each.
        classes: ``host``, row after row, where it is known; else this waits for a GPU.
    """
    src, dst, prev, next = lines.src, lines.dst, lines.prev, lines.next
    leaving, arriving, entering, exiting = meetings
    ptr = torch.stack([lines.graph_ptr, lines.edge_ptr, entering.ptr[lines.edge_ptr]])
    within = ptr.diff(dim=1)
    known = classes is not None
    sized = Sized.of(within[0], within[1])
    host = torch.tensor(classes, device="cpu").view(len(Host), -1) if known else class_table(sized).cpu()
    at_node = [x for ptr in (arriving.ptr, leaving.ptr) for x in (ptr[:-1], ptr.diff())]
    at_edge = [x for ptr in (entering.ptr, exiting.ptr) for x in (ptr[:-1], ptr.diff())]
    by_next, by_prev = entering.members, exiting.members
    none = src.new_zeros(2, len(LargeEdge), dtype=torch.int32)
    return Plan(
        graphs=torch.stack([ptr[:, :-1], within], 1).view(len(Graph), -1).int(),
        nodes=torch.stack(at_node).int(),
        edges=torch.stack([src, dst, *at_edge, arriving.members, leaving.members, *edge_ids]).int(),
        pairs=torch.stack([by_next, prev, next, by_prev, next[by_prev], prev[by_prev]]).int(),
        work=work_of(sized),
        host=host,
        large=none,
        levels=none.new_zeros(len(LargeLevel), 1, 2),
    )


def with_large(plan: Plan, levels: Callable[[], Levels], classes: int) -> Plan:
    """The plan with the graphs beyond the first ``classes`` classes counted as large. Waits for a GPU only to tell deep
    graphs from wide ones.

    Args:
        plan: from :func:`make_plan`.
        levels: of the edges as they point; asked for if there are large graphs.
        classes: see :func:`served_classes`.
    """
    graphs, nodes, edges, _ = (sum(row[classes:]) for row in plan.host.tolist())  # sooner than by a tensor's sum
    if not graphs:
        return plan
    assert not plan.filled, "a filled batch has no large graphs"
    chosen = plan.graphs[:, plan.work[Work.GRAPH, plan.work.size(1) - graphs :]].long()
    shift = chosen[Graph.EDGE] - (chosen[Graph.EDGES].cumsum(0) - chosen[Graph.EDGES])
    node = ragged(chosen[Graph.NODE], chosen[Graph.NODES], nodes)
    edge = ragged(chosen[Graph.EDGE], chosen[Graph.EDGES], edges)
    node_shift = torch.repeat_interleave(shift, chosen[Graph.NODES], output_size=nodes)
    edge_shift = torch.repeat_interleave(shift, chosen[Graph.EDGES], output_size=edges)
    level, num_levels = levels()
    height, deep = level[edge], 0
    if NARROW:
        number, deep = _deep(height, chosen[Graph.EDGES])
        height = height + torch.repeat_interleave(number * (num_levels + 1), chosen[Graph.EDGES], output_size=edges)
    height, order = torch.sort(height, stable=True)
    edge, edge_shift = edge[order], edge_shift[order]
    large = plan.large.new_zeros(nodes + edges + 2, len(LargeEdge))
    large[:nodes, : len(LargeNode)] = torch.cat([torch.stack([node, node_shift]), plan.nodes[:, node]]).t()
    large[nodes:-2] = torch.cat([torch.stack([edge, edge_shift]), plan.edges[: Edge.EXIT + 1, edge]]).t()
    rows = torch.arange(1 + deep, device=height.device, dtype=height.dtype).unsqueeze(-1) * (num_levels + 1)
    steps = rows + torch.arange(num_levels + 2, device=height.device, dtype=height.dtype)
    found = plan.levels.new_zeros(len(LargeLevel), *steps.shape)
    found[LargeLevel.PLACE] = nodes + torch.searchsorted(height, steps)
    if deep:
        most = plan.edges.new_zeros(2, steps.numel() + 1)
        most.scatter_reduce_(1, height.expand(2, -1), plan.edges[[Edge.ENTER, Edge.EXIT]][:, edge], "amax")
        found[LargeLevel.ENTER :] = most[:, steps]
    return plan._replace(large=large, levels=found)


def _deep(level: Tensor, edges: Tensor) -> tuple[Tensor, int]:
    """Number of each large graph among the deep ones, from 1 on, or 0, [G], and how many there are; from its own size
    alone. ``level`` is that of its edges, graph by graph, ``edges`` how many it has."""
    graph = torch.repeat_interleave(torch.arange(edges.numel(), device=edges.device), edges, output_size=level.numel())
    levels = torch.zeros_like(edges).scatter_reduce_(0, graph, level + 1, "amax")
    deep = (edges > 0) & (edges <= NARROW * levels)
    return deep.cumsum(0) * deep, int(deep.sum())


def ragged(first: Tensor, count: Tensor, total: int) -> Tensor:
    """``first[i], first[i] + 1, ...`` (``count[i]`` of them) for every i, one after the other, [total]."""
    shift = first - (count.cumsum(0) - count)
    return torch.arange(total, device=first.device) + torch.repeat_interleave(shift, count, output_size=total)

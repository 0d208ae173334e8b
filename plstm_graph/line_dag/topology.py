"""Topology: the edges and line pairs of a batch of DAGs, as arrays. What a LineDAG is built from."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.line_dag.pairs import Groups, Meetings, grouped, owners, within


class Topology(NamedTuple):
    """Edges and pairs as they are read; see :class:`plstm_graph.LineDAG`, whose attributes have the same names.

    N nodes, E edges, P pairs, G graphs, M columns of the caller's ``edge_index``: src, dst [E]; prev, next [P];
    column, column_along [M]; graph_ptr, edge_ptr [G+1]; the rest is known on the host.
    """

    src: Tensor
    dst: Tensor
    prev: Tensor
    next: Tensor
    column: Tensor
    column_along: Tensor
    graph_ptr: Tensor
    edge_ptr: Tensor
    num_nodes: int
    max_nodes: int
    max_edges: int
    merged: bool

    @classmethod
    def of(
        cls,
        *,
        src: Tensor,
        dst: Tensor,
        prev: Tensor,
        next: Tensor,
        column: Tensor,
        column_along: Tensor,
        graph_ptr: Tensor,
        edge_ptr: Tensor,
    ) -> "Topology":
        """Add the sizes that callers need on the host."""
        readings = torch.bincount((2 * column + column_along)[column >= 0])
        return cls(
            *(src, dst, prev, next, column, column_along, graph_ptr, edge_ptr),
            num_nodes=int(graph_ptr[-1]),
            max_nodes=int(graph_ptr.diff().max()) if graph_ptr.numel() > 1 else 0,
            max_edges=int(edge_ptr.diff().max()) if edge_ptr.numel() > 1 else 0,
            merged=bool((readings > 1).any()),
        )


def meetings(lines: Topology) -> Meetings:
    """Which edges and which pairs meet; asks a GPU for nothing."""
    edges = torch.arange(lines.src.numel() + 1, device=lines.src.device)
    pairs = torch.arange(lines.next.numel(), device=lines.src.device)
    return Meetings(
        leaving=grouped(lines.src, lines.num_nodes),
        arriving=grouped(lines.dst, lines.num_nodes),
        entering=Groups(torch.searchsorted(lines.next, edges), pairs),  # they are sorted by it
        exiting=grouped(lines.prev, lines.src.numel()),
    )


def first_columns(lines: Topology) -> tuple[Tensor, Tensor]:
    """First column that runs along (against) each edge, else the first of all, [E] each; asks a GPU for nothing."""
    size, edges = lines.column.numel(), lines.src.numel()
    number = torch.arange(size, device=lines.src.device)
    late = torch.stack([~lines.column_along, lines.column_along])
    score = torch.add(number, late, alpha=size)
    best = score.new_full((2, edges + 1), 2 * size)  # self-loops meet at the end
    best.scatter_reduce_(1, lines.column.remainder(edges + 1).expand(2, -1), score, "amin")
    along, against = best.remainder_(max(size, 1))
    return along[:-1].clone(), against[:-1].clone()


class Levels(NamedTuple):
    """Topological level of each edge as it points, [E], and how many levels there are, known on the host."""

    level: Tensor
    total: int

    @classmethod
    def of(cls, level: Tensor) -> "Levels":
        """Count them."""
        return cls(level, int(level.max()) + 1 if level.numel() else 0)

    @classmethod
    def find(cls, lines: Topology) -> "Levels":
        """The lowest levels there are. They are found on the host, edge by edge, as these stand in order."""
        tails, at = lines.src.tolist(), [0] * lines.num_nodes
        for tail, head in zip(tails, lines.dst.tolist(), strict=True):
            if at[head] <= at[tail]:
                at[head] = at[tail] + 1
        level = torch.tensor([at[tail] for tail in tails], dtype=torch.long, device="cpu")
        return cls.of(level)._on(lines.src.device)

    def _on(self, device: torch.device) -> "Levels":
        return self._replace(level=self.level.to(device))


def join(parts: Sequence[Topology]) -> Topology:
    """Disjoint union of one topology or more."""
    nodes = list(accumulate((part.num_nodes for part in parts), initial=0))
    edges = list(accumulate((part.src.numel() for part in parts), initial=0))

    def pointers(each: list[Tensor], offsets: Sequence[int]) -> Tensor:
        return torch.cat([shifted([ptr[:-1] for ptr in each], offsets), each[0].new_tensor(offsets[-1:])])

    columns = zip((part.column for part in parts), edges, strict=False)
    return Topology(
        src=shifted([part.src for part in parts], nodes),
        dst=shifted([part.dst for part in parts], nodes),
        prev=shifted([part.prev for part in parts], edges),
        next=shifted([part.next for part in parts], edges),
        column=torch.cat([torch.where(column < 0, column, column + offset) for column, offset in columns]),
        column_along=torch.cat([part.column_along for part in parts]),
        graph_ptr=pointers([part.graph_ptr for part in parts], nodes),
        edge_ptr=pointers([part.edge_ptr for part in parts], edges),
        num_nodes=nodes[-1],
        max_nodes=max(part.max_nodes for part in parts),
        max_edges=max(part.max_edges for part in parts),
        merged=any(part.merged for part in parts),
    )


def shifted(parts: Sequence[Tensor], offsets: Sequence[int]) -> Tensor:
    """All parts one after the other, the numbers of each moved by its offset."""
    return torch.cat([part + offset for part, offset in zip(parts, offsets, strict=False)])


def broken(lines: Topology, levels: Callable[[], Levels], reversed: bool) -> list[str]:
    """What of a line graph of DAGs, and of its levels, does not hold, in words, both as they are read; ``reversed``
    against the edges."""
    edges, pairs = lines.src.numel(), lines.prev.numel()
    must = {
        "src and dst have one entry per edge": lines.dst.numel() == edges,
        "prev and next have one entry per pair": lines.next.numel() == pairs,
        "end points lie in 0..N-1": within(torch.cat([lines.src, lines.dst]), lines.num_nodes),
        "pairs lie in 0..E-1": within(torch.cat([lines.prev, lines.next]), edges),
        "columns lie in -1..E-1": within(lines.column + 1, edges + 1),
        "graph_ptr ends with N": int(lines.graph_ptr[-1]) == lines.num_nodes,
        "edge_ptr ends with E": int(lines.edge_ptr[-1]) == edges,
    }
    if all(must.values()):
        low, high = (lines.next, lines.prev) if reversed else (lines.prev, lines.next)
        place = high * edges + low
        node_graph, edge_graph = owners(lines.graph_ptr, lines.num_nodes), owners(lines.edge_ptr, edges)
        level, total = levels()
        must |= {
            "level has one entry per edge": level.numel() == edges,
            "edges stand in topological order": bool((low < high).all()),
            "pairs are sorted by (next, prev), before any reversal": bool((place[1:] > place[:-1]).all()),
            "edges stand graph by graph": bool((node_graph[lines.src] == edge_graph).all()),
            "pairs meet at a node": bool((lines.dst[lines.prev] == lines.src[lines.next]).all()),
            "every pair climbs a level": bool((level[lines.prev] < level[lines.next]).all()),
            "levels lie in 0..num_levels-1": within(level, total),
            "no edge joins two graphs": bool((node_graph[lines.src] == node_graph[lines.dst]).all()),
        }
    return [text for text, holds in must.items() if not holds]

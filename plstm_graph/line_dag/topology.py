"""Topology: the edges and line pairs of a batch of DAGs, as arrays. What a LineDAG is built from."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.line_dag.pairs import line_pairs, owners, within
from plstm_graph.orient import check_edge_index, graph_pointer, positions, rank_nodes, topological_levels


class Topology(NamedTuple):
    """Edges and pairs as they are read; see :class:`plstm_graph.LineDAG`, whose attributes have the same names.

    N nodes, E edges, P pairs, G graphs, M columns of the caller's ``edge_index``: src, dst, level [E]; prev, next [P];
    column, column_along [M]; graph_ptr, edge_ptr [G+1]; the rest is known on the host.
    """

    src: Tensor
    dst: Tensor
    prev: Tensor
    next: Tensor
    level: Tensor
    column: Tensor
    column_along: Tensor
    graph_ptr: Tensor
    edge_ptr: Tensor
    num_nodes: int
    num_levels: int
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
        level: Tensor,
        column: Tensor,
        column_along: Tensor,
        graph_ptr: Tensor,
        edge_ptr: Tensor,
    ) -> "Topology":
        """Add the sizes that callers need on the host."""
        readings = torch.bincount((2 * column + column_along)[column >= 0])
        return cls(
            *(src, dst, prev, next, level, column, column_along, graph_ptr, edge_ptr),
            num_nodes=int(graph_ptr[-1]),
            num_levels=int(level.max()) + 1 if level.numel() else 0,
            max_nodes=int(graph_ptr.diff().max()) if graph_ptr.numel() > 1 else 0,
            max_edges=int(edge_ptr.diff().max()) if edge_ptr.numel() > 1 else 0,
            merged=bool((readings > 1).any()),
        )


def build(edge_index: Tensor, num_nodes: int | None, order: str | Tensor, batch: Tensor | None, seed: int) -> Topology:
    """Orient a graph and take its line graph, on the host; arguments as for :meth:`LineDAG.from_edge_index`."""
    columns, num_nodes = check_edge_index(edge_index, num_nodes)
    plain = columns[0] != columns[1]
    proper = columns[:, plain]
    graph_ptr = graph_pointer(proper, num_nodes, None if batch is None else batch.detach().cpu())
    rank = rank_nodes(proper, graph_ptr, order, seed)
    node_at = None
    ends = proper
    if not (isinstance(order, str) and order == "index"):  # by index, nodes stand in order already
        position = positions(rank, graph_ptr)
        node_at = torch.argsort(position)
        ends = position[proper]
    low, high = ends.min(0).values, ends.max(0).values
    edges, edge_of = torch.unique(low * num_nodes + high, return_inverse=True)
    src, dst = edges // max(num_nodes, 1), edges % max(num_nodes, 1)
    level = topological_levels(src, dst, num_nodes)[src]
    edge_ptr = torch.searchsorted(src, graph_ptr)
    if node_at is not None:
        src, dst = node_at[src], node_at[dst]
    column = torch.full_like(columns[0], -1)
    column[plain] = edge_of
    along = columns[0] == torch.cat([src, src.new_zeros(1)])[column]
    prev, next = line_pairs(src, dst, num_nodes)
    return Topology.of(
        src=src,
        dst=dst,
        prev=prev,
        next=next,
        level=level,
        column=column,
        column_along=along,
        graph_ptr=graph_ptr,
        edge_ptr=edge_ptr,
    )


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
        level=torch.cat([part.level for part in parts]),
        column=torch.cat([torch.where(column < 0, column, column + offset) for column, offset in columns]),
        column_along=torch.cat([part.column_along for part in parts]),
        graph_ptr=pointers([part.graph_ptr for part in parts], nodes),
        edge_ptr=pointers([part.edge_ptr for part in parts], edges),
        num_nodes=nodes[-1],
        num_levels=max(part.num_levels for part in parts),
        max_nodes=max(part.max_nodes for part in parts),
        max_edges=max(part.max_edges for part in parts),
        merged=any(part.merged for part in parts),
    )


def shifted(parts: Sequence[Tensor], offsets: Sequence[int]) -> Tensor:
    """All parts one after the other, the numbers of each moved by its offset."""
    return torch.cat([part + offset for part, offset in zip(parts, offsets, strict=False)])


def broken(lines: Topology, reversed: bool) -> list[str]:
    """List, in words, what does not hold of a line graph of DAGs; ``reversed`` ones are read against the edges."""
    edges, pairs = lines.src.numel(), lines.prev.numel()
    must = {
        "src, dst, level have one entry per edge": lines.dst.numel() == lines.level.numel() == edges,
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
        must |= {
            "edges stand in topological order": bool((low < high).all()),
            "pairs are sorted by (next, prev), before any reversal": bool((place[1:] > place[:-1]).all()),
            "edges stand graph by graph": bool((node_graph[lines.src] == edge_graph).all()),
            "pairs meet at a node": bool((lines.dst[lines.prev] == lines.src[lines.next]).all()),
            "every pair climbs a level": bool((lines.level[lines.prev] < lines.level[lines.next]).all()),
            "levels lie in 0..num_levels-1": within(lines.level, lines.num_levels),
            "no edge joins two graphs": bool((node_graph[lines.src] == node_graph[lines.dst]).all()),
        }
    return [text for text, holds in must.items() if not holds]

"""Chunk plan: the edges of a deep, narrow line graph cut into chunks, and what crosses between them."""

from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.line_dag.pairs import LevelPlan, level_plan
from plstm_graph.line_dag.topology import Levels, Topology

SWEEPS = 6
"""Levels inside a chunk cost about so many times what a chunk costs."""


class ChunkPlan(NamedTuple):
    """Division of a line graph into chunks.

    Attributes:
        inside: the pairs within chunks, by the levels of their chunk.
        pair, prev, next: the other pairs, [X].
        place: of the prev of each of those among the tails, [X].
        slot: of the same among what arrives at the chunk of next, [X].
        tail: edges that some later chunk reads, chunk after chunk, [T].
        arriving: what each chunk reads of earlier ones, chunk after chunk, as places among the tails, [A].
        tails, arrivals: how many of either each chunk has.
    """

    inside: LevelPlan
    pair: Tensor
    prev: Tensor
    next: Tensor
    place: Tensor
    slot: Tensor
    tail: Tensor
    arriving: Tensor
    tails: list[int]
    arrivals: list[int]

    @property
    def width(self) -> int:
        """The most that arrives at a chunk."""
        return max(self.arrivals, default=0)


def make_chunk_plan(lines: Topology, levels: Levels, edge_graph: Tensor, size: int) -> ChunkPlan:
    """Cut a line graph with its levels, whose edges belong to ``edge_graph`` [E], into chunks of at most ``size``
    edges."""
    chunk, floor = _chunks(levels, edge_graph, size)
    prev, next = lines.prev, lines.next
    inner = chunk[prev] == chunk[next]
    within, pair = torch.nonzero(inner).view(-1), torch.nonzero(~inner).view(-1)
    inside = level_plan(levels.level - floor, prev[within], next[within], levels.total)
    inside = inside._replace(pair=within[inside.pair])
    prev, next = prev[pair], next[pair]

    # Tails by chunk: an edge's number there is its place in the order of (chunk, edge).
    edges = max(lines.src.numel(), 1)
    keys, place = torch.unique(chunk[prev] * edges + prev, return_inverse=True)
    tail, count = keys % edges, _count(chunk)
    read, column = torch.unique(chunk[next] * max(tail.numel(), 1) + place, return_inverse=True)
    reader, arriving = read // max(tail.numel(), 1), read % max(tail.numel(), 1)
    tails, arrivals = (torch.bincount(owner, minlength=count) for owner in (chunk[tail], reader))
    slot = column - (arrivals.cumsum(0) - arrivals)[chunk[next]]
    return ChunkPlan(inside, pair, prev, next, place, slot, tail, arriving, tails.tolist(), arrivals.tolist())


def _chunks(levels: Levels, edge_graph: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Chunk of each edge and the lowest level there, [E] each: a few levels of a graph, in pieces of ``size`` edges."""
    level, count = levels
    few = max(1, round((count / SWEEPS) ** 0.5))
    group = edge_graph * (count + 1) + level // few  # zero times the NaN of another graph is NaN
    order = torch.sort(group * (count + 1) + level, stable=True).indices
    group = group[order]
    place = torch.arange(group.numel(), device=group.device) - torch.searchsorted(group, group)
    _, number = torch.unique_consecutive(group * max(level.numel(), 1) + place // size, return_inverse=True)
    chunk = torch.empty_like(order).index_copy_(0, order, number)
    return chunk, level // few * few


def _count(chunk: Tensor) -> int:
    return int(chunk.max()) + 1 if chunk.numel() else 0

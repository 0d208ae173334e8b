"""Second half of building: which edges meet at which nodes, how many pairs they make, and which nodes are a graph."""

import triton
import triton.language as tl

from plstm_graph.line_dag.plan import EDGES_PER_COLUMN, TILES
from plstm_graph.line_dag.triton.columns import (
    CLASSES,
    EDGES,
    GRAPHS,
    MAX_EDGES,
    MAX_NODES,
    PAIRS,
    lower_bound,
    sum_before,
)

TILE = tl.constexpr(TILES[0])
SIZES = tl.constexpr(len(TILES))
PER_COLUMN = tl.constexpr(EDGES_PER_COLUMN)

# B numbers of a program. Lists of pointers have one more at the end, the number of all members.


@triton.jit
def size_class(nodes, edges):  # type: ignore[no-untyped-def]
    """Class of a graph, see ``plan.size_class``."""
    width = tl.maximum(nodes, (edges + (PER_COLUMN - 1)) // PER_COLUMN)
    found = width * 0
    for i in tl.static_range(SIZES):
        found += (width > TILE << i).to(found.dtype)
    return found


@triton.jit
def room_of(nodes, edges, found):  # type: ignore[no-untyped-def]
    """Room of a graph of this class, int64, see ``plan.room_of``."""
    unit = tl.where(found < SIZES, (found * 0 + 1) << found, 0).to(tl.int64)
    return unit * edges + tl.where(found > 0, 2, 1) * unit * nodes


@triton.jit
def _begins(node, leave, arrive, batch, N, batched):  # type: ignore[no-untyped-def]
    """Which nodes are the first ones of a graph: of ``batch``, or else where no edge is open."""
    begins = leave == arrive
    if batched > 0:
        here = tl.load(batch + node, mask=node < N, other=0)
        begins = here != tl.load(batch + node - 1, mask=(node > 0) & (node < N), other=0)
    return (node < N) & (begins | (node == 0))


@triton.jit(do_not_specialize=["N", "steps", "batched"])
def meet(  # type: ignore[no-untyped-def]
    src, arriving, arriving_column, column, batch, counters, leave, arrive, by_dst, place, sums, N, steps, batched,
    B: tl.constexpr,
):  # fmt: skip
    """First edge that leaves, and that arrives at, each node, [N + 1]; edges in order of arrival, and the place of each
    among them, [E]; and graphs that begin in each block."""
    at = tl.program_id(0) * B + tl.arange(0, B)
    count = tl.load(counters + EDGES).to(tl.int32)
    first, second = lower_bound(src, count, at, steps), lower_bound(arriving, count, at, steps)
    tl.store(leave + at, first, mask=at <= N)
    tl.store(arrive + at, second, mask=at <= N)
    begins = _begins(at, first, second, batch, N, batched)
    tl.store(sums + tl.program_id(0), tl.sum(begins.to(tl.int64)))
    there = at < count
    edge = tl.load(column + tl.load(arriving_column + at, mask=there, other=0), mask=there, other=0).to(tl.int32)
    tl.store(by_dst + at, edge, mask=there)
    tl.store(place + edge, at, mask=there)


@triton.jit
def _pairs_of(src, dst, leave, arrive, edge, count):  # type: ignore[no-untyped-def]
    """Pairs that enter, and that exit, each edge, int64."""
    there = edge < count
    tail, head = tl.load(src + edge, mask=there, other=0), tl.load(dst + edge, mask=there, other=0)
    enter = tl.load(arrive + tail + 1, mask=there, other=0) - tl.load(arrive + tail, mask=there, other=0)
    exit = tl.load(leave + head + 1, mask=there, other=0) - tl.load(leave + head, mask=there, other=0)
    return enter.to(tl.int64), exit.to(tl.int64)


@triton.jit(do_not_specialize=["N", "blocks", "batched"])
def gather(  # type: ignore[no-untyped-def]
    src, dst, leave, arrive, batch, counters, first_node, first_edge, sums, pair_sums, N, blocks, batched,
    B: tl.constexpr,
):  # fmt: skip
    """First node and first edge of each graph, [G + 1]; pairs that enter, and that exit, the edges of each block,
    [2 * blocks]."""
    block = tl.program_id(0)
    at = block * B + tl.arange(0, B)
    count = tl.load(counters + EDGES).to(tl.int32)
    enter, exit = _pairs_of(src, dst, leave, arrive, at, count)
    tl.store(pair_sums + block, tl.sum(enter))
    tl.store(pair_sums + blocks + block, tl.sum(exit))
    if block * B <= N:
        first = tl.load(leave + at, mask=at <= N, other=0)
        begins = _begins(at, first, tl.load(arrive + at, mask=at <= N, other=0), batch, N, batched)
        graph = sum_before(sums, block, B) + tl.cumsum(begins.to(tl.int64), 0)
        # Node N begins no graph, and stands behind the last one.
        number = tl.where(at == N, graph, graph - 1)
        tl.store(first_node + number, at, mask=begins | (at == N))
        tl.store(first_edge + number, first, mask=begins | (at == N))
        tl.store(counters + GRAPHS + at * 0, graph, mask=at == N)


@triton.jit(do_not_specialize=["blocks"])
def pair(  # type: ignore[no-untyped-def]
    src, dst, leave, arrive, counters, pair_sums, entering, exiting, blocks, B: tl.constexpr
):  # fmt: skip
    """First pair that enters, and that exits, each edge, [E + 1]."""
    block = tl.program_id(0)
    at = block * B + tl.arange(0, B)
    count = tl.load(counters + EDGES).to(tl.int32)
    if block * B <= count:
        enter, exit = _pairs_of(src, dst, leave, arrive, at, count)
        entered = sum_before(pair_sums, block, B) + tl.cumsum(enter, 0) - enter
        exited = sum_before(pair_sums + blocks, block, B) + tl.cumsum(exit, 0) - exit
        tl.store(entering + at, entered.to(tl.int32), mask=at <= count)
        tl.store(exiting + at, exited.to(tl.int32), mask=at <= count)
        tl.store(counters + PAIRS + at * 0, entered, mask=at == count)


@triton.jit
def measure(counters, first_node, first_edge, order, B: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sizes of the largest graphs and by class; and what graphs are to be sorted by for ``Plan.work``, [G]."""
    at = tl.program_id(0) * B + tl.arange(0, B)
    count = tl.load(counters + GRAPHS)
    if tl.program_id(0) * B < count:
        there = at < count
        nodes = _size(first_node, at, there)
        edges = _size(first_edge, at, there)
        found = size_class(nodes, edges)
        room = room_of(nodes, edges, found)
        tl.store(order + at, (found << 40) + edges, mask=there)
        tl.atomic_max(counters + MAX_NODES, tl.max(nodes))
        tl.atomic_max(counters + MAX_EDGES, tl.max(edges))
        for i in tl.static_range(SIZES + 1):
            here = there & (found == i)
            some = tl.sum(here.to(tl.int64))
            if some > 0:
                row = counters + CLASSES + i
                tl.atomic_add(row, some)
                tl.atomic_add(row + (SIZES + 1), tl.sum(tl.where(here, nodes, 0)))
                tl.atomic_add(row + 2 * (SIZES + 1), tl.sum(tl.where(here, edges, 0)))
                tl.atomic_add(row + 3 * (SIZES + 1), tl.sum(tl.where(here, room, 0)))


@triton.jit
def _size(first, at, there):  # type: ignore[no-untyped-def]
    """Members of each graph, int64."""
    begin = tl.load(first + at, mask=there, other=0)
    return (tl.load(first + at + 1, mask=there, other=0) - begin).to(tl.int64)

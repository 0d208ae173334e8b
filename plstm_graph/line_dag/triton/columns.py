"""First half of building: the columns of ``edge_index``, sorted, become edges.

Every column has two keys, one by the node that its edge leaves and one by the node at which it arrives, which are
sorted together: the first M places of the sorted keys say what the edges are, the last M in what order they arrive.
"""

import triton
import triton.language as tl

WRONG, REPEATED, EDGES, PAIRS, GRAPHS, MAX_NODES, MAX_EDGES, TOLD, CLASSES = map(tl.constexpr, range(9))
"""Numbers that the host asks for, by their places: what is not as it should be; columns that say the same as one
before them; edges, pairs and graphs; nodes and edges of the graphs that have most; graphs that ``batch`` tells of; and
from ``CLASSES`` on the sizes by class, row after row of ``Plan.host``."""

# B numbers of a program. A key is (first node * (N + 1) + second node) * 2, and one more against the edge, so that its
# columns along it come first. Self-loops have the highest key of all, and become no edge. Sums by integer atomics do
# not depend on their order.


@triton.jit
def sum_before(sums, count, B: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sum of the first ``count`` numbers, int64."""
    lane = tl.arange(0, B)
    total = tl.zeros([B], tl.int64)
    for start in range(0, count, B):
        total += tl.load(sums + start + lane, mask=start + lane < count, other=0)
    return tl.sum(total)


@triton.jit
def lower_bound(values, size, wanted, steps):  # type: ignore[no-untyped-def]
    """First place among so many sorted values that holds at least what is wanted; ``steps``: bits of a size."""
    low = wanted * 0
    high = low + size
    for _ in range(steps):
        middle = (low + high) // 2
        there = low < high
        less = tl.load(values + middle, mask=there, other=0) < wanted
        low = tl.where(there & less, middle + 1, low)
        high = tl.where(there & (less == 0), middle, high)
    return low


@triton.jit
def _width(N, B: tl.constexpr):  # type: ignore[no-untyped-def]
    """N + 1, int64, once for each number."""
    return tl.zeros([B], tl.int64) + N + 1


@triton.jit(do_not_specialize=["M", "N", "stride", "batched"])
def keys(  # type: ignore[no-untyped-def]
    columns, batch, keys, counters, M, N, stride, batched, B: tl.constexpr
):  # fmt: skip
    """Both keys of every column, [2M]; and check the node numbers and ``batch``."""
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    there = at < M
    src = tl.load(columns + at, mask=there, other=0)
    dst = tl.load(columns + stride + at, mask=there, other=0)
    wrong = there & ((src < 0) | (dst < 0) | (src >= N) | (dst >= N))
    valid = there & (wrong == 0)
    low, high = tl.where(valid, tl.minimum(src, dst), 0), tl.where(valid, tl.maximum(src, dst), 0)
    if batched > 0:
        here = tl.load(batch + low, mask=valid, other=0)
        wrong |= valid & (here != tl.load(batch + high, mask=valid, other=0))
        graph = tl.load(batch + at, mask=at < N, other=0)
        wrong |= (at < N) & (graph < tl.load(batch + at - 1, mask=(at < N) & (at > 0), other=0))
        tl.store(counters + TOLD + at * 0, graph + 1, mask=at == N - 1)
    count = tl.sum(wrong.to(tl.int32))
    if count > 0:
        tl.atomic_add(counters + WRONG, count.to(tl.int64))
    width, against = _width(N, B), (src > dst).to(tl.int64)
    size, loop = 2 * width * width, low == high
    tl.store(keys + at, tl.where(loop, size - 1, 2 * (low * width + high) + against), mask=there)
    tl.store(keys + M + at, size + tl.where(loop, size - 1, 2 * (high * width + low) + against), mask=there)


@triton.jit
def _edges(keys, at, part, M, N, B: tl.constexpr):  # type: ignore[no-untyped-def]
    """Keys of one half of the sorted ones, and the ones before them; their two nodes; which are columns of an edge, and
    which the first of one."""
    there = at < M
    key = tl.load(keys + part * M + at, mask=there, other=0)
    last = tl.load(keys + part * M + at - 1, mask=there & (at > 0), other=-2)
    width = _width(N, B)
    place = key // 2 - part * width * width
    proper = there & (place < width * width - 1)
    return key, last, place // width, place % width, proper, proper & (key // 2 != last // 2)


@triton.jit(do_not_specialize=["M", "N", "blocks"])
def count(keys, sums, counters, M, N, blocks, B: tl.constexpr):  # type: ignore[no-untyped-def]
    """Edges that begin in each block of the sorted keys, [2 * blocks]."""
    part, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    at = block.to(tl.int64) * B + tl.arange(0, B)
    key, last, _, _, proper, first = _edges(keys, at, part, M, N, B)
    tl.store(sums + tl.program_id(0), tl.sum(first.to(tl.int64)))
    repeated = tl.sum((proper & (key == last)).to(tl.int32))
    if repeated > 0:
        tl.atomic_add(counters + REPEATED, repeated.to(tl.int64))


@triton.jit(do_not_specialize=["M", "N", "blocks"])
def number(  # type: ignore[no-untyped-def]
    keys, indices, sums, counters, column, along, src, dst, run, arriving, arriving_column, M, N, blocks,
    B: tl.constexpr,
):  # fmt: skip
    """Number the edges: the edge of each column and whether it runs along it, [M]; of each edge its nodes, and where
    its columns begin among the keys, [E] and [E + 1]; in order of arrival, node and a column of each, [E]."""
    part, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    at = block.to(tl.int64) * B + tl.arange(0, B)
    key, _, one, two, proper, first = _edges(keys, at, part, M, N, B)
    index = tl.load(indices + part * M + at, mask=at < M, other=0)
    before = sum_before(sums + part * blocks, block, B)
    edge = before + tl.cumsum(first.to(tl.int64), 0) - 1
    if part == 0:
        tl.store(column + index, tl.where(proper, edge, -1), mask=at < M)
        tl.store(along + index, proper & (key % 2 == 0), mask=at < M)
        tl.store(src + edge, one.to(tl.int32), mask=first)
        tl.store(dst + edge, two.to(tl.int32), mask=first)
        tl.store(run + edge, at.to(tl.int32), mask=first)
        loop = 2 * _width(N, B) * _width(N, B) - 1
        after = tl.load(keys + at + 1, mask=at + 1 < M, other=0)
        tl.store(run + edge + 1, (at + 1).to(tl.int32), mask=proper & ((at + 1 == M) | (after == loop)))
        if block == blocks - 1:
            tl.store(counters + EDGES, before + tl.sum(first.to(tl.int64)))
    else:
        tl.store(arriving + edge, one.to(tl.int32), mask=first)
        tl.store(arriving_column + edge, (index - M).to(tl.int32), mask=first)

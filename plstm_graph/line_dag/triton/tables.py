"""Last step of building: all arrays and tables in their true sizes."""

import triton
import triton.language as tl

from plstm_graph.line_dag.triton.lines import room_of, size_class

# B numbers of a program. Each writes its part of everything; the first one makes ``work`` alone, in order.


@triton.jit
def _owner(first, size, member, there, steps):  # type: ignore[no-untyped-def]
    """The edge of so many that each pair belongs to, by the first pair of each."""
    low, high = member * 0, member * 0 + size
    for _ in range(steps):
        middle = (low + high) // 2
        open = there & (high - low > 1)
        mine = tl.load(first + middle, mask=open, other=0) <= member
        low = tl.where(open & mine, middle, low)
        high = tl.where(open & (mine == 0), middle, high)
    return low


@triton.jit
def _pairs(  # type: ignore[no-untyped-def]
    src, dst, leave, arrive, by_dst, place, entering, exiting, prev, next, pairs, at, E, P, steps
):  # fmt: skip
    """Pairs by their second edge, which numbers them, and by their first."""
    there, wide = at < P, P.to(tl.int64)
    head = _owner(entering, E, at, there, steps)
    turn = at - tl.load(entering + head, mask=there, other=0)
    arrived = tl.load(arrive + tl.load(src + head, mask=there, other=0), mask=there, other=0)
    tail = tl.load(by_dst + arrived + turn, mask=there, other=0)
    tl.store(prev + at, tail.to(tl.int64), mask=there)
    tl.store(next + at, head.to(tl.int64), mask=there)
    tl.store(pairs + at, at, mask=there)
    tl.store(pairs + wide + at, tail, mask=there)
    tl.store(pairs + 2 * wide + at, head, mask=there)
    tail = _owner(exiting, E, at, there, steps)
    joint = tl.load(dst + tail, mask=there, other=0)
    head = tl.load(leave + joint, mask=there, other=0) + at - tl.load(exiting + tail, mask=there, other=0)
    turn = tl.load(place + tail, mask=there, other=0) - tl.load(arrive + joint, mask=there, other=0)
    tl.store(pairs + 3 * wide + at, tl.load(entering + head, mask=there, other=0) + turn, mask=there)
    tl.store(pairs + 4 * wide + at, head, mask=there)
    tl.store(pairs + 5 * wide + at, tail, mask=there)


@triton.jit
def _against(keys, low, high, there):  # type: ignore[no-untyped-def]
    """First place of a run of columns that holds one against its edge, or the first of all."""
    first = low
    none = tl.load(keys + high - 1, mask=there, other=0) % 2 == 0
    high = tl.where(there & (none == 0), high - 1, low)
    while tl.max((low < high).to(tl.int32)) > 0:
        middle = (low + high) // 2
        along = tl.load(keys + middle, mask=low < high, other=1) % 2 == 0
        high = tl.where((low < high) & (along == 0), middle, high)
        low = tl.where((low < high) & along, middle + 1, low)
    return tl.where(none, first, low)


@triton.jit
def _list(first, at, there):  # type: ignore[no-untyped-def]
    """Where the members of each begin, and how many they are."""
    begin = tl.load(first + at, mask=there, other=0)
    return begin, tl.load(first + at + 1, mask=there, other=0) - begin


@triton.jit
def _edges(  # type: ignore[no-untyped-def]
    keys, indices, src, dst, run, by_dst, entering, exiting, long_src, long_dst, edges, at, E
):  # fmt: skip
    there, wide = at < E, E.to(tl.int64)
    tail, head = tl.load(src + at, mask=there, other=0), tl.load(dst + at, mask=there, other=0)
    tl.store(long_src + at, tail.to(tl.int64), mask=there)
    tl.store(long_dst + at, head.to(tl.int64), mask=there)
    tl.store(edges + at, tail, mask=there)
    tl.store(edges + wide + at, head, mask=there)
    begin, size = _list(entering, at, there)
    tl.store(edges + 2 * wide + at, begin, mask=there)
    tl.store(edges + 3 * wide + at, size, mask=there)
    begin, size = _list(exiting, at, there)
    tl.store(edges + 4 * wide + at, begin, mask=there)
    tl.store(edges + 5 * wide + at, size, mask=there)
    tl.store(edges + 6 * wide + at, tl.load(by_dst + at, mask=there, other=0), mask=there)
    tl.store(edges + 7 * wide + at, at, mask=there)
    begin, size = _list(run, at, there)
    along = tl.load(indices + begin, mask=there, other=0)
    against = tl.load(indices + _against(keys, begin, begin + size, there), mask=there, other=0)
    tl.store(edges + 8 * wide + at, along.to(tl.int32), mask=there)
    tl.store(edges + 9 * wide + at, against.to(tl.int32), mask=there)


@triton.jit
def _nodes(leave, arrive, nodes, at, N):  # type: ignore[no-untyped-def]
    there, wide = at < N, N.to(tl.int64)
    begin, size = _list(arrive, at, there)
    tl.store(nodes + at, begin, mask=there)
    tl.store(nodes + wide + at, size, mask=there)
    begin, size = _list(leave, at, there)
    tl.store(nodes + 2 * wide + at, begin, mask=there)
    tl.store(nodes + 3 * wide + at, size, mask=there)


@triton.jit
def _graphs(first_node, first_edge, entering, graph_ptr, edge_ptr, graphs, at, G):  # type: ignore[no-untyped-def]
    there, wide = at < G, G.to(tl.int64)
    edge = tl.load(first_edge + at, mask=at <= G, other=0)
    tl.store(graph_ptr + at, tl.load(first_node + at, mask=at <= G, other=0).to(tl.int64), mask=at <= G)
    tl.store(edge_ptr + at, edge.to(tl.int64), mask=at <= G)
    begin, size = _list(first_node, at, there)
    tl.store(graphs + at, begin, mask=there)
    tl.store(graphs + wide + at, size, mask=there)
    begin, size = _list(first_edge, at, there)
    tl.store(graphs + 2 * wide + at, begin, mask=there)
    tl.store(graphs + 3 * wide + at, size, mask=there)
    pair = tl.load(entering + edge, mask=there, other=0)
    tl.store(graphs + 4 * wide + at, pair, mask=there)
    tl.store(graphs + 5 * wide + at, tl.load(entering + edge + size, mask=there, other=0) - pair, mask=there)


@triton.jit
def _work(first_node, first_edge, by_size, work, G, B: tl.constexpr):  # type: ignore[no-untyped-def]
    """Graphs as they have been sorted, and the room before each."""
    taken = tl.sum(tl.zeros([B], tl.int64))
    for start in range(0, G, B):
        at = start + tl.arange(0, B)
        graph = tl.load(by_size + at, mask=at < G, other=0)
        _, nodes = _list(first_node, graph, at < G)
        _, edges = _list(first_edge, graph, at < G)
        room = tl.where(at < G, room_of(nodes, edges, size_class(nodes, edges)), 0)
        tl.store(work + at, graph.to(tl.int32), mask=at < G)
        tl.store(work + G.to(tl.int64) + at, (taken + tl.cumsum(room, 0) - room).to(tl.int32), mask=at < G)
        taken += tl.sum(room)


@triton.jit(do_not_specialize=["E", "P", "N", "G", "steps"])
def fill(  # type: ignore[no-untyped-def]
    keys, indices, by_size,
    src, dst, run, leave, arrive, by_dst, place, entering, exiting, first_node, first_edge,
    long_src, long_dst, prev, next, graph_ptr, edge_ptr, graphs, nodes, edges, pairs, work,
    E, P, N, G, steps, B: tl.constexpr,
):  # fmt: skip
    """Arrays of ``Topology`` and tables of ``Plan``."""
    program = tl.program_id(0)
    if program == 0:
        _work(first_node, first_edge, by_size, work, G, B)
    else:
        start = (program - 1) * B
        at = start + tl.arange(0, B)
        if start < P:
            _pairs(
                src, dst, leave, arrive, by_dst, place, entering, exiting, prev, next, pairs, at, E, P, steps
            )  # fmt: skip
        if start < E:
            _edges(
                keys, indices, src, dst, run, by_dst, entering, exiting, long_src, long_dst, edges, at, E
            )  # fmt: skip
        if start < N:
            _nodes(leave, arrive, nodes, at, N)
        if start <= G:
            _graphs(first_node, first_edge, entering, graph_ptr, edge_ptr, graphs, at, G)

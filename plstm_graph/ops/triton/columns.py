"""Recurrent form of deep graphs: a program takes a few numbers of every state of one head of a graph through all levels
by itself.

Numbers of a state know nothing of each other, so no program waits for another: a level costs a barrier among the
threads of one program. States that come of it, and adjoints, are kept in memory; all that reads them needs no order and
has kernels of its own, a program for each edge and some heads. No atomics, and every sum has one order.
"""

import triton
import triton.language as tl

from plstm_graph.line_dag.plan import LargeLevel
from plstm_graph.ops.triton.states import (
    BY_NEXT,
    BY_PREV,
    DST,
    EDGE,
    ENTERING,
    EXITING,
    ROW,
    SHIFT,
    SRC,
    edge_row,
    feed_back,
    gate_of,
    heads_of,
    keep,
    numbers_of,
    read_back,
    state_at,
    two_pairs,
    vector,
)

ENTER = tl.constexpr(int(LargeLevel.ENTER))
EXIT = tl.constexpr(int(LargeLevel.EXIT))
TURN = tl.constexpr(4)
"""Pairs at a time beyond the first two of an edge."""

# AGAINST: from the last level to the first. A program of ``solve`` deals with one step after the other: up to EDGES
# edges of one level, of whose states, S = K * V numbers each, it has NUMBERS: tiles are [EDGES, NUMBERS].


@triton.jit
def _ends(places, level, levels, AGAINST: tl.constexpr):  # type: ignore[no-untyped-def]
    """First place of a level and end of it, by its number on the way; nothing behind the last."""
    at = places + (levels - 1 - level if AGAINST else level)
    return tl.load(at, mask=level < levels, other=0), tl.load(at + 1, mask=level < levels, other=0)


@triton.jit
def _edges(large, begin, end, NODE: tl.constexpr, LIST: tl.constexpr, EDGES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Edges of a step (-1: none), the nodes at one end, first place in a list of their pairs and how many there are,
    [EDGES]."""
    place = begin + tl.arange(0, EDGES)
    row, there = large + place.to(tl.int64) * ROW, place < end
    return (
        tl.load(row + EDGE, mask=there, other=-1),
        tl.load(row + NODE, mask=there, other=0),
        tl.load(row + LIST, mask=there, other=0),
        tl.load(row + LIST + 1, mask=there, other=0),
    )


@triton.jit
def _no_edges(EDGES: tl.constexpr):  # type: ignore[no-untyped-def]
    """What ``_edges`` gives where there are none. Each a value of its own: of variables that begin as one value, a loop
    takes one for the other."""
    return (
        tl.full([EDGES], -1, tl.int32),
        tl.zeros([EDGES], tl.int32),
        tl.zeros([EDGES], tl.int32),
        tl.zeros([EDGES], tl.int32),
    )


@triton.jit
def _gates(gates, row, head, valid, H: tl.constexpr):  # type: ignore[no-untyped-def]
    """Gates as they are: a cast would wait for them."""
    return tl.load(gates + row.to(tl.int64) * H + head, mask=valid, other=0.0)


@triton.jit
def _rows(base, row, number, valid, STRIDE: tl.constexpr, W: tl.constexpr):  # type: ignore[no-untyped-def]
    """Some of the W numbers of several rows, as they are, [EDGES, numbers]."""
    mask = valid[:, None] & (number < W)[None, :]
    return tl.load(base + (row.to(tl.int64)[:, None] * STRIDE + number[None, :]), mask=mask, other=0.0)


@triton.jit
def _beyond_two(  # type: ignore[no-untyped-def]
    total, states, transition, pairs, first, count, head, number, P,
    H: tl.constexpr, S: tl.constexpr, PAIRED: tl.constexpr,
):  # fmt: skip
    """Add what comes over the third pair of each edge and those behind it."""
    for done in range(2, tl.max(count, 0), TURN):
        for i in tl.static_range(TURN):
            at, there = first + (done + i), done + i < count
            pair = tl.load(pairs + PAIRED * P + at, mask=there, other=0)
            other = tl.load(pairs + (PAIRED + 1) * P + at, mask=there, other=0)
            carried = _rows(states, other, number, there, H * S, S)
            total += _gates(transition, pair, head, there, H).to(total.dtype)[:, None] * carried
    return total


@triton.jit(do_not_specialize=["P", "levels", "deep"], do_not_specialize_on_alignment=["pairs", "large", "level_ptr"])
def solve(  # type: ignore[no-untyped-def]
    left, right, fed, transition, states, pairs, large, level_ptr, P, levels, deep,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    LEFT_NODE: tl.constexpr, LEFT_HEAD: tl.constexpr, RIGHT_NODE: tl.constexpr, RIGHT_HEAD: tl.constexpr,
    NUMBERS: tl.constexpr, EDGES: tl.constexpr, AGAINST: tl.constexpr,
):  # fmt: skip
    """States of the edges of deep graphs: each is fed the gate ``fed`` times the outer product of the vectors ``left``
    and ``right`` of the node where it begins (AGAINST: ends), and what its pairs carry.

    A step asks for the states of the level before, and while they are on their way for all else that the next step
    needs, for the pairs of the second next and for the edges of the third: each thing once its place is known. At first
    there are no edges at hand, nor in the two steps behind.
    """
    DTYPE: tl.constexpr = states.dtype.element_ty
    S: tl.constexpr = K * V
    BLOCKS: tl.constexpr = (S + NUMBERS - 1) // NUMBERS
    NODE: tl.constexpr = DST if AGAINST else SRC
    LIST: tl.constexpr = EXITING if AGAINST else ENTERING
    PAIRED: tl.constexpr = BY_PREV if AGAINST else BY_NEXT
    MOST: tl.constexpr = EXIT if AGAINST else ENTER
    WIDE: tl.constexpr = 1 if V % NUMBERS == 0 else NUMBERS
    graph = deep - tl.program_id(0) // (BLOCKS * H)  # that with the most edges comes first
    head = tl.program_id(0) // BLOCKS % H
    block = tl.program_id(0) % BLOCKS * NUMBERS
    number, row = block + tl.arange(0, NUMBERS), (block + tl.arange(0, WIDE)) // V
    places = level_ptr + graph * (levels + 2)
    most = places + MOST * (1 + deep) * (levels + 2)
    shift = tl.load(large + tl.load(places).to(tl.int64) * ROW + SHIFT)
    states += (head - shift.to(tl.int64) * H) * S
    left += head * LEFT_HEAD
    right += head * RIGHT_HEAD

    level, later_level, next_level, this_level = 0, -1, -1, -1
    begin, end = _ends(places, 0, levels, AGAINST)
    next_begin, next_end = _ends(places, 1, levels, AGAINST)
    edge, _, first, count = _no_edges(EDGES)
    next_edge, next_node, next_first, next_count = _no_edges(EDGES)
    later_edge, later_node, later_first, later_count = _no_edges(EDGES)
    _, pair_a, other_a, next_a = _no_edges(EDGES)
    _, pair_b, other_b, next_b = _no_edges(EDGES)
    gate = tl.zeros([EDGES], fed.dtype.element_ty)
    gate_a = tl.zeros([EDGES], transition.dtype.element_ty)
    gate_b = tl.zeros([EDGES], transition.dtype.element_ty)
    x, y = tl.zeros([EDGES, WIDE], left.dtype.element_ty), tl.zeros([EDGES, NUMBERS], right.dtype.element_ty)
    while this_level < levels:
        more = tl.load(most + (levels - 1 - this_level if AGAINST else this_level), mask=this_level >= 0, other=0)
        carried_a = _rows(states, other_a, number, count > 0, H * S, S)
        carried_b = _rows(states, other_b, number, count > 1, H * S, S)
        there = next_edge >= 0
        next_gate = _gates(fed, next_edge, head, there, H)
        next_gate_a = _gates(transition, pair_a, head, next_count > 0, H)
        next_gate_b = _gates(transition, pair_b, head, next_count > 1, H)
        next_x = _rows(left, next_node, row, there, LEFT_NODE, K)
        next_y = _rows(right, next_node, number % V, there, RIGHT_NODE, V)
        pair_a, later_a, pair_b, later_b = two_pairs(pairs, later_first, later_first + later_count, P, PAIRED)
        new_edge, new_node, new_first, new_count = _edges(large, begin, end, NODE, LIST, EDGES)

        total = (gate.to(DTYPE)[:, None] * x.to(DTYPE)) * y.to(DTYPE)
        total += gate_a.to(DTYPE)[:, None] * carried_a
        total += gate_b.to(DTYPE)[:, None] * carried_b
        if more > 2:
            total = _beyond_two(total, states, transition, pairs, first, count, head, number, P, H, S, PAIRED)
        to = states + (edge.to(tl.int64)[:, None] * (H * S) + number[None, :])
        tl.store(to, total, mask=(edge >= 0)[:, None] & (number < S)[None, :])

        edge, first, count, other_a, other_b = next_edge, next_first, next_count, next_a, next_b
        gate, gate_a, gate_b, x, y = next_gate, next_gate_a, next_gate_b, next_x, next_y
        next_edge, next_node, next_first, next_count = later_edge, later_node, later_first, later_count
        next_a, next_b = later_a, later_b
        later_edge, later_node, later_first, later_count = new_edge, new_node, new_first, new_count
        this_level, next_level, later_level = next_level, later_level, level
        done = begin + EDGES >= end
        level += tl.where(done, 1, 0)
        begin, end = tl.where(done, next_begin, begin + EDGES), tl.where(done, next_end, end)
        next_begin, next_end = _ends(places, level + 1, levels, AGAINST)
        tl.debug_barrier()  # the next level reads what other threads have stored


@triton.jit
def _task(level_ptr, nodes, levels, H: tl.constexpr, HB: tl.constexpr):  # type: ignore[no-untyped-def]
    """Place of a program's edge, whether it is one of a deep graph, and the heads of the program."""
    BLOCKS: tl.constexpr = (H + HB - 1) // HB
    place = nodes + tl.program_id(0) // BLOCKS
    first = tl.load(level_ptr + levels + 2)  # where the edges of the first deep graph begin
    return place, place >= first, tl.program_id(0) % BLOCKS * HB + tl.arange(0, HB)


@triton.jit(do_not_specialize=["nodes", "levels"], do_not_specialize_on_alignment=["large", "level_ptr"])
def read(  # type: ignore[no-untyped-def]
    query, mark, states, outputs, large, level_ptr, nodes, levels,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    Q_NODE: tl.constexpr, Q_HEAD: tl.constexpr, HB: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """What each edge adds to the output of a node."""
    place, there, head = _task(level_ptr, nodes, levels, H, HB)
    edge, shift, src, dst, _, _ = edge_row(large, place, there, ENTERING)
    slot, valid = edge - shift, heads_of(head, there, H)
    state = tl.load(state_at(states, slot, head, H, K, V, KP, VP), mask=numbers_of(valid, K, V, KP, VP), other=0.0)
    q = vector(query, src if REV else dst, head, valid, Q_NODE, Q_HEAD, K, KP, state.dtype)
    q *= gate_of(mark, edge, head, valid, H)[:, None]
    keep(outputs, slot, head, valid, tl.sum(q[:, :, None] * state, 1), H * V, V, V, VP)


@triton.jit(do_not_specialize=["P", "nodes", "levels"], do_not_specialize_on_alignment=["pairs", "large", "level_ptr"])
def backward(  # type: ignore[no-untyped-def]
    query, key, value, source, mark, d_output, d_source, d_transition, d_mark,
    states, adjoints, queries, keys, values, pairs, large, level_ptr, P, nodes, levels,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    Q_NODE: tl.constexpr, Q_HEAD: tl.constexpr, K_NODE: tl.constexpr, K_HEAD: tl.constexpr,
    V_NODE: tl.constexpr, V_HEAD: tl.constexpr,
    HB: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates of edges and of the pairs that enter them, and what each edge adds to d_query of the node
    that reads it and to d_key and d_value of the one that feeds it."""
    DTYPE: tl.constexpr = states.dtype.element_ty
    place, there, head = _task(level_ptr, nodes, levels, H, HB)
    edge, shift, src, dst, first, last = edge_row(large, place, there, ENTERING)
    slot, gates, valid = edge - shift, edge.to(tl.int64) * H + head, heads_of(head, there, H)
    inside = numbers_of(valid, K, V, KP, VP)
    state = tl.load(state_at(states, slot, head, H, K, V, KP, VP), mask=inside, other=0.0)
    adjoint = tl.load(state_at(adjoints, slot, head, H, K, V, KP, VP), mask=inside, other=0.0)
    q = vector(query, src if REV else dst, head, valid, Q_NODE, Q_HEAD, K, KP, DTYPE)
    g = vector(d_output, src if REV else dst, head, valid, H * V, V, V, VP, DTYPE)
    marked = gate_of(mark, edge, head, valid, H)
    read_back(state, q, g, marked, d_mark, queries, gates, slot, head, valid, H, K, KP)
    k = vector(key, dst if REV else src, head, valid, K_NODE, K_HEAD, K, KP, DTYPE)
    v = vector(value, dst if REV else src, head, valid, V_NODE, V_HEAD, V, VP, DTYPE)
    fed = gate_of(source, edge, head, valid, H)
    feed_back(adjoint, k, v, fed, d_source, keys, values, gates, slot, head, valid, H, K, V, KP, VP)
    mine, others = (state, adjoints) if REV else (adjoint, states)
    for at in range(first, last):
        pair, other = tl.load(pairs + BY_NEXT * P + at), tl.load(pairs + (BY_NEXT + 1) * P + at)
        tile = tl.load(state_at(others, other - shift, head, H, K, V, KP, VP), mask=inside, other=0.0)
        tl.store(d_transition + pair.to(tl.int64) * H + head, tl.sum(tl.sum(mine * tile, 1), 1), mask=valid)

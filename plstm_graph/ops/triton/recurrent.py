"""Recurrent form of wide graphs: K x V states, edge by edge, level by level, in one launch whose programs wait for each
other. No atomics but the counters they wait at. And of all large graphs: what their edges leave for their nodes.

A program takes one edge of a level and some heads, and sums over the pairs that enter the edge; going back, over those
that exit. A level lasts as long as its longest sum, so nothing else may stand in its way: what the edge needs besides
is fetched while the program waits for the level before, and a second launch, in which nobody waits, adds up what each
edge leaves for its nodes. Every sum has one order, so a graph's numbers depend on nothing but the graph.
"""

import triton
import triton.language as tl

from plstm_graph.line_dag.plan import Edge, LargeNode
from plstm_graph.ops.triton.states import (
    BY_NEXT,
    BY_PREV,
    ENTERING,
    EXITING,
    ROW,
    SHIFT,
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
from plstm_graph.ops.triton.walk import gate

BY_DST = tl.constexpr(int(Edge.BY_DST))
BY_SRC = tl.constexpr(int(Edge.BY_SRC))
ARRIVING = tl.constexpr(int(LargeNode.ARRIVING))
LEAVING = tl.constexpr(int(LargeNode.LEAVING))
NODE = tl.constexpr(int(LargeNode.NODE))

GROUPS = tl.constexpr(16)
"""Programs arrive at one of so many counters and wait at one of as many more, lest all of them queue for one."""
LINE = tl.constexpr(32)
"""Distance of the counters, a line of the cache."""
COUNTERS = 2 * GROUPS.value * LINE.value


@triton.jit
def _arrive(counters, step):  # type: ignore[no-untyped-def]
    """Say that this program is done with a step. The last one of its group tells all groups."""
    programs, group = tl.num_programs(0), tl.program_id(0) % GROUPS
    members = (programs - group + GROUPS - 1) // GROUPS
    tl.debug_barrier()
    before = tl.atomic_add(counters + group * LINE, 1, sem="acq_rel", scope="gpu")
    if before == (step + 1) * members - 1:
        tl.atomic_add(counters + (GROUPS + tl.arange(0, GROUPS)) * LINE, 1, sem="release", scope="gpu")


@triton.jit
def _wait(counters, step):  # type: ignore[no-untyped-def]
    """Until all programs are done with so many steps: what any of them stored before, all can load afterwards."""
    target = step * tl.minimum(tl.num_programs(0), GROUPS)
    counter = counters + (GROUPS + tl.program_id(0) % GROUPS) * LINE
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < target:
        pass
    tl.debug_barrier()


@triton.jit
def _level(level_ptr, step, levels, REV: tl.constexpr):  # type: ignore[no-untyped-def]
    """First place of a level and of the next, by the number of the step that deals with it; nothing after the last."""
    level = level_ptr + (levels - 1 - step if REV else step)
    there = step < levels
    return tl.load(level, mask=there, other=0), tl.load(level + 1, mask=there, other=0)


@triton.jit
def _carry(  # type: ignore[no-untyped-def]
    total, state, d_transition, transition, others, pairs, first, end, pair_a, other_a, pair_b, other_b, gate_a, gate_b,
    shift, head, P,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr, PAIRED: tl.constexpr,
    BACK: tl.constexpr, TWO: tl.constexpr,
):  # fmt: skip
    """Add to ``total`` the transition times the tile of the other edge, over the pairs of one edge; with BACK store the
    gradients of the transitions: the inner products of those tiles with ``state``.

    A turn deals with TWO pairs, or with one where tiles are wide. Numbers of pairs are fetched two turns ahead, gates
    one turn, so that a turn waits once: for the tiles of the other edges.
    """
    TURN: tl.constexpr = 2 if TWO else 1
    mask = numbers_of(head < H, K, V, KP, VP)
    later_a, beyond_a, later_b, beyond_b = two_pairs(pairs, first + TURN, end, P, PAIRED)
    for at in range(first, end, TURN):
        carried_a = tl.load(state_at(others, other_a - shift, head, H, K, V, KP, VP), mask=mask, other=0.0)
        if TWO:
            there_b = heads_of(head, at + 1 < end, H)
            at_b = state_at(others, other_b - shift, head, H, K, V, KP, VP)
            carried_b = tl.load(at_b, mask=numbers_of(there_b, K, V, KP, VP), other=0.0)
        total += gate_a[:, None, None] * carried_a
        if BACK:
            inner = tl.sum(tl.sum(carried_a * state, 1), 1)
            tl.store(d_transition + pair_a.to(tl.int64) * H + head, inner, mask=head < H)
        if TWO:
            total += gate_b[:, None, None] * carried_b
            if BACK:
                inner = tl.sum(tl.sum(carried_b * state, 1), 1)
                tl.store(d_transition + pair_b.to(tl.int64) * H + head, inner, mask=there_b)
        pair_a, other_a, pair_b, other_b = later_a, beyond_a, later_b, beyond_b
        gate_a = gate_of(transition, pair_a, head, heads_of(head, at + TURN < end, H), H)
        if TWO:
            gate_b = gate_of(transition, pair_b, head, heads_of(head, at + TURN + 1 < end, H), H)
        later_a, beyond_a, later_b, beyond_b = two_pairs(pairs, at + 2 * TURN, end, P, PAIRED)
    return total


# Both sweeps: of a program's next edge the row of ``large`` is fetched before the program waits, the numbers of its
# first pairs after that, and all else that does not hang on the level before once the program has arrived.


@triton.jit(
    do_not_specialize=["P", "levels"], do_not_specialize_on_alignment=["pairs", "large", "level_ptr", "counters"]
)
def forward(  # type: ignore[no-untyped-def]
    query, key, value, source, transition, mark, states, outputs, pairs, large, level_ptr, counters, P, levels,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    Q_NODE: tl.constexpr, Q_HEAD: tl.constexpr, K_NODE: tl.constexpr, K_HEAD: tl.constexpr,
    V_NODE: tl.constexpr, V_HEAD: tl.constexpr,
    HB: tl.constexpr, TWO: tl.constexpr, REV: tl.constexpr, OUTPUT: tl.constexpr,
):  # fmt: skip
    """States of the edges of all large graphs and, with OUTPUT, what each adds to the output of a node."""
    DTYPE: tl.constexpr = states.dtype.element_ty
    LIST: tl.constexpr = EXITING if REV else ENTERING
    PAIRED: tl.constexpr = BY_PREV if REV else BY_NEXT
    BLOCKS: tl.constexpr = (H + HB - 1) // HB
    program, programs = tl.program_id(0), tl.num_programs(0)
    begin, end = _level(level_ptr, 0, levels, REV)
    there = program < (end - begin) * BLOCKS
    edge, shift, src, dst, first, last = edge_row(large, begin + program // BLOCKS, there, LIST)
    pair_a, other_a, pair_b, other_b = two_pairs(pairs, first, last, P, PAIRED)
    for step in range(0, levels):
        items = (end - begin) * BLOCKS
        next_begin, next_end = _level(level_ptr, step + 1, levels, REV)
        for item in range(program, tl.maximum(items, program + 1), programs):
            head = (item % BLOCKS) * HB + tl.arange(0, HB)
            valid = heads_of(head, item < items, H)
            gate_a = gate_of(transition, pair_a, head, heads_of(head, first < last, H), H)
            gate_b = gate_of(transition, pair_b, head, heads_of(head, first + 1 < last, H), H)
            fed = gate_of(source, edge, head, valid, H)
            k = vector(key, dst if REV else src, head, valid, K_NODE, K_HEAD, K, KP, DTYPE)
            v = vector(value, dst if REV else src, head, valid, V_NODE, V_HEAD, V, VP, DTYPE)
            if OUTPUT:
                read = gate_of(mark, edge, head, valid, H)
                q = vector(query, src if REV else dst, head, valid, Q_NODE, Q_HEAD, K, KP, DTYPE)
            following = item + programs
            place = tl.where(following < items, begin + following // BLOCKS, next_begin + program // BLOCKS)
            there = (following < items) | (program < (next_end - next_begin) * BLOCKS)
            next_edge, next_shift, src, dst, next_first, next_last = edge_row(large, place, there, LIST)
            state = (fed[:, None] * k)[:, :, None] * v[:, None, :]
            if item == program:
                _wait(counters, step)
            next_a, next_other_a, next_b, next_other_b = two_pairs(pairs, next_first, next_last, P, PAIRED)
            state = _carry(
                state, state, transition, transition, states, pairs, first, last, pair_a, other_a, pair_b, other_b,
                gate_a, gate_b, shift, head, P, H, K, V, KP, VP, PAIRED, False, TWO,
            )  # fmt: skip
            slot = edge - shift
            tl.store(state_at(states, slot, head, H, K, V, KP, VP), state, mask=numbers_of(valid, K, V, KP, VP))
            if following >= items:
                _arrive(counters, step)
            if OUTPUT:
                y = tl.sum((read[:, None] * q)[:, :, None] * state, 1)
                keep(outputs, slot, head, valid, y, H * V, V, V, VP)
            edge, shift, first, last = next_edge, next_shift, next_first, next_last
            pair_a, other_a, pair_b, other_b = next_a, next_other_a, next_b, next_other_b
        begin, end = next_begin, next_end


@triton.jit(
    do_not_specialize=["P", "levels"], do_not_specialize_on_alignment=["pairs", "large", "level_ptr", "counters"]
)
def backward(  # type: ignore[no-untyped-def]
    query, key, value, source, transition, mark, d_output, d_source, d_transition, d_mark,
    states, adjoints, queries, keys, values, pairs, large, level_ptr, counters, P, levels,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    Q_NODE: tl.constexpr, Q_HEAD: tl.constexpr, K_NODE: tl.constexpr, K_HEAD: tl.constexpr,
    V_NODE: tl.constexpr, V_HEAD: tl.constexpr,
    HB: tl.constexpr, TWO: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Adjoints of the states, gradients of the gates of edges and pairs, and what each edge adds to d_query of the node
    that reads it and to d_key and d_value of the one that feeds it."""
    DTYPE: tl.constexpr = states.dtype.element_ty
    LIST: tl.constexpr = ENTERING if REV else EXITING
    PAIRED: tl.constexpr = BY_NEXT if REV else BY_PREV
    BLOCKS: tl.constexpr = (H + HB - 1) // HB
    program, programs = tl.program_id(0), tl.num_programs(0)
    begin, end = _level(level_ptr, 0, levels, not REV)
    there = program < (end - begin) * BLOCKS
    edge, shift, src, dst, first, last = edge_row(large, begin + program // BLOCKS, there, LIST)
    pair_a, other_a, pair_b, other_b = two_pairs(pairs, first, last, P, PAIRED)
    for step in range(0, levels):
        items = (end - begin) * BLOCKS
        next_begin, next_end = _level(level_ptr, step + 1, levels, not REV)
        for item in range(program, tl.maximum(items, program + 1), programs):
            head = (item % BLOCKS) * HB + tl.arange(0, HB)
            valid = heads_of(head, item < items, H)
            inside = numbers_of(valid, K, V, KP, VP)
            slot, gates = edge - shift, edge.to(tl.int64) * H + head
            state = tl.load(state_at(states, slot, head, H, K, V, KP, VP), mask=inside, other=0.0)
            gate_a = gate_of(transition, pair_a, head, heads_of(head, first < last, H), H)
            gate_b = gate_of(transition, pair_b, head, heads_of(head, first + 1 < last, H), H)
            read, fed = gate(mark, gates, valid), gate(source, gates, valid)
            q = vector(query, src if REV else dst, head, valid, Q_NODE, Q_HEAD, K, KP, DTYPE)
            g = vector(d_output, src if REV else dst, head, valid, H * V, V, V, VP, DTYPE)
            k = vector(key, dst if REV else src, head, valid, K_NODE, K_HEAD, K, KP, DTYPE)
            v = vector(value, dst if REV else src, head, valid, V_NODE, V_HEAD, V, VP, DTYPE)
            following = item + programs
            place = tl.where(following < items, begin + following // BLOCKS, next_begin + program // BLOCKS)
            there = (following < items) | (program < (next_end - next_begin) * BLOCKS)
            next_edge, next_shift, src, dst, next_first, next_last = edge_row(large, place, there, LIST)
            read_back(state, q, g, read, d_mark, queries, gates, slot, head, valid, H, K, KP)
            adjoint = (read[:, None] * q)[:, :, None] * g[:, None, :]
            if item == program:
                _wait(counters, step)
            next_a, next_other_a, next_b, next_other_b = two_pairs(pairs, next_first, next_last, P, PAIRED)
            adjoint = _carry(
                adjoint, state, d_transition, transition, adjoints, pairs, first, last, pair_a, other_a, pair_b,
                other_b, gate_a, gate_b, shift, head, P, H, K, V, KP, VP, PAIRED, True, TWO,
            )  # fmt: skip
            tl.store(state_at(adjoints, slot, head, H, K, V, KP, VP), adjoint, mask=inside)
            if following >= items:
                _arrive(counters, step)
            feed_back(adjoint, k, v, fed, d_source, keys, values, gates, slot, head, valid, H, K, V, KP, VP)
            edge, shift, first, last = next_edge, next_shift, next_first, next_last
            pair_a, other_a, pair_b, other_b = next_a, next_other_a, next_b, next_other_b
        begin, end = next_begin, next_end


@triton.jit
def _total(  # type: ignore[no-untyped-def]
    total, parts, edges, row, E, head, valid,
    LIST: tl.constexpr, BY: tl.constexpr, H: tl.constexpr, W: tl.constexpr, WP: tl.constexpr,
):  # fmt: skip
    """Add what the edges of one node left for it, in order."""
    first, shift = tl.load(row + LIST), tl.load(row + SHIFT)
    for i in range(first, first + tl.load(row + LIST + 1)):
        slot = tl.load(edges + BY * E + i) - shift
        total += vector(parts, slot, head, valid, H * W, W, W, WP, total.dtype)
    return total


@triton.jit(do_not_specialize=["E"], do_not_specialize_on_alignment=["edges", "large"])
def output(  # type: ignore[no-untyped-def]
    query, key, value, direct, output, outputs, edges, large, E,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    Q_NODE: tl.constexpr, Q_HEAD: tl.constexpr, K_NODE: tl.constexpr, K_HEAD: tl.constexpr,
    V_NODE: tl.constexpr, V_HEAD: tl.constexpr,
    HB: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Outputs of the nodes of large graphs, a program for each node and some heads."""
    DTYPE: tl.constexpr = outputs.dtype.element_ty
    COME: tl.constexpr = LEAVING if REV else ARRIVING
    COMERS: tl.constexpr = BY_SRC if REV else BY_DST
    BLOCKS: tl.constexpr = (H + HB - 1) // HB
    row = large + (tl.program_id(0) // BLOCKS).to(tl.int64) * ROW
    head = (tl.program_id(0) % BLOCKS) * HB + tl.arange(0, HB)
    valid = head < H
    node = tl.load(row + NODE)
    q = vector(query, node, head, valid, Q_NODE, Q_HEAD, K, KP, DTYPE)
    k = vector(key, node, head, valid, K_NODE, K_HEAD, K, KP, DTYPE)
    v = vector(value, node, head, valid, V_NODE, V_HEAD, V, VP, DTYPE)
    y = (gate_of(direct, node, head, valid, H) * tl.sum(q * k, 1))[:, None] * v
    y = _total(y, outputs, edges, row, E, head, valid, COME, COMERS, H, V, VP)
    keep(output, node, head, valid, y, H * V, V, V, VP)


@triton.jit(do_not_specialize=["E"], do_not_specialize_on_alignment=["edges", "large"])
def gradients(  # type: ignore[no-untyped-def]
    query, key, value, direct, d_output, d_query, d_key, d_value, d_direct, queries, keys, values, edges, large, E,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    Q_NODE: tl.constexpr, Q_HEAD: tl.constexpr, K_NODE: tl.constexpr, K_HEAD: tl.constexpr,
    V_NODE: tl.constexpr, V_HEAD: tl.constexpr,
    HB: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Gradients at the nodes of large graphs, a program for each node and some heads."""
    DTYPE: tl.constexpr = queries.dtype.element_ty
    COME: tl.constexpr = LEAVING if REV else ARRIVING
    GO: tl.constexpr = ARRIVING if REV else LEAVING
    COMERS: tl.constexpr = BY_SRC if REV else BY_DST
    GOERS: tl.constexpr = BY_DST if REV else BY_SRC
    BLOCKS: tl.constexpr = (H + HB - 1) // HB
    row = large + (tl.program_id(0) // BLOCKS).to(tl.int64) * ROW
    head = (tl.program_id(0) % BLOCKS) * HB + tl.arange(0, HB)
    valid = head < H
    node = tl.load(row + NODE)
    q = vector(query, node, head, valid, Q_NODE, Q_HEAD, K, KP, DTYPE)
    k = vector(key, node, head, valid, K_NODE, K_HEAD, K, KP, DTYPE)
    v = vector(value, node, head, valid, V_NODE, V_HEAD, V, VP, DTYPE)
    g = vector(d_output, node, head, valid, H * V, V, V, VP, DTYPE)
    own = gate_of(direct, node, head, valid, H)
    score, inner = tl.sum(q * k, 1), tl.sum(g * v, 1)
    tl.store(d_direct + node.to(tl.int64) * H + head, score * inner, mask=valid)
    d_q = _total((own * inner)[:, None] * k, queries, edges, row, E, head, valid, COME, COMERS, H, K, KP)
    keep(d_query, node, head, valid, d_q, Q_NODE, Q_HEAD, K, KP)
    d_k = _total((own * inner)[:, None] * q, keys, edges, row, E, head, valid, GO, GOERS, H, K, KP)
    keep(d_key, node, head, valid, d_k, K_NODE, K_HEAD, K, KP)
    d_v = _total((own * score)[:, None] * g, values, edges, row, E, head, valid, GO, GOERS, H, V, VP)
    keep(d_value, node, head, valid, d_v, V_NODE, V_HEAD, V, VP)

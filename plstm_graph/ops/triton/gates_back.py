"""Kernels of the gradients of the gates' terms: one for edges and pairs, one for nodes and all sums over nodes."""

import triton
import triton.language as tl

from plstm_graph.ops.triton.sums import sum_columns, sum_parts
from plstm_graph.ops.triton.terms import (
    ARRIVE,
    ARRIVING,
    AS_NEXT,
    AS_PREV,
    BIAS_DIRECT,
    BIAS_MARK,
    BIAS_SOURCE,
    BIAS_TRANSITION,
    BIASES,
    BY_DST,
    BY_NEXT,
    BY_PREV,
    BY_SRC,
    DIRECT,
    EDGE_MARK,
    EDGE_SOURCE,
    EDGE_TERMS,
    HEAD,
    JOINT,
    LEAVE,
    LEAVING,
    MARK_DST,
    MARK_SRC,
    NODE_TERMS,
    SOURCE_DST,
    SOURCE_SRC,
    TAIL,
    at_least_one,
    column_of,
    load_chunk,
    pairs_of,
    split_flat,
    store_chunk,
    there,
    through_sigmoid,
    through_source,
    through_transition,
)


@triton.jit(do_not_specialize=["N", "E", "P"], do_not_specialize_on_alignment=["edges", "pairs"])
def edges_back(  # type: ignore[no-untyped-def]
    gates, d_gates, d_edge, edges, pairs, N, E, P,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr,
    NORMALIZED: tl.constexpr, SATURATING: tl.constexpr,
    FEATURES: tl.constexpr, GATHERED: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Through the activation: ``d_raw`` [P, H] before it, ``d_prev`` [E, H] its sum over the pairs with the same prev.
    Also chunks 0 to 2 of ``d_edge``."""
    LIST: tl.constexpr = BY_NEXT if REV else BY_PREV
    DTYPE: tl.constexpr = gates.dtype.element_ty
    source, transition, mark, _, total, _ = split_flat(gates, N, E, P, H)
    d_source, d_transition, d_mark, _, d_prev, d_raw = split_flat(d_gates, N, E, P, H)
    edge = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = edge < E
    inside = there(valid, H, HP)
    first, count = pairs_of(edges, edge, valid, E, REV)
    most = tl.max(count, 0)
    divisor = tl.full([BLOCK, HP], 1.0, DTYPE)
    shared = tl.zeros([BLOCK, HP], DTYPE)
    if NORMALIZED:
        size = load_chunk(total, edge, 0, inside, H, H, HP, DTYPE)
        divisor = at_least_one(size)
        for i in range(0, most):
            here = i < count
            pair = tl.load(pairs + LIST * P + first + i, mask=here, other=0)
            part = there(here, H, HP)
            gate = load_chunk(transition, pair, 0, part, H, H, HP, DTYPE)
            shared += gate * load_chunk(d_transition, pair, 0, part, H, H, HP, DTYPE)
        shared = tl.where(size < 1, 0.0, shared)  # clamp passes the gradient from 1 on
    sum_prev = tl.zeros([BLOCK, HP], DTYPE)
    for i in range(0, most):
        here = i < count
        pair = tl.load(pairs + LIST * P + first + i, mask=here, other=0)
        part = there(here, H, HP)
        gate = load_chunk(transition, pair, 0, part, H, H, HP, DTYPE) * divisor
        grad = load_chunk(d_transition, pair, 0, part, H, H, HP, DTYPE)
        sign = tl.where(gate > 0, 1.0, tl.where(gate < 0, -1.0, 0.0))
        raw = through_transition(gate, (grad - sign * shared) / divisor, SATURATING)
        store_chunk(d_raw, pair, 0, raw, part, H, H, HP)
        sum_prev += tl.where(part, raw, 0.0)
    store_chunk(d_prev, edge, 0, sum_prev, inside, H, H, HP)
    if FEATURES:
        row = column_of(edges, edge, valid, E, GATHERED, REV)
        at_source = through_source(source, d_source, edge, inside, H, HP, DTYPE, SATURATING)
        store_chunk(d_edge, row, EDGE_SOURCE, at_source, inside, EDGE_TERMS * H, H, HP)
        at_mark = through_sigmoid(mark, d_mark, edge, inside, H, HP, DTYPE)
        store_chunk(d_edge, row, EDGE_MARK, at_mark, inside, EDGE_TERMS * H, H, HP)
        store_chunk(d_edge, row, AS_PREV, sum_prev, inside, EDGE_TERMS * H, H, HP)


@triton.jit
def _sum_entering(  # type: ignore[no-untyped-def]
    d_raw, edges, pairs, edge, valid, E, P, H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, REV: tl.constexpr
):
    """Sum of ``d_raw`` over the pairs whose next each edge is, [BLOCK, HP]."""
    LIST: tl.constexpr = BY_PREV if REV else BY_NEXT
    DTYPE: tl.constexpr = d_raw.dtype.element_ty
    first, count = pairs_of(edges, edge, valid, E, not REV)
    sum_next = tl.zeros([BLOCK, HP], DTYPE)
    for i in range(0, tl.max(count, 0)):
        here = i < count
        pair = tl.load(pairs + LIST * P + first + i, mask=here, other=0)
        sum_next += load_chunk(d_raw, pair, 0, there(here, H, HP), H, H, HP, DTYPE)
    return sum_next


@triton.jit
def _sum_edges(  # type: ignore[no-untyped-def]
    source, mark, d_source, d_mark, d_raw, d_prev, nodes, edges, pairs, node, valid, N, E, P,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr,
    SATURATING: tl.constexpr, REV: tl.constexpr, AT_DST: tl.constexpr,
):  # fmt: skip
    """Sums over the edges that each node is the dst of (or else the src), [BLOCK, HP] each: gradients before the
    activations of source, of mark, of the transitions that the edge is the prev of and, at dst, the next of."""
    FIRST: tl.constexpr = ARRIVING if AT_DST != REV else LEAVING
    COUNT: tl.constexpr = ARRIVE if AT_DST != REV else LEAVE
    LIST: tl.constexpr = BY_DST if AT_DST != REV else BY_SRC
    DTYPE: tl.constexpr = d_raw.dtype.element_ty
    first = tl.load(nodes + FIRST * N + node, mask=valid, other=0)
    count = tl.load(nodes + COUNT * N + node, mask=valid, other=0)
    zero = tl.zeros([BLOCK, HP], DTYPE)
    sum_source, sum_mark, sum_prev, sum_next = zero, zero, zero, zero
    for i in range(0, tl.max(count, 0)):
        here = i < count
        part = there(here, H, HP)
        edge = tl.load(edges + LIST * E + first + i, mask=here, other=0)
        sum_source += through_source(source, d_source, edge, part, H, HP, DTYPE, SATURATING)
        sum_mark += through_sigmoid(mark, d_mark, edge, part, H, HP, DTYPE)
        sum_prev += load_chunk(d_prev, edge, 0, part, H, H, HP, DTYPE)
        if AT_DST:
            sum_next += _sum_entering(d_raw, edges, pairs, edge, here, E, P, H, HP, BLOCK, REV)
    return sum_source, sum_mark, sum_prev, sum_next


@triton.jit
def _keep_sum(sums, chunk, tile, H: tl.constexpr, HP: tl.constexpr):  # type: ignore[no-untyped-def]
    """A program's part of one row of the bias gradient."""
    head = tl.arange(0, HP)
    tl.store(sums + chunk * H + head, tl.sum(tile, 0), mask=head < H)


@triton.jit
def _backward_nodes(  # type: ignore[no-untyped-def]
    gates, d_gates, d_joined, sums, nodes, edges, pairs, block, N, E, P,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, NODE: tl.constexpr,
    SATURATING: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Some rows of the node terms. Every edge has one src, so sums at src add up to the gradient of the bias."""
    d_node = d_joined + (NODE - NODE_TERMS * H)
    sums += block.to(tl.int64) * (NODE - (NODE_TERMS - BIASES) * H)
    source, _, mark, direct, _, _ = split_flat(gates, N, E, P, H)
    d_source, _, d_mark, d_direct, d_prev, d_raw = split_flat(d_gates, N, E, P, H)
    node = block * BLOCK + tl.arange(0, BLOCK)
    valid = node < N
    inside = there(valid, H, HP)
    at_source, at_mark, at_prev, _ = _sum_edges(
        source, mark, d_source, d_mark, d_raw, d_prev, nodes, edges, pairs, node, valid, N, E, P,
        H, HP, BLOCK, SATURATING, REV, False,
    )  # fmt: skip
    store_chunk(d_node, node, SOURCE_SRC, at_source, inside, NODE, H, HP)
    store_chunk(d_node, node, MARK_SRC, at_mark, inside, NODE, H, HP)
    store_chunk(d_node, node, TAIL, at_prev, inside, NODE, H, HP)
    at_direct = through_sigmoid(direct, d_direct, node, inside, H, HP, d_raw.dtype.element_ty)
    store_chunk(d_node, node, DIRECT, at_direct, inside, NODE, H, HP)
    _keep_sum(sums, BIAS_SOURCE, at_source, H, HP)
    _keep_sum(sums, BIAS_TRANSITION, at_prev, H, HP)
    _keep_sum(sums, BIAS_MARK, at_mark, H, HP)
    _keep_sum(sums, BIAS_DIRECT, at_direct, H, HP)
    at_source, at_mark, at_prev, at_next = _sum_edges(
        source, mark, d_source, d_mark, d_raw, d_prev, nodes, edges, pairs, node, valid, N, E, P,
        H, HP, BLOCK, SATURATING, REV, True,
    )  # fmt: skip
    store_chunk(d_node, node, SOURCE_DST, at_source, inside, NODE, H, HP)
    store_chunk(d_node, node, MARK_DST, at_mark, inside, NODE, H, HP)
    store_chunk(d_node, node, JOINT, at_prev, inside, NODE, H, HP)
    store_chunk(d_node, node, HEAD, at_next, inside, NODE, H, HP)


@triton.jit(do_not_specialize=["N", "E", "P", "R"], do_not_specialize_on_alignment=["nodes", "edges", "pairs"])
def terms_back(  # type: ignore[no-untyped-def]
    gates, d_gates, d_joined, d_edge, sums, parts, total, nodes, edges, pairs, N, E, P, R,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, NODE: tl.constexpr, COLUMNS: tl.constexpr,
    NUMBERS: tl.constexpr, PART_ROWS: tl.constexpr, PART_COLUMNS: tl.constexpr,
    SATURATING: tl.constexpr, FEATURES: tl.constexpr, GATHERED: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Programs first that sum parts, for they take longest, then of the nodes, then, if there are edge terms, of the
    edges: chunk 3 of ``d_edge``. Last those that sum columns."""
    part_blocks = (NUMBERS + PART_COLUMNS - 1) // PART_COLUMNS
    block = tl.program_id(0) - part_blocks
    node_blocks = tl.cdiv(N, BLOCK)
    edge_blocks = tl.cdiv(E, BLOCK) if FEATURES else 0
    if block < 0:
        sum_parts(parts, total, block + part_blocks, R, NUMBERS, PART_ROWS, PART_COLUMNS)
    elif block < node_blocks:
        _backward_nodes(
            gates, d_gates, d_joined, sums, nodes, edges, pairs, block, N, E, P, H, HP, BLOCK, NODE, SATURATING, REV
        )
    elif block < node_blocks + edge_blocks:
        _, _, _, _, _, d_raw = split_flat(d_gates, N, E, P, H)
        edge = (block - node_blocks) * BLOCK + tl.arange(0, BLOCK)
        valid = edge < E
        row = column_of(edges, edge, valid, E, GATHERED, REV)
        sum_next = _sum_entering(d_raw, edges, pairs, edge, valid, E, P, H, HP, BLOCK, REV)
        store_chunk(d_edge, row, AS_NEXT, sum_next, there(valid, H, HP), EDGE_TERMS * H, H, HP)
    else:
        sum_columns(d_joined, sums, block - node_blocks - edge_blocks, N, H, BLOCK, NODE, COLUMNS)

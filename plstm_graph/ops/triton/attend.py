"""Attention under the gating matrix, ``y = ((Q Kᵀ) ⊙ G) V``, and its gradients: one head of one graph a program.

The matrices come from ``walk`` and lie in the graph's room; going back, their gradients take their place.
"""

import triton
import triton.language as tl

from plstm_graph.ops.triton.walk import graph_of

# C columns of a tile, R rows at a time, KP and VP powers of two from K and V on.


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=a.dtype)


@triton.jit
def _rows(base, row, valid, STRIDE: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Some rows of queries, keys or values, [rows, PADDED], zero beyond WIDTH."""
    at = tl.arange(0, PADDED)
    mask = valid[:, None] & (at < WIDTH)[None, :]
    return tl.load(base + row[:, None] * STRIDE + at[None, :], mask=mask, other=0.0).to(DTYPE)


@triton.jit
def _keep(base, row, tile, valid, STRIDE: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, PADDED)
    mask = valid[:, None] & (at < WIDTH)[None, :]
    tl.store(base + row[:, None] * STRIDE + at[None, :], tile.to(base.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["first", "G"], do_not_specialize_on_alignment=["graphs", "work"])
def forward(  # type: ignore[no-untyped-def]
    query, key, value, output, graphs, work, room, first, G,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    Q_NODE: tl.constexpr, Q_HEAD: tl.constexpr, K_NODE: tl.constexpr, K_HEAD: tl.constexpr,
    V_NODE: tl.constexpr, V_HEAD: tl.constexpr, C: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``output`` [N, H, V] of the graphs ``work[first:]``."""
    DTYPE: tl.constexpr = room.dtype.element_ty
    place, head = first + tl.program_id(0) // H, tl.program_id(0) % H
    node, nodes, _, _, _, matrix = graph_of(work, graphs, room, place, G, H, C)
    node64, column = node.to(tl.int64), tl.arange(0, C)
    inside = column < nodes
    keys = _rows(key + node64 * K_NODE + head * K_HEAD, column, inside, K_NODE, K, KP, DTYPE)
    values = _rows(value + node64 * V_NODE + head * V_HEAD, column, inside, V_NODE, V, VP, DTYPE)
    for r in range(0, nodes, R):
        row = r + tl.arange(0, R)
        valid = row < nodes
        queries = _rows(query + node64 * Q_NODE + head * Q_HEAD, row, valid, Q_NODE, K, KP, DTYPE)
        at, mask = matrix + (row[:, None] * H + head) * C + column[None, :], valid[:, None] & (column < C)[None, :]
        score = _dot(queries, tl.trans(keys), PRECISION) * tl.load(at, mask=mask, other=0.0)
        _keep(output + (node64 * H + head) * V, row, _dot(score, values, PRECISION), valid, H * V, V, VP)


@triton.jit(do_not_specialize=["first", "G"], do_not_specialize_on_alignment=["graphs", "work"])
def backward(  # type: ignore[no-untyped-def]
    query, key, value, d_output, d_query, d_key, d_value, d_direct, graphs, work, room, first, G,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    Q_NODE: tl.constexpr, Q_HEAD: tl.constexpr, K_NODE: tl.constexpr, K_HEAD: tl.constexpr,
    V_NODE: tl.constexpr, V_HEAD: tl.constexpr, C: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of query, key, value (strided as those are) and direct; those of the matrices replace the matrices."""
    DTYPE: tl.constexpr = room.dtype.element_ty
    place, head = first + tl.program_id(0) // H, tl.program_id(0) % H
    node, nodes, _, _, _, matrix = graph_of(work, graphs, room, place, G, H, C)
    node64, column = node.to(tl.int64), tl.arange(0, C)
    inside = column < nodes
    q_at = node64 * Q_NODE + head * Q_HEAD
    k_at = node64 * K_NODE + head * K_HEAD
    v_at = node64 * V_NODE + head * V_HEAD
    keys = _rows(key + k_at, column, inside, K_NODE, K, KP, DTYPE)
    values = _rows(value + v_at, column, inside, V_NODE, V, VP, DTYPE)
    d_keys = tl.zeros([C, KP], DTYPE)
    d_values = tl.zeros([C, VP], DTYPE)
    for r in range(0, nodes, R):
        row = r + tl.arange(0, R)
        valid = row < nodes
        queries = _rows(query + q_at, row, valid, Q_NODE, K, KP, DTYPE)
        grads = _rows(d_output + (node64 * H + head) * V, row, valid, H * V, V, VP, DTYPE)
        at, mask = matrix + (row[:, None] * H + head) * C + column[None, :], valid[:, None] & (column < C)[None, :]
        gating = tl.load(at, mask=mask, other=0.0)
        score = _dot(queries, tl.trans(keys), PRECISION)
        d_score = _dot(grads, tl.trans(values), PRECISION)
        d_gating = d_score * score
        tl.debug_barrier()  # every thread has read the rows that are now replaced
        tl.store(at, d_gating, mask=mask)
        itself = tl.sum(tl.where(row[:, None] == column[None, :], d_gating, 0.0), 1)
        tl.store(d_direct + (node64 + row) * H + head, itself, mask=valid)
        d_values += _dot(tl.trans(score * gating), grads, PRECISION)
        d_score *= gating
        _keep(d_query + q_at, row, _dot(d_score, keys, PRECISION), valid, Q_NODE, K, KP)
        d_keys += _dot(tl.trans(d_score), queries, PRECISION)
    _keep(d_key + k_at, column, d_keys, inside, K_NODE, K, KP)
    _keep(d_value + v_at, column, d_values, inside, V_NODE, V, VP)

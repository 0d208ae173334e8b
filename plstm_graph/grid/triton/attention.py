"""Attention under a gating matrix that lies in memory, ``y = ((Q Kᵀ) ⊙ G) V``, and its gradients.

A program takes ROWS pixels that read (or, for the gradients of keys and values, COLUMNS that are read) of one image and
head.
"""

import triton
import triton.language as tl

# Queries, keys and values [B, H, N, K or V] by their strides of image, head and pixel (``numbers`` Q_I and so on) in
# UNITs, see ``launch.in_units``; the last is 1. Outputs and their gradients are contiguous. ``matrix`` [M, N, N] begins
# with the image times head ``first``; its steps are R_STEP from row to row and C_STEP from column to column.


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=DTYPE)


@triton.jit
def _rows(base, row, stride, N: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, PADDED)
    mask = (row < N)[:, None] & (at < WIDTH)[None, :]
    return tl.load(base + row[:, None] * stride + at[None, :], mask=mask, other=0.0)


@triton.jit
def _keep(base, row, tile, N: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, PADDED)
    mask = (row < N)[:, None] & (at < WIDTH)[None, :]
    tl.store(base + row[:, None] * WIDTH + at[None, :], tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _gating(matrix, row, column, N: tl.constexpr, R_STEP: tl.constexpr, C_STEP: tl.constexpr):  # type: ignore[no-untyped-def]
    return matrix + row[:, None] * R_STEP + column[None, :] * C_STEP, (row < N)[:, None] & (column < N)[None, :]


@triton.jit
def _head(base, here, stride_i, stride_h, H: tl.constexpr):  # type: ignore[no-untyped-def]
    return base + (here // H) * stride_i + (here % H) * stride_h


STRIDES = [f"{x}_{axis}" for x in "qkv" for axis in "ihn"]


@triton.jit(do_not_specialize=["first", *STRIDES])
def forward(  # type: ignore[no-untyped-def]
    query, key, value, matrix, y, first, q_i, q_h, q_n, k_i, k_h, k_n, v_i, v_h, v_n,
    H: tl.constexpr, N: tl.constexpr, R_STEP: tl.constexpr, C_STEP: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    KP: tl.constexpr, VP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
):  # fmt: skip
    """``y`` [B, H, N, V]."""
    DTYPE: tl.constexpr = matrix.dtype.element_ty
    GROUPS: tl.constexpr = (N + ROWS - 1) // ROWS
    program = tl.program_id(0)
    matrix += (program // GROUPS).to(tl.int64) * N * N
    here = (program // GROUPS + first).to(tl.int64)
    row = program % GROUPS * ROWS + tl.arange(0, ROWS)
    queries = _rows(_head(query, here, q_i * UNIT, q_h * UNIT, H), row, q_n * UNIT, N, K, KP)
    key, value = _head(key, here, k_i * UNIT, k_h * UNIT, H), _head(value, here, v_i * UNIT, v_h * UNIT, H)
    total = tl.zeros([ROWS, VP], DTYPE)
    for c in range(0, N, COLUMNS):
        column = c + tl.arange(0, COLUMNS)
        keys, values = _rows(key, column, k_n * UNIT, N, K, KP), _rows(value, column, v_n * UNIT, N, V, VP)
        at, mask = _gating(matrix, row, column, N, R_STEP, C_STEP)
        score = _dot(queries, tl.trans(keys), PRECISION, DTYPE) * tl.load(at, mask=mask, other=0.0)
        total += _dot(score.to(values.dtype), values, PRECISION, DTYPE)
    _keep(y + here * (N * V), row, total, N, V, VP)


@triton.jit(do_not_specialize=["first", *STRIDES])
def back_queries(  # type: ignore[no-untyped-def]
    key, value, d_y, matrix, d_query, first, k_i, k_h, k_n, v_i, v_h, v_n,
    H: tl.constexpr, N: tl.constexpr, R_STEP: tl.constexpr, C_STEP: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    KP: tl.constexpr, VP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
):  # fmt: skip
    """``d_query`` [B, H, N, K]."""
    DTYPE: tl.constexpr = matrix.dtype.element_ty
    GROUPS: tl.constexpr = (N + ROWS - 1) // ROWS
    program = tl.program_id(0)
    matrix += (program // GROUPS).to(tl.int64) * N * N
    here = (program // GROUPS + first).to(tl.int64)
    row = program % GROUPS * ROWS + tl.arange(0, ROWS)
    grads = _rows(d_y + here * (N * V), row, V, N, V, VP)
    key, value = _head(key, here, k_i * UNIT, k_h * UNIT, H), _head(value, here, v_i * UNIT, v_h * UNIT, H)
    total = tl.zeros([ROWS, KP], DTYPE)
    for c in range(0, N, COLUMNS):
        column = c + tl.arange(0, COLUMNS)
        keys, values = _rows(key, column, k_n * UNIT, N, K, KP), _rows(value, column, v_n * UNIT, N, V, VP)
        at, mask = _gating(matrix, row, column, N, R_STEP, C_STEP)
        d_score = _dot(grads, tl.trans(values), PRECISION, DTYPE) * tl.load(at, mask=mask, other=0.0)
        total += _dot(d_score.to(keys.dtype), keys, PRECISION, DTYPE)
    _keep(d_query + here * (N * K), row, total, N, K, KP)


@triton.jit(do_not_specialize=["first", *STRIDES])
def back_keys(  # type: ignore[no-untyped-def]
    query, key, value, d_y, matrix, d_key, d_value, d_direct, first, q_i, q_h, q_n, k_i, k_h, k_n, v_i, v_h, v_n,
    H: tl.constexpr, N: tl.constexpr, R_STEP: tl.constexpr, C_STEP: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    KP: tl.constexpr, VP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
):  # fmt: skip
    """``d_key`` [B, H, N, K], ``d_value`` [.., V], ``d_direct`` [B, H, N]; the gradient of a matrix replaces it."""
    DTYPE: tl.constexpr = matrix.dtype.element_ty
    GROUPS: tl.constexpr = (N + COLUMNS - 1) // COLUMNS
    program = tl.program_id(0)
    matrix += (program // GROUPS).to(tl.int64) * N * N
    here = (program // GROUPS + first).to(tl.int64)
    column = program % GROUPS * COLUMNS + tl.arange(0, COLUMNS)
    keys = _rows(_head(key, here, k_i * UNIT, k_h * UNIT, H), column, k_n * UNIT, N, K, KP)
    values = _rows(_head(value, here, v_i * UNIT, v_h * UNIT, H), column, v_n * UNIT, N, V, VP)
    query, d_y = _head(query, here, q_i * UNIT, q_h * UNIT, H), d_y + here * (N * V)
    d_keys, d_values = tl.zeros([COLUMNS, KP], DTYPE), tl.zeros([COLUMNS, VP], DTYPE)
    itself = tl.zeros([COLUMNS], DTYPE)
    for r in range(0, N, ROWS):
        row = r + tl.arange(0, ROWS)
        queries, grads = _rows(query, row, q_n * UNIT, N, K, KP), _rows(d_y, row, V, N, V, VP)
        at, mask = _gating(matrix, row, column, N, R_STEP, C_STEP)
        gating = tl.load(at, mask=mask, other=0.0)
        score = _dot(queries, tl.trans(keys), PRECISION, DTYPE)
        d_score = _dot(grads, tl.trans(values), PRECISION, DTYPE)
        d_gating = d_score * score
        tl.debug_barrier()  # every thread has read the numbers that are now replaced
        tl.store(at, d_gating, mask=mask)
        itself += tl.sum(tl.where(row[:, None] == column[None, :], d_gating, 0.0), 0)
        d_values += _dot(tl.trans(score * gating).to(grads.dtype), grads, PRECISION, DTYPE)
        d_keys += _dot(tl.trans(d_score * gating).to(queries.dtype), queries, PRECISION, DTYPE)
    _keep(d_key + here * (N * K), column, d_keys, N, K, KP)
    _keep(d_value + here * (N * V), column, d_values, N, V, VP)
    tl.store(d_direct + here * N + column, itself, mask=column < N)

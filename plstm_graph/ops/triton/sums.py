"""Sums over the nodes of a batch, each in an order of its own."""

import triton
import triton.language as tl

from plstm_graph.ops.triton.terms import BIASES, NODE_TERMS

SUMMED = 2048
"""Numbers of the tile of a program that sums columns."""
SUM_ROWS, SUM_COLUMNS = 512, 4
"""Rows of the tile of a program that sums all rows of parts, some at a time, and its columns."""


@triton.jit
def sum_columns(  # type: ignore[no-untyped-def]
    d_joined, sums, part, N,
    H: tl.constexpr, BLOCK: tl.constexpr, NODE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sums over some rows of some columns that stand before the node terms."""
    WIDTH: tl.constexpr = NODE - NODE_TERMS * H
    GROUPS: tl.constexpr = (WIDTH + COLUMNS - 1) // COLUMNS
    block, column = part // GROUPS, part % GROUPS * COLUMNS + tl.arange(0, COLUMNS)
    row = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = (row < N)[:, None] & (column < WIDTH)[None, :]
    tile = tl.load(d_joined + row[:, None] * NODE + column[None, :], mask=mask, other=0.0).to(sums.dtype.element_ty)
    own = sums + block.to(tl.int64) * (BIASES * H + WIDTH) + BIASES * H
    tl.store(own + column, tl.sum(tile, 0), mask=column < WIDTH)


@triton.jit
def sum_parts(parts, total, part, R, NUMBERS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sums over all rows of some columns of a gradient's parts."""
    column = part * COLUMNS + tl.arange(0, COLUMNS)
    found = tl.zeros([ROWS, COLUMNS], total.dtype.element_ty)
    for first in range(0, R, ROWS):
        row = (first + tl.arange(0, ROWS)).to(tl.int64)
        mask = (row < R)[:, None] & (column < NUMBERS)[None, :]
        found += tl.load(parts + row[:, None] * NUMBERS + column[None, :], mask=mask, other=0.0)
    tl.store(total + column, tl.sum(found, 0), mask=column < NUMBERS)

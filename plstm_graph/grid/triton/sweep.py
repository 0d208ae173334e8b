# mypy: disable-error-code="assignment, var-annotated"
"""States on the borders of tiles, one anti-diagonal of tiles after the other, and what pixels see of them.

All that a tile does with states is a product with one of its matrices, see ``tile``, and what comes back from a tile's
neighbours is carried just as what goes to them: BACK exchanges arriving and leaving, marks and sources, queries and
keys, gradients and values. No atomics.
"""

import triton
import triton.language as tl

# Tiles [DOWN, RIGHT]; ``states`` [M, 4, TILES, ENDS, K, V]: what leaves a tile on its lower and right ends, which is
# what arrives at the two tiles that lie there. The adjoint of a state takes its place. ``vector``: queries or keys
# [M, TILES, K, N]; ``other``: values or gradients of outputs [.., N, V]; ``weight``: what of a pixel enters each end,
# ``source`` [M, 4, TILES, ENDS, N], or BACK ``mark`` [.., N, ENDS]. A turn deals with KK rows of each state; rows of
# its tiles are (end, k).


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=DTYPE)


@triton.jit
def _tile(row, column, direction, DOWN, RIGHT):  # type: ignore[no-untyped-def]
    """Number of a tile by its row and column in the frame of a direction."""
    row = tl.where(direction >= 2, DOWN - 1 - row, row)
    return row * RIGHT + tl.where(direction % 2 == 1, RIGHT - 1 - column, column)


@triton.jit
def _slots(  # type: ignore[no-untyped-def]
    row, column, direction, DOWN, RIGHT, SIDE: tl.constexpr, KK: tl.constexpr, LEAVING: tl.constexpr
):
    """For each row of a tile's states the tile in whose place it is, and whether something is there: of those that
    leave it, or of those that arrive."""
    upper = tl.arange(0, 2 * SIDE * KK) < SIDE * KK
    if LEAVING:
        tile = _tile(row, column, direction, DOWN, RIGHT)
        return tl.where(upper, tile, tile), tl.where(upper, DOWN - row, RIGHT - column) > 1
    above, before = _tile(row - 1, column, direction, DOWN, RIGHT), _tile(row, column - 1, direction, DOWN, RIGHT)
    return tl.where(upper, above, before), tl.where(upper, row, column) > 0


@triton.jit
def _table(base, row, column, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Some rows and columns, in any order, of a matrix."""
    return tl.load(base + row[:, None] * COLUMNS + column[None, :])


@triton.jit
def _turned(base, row, column, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The transpose of that."""
    return tl.load(base + row[None, :] * COLUMNS + column[:, None])


@triton.jit
def _vectors(base, N: tl.constexpr, V: tl.constexpr, VP: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, VP)
    return tl.load(base + tl.arange(0, N)[:, None] * V + at[None, :], mask=(at < V)[None, :], other=0.0)


@triton.jit
def _spread(base, k, N: tl.constexpr, K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Entries ``k`` of the queries or keys of all pixels, [rows of states, N]."""
    return tl.load(base + k[:, None] * N + tl.arange(0, N)[None, :], mask=(k < K)[:, None], other=0.0)


@triton.jit
def _carried(t, states, ENDS: tl.constexpr, KK: tl.constexpr, VP: tl.constexpr, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    """What ends do to ends, for KK rows of a state at once, [ENDS * KK, VP]."""
    wide = tl.reshape(states, [ENDS, KK * VP])
    if states.dtype == t.dtype:
        found = _dot(t, wide, "ieee" if PRECISION == "ieee" else "tf32x3", t.dtype)
    else:  # what is lost by rounding a factor adds up on the way
        high = t.to(states.dtype)
        found = _dot(high, wide, PRECISION, t.dtype)
        found += _dot((t - high.to(t.dtype)).to(states.dtype), wide, PRECISION, t.dtype)
    return tl.reshape(found, [ENDS * KK, VP])


FRAME = ["low", "diagonal", "count", "DOWN", "RIGHT"]


@triton.jit(do_not_specialize=FRAME)
def carry(  # type: ignore[no-untyped-def]
    vector, other, through, weight, states, d_through, low, diagonal, count, DOWN, RIGHT,
    SIDE: tl.constexpr, K: tl.constexpr, V: tl.constexpr, VP: tl.constexpr, KK: tl.constexpr, PRECISION: tl.constexpr,
    SOME: tl.constexpr, GROUPS: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """States that leave the tiles of a diagonal, from those that arrive; BACK the other way round, and parts of the
    gradient of ``through``, [GROUPS, M, 4, TILES, ENDS, ENDS]. A program takes SOME of the K rows of a tile's states
    in one direction."""
    WIDE: tl.constexpr = through.dtype.element_ty
    NARROW: tl.constexpr = other.dtype.element_ty
    N: tl.constexpr = SIDE * SIDE
    ENDS: tl.constexpr = 2 * SIDE
    program = tl.program_id(0)
    group, row = program % GROUPS, low + program // GROUPS % count
    one, column = (program // (GROUPS * count)).to(tl.int64), diagonal - row
    direction, tiles = program // (GROUPS * count) % 4, DOWN * RIGHT
    tile = _tile(row, column, direction, DOWN, RIGHT)
    this, own = one * tiles + tile, one // 4 * tiles + tile
    n, end, v, each = tl.arange(0, N), tl.arange(0, ENDS), tl.arange(0, VP), tl.arange(0, ENDS * KK) // KK
    if BACK:
        t, w = (
            _turned(through + this * (ENDS * ENDS), end, end, ENDS),
            _turned(weight + this * (N * ENDS), n, each, ENDS),
        )
    else:
        t, w = _table(through + this * (ENDS * ENDS), end, end, ENDS), _table(weight + this * (ENDS * N), each, n, N)
    vector += own * (K * N)
    others = _vectors(other + own * (N * V), N, V, VP)
    tile_from, comes = _slots(row, column, direction, DOWN, RIGHT, SIDE, KK, BACK)
    tile_to, goes = _slots(row, column, direction, DOWN, RIGHT, SIDE, KK, not BACK)
    begin = states + ((one * tiles + tile_from) * ENDS + each)[:, None] * (K * V) + v[None, :]
    to = states + ((one * tiles + tile_to) * ENDS + each)[:, None] * (K * V) + v[None, :]
    d_t = tl.zeros([ENDS, ENDS], WIDE)
    for first in range(group * SOME, min(group * SOME + SOME, K), KK):
        k = first + tl.arange(0, ENDS * KK) % KK
        inside = (k < K)[:, None] & (v < V)[None, :]
        state = tl.load(begin + k[:, None] * V, mask=comes[:, None] & inside, other=0.0)
        if BACK:
            arrived = tl.load(to + k[:, None] * V, mask=goes[:, None] & inside, other=0.0)
            d_t += _dot(
                tl.reshape(state, [ENDS, KK * VP]), tl.trans(tl.reshape(arrived, [ENDS, KK * VP])), PRECISION, WIDE
            )
        found = _dot((w * _spread(vector, k, N, K)).to(NARROW), others, PRECISION, WIDE)
        found += _carried(t, state, ENDS, KK, VP, PRECISION)
        if BACK:
            tl.debug_barrier()  # every thread has read the states that are now replaced
        tl.store(to + k[:, None] * V, found.to(states.dtype.element_ty), mask=goes[:, None] & inside)
    if BACK:
        part = ((program % GROUPS) * (tl.num_programs(0) // (GROUPS * count)) + one) * tiles + tile
        tl.store(d_through + part * (ENDS * ENDS) + end[:, None] * ENDS + end[None, :], d_t)


@triton.jit(do_not_specialize=["DOWN", "RIGHT"])
def see(  # type: ignore[no-untyped-def]
    vector, other, weight, states, total, d_weight, d_vector, DOWN, RIGHT,
    SIDE: tl.constexpr, K: tl.constexpr, V: tl.constexpr, VP: tl.constexpr, KK: tl.constexpr, PRECISION: tl.constexpr,
    READ: tl.constexpr, GRADIENTS: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """READ: what pixels see of the states that arrive at a tile, ``total`` [M, 4, TILES, N, V], weighted by marks and
    queries; BACK: of the adjoints of those that leave it, by sources and keys. GRADIENTS of the weights and of the
    queries or keys, [M, 4, TILES, K, N], go with ``other``. A program takes a tile in one direction."""
    WIDE: tl.constexpr = weight.dtype.element_ty
    NARROW: tl.constexpr = vector.dtype.element_ty
    N: tl.constexpr = SIDE * SIDE
    ENDS: tl.constexpr = 2 * SIDE
    program, tiles = tl.program_id(0), DOWN * RIGHT
    one, direction = (program // tiles).to(tl.int64), program // tiles % 4
    row, column = program % tiles // RIGHT, program % RIGHT
    tile = _tile(row, column, direction, DOWN, RIGHT)
    this, own = one * tiles + tile, one // 4 * tiles + tile
    n, v, each = tl.arange(0, N), tl.arange(0, VP), tl.arange(0, ENDS * KK) // KK
    some, end = tl.arange(0, KK), tl.arange(0, ENDS)
    w = _table(weight + this * (ENDS * N), each, n, N) if BACK else _turned(weight + this * (N * ENDS), n, each, ENDS)
    vector += own * (K * N)
    tile_from, comes = _slots(row, column, direction, DOWN, RIGHT, SIDE, KK, BACK)
    begin = states + ((one * tiles + tile_from) * ENDS + each)[:, None] * (K * V) + v[None, :]
    if READ:
        found = tl.zeros([N, VP], WIDE)
    if GRADIENTS:
        others, d_w = _vectors(other + own * (N * V), N, V, VP), tl.zeros([ENDS * KK, N], WIDE)
    for first in range(0, K, KK):
        k = first + tl.arange(0, ENDS * KK) % KK
        mask = (comes & (k < K))[:, None] & (v < V)[None, :]
        state = tl.load(begin + k[:, None] * V, mask=mask, other=0.0).to(NARROW)
        vectors = _spread(vector, k, N, K)
        if READ:
            found += _dot(tl.trans((w * vectors).to(NARROW)), state, PRECISION, WIDE)
        if GRADIENTS:
            seen = _dot(state, tl.trans(others), PRECISION, WIDE)  # [ENDS * KK, N]
            d_w += vectors * seen
            to = d_vector + (this * K + first + some)[:, None] * N + n[None, :]
            tl.store(to, tl.sum(tl.reshape(w * seen, [ENDS, KK, N]), 0), mask=(first + some < K)[:, None])
    if READ:
        tl.store(total + this * (N * V) + n[:, None] * V + v[None, :], found, mask=(v < V)[None, :])
    if GRADIENTS:
        to = end[:, None] * N + n[None, :] if BACK else end[:, None] + n[None, :] * ENDS
        tl.store(d_weight + this * (ENDS * N) + to, tl.sum(tl.reshape(d_w, [ENDS, KK, N]), 1))

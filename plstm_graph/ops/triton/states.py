"""Edges of large graphs, their rows of tables and their states: what kernels of both recurrent forms share.

HB heads of a program, KP and VP powers of two from K and V on. Tiles are [HB, KP], [HB, VP] and [HB, KP, VP].
"""

import triton
import triton.language as tl

from plstm_graph.line_dag.plan import LargeEdge, LargeNode, Pair
from plstm_graph.ops.triton.walk import gate

BY_NEXT = tl.constexpr(int(Pair.BY_NEXT))
BY_PREV = tl.constexpr(int(Pair.BY_PREV))
EDGE = tl.constexpr(int(LargeEdge.EDGE))
SHIFT = tl.constexpr(int(LargeEdge.SHIFT))
SRC = tl.constexpr(int(LargeEdge.SRC))
DST = tl.constexpr(int(LargeEdge.DST))
ENTERING = tl.constexpr(int(LargeEdge.ENTERING))
EXITING = tl.constexpr(int(LargeEdge.EXITING))
ROW = tl.constexpr(len(LargeEdge))
assert LargeNode.SHIFT == LargeEdge.SHIFT


@triton.jit
def vector(  # type: ignore[no-untyped-def]
    base, row, head, valid,
    ROW_STRIDE: tl.constexpr, HEAD: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """The vector of one node or edge, [HB, WP], zero beyond W."""
    at = tl.arange(0, WP)
    mask = valid[:, None] & (at < W)[None, :]
    place = base + row.to(tl.int64) * ROW_STRIDE + head[:, None] * HEAD + at[None, :]
    return tl.load(place, mask=mask, other=0.0).to(DTYPE)


@triton.jit
def keep(  # type: ignore[no-untyped-def]
    base, row, head, valid, tile, ROW_STRIDE: tl.constexpr, HEAD: tl.constexpr, W: tl.constexpr, WP: tl.constexpr
):  # fmt: skip
    """Store the vector of one node or edge, [HB, WP]."""
    at = tl.arange(0, WP)
    mask = valid[:, None] & (at < W)[None, :]
    place = base + row.to(tl.int64) * ROW_STRIDE + head[:, None] * HEAD + at[None, :]
    tl.store(place, tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def state_at(states, slot, head, H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Pointers to the state of one edge, [HB, KP, VP]."""
    k, v = tl.arange(0, KP)[None, :, None], tl.arange(0, VP)[None, None, :]
    return (states + (slot.to(tl.int64) * H + head) * (K * V))[:, None, None] + (k * V + v)


@triton.jit
def heads_of(head, there, H: tl.constexpr):  # type: ignore[no-untyped-def]
    """Which heads there are, none of what is not there (the interpreter cannot ``&`` a vector and a number)."""
    return head < tl.where(there, H, 0)


@triton.jit
def numbers_of(valid, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Which numbers of a tile there are, [HB, KP, VP]."""
    return valid[:, None, None] & (tl.arange(0, KP) < K)[None, :, None] & (tl.arange(0, VP) < V)[None, None, :]


@triton.jit
def gate_of(gates, row, head, valid, H: tl.constexpr):  # type: ignore[no-untyped-def]
    """Gates of one node, edge or pair, or of several; zero where they are not ``valid``."""
    return gate(gates, row.to(tl.int64) * H + head, valid)


@triton.jit
def edge_row(large, place, there, LIST: tl.constexpr):  # type: ignore[no-untyped-def]
    """The edge at a place, its shift, end points, and first pair and end of a list of its pairs."""
    row = large + place.to(tl.int64) * ROW
    first = tl.load(row + LIST, mask=there, other=0)
    return (
        tl.load(row + EDGE, mask=there, other=0),
        tl.load(row + SHIFT, mask=there, other=0),
        tl.load(row + SRC, mask=there, other=0),
        tl.load(row + DST, mask=there, other=0),
        first,
        first + tl.load(row + LIST + 1, mask=there, other=0),
    )


@triton.jit
def two_pairs(pairs, at, end, P, PAIRED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Numbers of two pairs, and the edges at their other ends."""
    pair = pairs + PAIRED * P + at
    first, second = at < end, at + 1 < end
    return (
        tl.load(pair, mask=first, other=0),
        tl.load(pair + P, mask=first, other=0),
        tl.load(pair + 1, mask=second, other=0),
        tl.load(pair + P + 1, mask=second, other=0),
    )


# What an edge leaves going back, once its state or its adjoint is known. ``gates`` is the place of its gates.


@triton.jit
def read_back(  # type: ignore[no-untyped-def]
    state, q, g, read, d_mark, queries, gates, slot, head, valid, H: tl.constexpr, K: tl.constexpr, KP: tl.constexpr
):  # fmt: skip
    """Store the gradient of its mark, and what it adds to d_query of the node that reads it."""
    by_key = tl.sum(state * g[:, None, :], 2)
    tl.store(d_mark + gates, tl.sum(q * by_key, 1), mask=valid)
    keep(queries, slot, head, valid, read[:, None] * by_key, H * K, K, K, KP)


@triton.jit
def feed_back(  # type: ignore[no-untyped-def]
    adjoint, k, v, fed, d_source, keys, values, gates, slot, head, valid,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
):  # fmt: skip
    """Store the gradient of its source, and what it adds to d_key and d_value of the node that feeds it."""
    by_key = tl.sum(adjoint * v[:, None, :], 2)
    tl.store(d_source + gates, tl.sum(k * by_key, 1), mask=valid)
    keep(keys, slot, head, valid, fed[:, None] * by_key, H * K, K, K, KP)
    by_value = tl.sum(adjoint * k[:, :, None], 1)
    keep(values, slot, head, valid, fed[:, None] * by_value, H * V, V, V, VP)

"""What follows the operator for nodes of large graphs, and for all nodes where heads are averaged (else the attention
does it): RMS norm of each head, heads side by side or averaged, bias. One launch forward, and one backward that leaves
sums in parts. No atomics.

A row depends on nothing but itself; the gradients of weight and bias, sums over all rows, do not change from run to
run.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from plstm_graph.launch import ceil_div, launch, power_of_2
from plstm_graph.line_dag.plan import LargeEdge, LargeNode
from plstm_graph.ops.flat import Norm

TILE = 1024
"""Entries of a program: all heads of some nodes, or some heads of one node where those are more."""
OPTIONS = (("num_warps", 4),)
PROGRAMS = 1024
"""At most so many programs sum gradients of weight and bias. Fixed, for sums that do not depend on the machine."""
ROW = tl.constexpr(len(LargeEdge))
NODE = tl.constexpr(int(LargeNode.NODE))

# Tiles are [BLOCK, HEADS, VP]: nodes, some of the H heads, and the power of two from V on. Of N nodes, the first ones
# or, if LISTED, those that rows of ``listed`` name. Arguments that sizes decide are never specialised.


@triton.jit
def _nodes(listed, place, N, LISTED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Nodes by their places among the N, and which of them there are."""
    valid = place < N
    if LISTED:
        place = tl.load(listed + place.to(tl.int64) * ROW + NODE, mask=valid, other=0)
    return place, valid


@triton.jit
def _inside(valid, head, H: tl.constexpr, V: tl.constexpr, VP: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, VP)[None, None, :]
    return valid[:, None, None] & (head < H)[None, :, None] & (at < V)


@triton.jit
def _at(base, node, head, H: tl.constexpr, V: tl.constexpr, VP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Pointers into [N, H, V]."""
    at = tl.arange(0, VP)[None, None, :]
    return base + node.to(tl.int64)[:, None, None] * (H * V) + head[None, :, None] * V + at


@triton.jit
def _parameter(base, node, head, H: tl.constexpr, V: tl.constexpr, VP: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Some rows of [H, V], once for each node: as a whole tile it needs no exchange between threads. Zero outside."""
    at = tl.arange(0, VP)[None, None, :] + node[:, None, None] * 0
    inside = (head < H)[None, :, None] & (at < V)
    return tl.load(base + head[None, :, None] * V + at, mask=inside, other=0.0).to(DTYPE)


@triton.jit
def _scale(rows, V: tl.constexpr, EPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """One over the root mean square of each head, [BLOCK, HEADS, 1]; infinite outside if EPS is zero."""
    return tl.rsqrt(tl.sum(rows * rows, 2) / V + EPS)[:, :, None]


@triton.jit(do_not_specialize=["N"])
def _forward(  # type: ignore[no-untyped-def]
    y, weight, bias, out, listed, N,
    H: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr, HEADS: tl.constexpr, VP: tl.constexpr,
    EPS: tl.constexpr, WIDE: tl.constexpr, CONCAT: tl.constexpr, BIASED: tl.constexpr,
    LISTED: tl.constexpr,
):  # fmt: skip
    """``out`` [N, H, V], or [N, V] where heads are averaged."""
    node, valid = _nodes(listed, tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), N, LISTED)
    one = tl.arange(0, 1)
    total = tl.zeros([BLOCK, VP], WIDE)
    for first in range(0, H, HEADS):
        head = first + tl.arange(0, HEADS)
        inside = _inside(valid, head, H, V, VP)
        rows = tl.load(_at(y, node, head, H, V, VP), mask=inside, other=0.0).to(WIDE)
        rows = tl.where(inside, rows * _scale(rows, V, EPS), 0.0) * _parameter(weight, node, head, H, V, VP, WIDE)
        if CONCAT:
            if BIASED:
                rows += _parameter(bias, node, head, H, V, VP, WIDE)
            tl.store(_at(out, node, head, H, V, VP), rows.to(out.dtype.element_ty), mask=inside)
        else:
            total += tl.sum(rows, 1)
    if not CONCAT:
        mean = total[:, None, :] / H
        if BIASED:
            mean += _parameter(bias, node, one, 1, V, VP, WIDE)
        tl.store(_at(out, node, one, 1, V, VP), mean.to(out.dtype.element_ty), mask=_inside(valid, one, 1, V, VP))


@triton.jit(do_not_specialize=["N"])
def _backward(  # type: ignore[no-untyped-def]
    d_out, y, weight, d_y, sums, listed, N,
    H: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr, HEADS: tl.constexpr, VP: tl.constexpr,
    EPS: tl.constexpr, WIDE: tl.constexpr, CONCAT: tl.constexpr, BIASED: tl.constexpr,
    LISTED: tl.constexpr,
):  # fmt: skip
    """``d_y``, and each program's part of the gradients of weight and bias, a row of ``sums``."""
    WIDTH: tl.constexpr = H * V + ((H * V if CONCAT else V) if BIASED else 0)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    one = tl.arange(0, 1)
    at = tl.arange(0, VP)[None, :]
    scaling = _parameter(weight, tl.arange(0, BLOCK), head, H, V, VP, WIDE)
    d_weight = tl.zeros([BLOCK, HEADS, VP], WIDE)
    d_bias = tl.zeros([BLOCK, HEADS if CONCAT else 1, VP], WIDE)
    for first in range(tl.program_id(0) * BLOCK, N, tl.num_programs(0) * BLOCK):
        node, valid = _nodes(listed, first + tl.arange(0, BLOCK), N, LISTED)
        inside = _inside(valid, head, H, V, VP)
        rows = tl.load(_at(y, node, head, H, V, VP), mask=inside, other=0.0).to(WIDE)
        if CONCAT:
            grad = tl.load(_at(d_out, node, head, H, V, VP), mask=inside, other=0.0).to(WIDE)
            if BIASED:
                d_bias += grad
        else:
            mask = _inside(valid, one, 1, V, VP)
            grad = tl.load(_at(d_out, node, one, 1, V, VP), mask=mask, other=0.0).to(WIDE)
            if BIASED:
                d_bias += grad
            grad = grad / H
        scale = _scale(rows, V, EPS)
        rows = tl.where(inside, rows * scale, 0.0)
        d_weight += grad * rows
        grad = grad * scaling
        grad = (grad - rows * (tl.sum(grad * rows, 2) / V)[:, :, None]) * scale
        tl.store(_at(d_y, node, head, H, V, VP), grad.to(d_y.dtype.element_ty), mask=inside)
    own = sums + tl.program_id(0) * WIDTH
    inside = (head < H)[:, None] & (at < V)
    tl.store(own + head[:, None] * V + at, tl.sum(d_weight, 0), mask=inside)
    if BIASED:
        if CONCAT:
            tl.store(own + H * V + head[:, None] * V + at, tl.sum(d_bias, 0), mask=inside)
        elif tl.program_id(1) == 0:
            tl.store(own + H * V + at, tl.sum(d_bias, 0), mask=at < V)


@cache
def _shape(heads: int, width: int) -> tuple[int, int, int]:
    """BLOCK, HEADS and VP; worked out once, since launches have no time to lose."""
    padded = power_of_2(width)
    some = min(power_of_2(heads), max(TILE // padded, 1))
    return max(TILE // (some * padded), 1), some, padded


def _wide(y: Tensor) -> tl.dtype:
    return tl.float64 if y.dtype == torch.float64 else tl.float32


def forward_norm(y: Tensor, norm: Norm, out: Tensor | None = None, listed: Tensor | None = None) -> Tensor:
    """:class:`plstm_graph.nn.norm.MultiHeadRMSNorm`, then the end of :class:`plstm_graph.PLSTMConv`.

    Half precision is computed in float32 and rounded once, at the end. Sizes are not checked.

    Args:
        y: output of the operator, [N, H, V]; contiguous.
        norm: what follows.
        out: where to put what comes of it, if it is there already.
        listed: rows of ``Plan.large`` that name the only nodes to look at; contiguous.

    Returns:
        ``out``: [N, H * V] or [N, V], in the dtype that ``y`` and the bias promote to.
    """
    nodes, heads, width = y.shape
    weight, bias, eps, concat = norm
    if out is None:
        out = y.new_empty((nodes, heads * width if concat else width), dtype=norm.dtype(y))
    rows = nodes if listed is None else listed.size(0)
    block, some, padded = _shape(heads, width)
    if rows:
        launch(
            _forward,
            (ceil_div(rows, block),),
            (y, weight, weight if bias is None else bias, out, y if listed is None else listed),
            (),
            (rows,),
            (heads, width, block, some, padded, eps, _wide(y), concat, bias is not None, listed is not None),
            OPTIONS,
        )
    return out


def norm_parts(nodes: int, heads: int, width: int) -> int:
    """Rows of the parts that :func:`backward_norm` leaves of so many nodes."""
    return min(ceil_div(nodes, _shape(heads, width)[0]), PROGRAMS)


def backward_norm(
    d_out: Tensor, y: Tensor, norm: Norm, parts: Tensor | None = None, listed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`forward_norm`.

    Args:
        d_out: of its output.
        y, norm, listed: as there.
        parts: where to put the second result, if it is there already; contiguous.

    Returns:
        Gradient of ``y`` in its dtype, and parts of those of the weight and, behind them, the bias, to be summed over,
        in float32, or float64 if ``y`` is: [norm_parts, H * V], or H * V or V more with a bias.
    """
    nodes, heads, width = y.shape
    weight, bias, eps, concat = norm
    rows = nodes if listed is None else listed.size(0)
    d_y, programs = torch.empty_like(y), norm_parts(rows, heads, width)
    if parts is None:
        wide = torch.float64 if y.dtype == torch.float64 else torch.float32
        parts = y.new_empty((programs, weight.numel() + (0 if bias is None else bias.numel())), dtype=wide)
    block, some, padded = _shape(heads, width)
    if rows:
        launch(
            _backward,
            (programs, ceil_div(heads, some)),
            (d_out.contiguous(), y, weight, d_y, parts, y if listed is None else listed),
            (),
            (rows,),
            (heads, width, block, some, padded, eps, _wide(y), concat, bias is not None, listed is not None),
            OPTIONS,
        )
    return d_y, parts

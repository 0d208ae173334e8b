"""End of a layer: RMS norm of each head, heads side by side or averaged, bias. Blocks of nodes in parallel.

A row depends on nothing but itself; the gradients of weight and bias are summed block by block, in order: nothing
changes with the number of threads.
"""

import math

import numpy as np
import torch
from numba import prange
from torch import Tensor

from plstm_graph.ops.flat import Norm
from plstm_graph.ops.numba.lanes import (
    LANES,
    add,
    add_row,
    get,
    inner,
    load,
    multiply,
    put,
    scale,
    spread,
    store,
    times,
    total,
)
from plstm_graph.ops.numba.runtime import arrays, parallel, part, torch_threads

ROWS = 64
"""Nodes of a block."""

# Arrays are flat. ``sizes`` are N, H and V, ``eps`` is of the dtype of all others.


@part
def _scale(y, at, width, eps):  # type: ignore[no-untyped-def]
    """One over the root mean square of a row."""
    return y.dtype.type(1) / y.dtype.type(math.sqrt(inner(y, at, y, at, width) / y.dtype.type(width) + eps))


@part
def _add_product(out, at, factor, a, at_a, b, at_b, size):  # type: ignore[no-untyped-def]
    """``out += factor * a * b``, entry by entry."""
    full = size - size % LANES
    for i in range(0, full, LANES):
        store(out, at + i, multiply(load(out, at + i), scale(factor, load(a, at_a + i)), load(b, at_b + i)))
    for i in range(full, size):
        put(out, at + i, get(out, at + i) + factor * get(a, at_a + i) * get(b, at_b + i))


@parallel
def _forward(y, weight, bias, out, eps, concat, sizes):  # type: ignore[no-untyped-def]
    """``out`` [N, H, V], or [N, V] where heads are averaged."""
    nodes, heads, width = sizes
    one = y.dtype.type(1)
    share = one if concat else one / y.dtype.type(heads)
    outputs = heads * width if concat else width
    for block in prange(-(-nodes // ROWS)):
        for node in range(block * ROWS, min((block + 1) * ROWS, nodes)):
            for i in range(outputs):
                put(out, node * outputs + i, get(bias, i))
            for head in range(heads):
                at, into = (node * heads + head) * width, node * outputs + (head * width if concat else 0)
                factor = share * _scale(y, at, width, eps)
                _add_product(out, into, factor, y, at, weight, head * width, width)


@part
def _gradient(d_y, y, weight, grad, share, d_weight, places, width, eps):  # type: ignore[no-untyped-def]
    """Gradient of one row, and its part of the gradient of the weight; ``share`` of ``grad`` is for this row. Places:
    where in ``y``, ``weight``, ``grad`` and ``d_weight`` it begins."""
    at, at_weight, at_grad, at_d_weight = places
    factor = _scale(y, at, width, eps)
    full = width - width % LANES
    sums = spread(y.dtype.type(0))
    for i in range(0, full, LANES):
        both = times(load(grad, at_grad + i), load(y, at + i))
        sums = multiply(sums, both, load(weight, at_weight + i))
        store(d_weight, at_d_weight + i, add(load(d_weight, at_d_weight + i), share * factor, both))
    found = total(sums)
    for i in range(full, width):
        both = get(grad, at_grad + i) * get(y, at + i)
        found += both * get(weight, at_weight + i)
        put(d_weight, at_d_weight + i, get(d_weight, at_d_weight + i) + share * factor * both)
    along = -(share * factor) * (factor * (found / y.dtype.type(width)) * factor)
    for i in range(0, full, LANES):
        straight = times(scale(share * factor, load(grad, at_grad + i)), load(weight, at_weight + i))
        store(d_y, at + i, add(straight, along, load(y, at + i)))
    for i in range(full, width):
        straight = share * factor * get(grad, at_grad + i) * get(weight, at_weight + i)
        put(d_y, at + i, straight + along * get(y, at + i))


@parallel
def _backward(d_out, y, weight, d_y, sums, found, eps, concat, sizes):  # type: ignore[no-untyped-def]
    """``d_y`` and, in ``found``, the gradients of weight and bias; ``sums`` are those of each block, zero at first."""
    nodes, heads, width = sizes
    one = y.dtype.type(1)
    share = one if concat else one / y.dtype.type(heads)
    numbers, outputs = heads * width, heads * width if concat else width
    for block in prange(-(-nodes // ROWS)):
        own = block * (numbers + outputs)
        for node in range(block * ROWS, min((block + 1) * ROWS, nodes)):
            add_row(sums, own + numbers, one, d_out, node * outputs, outputs)
            for head in range(heads):
                row, at = head * width, (node * heads + head) * width
                at_grad = node * outputs + (row if concat else 0)
                _gradient(d_y, y, weight, d_out, share, sums, (at, row, at_grad, own + row), width, eps)
    for block in range(-(-nodes // ROWS)):
        add_row(found, 0, one, sums, block * (numbers + outputs), numbers + outputs)


def forward_norm(y: Tensor, norm: Norm) -> Tensor:
    """As :func:`plstm_graph.ops.triton.norm.forward_norm`, of all nodes."""
    nodes, heads, width = y.shape
    weight, bias, eps, concat = norm
    outputs, wide = heads * width if concat else width, _wide(y)
    out = y.new_empty(nodes, outputs, dtype=wide)
    bias_row = y.new_zeros(outputs, dtype=wide) if bias is None else bias
    given = arrays(x.to(wide).view(-1) for x in (y, weight, bias_row, out))
    with torch_threads():
        _forward(*given, _number(eps, wide), concat, (nodes, heads, width))
    return out.to(norm.dtype(y))


def backward_norm(d_out: Tensor, y: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """As :func:`plstm_graph.ops.triton.norm.backward_norm`, of all nodes; the sums are one part."""
    nodes, heads, width = y.shape
    weight, bias, eps, concat = norm
    numbers, outputs, wide = heads * width, heads * width if concat else width, _wide(y)
    d_y = torch.empty_like(y, dtype=wide)
    sums = y.new_zeros(-(-nodes // ROWS) * (numbers + outputs), dtype=wide)
    found = y.new_zeros(numbers + outputs, dtype=wide)
    given = (x.to(wide).contiguous().view(-1) for x in (d_out, y, weight))
    with torch_threads():
        _backward(*arrays((*given, d_y.view(-1), sums, found)), _number(eps, wide), concat, (nodes, heads, width))
    return d_y.to(y.dtype), found[None, : numbers + (0 if bias is None else outputs)]


def _wide(y: Tensor) -> torch.dtype:
    return torch.float64 if y.dtype == torch.float64 else torch.float32


def _number(eps: float, wide: torch.dtype) -> np.floating:
    """Number in the dtype of the arrays: with one of float64 all would be."""
    return np.float64(eps) if wide == torch.float64 else np.float32(eps)

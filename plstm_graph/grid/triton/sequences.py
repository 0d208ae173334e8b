"""Chains by kernels: what each chunk gives, states carried from chunk to chunk, attention within each."""

from typing import Any

import torch
from torch import Tensor

from plstm_graph.grid.gates import ChainGates
from plstm_graph.grid.triton import chunks
from plstm_graph.launch import ceil_div, in_units, launch, power_of_2
from plstm_graph.ops.functional import once_differentiable

SOME = 128
"""Numbers of a state that a program carries."""


class Sizes:
    """What kernels are told of a chain at compile time, and their grids.

    Args:
        value: [B, H, n, V].
        keys: K.
        wide: dtype of states.
    """

    def __init__(self, value: Tensor, keys: int, wide: torch.dtype) -> None:
        batch, heads, tokens, values = value.shape
        padded = (max(16, power_of_2(keys)), max(16, power_of_2(values)))
        chunk = min(max(16, power_of_2(tokens)), 64 if max(padded) <= 64 else 32)
        precision = "ieee" if wide == torch.float64 else "tf32" if value.dtype.itemsize == 2 else "tf32x3"
        self.chunks, self.numbers, self.many = ceil_div(tokens, chunk), keys * values, batch * heads
        self.constants = (heads, tokens, keys, values, *padded, chunk, precision)
        self.carry = (self.numbers, self.chunks, min(SOME, power_of_2(self.numbers)))
        self.shape = (self.many, self.chunks, keys, values)
        self.grid = (self.many * self.chunks,)
        self.options = (("num_warps", 8 if chunk * max(padded) >= 4096 else 4),)


def _strides(*vectors: Tensor) -> tuple[list[int], int]:
    """Strides of sequence, head and token, and their unit."""
    return in_units([stride for x in vectors for stride in x.stride()[:3]], vectors[0].dtype.itemsize)


def _carried(
    sizes: Sizes, key: Tensor, value: Tensor, weight: Tensor, transition: Tensor, begin: Tensor, back: bool
) -> tuple[Tensor, Tensor]:
    """What arrives at each chunk, [B * H, chunks, K, V], and what leaves the last, shaped as ``begin``; or against the
    chain."""
    states, end = begin.new_empty(sizes.shape), torch.empty_like(begin)
    through = begin.new_empty(sizes.shape[:2])
    tensors, (numbers, unit) = [key, value, weight, transition, states, through], _strides(key, value)
    launch(chunks.given, sizes.grid, tensors, (), numbers, (*sizes.constants, unit, back), sizes.options)
    grid = (sizes.many * ceil_div(sizes.numbers, sizes.carry[2]),)
    launch(chunks.carry, grid, [states, through, begin, end], (), (), (*sizes.carry, back), (("num_warps", 1),))
    return states, end


class Chain(torch.autograd.Function):
    """Keeps nothing but its inputs between the passes."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, source: Tensor, transition: Tensor, mark: Tensor,
        direct: Tensor, begin: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
        gates = [x.contiguous() for x in (source, transition, mark, direct)]
        begin = begin.contiguous()
        sizes = Sizes(value, query.size(-1), begin.dtype)
        states, end = _carried(sizes, key, value, gates[0], gates[1], begin, back=False)
        y = torch.empty(value.shape, dtype=value.dtype, device=value.device)
        tensors, (numbers, unit) = [query, key, value, *gates, states, y], _strides(query, key, value)
        launch(chunks.forward, sizes.grid, tensors, (), numbers, (*sizes.constants, unit), sizes.options)
        ctx.save_for_backward(query, key, value, *gates, begin)
        ctx.sizes = sizes
        return y, end

    @staticmethod
    @once_differentiable("compiled forms have no second derivatives; use form='chunks'")
    def backward(ctx: Any, d_y: Tensor, d_end: Tensor) -> tuple[Tensor, ...]:
        query, key, value, *gates, begin = ctx.saved_tensors
        sizes: Sizes = ctx.sizes
        d_y = d_y.contiguous()
        states, _ = _carried(sizes, key, value, gates[0], gates[1], begin, back=False)
        adjoints, d_begin = _carried(sizes, query, d_y, gates[2], gates[1], d_end.contiguous(), back=True)
        vectors = query, key, value
        grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (*vectors, *gates)]
        tensors, (numbers, unit) = [*vectors, *gates, states, adjoints, d_y, *grads], _strides(*vectors)
        launch(chunks.backward, sizes.grid, tensors, (), numbers, (*sizes.constants, unit), sizes.options)
        return *grads, d_begin


def chain(query: Tensor, key: Tensor, value: Tensor, gates: ChainGates, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """See :func:`plstm_graph.grid.chain`; one state an edge, gates [B, H, n] and states [B, H, K, V]."""
    if state is None:
        state = gates.source.new_zeros(*value.shape[:2], key.size(-1), value.size(-1))
    found: tuple[Tensor, Tensor] = Chain.apply(query, key, value, *gates, state)
    return found

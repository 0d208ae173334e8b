"""Chains by loops, token by token in a sequence and head, these side by side."""

from typing import Any

import torch
from torch import Tensor

from plstm_graph.grid.gates import ChainGates
from plstm_graph.grid.numba import scan
from plstm_graph.ops.functional import once_differentiable
from plstm_graph.ops.numba.runtime import arrays, torch_threads


class Chain(torch.autograd.Function):
    """Keeps its inputs and one state every ``scan.CHUNK`` tokens between the passes."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        given = [x.contiguous() for x in inputs]
        value, begin = given[2], given[-1]
        y, end = torch.empty_like(value), torch.empty_like(begin)
        chunks = -(-value.size(2) // scan.CHUNK)
        kept = begin.new_empty(*begin.shape[:2], chunks, *begin.shape[2:])
        with torch_threads():
            scan.forward(*arrays([*given, y, end, kept]))
        ctx.save_for_backward(*given[:-1], kept)
        return y, end

    @staticmethod
    @once_differentiable("compiled forms have no second derivatives; use form='chunks'")
    def backward(ctx: Any, d_y: Tensor, d_end: Tensor) -> tuple[Tensor, ...]:
        *given, kept = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in (*given, d_end)]
        with torch_threads():
            scan.backward(*arrays([*given, kept, d_y.contiguous(), d_end.contiguous(), *grads]))
        return tuple(grads)


def chain(query: Tensor, key: Tensor, value: Tensor, gates: ChainGates, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """See :func:`plstm_graph.grid.chain`; gates with the axes of J states, the state [B, H, J, K, V]."""
    if state is None:
        state = value.new_zeros(*value.shape[:2], gates.states, key.size(-1), value.size(-1))
    found: tuple[Tensor, Tensor] = Chain.apply(query, key, value, *gates, state)
    return found

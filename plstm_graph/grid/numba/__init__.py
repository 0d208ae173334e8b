"""Loops for images and chains on the CPU: the form ``numba``. Of images loops make gating matrices, torch attends."""

from typing import Any

import torch
from torch import Tensor

from plstm_graph.grid.gates import GridGates
from plstm_graph.grid.numba import walk
from plstm_graph.grid.numba.sequences import chain
from plstm_graph.ops.functional import once_differentiable
from plstm_graph.ops.numba.runtime import arrays, torch_threads


class Matrices(torch.autograd.Function):
    """Gating matrices [B, H, Y * X, Y * X] of four directions and the direct gates."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, transition: Tensor, mark: Tensor, direct: Tensor) -> Tensor:
        gates = [x.contiguous() for x in (source, transition, mark, direct)]
        pixels = direct.size(2) * direct.size(3)
        result = source.new_empty(*direct.shape[:2], pixels, pixels)
        with torch_threads():
            walk.matrices(*arrays([*gates, result]))
        ctx.save_for_backward(*gates[:3])
        ctx.shape = direct.shape
        return result

    @staticmethod
    @once_differentiable("compiled forms have no second derivatives; use form='tiles'")
    def backward(ctx: Any, d_matrices: Tensor) -> tuple[Tensor, ...]:
        gates = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in gates]
        with torch_threads():
            walk.back(*arrays([*gates, d_matrices.contiguous(), *grads]))
        return *grads, d_matrices.diagonal(dim1=-2, dim2=-1).reshape(ctx.shape)


def image(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """See :func:`plstm_graph.grid.image`; one state an edge."""
    found: Tensor = Matrices.apply(*gates[:4])
    query, key, flat = (x.flatten(2, 3) for x in (query, key, value))
    return ((query @ key.transpose(-1, -2) * found) @ flat).view(value.shape)


__all__ = ["chain", "image"]

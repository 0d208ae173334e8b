"""Forms of images and chains by kernels, imported on first use."""

from typing import Any

import torch
from torch import Tensor

from plstm_graph.errors import BackendUnavailable
from plstm_graph.grid.gates import ChainGates, GridGates
from plstm_graph.ops import compiled

WIDEST = 64
"""Columns of an image whose walk still fits into the registers of a program."""
LARGEST = 128
"""Widths K and V that the kernels take."""


def refuses(query: Tensor, value: Tensor, gates: GridGates | ChainGates, *, unasked: bool = True) -> str | None:
    """Why the form ``triton`` cannot run an image, or, ``unasked``, should not; or None."""
    if gates.states > 1:
        return f"the kernels carry one state an edge, these gates have {gates.states}; use form='tiles'"
    if value.size(3) > WIDEST:
        return f"the kernels take images of up to {WIDEST} columns, this one has {value.size(3)}; use form='tiles'"
    if max(query.size(-1), value.size(-1)) > LARGEST:
        widths = f"{query.size(-1)} and {value.size(-1)}"
        return f"the kernels take K and V of up to {LARGEST}, got {widths}; use form='tiles'"
    if torch.compiler.is_compiling():
        return "torch.compile cannot look into the kernels of an image; use form='log', 'closed' or 'tiles'"
    return compiled.unavailable("triton", value.device, unasked)


def image(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """See :func:`plstm_graph.grid.image`."""
    why_not = refuses(query, value, gates, unasked=False)
    if why_not is not None:
        raise BackendUnavailable(f"form 'triton' cannot run here: {why_not}")
    from plstm_graph.grid import triton

    kernels: Any = triton
    if gates.source.dim() == 7:  # with an axis of the one state
        gates = gates._replace(
            source=gates.source[..., 0], transition=gates.transition[..., 0, 0], mark=gates.mark[..., 0]
        )
    found: Tensor = kernels.image(query, key, value, gates)
    return found

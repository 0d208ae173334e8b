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
    """Why the form ``triton`` cannot run an image or a chain, or, ``unasked``, should not; or None."""
    other = "tiles" if isinstance(gates, GridGates) else "chunks"
    widths = query.size(-1), value.size(-1)
    if gates.states > 1:
        return f"the kernels carry one state an edge, these gates have {gates.states}; use form={other!r}"
    if isinstance(gates, GridGates) and value.size(3) > WIDEST:
        return f"the kernels take images of up to {WIDEST} columns, this one has {value.size(3)}; use form={other!r}"
    if max(widths) > LARGEST:
        return f"the kernels take K and V of up to {LARGEST}, got {widths[0]} and {widths[1]}; use form={other!r}"
    if torch.compiler.is_compiling():
        return f"torch.compile cannot look into these kernels; use form={other!r}"
    return compiled.unavailable("triton", value.device, unasked)


def _kernels(query: Tensor, value: Tensor, gates: GridGates | ChainGates) -> Any:
    """The module of the kernels, if they can run."""
    why_not = refuses(query, value, gates, unasked=False)
    if why_not is not None:
        raise BackendUnavailable(f"form 'triton' cannot run here: {why_not}")
    from plstm_graph.grid import triton

    return triton


def image(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """See :func:`plstm_graph.grid.image`."""
    kernels = _kernels(query, value, gates)
    if gates.source.dim() == 7:  # with an axis of the one state
        source, transition, mark = gates.source[..., 0], gates.transition[..., 0, 0], gates.mark[..., 0]
        gates = gates._replace(source=source, transition=transition, mark=mark)
    found: Tensor = kernels.image(query, key, value, gates)
    return found


def chain(query: Tensor, key: Tensor, value: Tensor, gates: ChainGates, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """See :func:`plstm_graph.grid.chain`; the state is [B, H, J, K, V], also where J = 1."""
    kernels = _kernels(query, value, gates)
    if gates.source.dim() == 4:
        source, transition, mark = gates.source[..., 0], gates.transition[..., 0, 0], gates.mark[..., 0]
        gates = gates._replace(source=source, transition=transition, mark=mark)
    found: tuple[Tensor, Tensor] = kernels.chain(query, key, value, gates, None if state is None else state.squeeze(2))
    return found[0], found[1].unsqueeze(2)

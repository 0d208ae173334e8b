"""Forms of images and chains by kernels and loops, imported on first use."""

from typing import Any

import torch
from torch import Tensor

from plstm_graph.errors import BackendUnavailable
from plstm_graph.grid.gates import ChainGates, GridGates, P
from plstm_graph.ops import compiled
from plstm_graph.ops.registered import register

WIDEST = 64
"""Columns of an image whose walk still fits into the registers of a GPU's program."""
LARGEST = 128
"""Widths K and V that the kernels take."""
DENSE = {"triton": 4096, "numba": 1600}
"""Pixels up to which a form takes an image: its gating matrix lies in memory."""
UNASKED = 1600, 32
"""Pixels and columns up to which the form ``triton`` is taken unasked: its time grows with the square of the pixels,
and to compile its loops over columns takes half a minute at 32 and minutes at 64; tiles take 16 seconds at any size."""
TILES = "triton_tiles"
"""The form of large images; what it runs with is Triton, too."""


def unfit(
    name: str, query: Tensor, value: Tensor, gates: GridGates | ChainGates, *, unasked: bool = False
) -> str | None:
    """Why a compiled form does not take tensors of such sizes (or, ``unasked``, should not), or None."""
    is_image = isinstance(gates, GridGates)
    other = "tiles" if is_image else "chunks"
    widths = query.size(-1), value.size(-1)
    if gates.states > 1 and (is_image or name != "numba"):
        return f"it carries one state an edge, these gates have {gates.states}; use form={other!r}"
    if is_image and name in DENSE:
        rows, columns = value.shape[2:4]
        larger = TILES if name == "triton" else other
        if rows * columns > DENSE[name]:
            return f"it takes images of up to {DENSE[name]} pixels, this one has {rows * columns}; use form={larger!r}"
        if name == "triton" and columns > WIDEST:
            return f"it takes images of up to {WIDEST} columns, this one has {columns}; use form={larger!r}"
        if name == "triton" and unasked and (rows * columns > UNASKED[0] or columns > UNASKED[1]):
            return f"an image of {rows} x {columns} is better off with form={larger!r}"
    if name != "numba" and max(widths) > LARGEST:
        return f"it takes K and V of up to {LARGEST}, got {widths[0]} and {widths[1]}; use form={other!r}"
    return None


def refuses(
    name: str, query: Tensor, value: Tensor, gates: GridGates | ChainGates, *, unasked: bool = True
) -> str | None:
    """Why a compiled form cannot run an image or a chain, or, ``unasked``, should not; or None."""
    why_not = unfit(name, query, value, gates, unasked=unasked)
    if why_not is not None:
        return why_not
    is_image = isinstance(gates, GridGates)
    opaque = name != "numba" and is_image  # to torch.compile it is one op, see below
    if (torch.compiler.is_compiling() and not opaque) or torch._C._are_functorch_transforms_active():
        other = "tiles" if is_image else "chunks"
        return f"torch.compile, torch.export and torch.func cannot look into it; use form={other!r}"
    return compiled.unavailable("triton" if name == TILES else name, value.device, unasked)


def _loaded(name: str, query: Tensor, value: Tensor, gates: GridGates | ChainGates) -> Any:
    """The module of a form that can run."""
    why_not = refuses(name, query, value, gates, unasked=False)
    if why_not is not None:
        raise BackendUnavailable(f"form {name!r} cannot run here: {why_not}")
    module: Any
    if name == "numba":
        from plstm_graph.grid import numba as module
    else:
        from plstm_graph.grid import triton as module
    return module.large if name == TILES else module


def image(name: str, query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """See :func:`plstm_graph.grid.image`."""
    gates = gates.narrowed()
    if torch.compiler.is_compiling() and refuses(name, query, value, gates, unasked=False) is None:
        # The kernels want them contiguous: so does then what makes them, and nothing is copied in either pass.
        source, transition, mark, direct, mode = gates
        transition = transition if mode == P else transition.contiguous()
        return _as_an_op(
            query, key, value, source.contiguous(), transition, mark.contiguous(), direct.contiguous(), mode, name
        )
    module = _loaded(name, query, value, gates)
    found: Tensor = module.image(query, key, value, gates)
    return found


def chain(
    name: str, query: Tensor, key: Tensor, value: Tensor, gates: ChainGates, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See :func:`plstm_graph.grid.chain`; the state is [B, H, J, K, V], also where J = 1."""
    module = _loaded(name, query, value, gates)
    if name == "numba":  # its loops have J states
        found: tuple[Tensor, Tensor] = module.chain(query, key, value, gates.widened(), state)
        return found
    output, end = module.chain(query, key, value, gates.narrowed(), None if state is None else state.squeeze(2))
    return output, end.unsqueeze(2)


# What torch.compile sees of the kernels of an image: an op whose shapes are known.

_INPUTS = (
    ", ".join(f"Tensor {name}" for name in ("query", "key", "value", *GridGates._fields[:4])) + ", str mode, str form"
)


def _as_an_op(*inputs: Any) -> Tensor:
    found: Tensor = torch.ops.plstm_graph.image(*inputs)
    return found


def _kernels(form: str) -> Any:
    from plstm_graph.grid import triton

    return triton.large if form == TILES else triton.images


def _forward(*inputs: Any) -> Tensor:
    *given, form = inputs
    found: Tensor = _kernels(form).forward(*given)
    return found


def _backward(d_y: Tensor, *inputs: Any) -> list[Tensor]:
    *given, form = inputs
    return [gradient.contiguous() for gradient in _kernels(form).backward(d_y, *given)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.mode, ctx.form = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
    return *torch.ops.plstm_graph.image_backward(d_y, *ctx.saved_tensors, ctx.mode, ctx.form), None, None


def _fake_forward(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
    return value.new_empty(value.shape)


def _fake_backward(d_y: Tensor, *inputs: Any) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in inputs[:-2]]


register("image", f"({_INPUTS}) -> Tensor", _forward, _fake_forward, keep=_keep, gradients=_gradients)
register("image_backward", f"(Tensor d_y, {_INPUTS}) -> Tensor[]", _backward, _fake_backward)

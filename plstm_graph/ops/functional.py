"""What the compiled backends have of derivatives: under the transforms of torch.func grad, vjp, jacrev and vmap; of
gradients none.

Transforms hand out wrapped tensors, which kernels and loops cannot read, so the backward pass is a Function of its own
here, and nothing but tensors passes from one to the other. Heads are independent of each other: a batch of vmap is so
many heads more.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from plstm_graph.gates import Gates

F = TypeVar("F", bound=Callable[..., Any])

NO_SECOND = "compiled backends have no second derivatives; use backend='scatter' or 'dense'"
NO_FORWARD = "compiled backends have no forward-mode derivatives (jvp, jacfwd); use backend='scatter' or 'dense'"


def transforming() -> bool:
    """Tell whether a transform of torch.func is at work, by the same test as ``torch.autograd.Function.apply``."""
    return bool(torch._C._are_functorch_transforms_active())


class Reverse(torch.autograd.Function):
    """A Function without forward mode that says so."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(NO_FORWARD)


class Last(torch.autograd.Function):
    """Gradients as they are, which have none of their own: the first ``count`` tensors.

    The rest is what they are made of. By these the engine gets here whatever it differentiates by: where it is told by
    what, it leaves out all that does not lead there, and the terms would be missing without a word.
    """

    @staticmethod
    def forward(ctx: Any, message: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.message = message
        return tuple(grad.view_as(grad) for grad in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(ctx.message)


class _ReadOnce:
    """A context whose saved tensors may be asked for again: within a checkpoint PyTorch gives them once."""

    def __init__(self, ctx: Any) -> None:
        vars(self).update(_ctx=ctx, saved_tensors=ctx.saved_tensors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._ctx, name, value)


def once_differentiable(message: str) -> Callable[[F], F]:
    """Refuse gradients of gradients with this message, also where PyTorch's decorator of this name takes them for zero:
    where the output enters the loss linearly, and in ``torch.autograd.grad`` by some tensors, as ``hessian`` asks; at
    no cost where nobody asks for any."""

    def guard(backward: F) -> F:
        @wraps(backward)
        def guarded(ctx: Any, *grads: Tensor) -> Any:
            if not torch.is_grad_enabled():
                return backward(ctx, *grads)
            read = _ReadOnce(ctx)
            with torch.no_grad():
                found = backward(read, *grads)
            made = [x.detach().requires_grad_() for x in found if x is not None]
            of = (x for x in (*grads, *read.saved_tensors) if x is not None)
            there = iter(Last.apply(message, len(made), *made, *of))
            return tuple(x if x is None else next(there) for x in found)

        return cast(F, guarded)

    return guard


class Propagate(Reverse):
    """(backend, reversed, plan, query, key, value, four gates) -> output; ``backend`` as in ``compiled.py``."""

    @staticmethod
    def forward(backend: Any, reversed: bool, plan: Any, *inputs: Tensor) -> Tensor:
        query, key, value, *gates = inputs
        output: Tensor = backend.forward(query, key, value, Gates(*gates), plan, reversed)[0]
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.call = inputs[:3]
        ctx.save_for_backward(*inputs[3:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, None, None, *PropagateBack.apply(*ctx.call, *ctx.saved_tensors, grad.contiguous())

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return Propagate.apply(*arguments[:3], *as_heads(info.batch_size, in_dims[3:], arguments[3:])).unflatten(
            1, (info.batch_size, -1)
        ), 1


class PropagateBack(Reverse):
    """(backend, reversed, plan, query, key, value, four gates, gradient of the output) -> seven gradients."""

    @staticmethod
    def forward(backend: Any, reversed: bool, plan: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        query, key, value, *gates, grad = inputs
        return tuple(backend.backward(query, key, value, Gates(*gates), plan, reversed, grad, None))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None: ...

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(NO_SECOND)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        found = PropagateBack.apply(*arguments[:3], *as_heads(info.batch_size, in_dims[3:], arguments[3:]))
        return tuple(x.unflatten(1, (info.batch_size, -1)) for x in found), len(found) * (1,)


def as_heads(size: int, in_dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """A batch of vmap as heads: tensors [n, H, ...], of which some have a dimension of length ``size`` more, at their
    ``in_dims``, to [n, size * H, ...]."""
    batched = (
        x.unsqueeze(1).expand(-1, size, *x.shape[1:]) if dim is None else x.movedim(dim, 1)
        for x, dim in zip(tensors, in_dims, strict=True)
    )
    return [x.flatten(1, 2).contiguous() for x in batched]

"""The operator as one registered op, forward and backward, for the backends that are compiled: Triton's and numba's.

Both read tables (:class:`plstm_graph.line_dag.plan.Plan`) rather than a LineDAG and save nothing for the backward pass
but their inputs and a ``call`` that spares it some work; without one, states are found again. ``torch.compile`` sees
two opaque ops with known shapes.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from plstm_graph.errors import BackendUnavailable, missing_extra
from plstm_graph.gates import Gates
from plstm_graph.io.lazy import COMPILER, is_put_off
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.plan import EVERY, Plan, served_classes
from plstm_graph.ops import functional
from plstm_graph.ops.flat import Norm, Setting
from plstm_graph.ops.functional import NO_SECOND, Reverse, once_differentiable, transforming
from plstm_graph.ops.registered import register

F = TypeVar("F", bound=Callable[..., Any])


class Compiled(Protocol):
    """Functions of a module that is a compiled backend: the operator in one go, then the steps of a layer, see
    :mod:`plstm_graph.ops.layer`.

    A ``call`` is what a forward pass leaves for the backward pass, to spare it some work; it is used up by that. Gates
    of a layer and their gradients are in one tensor each, see :mod:`plstm_graph.ops.flat`; ``joined`` begins with
    query, key and value of each head side by side, [N, H * (2 * K + V) + ...].
    """

    @staticmethod
    def runs_here(device: torch.device, /) -> str | None:
        """Reason why it cannot run for tensors on a device, or None."""

    @staticmethod
    def tried_on(device: torch.device, /) -> bool:
        """Tell whether it has been run on such a device, or passes a test of itself; elsewhere it waits to be named."""

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool, /
    ) -> tuple[Tensor, Any]:
        """Output [N, H, V] and ``call``."""

    @staticmethod
    def backward(
        query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool, grad: Tensor, call: Any, /
    ) -> tuple[Tensor, ...]:
        """Seven gradients, from that of the output; ``call`` may be None."""

    @staticmethod
    def forward_gates(
        node_terms: Tensor, edge_terms: Tensor | None, bias: Tensor, plan: Plan, setting: Setting, /
    ) -> Tensor:
        """See :func:`plstm_graph.ops.triton.gates.forward_gates`."""

    @staticmethod
    def walk_along(gates: Tensor, values: int, plan: Plan, setting: Setting, /) -> Any:
        """``call``, and what of the operator needs nothing but gates; ``values`` is V."""

    @staticmethod
    def attend(
        call: Any, joined: Tensor, lin_bias: Tensor | None, gates: Tensor, norm: Norm, /
    ) -> tuple[Tensor, Tensor]:
        """Output of the operator, [N, H, V], and that after the norm. ``joined`` comes without ``lin_bias``, that of
        query, key and value; a backend may add it in place, and ``attend_back`` needs ``joined`` as it is left."""

    @staticmethod
    def attend_back(
        call: Any, joined: Tensor, lin_bias: Tensor | None, gates: Tensor, y: Tensor, grad: Tensor, norm: Norm, /
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients from ``joined`` as ``attend`` left it, its first output and the gradient of its second one: that of
        ``joined``, of which what is not query, key and value is not there yet; the tensor for those of the gates;
        parts of those of the norm's weight and, behind them, bias."""

    @staticmethod
    def walk_back(call: Any, gates: Tensor, d_gates: Tensor, /) -> None:
        """The gradients of the gates that are not there yet."""

    @staticmethod
    def backward_gates(
        gates: Tensor,
        d_gates: Tensor,
        plan: Plan,
        setting: Setting,
        d_joined: Tensor,
        d_edge: Tensor | None,
        parts: Tensor,
        /,
    ) -> tuple[Tensor, Tensor]:
        """See :func:`plstm_graph.ops.triton.gates.backward_gates`."""


def every_class(keys: int, values: int) -> int:
    """Count no graph as large, whatever K and V."""
    return EVERY


class Home(NamedTuple):
    """Place of a compiled backend, and what has to be known of it before it is imported.

    Attributes:
        module: holds what :class:`Compiled` says.
        device: type of the devices on which ``"auto"`` takes it.
        missing: what to do about a package that it lacks.
        half: it reads half precision as it is and accumulates in float32; others get float32.
        strided: it takes query, key and value whose rows lie apart; others get them contiguous.
        recorded: its launches can be recorded as a CUDA graph.
        served: how many size classes (see :mod:`plstm_graph.line_dag.plan`) it takes as small graphs, from K and V;
            graphs beyond are counted as large in the plans that it gets.
    """

    module: str
    device: str
    missing: str
    half: bool = False
    strided: bool = False
    recorded: bool = False
    served: Callable[[int, int], int] = every_class


HOMES: dict[str, Home] = {
    "numba": Home("plstm_graph.ops.numba", "cpu", missing_extra("numba", "cpu")),
    "triton": Home(
        "plstm_graph.ops.triton",
        "cuda",
        "triton is not installed (it comes with CUDA builds of torch)",
        half=True,
        strided=True,
        recorded=True,
        served=served_classes,
    ),
}
"""Compiled backends by name."""


@cache
def load(name: str) -> Compiled | str:
    """A compiled backend by name, or why it cannot be had. Importing one takes seconds, so it waits for first use."""
    module: Any
    try:
        module = import_module(HOMES[name].module)
    except ModuleNotFoundError:
        return HOMES[name].missing
    except Exception as error:  # built for another numpy, say
        return f"{name} does not load: {error}; mend it"
    found: Compiled = module
    return found


def _constant(function: F) -> F:
    """Tell torch's compiler that a function always gives the same, where it has a place in this process."""
    return function if is_put_off(COMPILER) else torch.compiler.assume_constant_result(function)


def compiled(name: str) -> Compiled:
    """A compiled backend that is known to run here."""
    backend = load(name)
    assert not isinstance(backend, str)
    return backend


@_constant
def unavailable(name: str, device: torch.device, unasked: bool = False) -> str | None:
    """Reason why a compiled backend cannot run for tensors on ``device`` in this process (or, ``unasked``, should not),
    or None."""
    backend = load(name)
    if isinstance(backend, str):
        return backend
    if torch.jit.is_tracing():
        return "torch.jit.trace records torch's own operations only"
    reason = backend.runs_here(device)
    if reason is None and unasked and not backend.tried_on(device):
        return f"{name} has not been tried on {device}, or failed there"
    return reason


def propagate(name: str, query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    """See :func:`plstm_graph.propagate`."""
    reason = unavailable(name, value.device)
    if reason is not None:
        raise BackendUnavailable(f"backend {name!r} cannot run: {reason}; use 'auto' or 'scatter'")
    # Loops over memory that is not contiguous would not be SIMD.
    vectors = (x if HOMES[name].strided and dense(x) else x.contiguous() for x in (query, key, value))
    inputs = (*vectors, *(gate.contiguous() for gate in gates))
    plan = dag.plan(HOMES[name].served(key.size(2), value.size(2)))
    if torch.compiler.is_compiling():
        return torch.ops.plstm_graph.propagate(name, dag.reversed, *inputs, list(plan))
    if transforming():
        return functional.Propagate.apply(compiled(name), dag.reversed, plan, *inputs)
    return Propagate.apply(name, dag.reversed, plan, *inputs)


def dense(x: Tensor) -> bool:
    """Tell whether kernels may take these [N, H, K] as they are: rows are contiguous and none lies on another."""
    node, head, one = x.stride()
    return one == 1 and head >= x.size(2) and node >= head * x.size(1)


def in_dtype(dtype: torch.dtype, x: Tensor) -> Tensor:
    """A call of ``to`` that changes nothing costs the host more than to ask."""
    return x if x.dtype == dtype else x.to(dtype)


class Propagate(Reverse):
    """(name, reversed, plan, query, key, value, four gates) -> output."""

    @staticmethod
    def forward(ctx: Any, name: str, reversed: bool, plan: Plan, *inputs: Tensor) -> Tensor:
        ctx.call = name, reversed, plan
        ctx.save_for_backward(*inputs)
        query, key, value, *gates = inputs
        output, ctx.passed = compiled(name).forward(query, key, value, Gates(*gates), plan, reversed)
        return output

    @staticmethod
    @once_differentiable(NO_SECOND)
    def backward(ctx: Any, grad: Tensor) -> Any:
        name, reversed, plan = ctx.call
        query, key, value, *gates = ctx.saved_tensors
        call, ctx.passed = ctx.passed, None  # used up; a second pass over the same graph goes without
        grad = grad.contiguous()
        found = compiled(name).backward(query, key, value, Gates(*gates), plan, reversed, grad, call)
        return None, None, None, *found


# What torch.compile sees instead: an op whose inputs are all its tensors, and which keeps nothing but those.


def _forward(name: str, reversed: bool, query: Tensor, key: Tensor, value: Tensor, *gates: Any) -> Tensor:
    *four, plan = gates
    return compiled(name).forward(query, key, value, Gates(*four), Plan(*plan), reversed)[0]


def _backward(name: str, reversed: bool, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> list[Tensor]:
    *four, plan, grad = rest
    gates = Gates(*four)
    return list(compiled(name).backward(query, key, value, gates, Plan(*plan), reversed, grad.contiguous(), None))


_INPUTS = "str name, bool reversed, Tensor query, Tensor key, Tensor value, " + ", ".join(
    f"Tensor {name}" for name in Gates._fields
)


def _fake_forward(name: str, reversed: bool, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype, device=value.device)


def _fake_backward(name: str, reversed: bool, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> list[Tensor]:
    return [torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device) for x in (query, key, value)] + [
        torch.empty_like(gate) for gate in rest[:4]
    ]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *ctx.call, query, key, value, source, transition, mark, direct, plan = inputs
    ctx.save_for_backward(query, key, value, source, transition, mark, direct, *plan)


def _gradients(ctx: Any, grad: Tensor) -> Any:
    tensors = ctx.saved_tensors
    found = torch.ops.plstm_graph.propagate_backward(*ctx.call, *tensors[:7], list(tensors[7:]), grad)
    return None, None, *found, len(tensors[7:]) * [None]


_GIVEN = f"{_INPUTS}, Tensor[] plan"
register("propagate", f"({_GIVEN}) -> Tensor", _forward, _fake_forward, keep=_keep, gradients=_gradients)
register("propagate_backward", f"({_GIVEN}, Tensor grad) -> Tensor[]", _backward, _fake_backward)

"""The operator as one registered op, forward and backward, for the backends that are compiled: Triton's and numba's.

Both read tables (:class:`plstm_graph.plan.Plan`) rather than a LineDAG, keep their inputs only, and find states again
in the backward pass. ``torch.compile`` sees two opaque ops with known shapes.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plstm_graph.errors import BackendUnavailable, ShapeError, missing_extra
from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG
from plstm_graph.plan import Plan, served_classes


class Compiled(NamedTuple):
    """A compiled backend.

    Attributes:
        forward: (query, key, value, gates, plan, reversed) -> output.
        backward: (query, key, value, gates, plan, reversed, gradient of the output) -> seven gradients.
        runs_here: why it cannot run for tensors on a device, or None.
    """

    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor, ...]]
    runs_here: Callable[[torch.device], str | None]


@cache
def load(name: str) -> Compiled | str:
    """A compiled backend by name, or why it cannot be had. Importing one takes seconds, so it waits for first use."""
    try:
        if name == "numba":
            from plstm_graph.ops import numba as module
        else:
            from plstm_graph.ops.triton import launch as module  # type: ignore[no-redef]
    except ModuleNotFoundError as error:
        if name == "numba":
            return missing_extra("numba", "cpu")
        return f"{error.name} is not installed (it comes with CUDA builds of torch)"
    except Exception as error:  # built for another numpy, say
        return f"{name} does not load: {error}; mend it"
    return Compiled(module.forward, module.backward, module.runs_here)


@torch.compiler.assume_constant_result
def unavailable(name: str, device: torch.device) -> str | None:
    """Why a compiled backend cannot run for tensors on ``device`` in this process, or None."""
    backend = load(name)
    return backend if isinstance(backend, str) else backend.runs_here(device)


def propagate(name: str, query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    """See :func:`plstm_graph.propagate`."""
    reason = unavailable(name, value.device)
    if reason is not None:
        raise BackendUnavailable(f"backend {name!r} cannot run: {reason}; use 'auto' or 'scatter'")
    # Loops over memory that is not contiguous would not be SIMD; kernels do not mind.
    vectors = (x if name == "triton" and dense(x) else x.contiguous() for x in (query, key, value))
    plan = dag.plan(served_classes(key.size(2), value.size(2)))
    return Propagate.apply(name, dag.reversed, *vectors, *(gate.contiguous() for gate in gates), *plan)


def dense(x: Tensor) -> bool:
    """Whether kernels may take these [N, H, K] as they are: rows are contiguous and none lies on another."""
    node, head, one = x.stride()
    return one == 1 and head >= x.size(2) and node >= head * x.size(1)


def runs_fused(projected: Tensor, backend: str) -> bool:
    """Whether a layer may run as one: with the kernels of the ``triton`` backend, which ``auto`` takes on a GPU."""
    wanted = backend == "triton" or (backend == "auto" and projected.is_cuda)
    return wanted and unavailable("triton", projected.device) is None


def fused_layer(
    projected: Tensor,
    node_terms: Tensor,
    edge_terms: Tensor | None,
    gate_bias: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dag: LineDAG,
    heads: int,
    keys: int,
    mode: str,
    eps: float,
    concat: bool,
) -> Tensor:
    """A layer behind its linear maps, see :mod:`plstm_graph.ops.triton.layer`. ``dag`` as it is read.

    Raises:
        ShapeError: edge terms that are not one row per column of the caller's ``edge_index``, or per merged edge.
    """
    from plstm_graph.ops.triton.layer import Setting, layer

    rows = dag.num_edges if dag.merged else dag.column.numel()
    if edge_terms is not None and edge_terms.size(0) != rows:
        raise ShapeError(
            f"one row per column of edge_index is needed, {rows}, got {edge_terms.size(0)}; "
            "was the dag built from another edge_index?"
        )
    setting = Setting(heads, keys, mode, dag.reversed, dag.merged, eps, concat)
    plan = dag.plan(served_classes(keys, weight.size(1)))
    return layer(projected, node_terms, edge_terms, gate_bias, weight, bias, plan, setting)


class Propagate(torch.autograd.Function):
    """(name, reversed, query, key, value, four gates, eight tables) -> output."""

    @staticmethod
    def forward(ctx: Any, name: str, reversed: bool, *tensors: Tensor) -> Tensor:
        ctx.name, ctx.reversed = name, reversed
        ctx.save_for_backward(*tensors)
        run = torch.ops.plstm_graph.propagate if torch.compiler.is_compiling() else _forward
        return run(name, reversed, *tensors[:7], list(tensors[7:]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        tensors = ctx.saved_tensors
        run = torch.ops.plstm_graph.propagate_backward if torch.compiler.is_compiling() else _backward
        return None, None, *run(ctx.name, ctx.reversed, *tensors[:7], list(tensors[7:]), grads[0]), *8 * [None]


def _forward(name: str, reversed: bool, query: Tensor, key: Tensor, value: Tensor, *gates: Any) -> Tensor:
    backend = load(name)
    assert isinstance(backend, Compiled)
    *four, plan = gates
    return backend.forward(query, key, value, Gates(*four), Plan(*plan), reversed)


def _backward(name: str, reversed: bool, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> list[Tensor]:
    backend = load(name)
    assert isinstance(backend, Compiled)
    *four, plan, grad = rest
    return list(backend.backward(query, key, value, Gates(*four), Plan(*plan), reversed, grad.contiguous()))


_INPUTS = "str name, bool reversed, Tensor query, Tensor key, Tensor value, " + ", ".join(
    f"Tensor {name}" for name in Gates._fields
)
torch.library.define("plstm_graph::propagate", f"({_INPUTS}, Tensor[] plan) -> Tensor")
torch.library.define("plstm_graph::propagate_backward", f"({_INPUTS}, Tensor[] plan, Tensor grad) -> Tensor[]")
torch.library.impl("plstm_graph::propagate", ("CPU", "CUDA"), _forward)
torch.library.impl("plstm_graph::propagate_backward", ("CPU", "CUDA"), _backward)


@torch.library.register_fake("plstm_graph::propagate")
def _fake_forward(name: str, reversed: bool, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype, device=value.device)


@torch.library.register_fake("plstm_graph::propagate_backward")
def _fake_backward(name: str, reversed: bool, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> list[Tensor]:
    return [torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device) for x in (query, key, value)] + [
        torch.empty_like(gate) for gate in rest[:4]
    ]

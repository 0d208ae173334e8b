"""Recurrent form, level by level: each level is one contiguous slice of the pairs. Any device, double backward.

With torch-scatter installed, the sums of a level run over contiguous segments instead of through atomics.
"""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.pairs import LevelPlan
from plstm_graph.ops.functional import as_heads, transforming


@cache
def _segment_csr() -> Callable[..., Tensor] | None:
    """torch-scatter's sum over contiguous segments, where that package is installed and loads."""
    try:
        from torch_scatter import segment_csr
    except (ImportError, OSError):  # built for another torch, its library does not load
        return None
    return segment_csr


Way = Callable[[Tensor, Tensor, LineDAG], Tensor]
"""How to solve: sources [E, H, S], transitions [P, H] and the line graph as it is read -> states [E, H, S]."""


def sweep(state: Tensor, transition: Tensor, plan: LevelPlan) -> Tensor:
    """Carry states [E, H, S] along the pairs of a plan, level by level and in place; transitions [P, H]."""
    weight = transition.index_select(0, plan.pair).unsqueeze(-1)
    segment_csr = _segment_csr()
    for (start, end), (top, bottom) in zip(pairwise(plan.ptr), pairwise(plan.head_ptr), strict=True):
        carried = state.index_select(0, plan.prev[start:end]).mul_(weight[start:end])
        if segment_csr is None:
            state.index_add_(0, plan.next[start:end], carried)
        else:  # each head is met once: no two sums race for one row
            total = segment_csr(carried, plan.run[top : bottom + 1] - start, reduce="sum")
            state.index_add_(0, plan.head[top:bottom], total)
    return state


def by_level(right: Tensor, transition: Tensor, dag: LineDAG) -> Tensor:
    """Solve level by level."""
    return sweep(right.clone(), transition, dag.level_plan)


class Solve(torch.autograd.Function):
    """``(I - T)⁻¹ B``. The adjoint is the same solve on the reversed line graph, so it differentiates itself, in both
    modes and under all transforms of torch.func."""

    @staticmethod
    def forward(right: Tensor, transition: Tensor, dag: LineDAG, way: Way = by_level) -> Tensor:
        """Solve for the states.

        Args:
            right: B, [E, H, D].
            transition: [P, H].
            dag: the line graph as it is read.
            way: how to solve.

        Returns:
            State of every edge, [E, H, D].
        """
        return way(right, transition, dag)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, transition, ctx.dag, ctx.way = inputs
        ctx.save_for_backward(transition, output)
        ctx.save_for_forward(transition, output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        """``B̄ = (I - Tᵀ)⁻¹ C̄`` and ``T̄_p = ⟨B̄_next(p), C_prev(p)⟩``."""
        transition, state = ctx.saved_tensors
        adjoint = Solve.apply(grads[0], transition, ctx.dag.reverse(), ctx.way)
        if not ctx.needs_input_grad[1]:
            return adjoint, None, None, None
        dag = ctx.dag
        inner = adjoint.index_select(0, dag.next) * state.index_select(0, dag.prev)
        return adjoint, inner.sum(-1), None, None

    @staticmethod
    def jvp(ctx: Any, right: Tensor | None, transition: Tensor | None, *_: None) -> Any:
        """``Ċ = (I - T)⁻¹ (Ḃ + Ṫ C)``, from the tangents."""
        weight, state = ctx.saved_tensors
        dag = ctx.dag
        moved = torch.zeros_like(state) if right is None else right
        if transition is not None:
            carried = state.index_select(0, dag.prev) * transition.unsqueeze(-1)
            moved = moved.index_add(0, dag.next, carried)
        return Solve.apply(moved, weight, dag, ctx.way)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], right: Tensor, transition: Tensor, dag: LineDAG, way: Way) -> Any:
        """A batch is so many heads more."""
        heads = as_heads(info.batch_size, in_dims[:2], (right, transition))
        return Solve.apply(*heads, dag, way).unflatten(1, (info.batch_size, -1)), 1


def recurrent(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG, way: Way = by_level) -> Tensor:
    """The operator by the states of edges, which are solved for in some way."""
    fed = key.index_select(0, dag.src) * gates.source.unsqueeze(-1)
    right = fed.unsqueeze(-1) * value.index_select(0, dag.src).unsqueeze(-2)
    state = Solve.apply(right.flatten(2), gates.transition, dag, way).view(right.shape)
    read = query.index_select(0, dag.dst) * gates.mark.unsqueeze(-1)
    message = torch.matmul(read.unsqueeze(-2), state).squeeze(-2)
    itself = (gates.direct * (query * key).sum(-1)).unsqueeze(-1) * value
    return itself.index_add(0, dag.dst, message)


def propagate(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    """See :func:`plstm_graph.propagate`. Keeps the E·H·K·V states for the backward pass."""
    return recurrent(query, key, value, gates, dag)


def propagate_recompute(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    """See :func:`plstm_graph.propagate`. Keeps its inputs only and computes the states again in the backward pass,
    but under torch.func, which knows no checkpoints."""
    if transforming():
        return recurrent(query, key, value, gates, dag)
    return checkpoint(recurrent, query, key, value, gates, dag, use_reentrant=False, preserve_rng_state=False)

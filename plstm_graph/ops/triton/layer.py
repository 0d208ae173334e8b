"""The layer behind its linear maps, as one node of autograd: gates, operator and norm, kernel after kernel.

The same numbers as PLSTMConv computes step by step, but nothing is copied between the steps: queries, keys and values
stay side by side in the projection, and so do their gradients. For the host, too, it is one step, which at a few
hundred molecules is most of the time.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plstm_graph.gates import Gates
from plstm_graph.ops.triton.gates import backward_gates, forward_gates
from plstm_graph.ops.triton.launch import Vectors, run_backward, run_forward
from plstm_graph.ops.triton.norm import backward_norm, forward_norm
from plstm_graph.plan import Plan


class Setting(NamedTuple):
    """What a layer is, beside its tensors.

    Attributes:
        heads, keys: H and K.
        mode: ``"P"`` or ``"D"``.
        reversed: read against the edges.
        gathered: edge terms have a row for each edge, not for each column.
        eps: of the norm.
        concat: heads side by side, else averaged.
    """

    heads: int
    keys: int
    mode: str
    reversed: bool
    gathered: bool
    eps: float
    concat: bool


def layer(
    projected: Tensor,
    node_terms: Tensor,
    edge_terms: Tensor | None,
    gate_bias: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plan: Plan,
    setting: Setting,
) -> Tensor:
    """Output of the layer, [N, H * V] or [N, V].

    Args:
        projected: query, key and value of each head side by side, [N, H * (2 * K + V)].
        node_terms, edge_terms, gate_bias: of the gates, see :func:`forward_gates`.
        weight, bias: of the norm [H, V] and the output [H * V] or [V].
        plan: for ``served_classes(K, V)`` classes, of the pruned line graph in D mode.
        setting: see :class:`Setting`.
    """
    return Layer.apply(setting, projected, node_terms, edge_terms, gate_bias, weight, bias, *plan)


class Layer(torch.autograd.Function):
    """See :func:`layer`."""

    @staticmethod
    def forward(ctx: Any, setting: Setting, *tensors: Any) -> Tensor:
        run: Any = torch.ops.plstm_graph.layer if torch.compiler.is_compiling() else _forward
        output, *kept = run(*setting, *tensors[:6], list(tensors[6:]))
        ctx.setting = setting
        ctx.save_for_backward(*tensors, *kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        tensors = ctx.saved_tensors
        run: Any = torch.ops.plstm_graph.layer_backward if torch.compiler.is_compiling() else _backward
        found = run(*ctx.setting, *tensors[:6], list(tensors[6:14]), list(tensors[14:]), grads[0])
        given = [i for i, x in enumerate(tensors[:6]) if x is not None]
        gradients: list[Tensor | None] = [None] * 6
        for place, gradient in zip(given, found, strict=True):
            gradients[place] = gradient
        return None, *gradients, *8 * [None]


def _forward(
    heads: int,
    keys: int,
    mode: str,
    reversed: bool,
    gathered: bool,
    eps: float,
    concat: bool,
    projected: Tensor,
    node_terms: Tensor,
    edge_terms: Tensor | None,
    gate_bias: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tables: list[Tensor],
) -> list[Tensor]:
    """Output, then what the backward pass needs: the operator's output, the gates and, in P mode, their totals."""
    plan = Plan(*tables)
    gates, total = forward_gates(node_terms, edge_terms, gate_bias, plan, mode, reversed, gathered)
    vectors = Vectors.together(projected, heads, keys)
    y = torch.empty(projected.size(0), heads, vectors.values, dtype=projected.dtype, device=projected.device)
    run_forward(vectors, gates, plan, reversed, y)
    output = forward_norm(y, weight, bias, eps, concat)
    return [output, y, *gates] + ([] if total is None else [total])


def _backward(
    heads: int,
    keys: int,
    mode: str,
    reversed: bool,
    gathered: bool,
    eps: float,
    concat: bool,
    projected: Tensor,
    node_terms: Tensor,
    edge_terms: Tensor | None,
    gate_bias: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tables: list[Tensor],
    kept: list[Tensor],
    grad: Tensor,
) -> list[Tensor]:
    """Gradients of the tensors that are there, from ``projected`` to ``bias``."""
    plan, gates = Plan(*tables), Gates(*kept[1:5])
    total = kept[5] if mode == "P" else None
    d_y, d_weight, d_bias = backward_norm(grad, kept[0], weight, eps, concat, bias is not None)
    d_projected = torch.empty_like(projected)
    d_gates = Gates(*(torch.empty_like(gate) for gate in gates))
    vectors, d_vectors = (Vectors.together(x, heads, keys) for x in (projected, d_projected))
    run_backward(vectors, gates, plan, reversed, d_y, d_vectors, d_gates)
    edge_dtype = None if edge_terms is None else edge_terms.dtype
    columns = 0 if edge_terms is None else edge_terms.size(0)
    d_node, d_edge, d_gate_bias = backward_gates(
        gates, total, d_gates, plan, mode, reversed, node_terms.dtype, edge_dtype, columns, gathered
    )
    found = [d_projected, d_node, d_edge, d_gate_bias.to(gate_bias.dtype), d_weight.to(weight.dtype)]
    if bias is not None:
        found.append(None if d_bias is None else d_bias.to(bias.dtype))
    return [x for x in found if x is not None]


_SETTING = "int heads, int keys, str mode, bool reversed, bool gathered, float eps, bool concat"
_TENSORS = "Tensor projected, Tensor node_terms, Tensor? edge_terms, Tensor gate_bias, Tensor weight, Tensor? bias"
_KEPT = f"{_SETTING}, {_TENSORS}, Tensor[] tables"
torch.library.define("plstm_graph::layer", f"({_KEPT}) -> Tensor[]")
torch.library.define("plstm_graph::layer_backward", f"({_KEPT}, Tensor[] kept, Tensor grad) -> Tensor[]")
torch.library.impl("plstm_graph::layer", ("CPU", "CUDA"), _forward)
torch.library.impl("plstm_graph::layer_backward", ("CPU", "CUDA"), _backward)


@torch.library.register_fake("plstm_graph::layer")
def _fake_forward(*arguments: Any) -> list[Tensor]:
    heads, keys, mode, *_, concat = arguments[:7]
    projected, node_terms, edge_terms, gate_bias, _, bias, tables = arguments[7:]
    plan = Plan(*tables)
    nodes, edges, pairs = plan.nodes.size(1), plan.edges.size(1), plan.pairs.size(1)
    values = projected.size(1) // heads - 2 * keys
    exact = any(x is not None and x.dtype == torch.float64 for x in (node_terms, edge_terms, gate_bias))
    dtype = projected.dtype if bias is None else torch.promote_types(projected.dtype, bias.dtype)

    def gate(rows: Any) -> Tensor:
        return projected.new_empty(rows, heads, dtype=torch.float64 if exact else torch.float32)

    output = projected.new_empty(nodes, heads * values if concat else values, dtype=dtype)
    y = projected.new_empty(nodes, heads, values)
    return [output, y, gate(edges), gate(pairs), gate(edges), gate(nodes)] + ([gate(edges)] if mode == "P" else [])


@torch.library.register_fake("plstm_graph::layer_backward")
def _fake_backward(*arguments: Any) -> list[Tensor]:
    return [torch.empty_like(x) for x in arguments[7:13] if x is not None]

"""PLSTMConv as one node of autograd: linear maps, gates, operator and norm, kernel after kernel.

The same numbers as :class:`plstm_graph.PLSTMConv` computes step by step, but nothing is copied between the steps:
queries, keys and values stay side by side in the projection, and so do their gradients. For the host, too, it is one
step, which at a few hundred molecules is most of the time.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plstm_graph.gates import EdgeTerm, NodeTerm
from plstm_graph.line_dag.plan import Plan
from plstm_graph.ops.compiled import Compiled, compiled, in_dtype
from plstm_graph.ops.flat import GATES, Norm, Setting, places
from plstm_graph.ops.functional import NO_SECOND, Reverse, once_differentiable
from plstm_graph.ops.registered import register


class Inputs(NamedTuple):
    """Tensors that a layer has gradients for.

    Attributes:
        x, edge_attr: features, [N, in_channels] and [M, edge_dim] or [E, edge_dim].
        lin: weight of queries, keys and values, side by side for each head, and of the nodes' terms of the gates,
            [H * (2 * K + V) + 8 * H, ...], in the order of :class:`NodeTerm`.
        lin_bias: of queries, keys and values, [H * (2 * K + V)].
        lin_edge: weight of the edges' terms of the gates, [4 * H, ...], in the order of :class:`EdgeTerm`.
        gate_bias: [4, H], in the order of :class:`Gates`.
        norm: weight of the norm, [H, V].
        bias: of the output, [H * V] or [V].
    """

    x: Tensor
    edge_attr: Any  # or None, as three more
    lin: Tensor
    lin_bias: Any
    lin_edge: Any
    gate_bias: Tensor
    norm: Tensor
    bias: Any

    def mapped_in(self, dtype: torch.dtype) -> "Inputs":
        """Cast all that enters products to another dtype, but for float64, which autocast leaves alone."""
        named = {name: getattr(self, name) for name in MAPPED}
        return self._replace(
            **{name: x.to(dtype) for name, x in named.items() if x is not None and x.dtype != torch.float64}
        )

    def side_by_side(self) -> "Inputs":
        """Make parameters contiguous that kernels and loops read number by number."""
        named = {name: getattr(self, name) for name in SUMS}
        apart = {name: x.contiguous() for name, x in named.items() if x is not None and not x.is_contiguous()}
        return self._replace(**apart) if apart else self


MAPPED = ("x", "edge_attr", "lin", "lin_edge")
"""Inputs that enter products. Biases do not: in half precision, their gradients would overflow in a large batch."""
SUMS = ("lin_bias", "gate_bias", "norm", "bias")
"""Inputs whose gradients are sums over all nodes and may share memory, which outputs of a registered op may not."""


class Kept(NamedTuple):
    """Tensors that the backward pass needs besides: what ``lin`` makes of the nodes, with the bias or without, as the
    backend likes; the operator's output; and the gates, see ``flat.py``."""

    joined: Tensor
    y: Tensor
    gates: Tensor


def layer(setting: Setting, inputs: Inputs, plan: Plan) -> Tensor:
    """Output of the layer, [N, H * V] or [N, V]. Linear maps obey autocast.

    ``plan``: for ``served_classes(K, V)`` classes, of the pruned line graph in D mode.
    """
    inputs = inputs.side_by_side()
    kind = inputs.x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    if torch.compiler.is_compiling():
        inputs = inputs if dtype is None else inputs.mapped_in(dtype)
        return torch.ops.plstm_graph.layer(*setting, *inputs, list(plan))[0]
    return Layer.apply(setting, plan, dtype, *inputs)


class Layer(Reverse):
    """(setting, plan, dtype of the linear maps or None for their own, inputs) -> output."""

    @staticmethod
    def forward(ctx: Any, setting: Setting, plan: Plan, dtype: torch.dtype | None, *tensors: Any) -> Tensor:
        inputs = Inputs(*tensors)
        if dtype is not None:
            ctx.dtypes = [None if x is None else x.dtype for x in inputs]
            inputs = inputs.mapped_in(dtype)
        ctx.call = setting, plan, dtype
        output, kept, ctx.passed = forward(compiled(setting.backend), setting, inputs, plan)
        ctx.save_for_backward(*inputs, *kept)
        return output

    @staticmethod
    @once_differentiable(NO_SECOND)
    def backward(ctx: Any, grad: Tensor) -> Any:
        setting, plan, dtype = ctx.call
        saved, count = ctx.saved_tensors, len(Inputs._fields)
        inputs, kept = Inputs(*saved[:count]), Kept(*saved[count:])
        call, ctx.passed = ctx.passed, None  # used up; a second pass over the same graph goes without
        wanted = ctx.needs_input_grad[3:]
        found = backward(compiled(setting.backend), setting, inputs, plan, kept, grad, call, wanted)
        if dtype is not None:
            found = tuple(x if x is None else x.to(own) for x, own in zip(found, ctx.dtypes, strict=True))
        return None, None, None, *found


def forward(kernels: Compiled, setting: Setting, inputs: Inputs, plan: Plan) -> tuple[Tensor, Kept, Any]:
    """Output, what the backward pass needs, and what spares it some work."""
    x, edge_attr, lin, lin_bias, lin_edge, gate_bias, weight, bias = inputs
    edge_terms = None if edge_attr is None else torch.mm(edge_attr, lin_edge.t())
    joined, terms = torch.mm(x, lin.t()), len(NodeTerm) * setting.heads
    node_terms = joined.narrow(1, lin.size(0) - terms, terms)
    gates = kernels.forward_gates(node_terms, edge_terms, gate_bias, plan, setting)
    call = kernels.walk_along(gates, weight.size(1), plan, setting)
    y, output = kernels.attend(call, joined, lin_bias, gates, Norm(weight, bias, setting.eps, setting.concat))
    return output, Kept(joined, y, gates), call


def backward(
    kernels: Compiled,
    setting: Setting,
    inputs: Inputs,
    plan: Plan,
    kept: Kept,
    grad: Tensor,
    call: Any,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of the inputs that they are wanted of, which are inputs that are there, else None."""
    x, edge_attr, lin, lin_bias, lin_edge, gate_bias, weight, bias = inputs
    joined, y, gates = kept
    want = dict(zip(Inputs._fields, wanted, strict=True))
    if call is None:
        call = kernels.walk_along(gates, weight.size(1), plan, setting)
    norm = Norm(weight, bias, setting.eps, setting.concat)
    d_joined, d_gates, parts = kernels.attend_back(call, joined, lin_bias, gates, y, grad, norm)
    d_edge: Any = None
    if edge_attr is not None:
        # Edges without a column do not exist, and none shares it: with as many columns as edges, all are read.
        all_read = edge_attr.size(0) == plan.edges.size(1) and not plan.filled
        create = edge_attr.new_empty if all_read else edge_attr.new_zeros
        d_edge = create((edge_attr.size(0), len(EdgeTerm) * setting.heads))
    kernels.walk_back(call, gates, d_gates)
    sums, after = kernels.backward_gates(gates, d_gates, plan, setting, d_joined, d_edge, parts)
    gate_numbers, norm_numbers = gate_bias.numel(), weight.numel()
    return (
        torch.mm(d_joined, lin) if want["x"] else None,
        torch.mm(d_edge, lin_edge) if want["edge_attr"] else None,
        torch.mm(d_joined.t(), x) if want["lin"] else None,
        in_dtype(lin_bias.dtype, sums[gate_numbers:]) if want["lin_bias"] else None,
        torch.mm(d_edge.t(), edge_attr) if want["lin_edge"] else None,
        in_dtype(gate_bias.dtype, sums[:gate_numbers].view(gate_bias.shape)) if want["gate_bias"] else None,
        in_dtype(weight.dtype, after[:norm_numbers].view(weight.shape)) if want["norm"] else None,
        in_dtype(bias.dtype, after[norm_numbers:]) if want["bias"] else None,
    )


# What torch.compile sees instead: an op whose inputs are all its tensors, and which keeps nothing but tensors.


def _forward(*arguments: Any) -> list[Tensor]:
    setting, inputs, (plan,) = _split(arguments)
    output, kept, _ = forward(compiled(setting.backend), setting, inputs, Plan(*plan))
    return [output, *kept]


def _backward(*arguments: Any) -> list[Tensor]:
    setting, inputs, (plan, kept, grad, wanted) = _split(arguments)
    found = backward(compiled(setting.backend), setting, inputs, Plan(*plan), Kept(*kept), grad, None, wanted)
    named = zip(Inputs._fields, found, strict=True)
    return [x.clone() if name in SUMS else x for name, x in named if x is not None]


def _split(arguments: tuple[Any, ...]) -> tuple[Setting, Inputs, tuple[Any, ...]]:
    first, second = len(Setting._fields), len(Setting._fields) + len(Inputs._fields)
    return Setting(*arguments[:first]), Inputs(*arguments[first:second]), arguments[second:]


_SETTING = (
    "str backend, int heads, int keys, str mode, str transition, bool reversed, bool gathered, float eps, bool concat"
)
_OPTIONAL = ("edge_attr", "lin_bias", "lin_edge", "bias")
_INPUTS = ", ".join(f"Tensor{'?' * (name in _OPTIONAL)} {name}" for name in Inputs._fields)
_GIVEN = f"{_SETTING}, {_INPUTS}, Tensor[] plan"


def _fake_forward(*arguments: Any) -> list[Tensor]:
    setting, inputs, (tables,) = _split(arguments)
    plan, heads, x = Plan(*tables), setting.heads, inputs.x
    nodes, values = x.size(0), inputs.norm.size(1)
    terms = [x.dtype, inputs.gate_bias.dtype, torch.float32]
    terms += [] if inputs.edge_attr is None else [inputs.edge_attr.dtype]
    gates = reduce(torch.promote_types, terms)
    dtype = x.dtype if inputs.bias is None else torch.promote_types(x.dtype, inputs.bias.dtype)
    return [
        x.new_empty(nodes, heads * values if setting.concat else values, dtype=dtype),
        x.new_empty(nodes, inputs.lin.size(0)),
        x.new_empty(nodes, heads, values),
        x.new_empty(places(plan, heads)[GATES], dtype=gates),
    ]


def _fake_backward(*arguments: Any) -> list[Tensor]:
    _, inputs, (*_, wanted) = _split(arguments)
    return [x.new_empty(x.shape) for x, here in zip(inputs, wanted, strict=True) if here]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.setting, given, (plan,) = _split(inputs)
    ctx.plan = len(plan)
    ctx.save_for_backward(*given, *plan, *output[1:])


def _gradients(ctx: Any, grads: list[Tensor]) -> Any:
    first, second = len(Inputs._fields), len(Inputs._fields) + ctx.plan
    saved = ctx.saved_tensors
    given, plan, kept = saved[:first], list(saved[first:second]), list(saved[second:])
    wanted = list(ctx.needs_input_grad[len(Setting._fields) :][:first])
    found = iter(torch.ops.plstm_graph.layer_backward(*ctx.setting, *given, plan, kept, grads[0], wanted))
    gradients = (next(found) if here else None for here in wanted)
    return *len(Setting._fields) * (None,), *gradients, ctx.plan * [None]


_BACK = "Tensor[] kept, Tensor grad, bool[] wanted"
register("layer", f"({_GIVEN}) -> Tensor[]", _forward, _fake_forward, keep=_keep, gradients=_gradients)
register("layer_backward", f"({_GIVEN}, {_BACK}) -> Tensor[]", _backward, _fake_backward)

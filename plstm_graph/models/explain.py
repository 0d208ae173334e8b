"""Explain: what every node, every edge and every pair of nodes adds to the output of a graph model.

Two readings of one output f, each a sum that has to come out:

- **Nodes.** Integrated gradients (Sundararajan et al. 2017) from the blank graph, whose node and edge encodings are
  zero: scores of nodes and edges add up to f(graph) - f(blank). They count all that the model does.
- **Flows.** A pLSTM layer is linear in its values given its gates: ``out_n = bias + Σ_m c[n, m]`` with
  ``c[n, m] = norm_n · G[n, m] (q_n · k_m) v_m``, where G is the gating matrix of eq. 7 (:func:`plstm_graph.influence`)
  and ``norm_n`` the factor of the norm at n. So what the layer delivers to n splits exactly into what came from each m,
  by whatever paths. Integrated gradients over the outputs of all layers at once, from silence (``bias`` alone) to what
  they are, weigh these parts: flows add up to f(graph) - f(silent). They count what the layers carried, and a layer's
  own part only: what a later layer makes of it is that layer's.

The factor of the norm is held fixed in the split, since a norm undoes every scale: against the gradient in front of it
the parts that reach a node would always add up to zero.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from plstm_graph.errors import ConfigError
from plstm_graph.gates import MODES, view
from plstm_graph.line_dag import LineDAG
from plstm_graph.models.graph import GraphModel
from plstm_graph.nn.block import PLSTMBlock
from plstm_graph.nn.conv import PLSTMConv
from plstm_graph.ops.influence import influence

DIRECTIONS = ("along", "against")
"""Reading directions, by ``reverse``."""

STEPS = 64
"""Points of an integral."""


class Parts(NamedTuple):
    """The output of a :class:`PLSTMConv` on one graph, split by where it comes from, head by head.

    ``out_n = bias + Σ_m weight[:, n, m] · factor_n · value_m``, heads concatenated or averaged as the layer does.

    Attributes:
        weight: gating matrix times queries and keys, [H, N, N]; row n is reached by column m.
        value: [N, H, V].
        factor: of the norm and its weight, [N, H, V]; divided by H where the layer averages its heads.
        concat: of the layer.
    """

    weight: Tensor
    value: Tensor
    factor: Tensor
    concat: bool

    def output(self) -> Tensor:
        """What the parts add up to: the layer's output without its bias, [N, H · V] or [N, V]."""
        out = torch.einsum("hnm,mhv->nhv", self.weight, self.value) * self.factor
        return out.flatten(1) if self.concat else out.sum(1)

    def flow(self, gradient: Tensor) -> Tensor:
        """Each part's product with a gradient of the output: [N, H · V] or [N, V] -> [H, N, N].

        Summed over m and heads this is ``⟨output_n, gradient_n⟩``.
        """
        heads = gradient.view_as(self.factor) if self.concat else gradient.unsqueeze(1)
        return self.weight * torch.einsum("nhv,mhv->hnm", heads * self.factor, self.value)


def parts(conv: PLSTMConv, x: Tensor, edge_attr: Tensor | None = None, *, dag: LineDAG) -> Parts:
    """Split the output of a layer by where it comes from.

    Args:
        conv: the layer.
        x, edge_attr, dag: as for :meth:`PLSTMConv.forward`; ``dag`` of one graph.

    Raises:
        BackendUnavailable: the graph is too large for its gating matrices.
    """
    dag = view(dag, conv.mode, conv.reverse)
    projected, node_terms = conv.lin(x)
    query, key, value = conv._vectors(projected)
    gates = conv._gates(node_terms, edge_attr, dag)
    weight = influence(gates, dag)[0][0] * torch.einsum("nhk,mhk->hnm", query, key)
    factor = conv.norm.scale(torch.einsum("hnm,mhv->nhv", weight, value)) * conv.norm.weight
    return Parts(weight, value, factor if conv.concat else factor / conv.heads, conv.concat)


def as_sum(value: float, base: float, gap: float, name: str, rest: str, *, least: int = 0) -> str:
    """A sum as a reader checks it: every term with its sign, rounded so that those on paper add up.

    Args:
        value, base, gap: of an :class:`Explanation`; what the parts add is the rest.
        name: of the base.
        rest: of the parts.
        least: decimals; more where three figures of the largest term take them.
    """
    largest = max(abs(value), abs(base), abs(value - base)) or 1.0
    places = max(least, 2 - int(np.floor(np.log10(largest))))
    whole, first, missed = (round(number * 10**places) for number in (value, base, gap))
    terms = [(first, name), (whole - first - missed, rest), *([(missed, "gap")] if missed else [])]
    words = [f"{'−' if size < 0 else '+'} {what} {abs(size) / 10**places:.{places}f}" for size, what in terms[1:]]
    numbers = [f"{'−' if size < 0 else ''}{abs(size) / 10**places:.{places}f}" for size in (first, whole)]
    return f"{name} {numbers[0]} {' '.join(words)} = {numbers[1]}"


class Flow(NamedTuple):
    """What one layer carried: ``scores`` [H, N, N], from column m to row n, in units of the output."""

    layer: int
    mode: str
    direction: str
    scores: Tensor


@dataclass(frozen=True)
class Explanation:
    """An output and what it is made of, all in its own units and in float64.

    Attributes:
        value: f of the graph.
        blank: f of the same graph with all encodings of nodes and edges zero.
        silent: f of the graph when no pLSTM layer delivers anything.
        nodes: [N], what each node's encoding adds.
        edges: [M], the same for the columns of ``edge_index``.
        edge_index: [2, M].
        flows: one for each pLSTM layer, in the order in which they run.
    """

    value: float
    blank: float
    silent: float
    nodes: Tensor
    edges: Tensor
    edge_index: Tensor
    flows: list[Flow]

    @property
    def scores(self) -> Tensor:
        """Score of every node with half of each of its edges, [N]."""
        both = self.edge_index.flatten()
        return self.nodes.index_add(0, both, self.edges.repeat(2) / 2)

    def pairs(self, mode: str | None = None, direction: str | None = None) -> Tensor:
        """Flow from node m to node n in all layers of a mode and direction, all heads together: [N, N], row n."""
        chosen = [f for f in self.flows if mode in (None, f.mode) and direction in (None, f.direction)]
        return sum((f.scores.sum(0) for f in chosen), torch.zeros(2 * [len(self.nodes)], dtype=torch.float64))

    @property
    def readings(self) -> list[tuple[str, str]]:
        """Modes and directions that there are: P before D, along before against."""
        there = {(flow.mode, flow.direction) for flow in self.flows}
        return [(mode, direction) for mode in MODES for direction in DIRECTIONS if (mode, direction) in there]

    @property
    def gap(self) -> float:
        """How far the scores miss ``value - blank``: the error of the integral, 0 if it were exact."""
        return self.value - self.blank - float(self.scores.sum())

    @property
    def flow_gap(self) -> float:
        """How far the flows miss ``value - silent``."""
        return self.value - self.silent - float(self.pairs().sum())


def explain(model: GraphModel, graph: Data, output: Callable[[Tensor], Tensor], *, steps: int = STEPS) -> Explanation:
    """What the nodes, edges and flows of one graph add to an output of a graph model.

    Runs on the CPU in float64, on a copy of the model in evaluation mode.

    Args:
        model: with pLSTM layers.
        graph: one graph, after ``prepare``.
        output: from the model's output [graphs, outputs] to the number to explain, [graphs].
        steps: points of the integrals (Gauss and Legendre); with more of them :attr:`Explanation.gap` is smaller.

    Raises:
        ConfigError: the model has no pLSTM layer, or ``steps`` is below 1.
        BackendUnavailable: the graph is too large for its gating matrices.
    """
    if steps < 1:
        raise ConfigError(f"an integral needs at least one step, got {steps}")
    model = deepcopy(model).cpu().double().eval().requires_grad_(False)
    blocks = [block for block in model.modules() if isinstance(block, PLSTMBlock)]
    layers = [
        (number, conv) for number, block in enumerate(blocks) for conv in block.convs if isinstance(conv, PLSTMConv)
    ]
    if not layers:
        raise ConfigError(
            f"a model {model.config.model!r} has no pLSTM layer, so nothing flows; explain it with "
            "torch_geometric.explain, for example GNNExplainer"
        )
    for _, conv in layers:
        conv.backend = "scatter"  # runs anywhere, on graphs of any size, without compiling anything
    graph = graph.cpu().apply(lambda value: value.double() if value.is_floating_point() else value)
    copies = _Copies(model, graph, output, steps)

    value, calls = copies.record([model.encoder, *(conv for _, conv in layers)])
    nodes, edges = calls[model.encoder].out
    encoded = [nodes] if edges is None else [nodes, edges]
    blank, slopes = copies.integrate(
        lambda found: {model.encoder: (found[0], None if edges is None else found[1])},
        [torch.zeros_like(tensor) for tensor in encoded],
        encoded,
    )
    scores = [(slope * tensor).sum(-1) for slope, tensor in zip(slopes, encoded, strict=True)]

    convs = [conv for _, conv in layers]
    outs = [calls[conv].out for conv in convs]
    bases = [
        torch.zeros_like(out) if conv.bias is None else conv.bias.expand_as(out)
        for conv, out in zip(convs, outs, strict=True)
    ]
    silent, slopes = copies.integrate(lambda found: dict(zip(convs, found, strict=True)), bases, outs)
    flows = []
    for (number, conv), slope in zip(layers, slopes, strict=True):
        x, _, edge_attr = calls[conv].args
        split = parts(conv, x, edge_attr, dag=calls[conv].kwargs["dag"])
        flows.append(Flow(number, conv.mode, DIRECTIONS[conv.reverse], split.flow(slope)))
    columns = scores[1] if edges is not None else nodes.new_zeros(graph.edge_index.size(1))
    return Explanation(value, blank, silent, scores[0], columns, graph.edge_index, flows)


class _Call(NamedTuple):
    """What a module was given and what it returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any


class _Copies:
    """One graph many times over as one batch: copy i has ``place[i]`` of the way from a base to the graph behind it."""

    def __init__(self, model: GraphModel, graph: Data, output: Callable[[Tensor], Tensor], steps: int) -> None:
        place, weight = np.polynomial.legendre.leggauss(steps)  # from -1 to 1
        self.place = torch.tensor([0.0, *(place + 1) / 2], dtype=torch.float64)  # the first copy is the base itself
        self.weight = torch.tensor([0.0, *weight / 2], dtype=torch.float64)
        self.model, self.output = model, output
        self.single = Batch.from_data_list([graph])
        self.batch = Batch.from_data_list([graph] * len(self.place))

    def record(self, modules: Iterable[nn.Module]) -> tuple[float, dict[nn.Module, _Call]]:
        """The output of the graph as it is, and how each of ``modules`` was called for it."""
        calls: dict[nn.Module, _Call] = {}

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            calls[module] = _Call(args, kwargs, out)

        with ExitStack() as stack, torch.no_grad():
            for module in modules:
                stack.callback(module.register_forward_hook(keep, with_kwargs=True).remove)
            return float(self.output(self.model(self.single))), calls

    def integrate(
        self, put: Callable[[list[Tensor]], dict[nn.Module, Any]], bases: list[Tensor], tensors: list[Tensor]
    ) -> tuple[float, list[Tensor]]:
        """The output at the base, and its slopes along the tensors, averaged over the way from the bases to them.

        ``put`` says which modules give out the tensors; in their place they give out points of the way.
        """
        pairs = zip(bases, tensors, strict=True)
        ways = [
            (base + self.place.view(-1, 1, 1) * (tensor - base)).flatten(0, 1).requires_grad_()
            for base, tensor in pairs
        ]
        with ExitStack() as stack, torch.enable_grad():
            for module, out in put(ways).items():
                stack.callback(module.register_forward_hook(lambda *_, out=out: out).remove)
            values = self.output(self.model(self.batch))
        slopes = torch.autograd.grad(values @ self.weight, ways, materialize_grads=True, allow_unused=True)
        return float(values[0].detach()), [
            slope.view(len(self.place), *tensor.shape).sum(0) for slope, tensor in zip(slopes, tensors, strict=True)
        ]

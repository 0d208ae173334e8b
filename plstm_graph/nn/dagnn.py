"""DAGNN (Thost and Chen 2021), a rival on DAGs: attention over predecessors and a GRU, level by level."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from plstm_graph.line_dag import LineDAG
from plstm_graph.ops.functional import transforming


class DAGNN(nn.Module):
    r"""Layers of attention and gated recurrent units that walk along the topological order.

    .. math::
        m_v = \sum_{u \to v} \operatorname{softmax}_u(a^\top h_u + b^\top e_{uv}) \, h_u, \qquad
        h_v = \operatorname{GRU}(x_v, m_v)

    The input is what the layer before left at the node and the message is the unit's state. (The published attention
    has a term of the reading node as well; a softmax over predecessors cancels it.) Both directions of a layer are
    joined by a linear map.

    Args:
        in_channels: width of the node features.
        hidden_channels: width of every layer.
        num_layers: number of layers.
        edge_dim: width of the edge features, or None.
        directions: ``"both"``, ``"along"`` or ``"against"`` the edges.

    Shapes: x [N, in_channels], dag, edge_attr [M, edge_dim] -> [N, hidden_channels].

    Reference: Thost and Chen 2021, "Directed Acyclic Graph Neural Networks", eqs 2 to 6.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        *,
        edge_dim: int | None = None,
        directions: str = "both",
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(in_channels, hidden_channels)
        self.reverses = {"both": (False, True), "along": (False,), "against": (True,)}[directions]
        self.walks = nn.ModuleList(LevelGRU(hidden_channels, edge_dim) for _ in range(num_layers * len(self.reverses)))
        self.joins = nn.ModuleList(
            nn.Linear(len(self.reverses) * hidden_channels, hidden_channels) for _ in range(num_layers)
        )

    def forward(self, x: Tensor, dag: LineDAG, edge_attr: Tensor | None = None) -> Tensor:
        """[N, in_channels] -> [N, hidden_channels]; ``dag`` is the plain line graph."""
        x = self.embed(x)
        views = [dag.reverse() if reverse else dag for reverse in self.reverses]
        plans = [NodeLevels(view) for view in views]
        edges = [None if edge_attr is None else view.gather_edges(edge_attr) for view in views]
        for number, join in enumerate(self.joins):
            walks = self.walks[number * len(views) : (number + 1) * len(views)]
            x = join(
                torch.cat(
                    [walk(x, *plan) for walk, plan in zip(walks, zip(plans, edges, strict=True), strict=True)], -1
                )
            )
        return x


class NodeLevels:
    """The nodes of a DAG by topological level, and the edges by the level of their dst.

    Attributes:
        nodes: for each level its nodes, and for level 1 and later the edges that end there, their src nodes, and the
            places of their dst nodes within the level.
    """

    def __init__(self, dag: LineDAG) -> None:
        level = torch.zeros(dag.num_nodes, dtype=torch.long, device=dag.src.device)
        level = level.scatter_reduce(0, dag.dst, dag.level.long() + 1, "amax")
        nodes, place = level.argsort(stable=True), torch.empty_like(level)
        sizes = torch.bincount(level).tolist()
        by_level = level.index_select(0, dag.dst)
        edges = by_level.argsort(stable=True)
        counts = torch.bincount(by_level, minlength=len(sizes)).tolist()
        starts = torch.tensor([0, *sizes[:-1]], device=level.device).cumsum(0)
        place[nodes] = torch.arange(len(nodes), device=level.device) - starts.index_select(0, level[nodes])
        src, dst = dag.src.index_select(0, edges), place.index_select(0, dag.dst.index_select(0, edges))
        self.levels = list(
            zip(nodes.split(sizes), edges.split(counts), src.split(counts), dst.split(counts), strict=True)
        )


class LevelGRU(nn.Module):
    """One layer and direction of :class:`DAGNN`: x [N, C], levels, edges [E, edge_dim] -> [N, C]."""

    def __init__(self, channels: int, edge_dim: int | None) -> None:
        super().__init__()
        self.cell = nn.GRUCell(channels, channels)
        self.score = nn.Linear(channels, 1, bias=False)
        self.score_edge = nn.Linear(edge_dim, 1, bias=False) if edge_dim else None

    def forward(self, x: Tensor, plan: NodeLevels, edges: Tensor | None = None) -> Tensor:
        """[N, C] -> [N, C]"""
        bias = None if self.score_edge is None or edges is None else self.score_edge(edges)
        weights = [weight for name, weight in self.named_parameters() if not name.startswith("score_edge")]
        if transforming():  # torch.func: its transforms go through each step, at the cost of more memory
            return self._walk(plan, x, bias)
        return _Walk.apply(self.step, plan, x, bias, *weights)

    def _walk(self, plan: NodeLevels, x: Tensor, bias: Tensor | None) -> Tensor:
        """All levels, copying the states once a level."""
        states = torch.zeros_like(x)
        for nodes, edges, src, dst in plan.levels:
            level = self.step(x[nodes], states[src], None if bias is None else bias[edges], dst)
            states = states.index_copy(0, nodes, level)
        return states

    def step(self, x: Tensor, read: Tensor, bias: Tensor | None, dst: Tensor) -> Tensor:
        """States of one level: inputs [n, C], states of predecessors [e, C], places of their dst [e] -> [n, C]."""
        score = self.score(read) if bias is None else self.score(read) + bias
        weight = softmax(score, dst, num_nodes=len(x))
        return self.cell(x, scatter(weight * read, dst, dim_size=len(x), reduce="sum"))


Step = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]


class _Walk(torch.autograd.Function):
    """All levels of a layer. The backward pass walks them backwards and computes each anew: memory and time grow with
    nodes and edges, where autograd over updates of one tensor would copy all states once a level."""

    @staticmethod
    def forward(ctx: Any, step: Step, plan: NodeLevels, x: Tensor, bias: Tensor | None, *weights: Tensor) -> Tensor:
        states = torch.empty_like(x)
        for nodes, edges, src, dst in plan.levels:
            states[nodes] = step(x[nodes], states[src], None if bias is None else bias[edges], dst)
        ctx.step, ctx.plan = step, plan
        ctx.save_for_backward(x, bias, states, *weights)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, states, *weights = ctx.saved_tensors
        grad = grad.clone()  # grows on the way by what later levels read
        d_x, d_bias = torch.empty_like(x), None if bias is None else torch.empty_like(bias)
        trained = [weight for weight in weights if weight.requires_grad]
        totals = {id(weight): torch.zeros_like(weight) for weight in trained}
        for nodes, edges, src, dst in reversed(ctx.plan.levels):
            with torch.enable_grad():
                inputs = [x[nodes], states[src], *([] if bias is None else [bias[edges]])]
                inputs = [tensor.detach().requires_grad_() for tensor in inputs]
                out = ctx.step(inputs[0], inputs[1], inputs[2] if bias is not None else None, dst)
            found = torch.autograd.grad(out, [*inputs, *trained], grad[nodes], allow_unused=True)
            for weight, part in zip(trained, found[len(inputs) :], strict=True):
                if part is not None:  # a level without predecessors scores nothing
                    totals[id(weight)] += part
            d_x[nodes] = found[0]
            if len(src):
                grad.index_add_(0, src, found[1])
                if d_bias is not None:
                    d_bias[edges] = found[2]
        return None, None, d_x, d_bias, *(totals.get(id(weight)) for weight in weights)

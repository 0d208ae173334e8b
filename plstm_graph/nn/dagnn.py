"""Rivals on DAGs that walk level by level: a message from the predecessors, and a GRU. DAGNN, and D-VAE's encoder."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch_geometric.utils import softmax

from plstm_graph.errors import ConfigError, unknown
from plstm_graph.line_dag import LineDAG
from plstm_graph.nn.block import DIRECTIONS
from plstm_graph.nn.checked import check_dag
from plstm_graph.ops.functional import once_differentiable, transforming

SMALL = 2**20
"""Numbers that may be copied, all levels together, to save walking a second time in the backward pass."""


class DAGNN(nn.Module):
    """Layers of gated recurrent units that walk along the topological order: ``h_v = GRU(x_v, m_v)``.

    The input is what the layer before left at the node, and the message ``m_v`` of the predecessors is the unit's
    state. Both directions of a layer are joined by a linear map.

    Args:
        in_channels: width of the node features.
        hidden_channels: width of every layer.
        num_layers: number of layers.
        edge_dim: width of the edge features, or None.
        directions: ``"both"``, ``"along"`` or ``"against"`` the edges.
        dropout: on what each layer leaves.
        message: a name in :data:`MESSAGES`: ``"attention"``, as in DAGNN, or ``"gated"``, as in D-VAE's encoder.

    Shapes: x [N, in_channels], dag, edge_attr [M, edge_dim] -> [N, hidden_channels].

    Reference: Thost and Chen 2021, "Directed Acyclic Graph Neural Networks", eqs 2 to 6; Zhang et al. 2019, "D-VAE: a
    variational autoencoder for directed acyclic graphs", eqs 5 and 6.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        *,
        edge_dim: int | None = None,
        directions: str = "both",
        dropout: float = 0.0,
        message: str = "attention",
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(in_channels, hidden_channels)
        if directions not in DIRECTIONS:
            raise ConfigError(unknown("directions", directions, DIRECTIONS))
        self.reverses = DIRECTIONS[directions]
        self.dropout = nn.Dropout(dropout)
        self.walks = nn.ModuleList(
            LevelGRU(hidden_channels, edge_dim, message) for _ in range(num_layers * len(self.reverses))
        )
        self.joins = nn.ModuleList(
            nn.Linear(len(self.reverses) * hidden_channels, hidden_channels) for _ in range(num_layers)
        )

    def forward(self, x: Tensor, dag: LineDAG, edge_attr: Tensor | None = None) -> Tensor:
        """[N, in_channels] -> [N, hidden_channels]; ``dag`` is the plain line graph."""
        return self.states(x, dag, edge_attr)[-1]

    def states(self, x: Tensor, dag: LineDAG, edge_attr: Tensor | None = None) -> list[Tensor]:
        """What was embedded and what each layer left, [N, hidden_channels] each."""
        check_dag(x, None, dag)
        x = self.embed(x)
        found = [x]
        views = [dag.reverse() if reverse else dag for reverse in self.reverses]
        plans = [NodeLevels(view) for view in views]
        edges = [None if edge_attr is None else view.gather_edges(edge_attr) for view in views]
        for number, join in enumerate(self.joins):
            walks = self.walks[number * len(views) : (number + 1) * len(views)]
            read = [walk(x, plan, edge) for walk, plan, edge in zip(walks, plans, edges, strict=True)]
            x = self.dropout(join(torch.cat(read, -1)))
            found.append(x)
        return found


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


class Attention(nn.Module):
    r"""Mean of the predecessors, weighted by attention.

    .. math:: m_v = \sum_{u \to v} \operatorname{softmax}_u(a^\top h_u + b^\top e_{uv}) \, h_u

    The published attention has a term of the reading node as well; a softmax over predecessors cancels it.
    """

    terms = 1
    """Numbers that an edge's features add to."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1, bias=False)

    def forward(self, read: Tensor, bias: Tensor | None, dst: Tensor, count: int) -> Tensor:
        """States of predecessors [e, C], what their edges add [e, 1], places of their dst [e] -> [count, C]."""
        score = self.score(read) if bias is None else self.score(read) + bias
        weight = softmax(score, dst, num_nodes=count)
        return read.new_zeros(count, read.size(1)).index_add(0, dst, (weight * read).to(read.dtype))


class GatedSum(nn.Module):
    r"""Sum of the predecessors, each gated by itself.

    .. math:: m_v = \sum_{u \to v} \sigma(A h_u + a + B e_{uv}) \odot M h_u
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.terms = channels
        self.gate, self.map = nn.Linear(channels, channels), nn.Linear(channels, channels, bias=False)

    def forward(self, read: Tensor, bias: Tensor | None, dst: Tensor, count: int) -> Tensor:
        """States of predecessors [e, C], what their edges add [e, C], places of their dst [e] -> [count, C]."""
        gate = self.gate(read) if bias is None else self.gate(read) + bias
        return read.new_zeros(count, read.size(1)).index_add(0, dst, gate.sigmoid() * self.map(read))


MESSAGES: dict[str, type[Attention] | type[GatedSum]] = {"attention": Attention, "gated": GatedSum}
"""What a node hears of its predecessors, by name."""


class LevelGRU(nn.Module):
    """One layer and direction of :class:`DAGNN`: x [N, C], levels, edges [E, edge_dim] -> [N, C]."""

    def __init__(self, channels: int, edge_dim: int | None, message: str = "attention") -> None:
        super().__init__()
        if message not in MESSAGES:
            raise ConfigError(unknown("message", message, MESSAGES))
        self.cell = nn.GRUCell(channels, channels)
        self.message = MESSAGES[message](channels)
        self.edge = nn.Linear(edge_dim, self.message.terms, bias=False) if edge_dim else None

    def forward(self, x: Tensor, plan: NodeLevels, edges: Tensor | None = None) -> Tensor:
        """[N, C] -> [N, C]"""
        bias = None if self.edge is None or edges is None else self.edge(edges)
        fed = linear(x, self.cell.weight_ih, self.cell.bias_ih)  # all nodes at once: this part waits for none
        weights = [self.cell.weight_hh, self.cell.bias_hh, *self.message.parameters()]
        # Transforms of torch.func go through each step; small graphs take less time so, and little more memory.
        if transforming() or len(plan.levels) * x.numel() <= SMALL:
            return self._walk(plan, fed, bias)
        return _Walk.apply(self.step, plan, fed, bias, *weights)

    def _walk(self, plan: NodeLevels, fed: Tensor, bias: Tensor | None) -> Tensor:
        """All levels, copying the states once a level."""
        states = fed.new_zeros(len(fed), self.cell.hidden_size)
        for nodes, edges, src, dst in plan.levels:
            level = self.step(fed[nodes], states[src], None if bias is None else bias[edges], dst)
            states = states.index_copy(0, nodes, level.to(states.dtype))
        return states

    def step(self, fed: Tensor, read: Tensor, bias: Tensor | None, dst: Tensor) -> Tensor:
        """States of one level: what inputs add to the three gates [n, 3 C], states of predecessors [e, C], places
        of their dst [e] -> [n, C]."""
        heard = fed.new_zeros(len(fed), self.cell.hidden_size)
        if len(read):
            heard = self.message(read, bias, dst, len(fed))
        reset_in, update_in, new_in = fed.chunk(3, 1)
        reset, update, new = linear(heard, self.cell.weight_hh, self.cell.bias_hh).chunk(3, 1)
        new = (new_in + (reset_in + reset).sigmoid() * new).tanh()
        return new + (update_in + update).sigmoid() * (heard - new)


Step = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]


class _Walk(torch.autograd.Function):
    """All levels of a layer. The backward pass walks them backwards and computes each anew: memory and time grow with
    nodes and edges, where autograd over updates of one tensor would copy all states once a level."""

    @staticmethod
    def forward(ctx: Any, step: Step, plan: NodeLevels, x: Tensor, bias: Tensor | None, *weights: Tensor) -> Tensor:
        states = x.new_empty(len(x), x.size(1) // 3)
        for nodes, edges, src, dst in plan.levels:
            states[nodes] = step(x[nodes], states[src], None if bias is None else bias[edges], dst)
        ctx.step, ctx.plan = step, plan
        ctx.save_for_backward(x, bias, states, *weights)
        return states

    @staticmethod
    @once_differentiable("DAGNN has no second derivatives on graphs as large as this one")
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
                if part is not None:  # a level without predecessors hears nothing
                    totals[id(weight)] += part
            d_x[nodes] = found[0]
            if len(src):
                grad.index_add_(0, src, found[1])
                if d_bias is not None:
                    d_bias[edges] = found[2]
        return None, None, d_x, d_bias, *(totals.get(id(weight)) for weight in weights)

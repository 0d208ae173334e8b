"""Messages on directed edges, none of which returns on the edge it came by."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import scatter


class DirectedMessages(MessagePassing):
    r"""Directed message passing: states live on directed edges, and no message returns on the edge it came by.

    .. math::
        h_{uv} = relu(W_i [x_u, e_{uv}] + W_m \sum_{w \neq v} h_{wu}), \qquad
        y_v = relu(W_o [x_v, \sum_u h_{uv}])

    Every step starts from the same input and has the same weights, as in Chemprop.

    Args:
        channels: width of nodes and states.
        edge_dim: width of the edge features, or None.
        steps: the first reads the atoms, each further one is a message.
        dropout: of states and output.

    Shapes: x [N, channels], edge_index [2, M], edge_attr [M, edge_dim] -> [N, channels].

    Reference: Yang et al. 2019, "Analyzing learned molecular representations for property prediction".
    """

    def __init__(self, channels: int, edge_dim: int | None, steps: int = 3, dropout: float = 0.0) -> None:
        super().__init__(aggr="sum")
        self.input = nn.Linear(channels + (edge_dim or 0), channels)
        self.pass_on = nn.Linear(channels, channels)
        self.output = nn.Linear(2 * channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.steps = steps

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        super().reset_parameters()
        for map in (self.input, self.pass_on, self.output):
            map.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """[N, channels] -> [N, channels]"""
        at_src = x.index_select(0, edge_index[0])
        first = self.input(at_src if edge_attr is None else torch.cat([at_src, edge_attr], -1))
        returning = Returning(edge_index, x.size(0))
        state = first.relu()
        for _ in range(self.steps - 1):
            reached = self.propagate(edge_index, state=state, size=(x.size(0), x.size(0)))
            message = reached.index_select(0, edge_index[0]) - returning(state)
            state = self.dropout((first + self.pass_on(message)).relu())
        reached = self.propagate(edge_index, state=state, size=(x.size(0), x.size(0)))
        return self.dropout(self.output(torch.cat([x, reached], -1)).relu())

    def message(self, state: Tensor) -> Tensor:
        """The state of an edge, to its end point."""
        return state


class Returning:
    """For each column of ``edge_index`` the sum of the states of the columns that run against it, [M, F] -> [M, F]."""

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        src, dst = edge_index
        self.pairs, self.pair = torch.unique(src * num_nodes + dst, return_inverse=True)
        against = dst * num_nodes + src
        self.place = torch.searchsorted(self.pairs, against).clamp(max=self.pairs.numel() - 1)
        self.exists = (self.pairs.index_select(0, self.place) == against).unsqueeze(-1)

    def __call__(self, state: Tensor) -> Tensor:
        total = scatter(state, self.pair, dim_size=self.pairs.numel(), reduce="sum")
        return total.index_select(0, self.place) * self.exists

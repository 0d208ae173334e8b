"""GatedGCN with states on edges, which evolve from layer to layer beside those of the nodes."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import reset

from plstm_graph.errors import ConfigError
from plstm_graph.nn.checked import edges_read, missing_edges
from plstm_graph.nn.norm import norm_layer

EPS = 1e-6
"""Added to the sum of the gates that arrive at a node, as by Dwivedi et al. 2020."""


class GatedEdges(MessagePassing):
    r"""GatedGCN of Bresson and Laurent: messages behind gates that edges hold and that sum to 1 at every node.

    .. math::
        \hat e_{ij} = A x_i + B x_j + C e_{ij}, \qquad
        \eta_{ij} = \frac{\sigma(\hat e_{ij})}{\sum_{k \to i} \sigma(\hat e_{ik}) + 10^{-6}}

        x_i' = relu(norm(U x_i + \sum_{j \to i} \eta_{ij} \odot V x_j)), \qquad
        e_{ij}' = e_{ij} + relu(norm(\hat e_{ij}))

    The residual connection of the nodes is that of the block around it.

    Args:
        channels: width of nodes and gates.
        edge_dim: width of the edge features or states, or None: gates then read nodes alone.
        norm: of nodes and of edges, as for :class:`PLSTMBlock`.
        dropout: of what an edge state gains.
        evolves: return edge states for the next layer, too; they must be ``channels`` wide.

    Shapes: x [N, channels], edge_index [2, M], edge_attr [M, edge_dim] -> [N, channels], or with ``evolves`` a pair of
    that and edge states [M, channels].

    Raises:
        ConfigError: ``evolves`` with another ``edge_dim`` than ``channels``.

    References: Bresson and Laurent 2017, "Residual gated graph ConvNets"; normalised gates and norms as in Dwivedi et
    al. 2020, "Benchmarking graph neural networks". PyG's ``ResGatedGraphConv`` has neither, nor edge states.
    """

    def __init__(
        self,
        channels: int,
        edge_dim: int | None = None,
        *,
        norm: str = "batch",
        dropout: float = 0.0,
        evolves: bool = False,
    ) -> None:
        super().__init__(aggr="sum")
        if evolves and edge_dim != channels:
            raise ConfigError(f"edge states that evolve are as wide as nodes, got channels={channels}, {edge_dim=}")
        self.edge_dim, self.evolves = edge_dim, evolves
        """Whether it returns edge states."""
        self.nodes = nn.Linear(channels, 4 * channels)  # U, V, A and B
        self.edges = Linear(edge_dim, channels, bias=False) if edge_dim else None
        self.node_norm = norm_layer(norm, channels)
        self.edge_norm = norm_layer(norm, channels, rows="columns") if evolves else None
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        super().reset_parameters()
        for module in self.children():
            reset(module)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """[N, channels], and with ``evolves`` [M, channels]"""
        own, value, at_dst, at_src = self.nodes(x).chunk(4, -1)
        hidden = at_dst.index_select(0, edge_index[1]) + at_src.index_select(0, edge_index[0])
        if edge_attr is not None:
            edge_attr, edges = edges_read(edge_attr, self.edges, self.edge_dim), self.edges
            hidden = hidden if edges is None else hidden + edges(edge_attr)
        elif self.edge_dim:
            raise missing_edges(self.edge_dim)
        arrived = self.propagate(edge_index, value=value, gate=hidden.sigmoid(), size=(x.size(0), x.size(0)))
        total, gates = arrived.chunk(2, -1)
        nodes = self.node_norm(own + total / (gates + EPS)).relu()
        if self.edge_norm is None or edge_attr is None:
            return nodes
        return nodes, edge_attr + self.dropout(self.edge_norm(hidden).relu())

    def message(self, value_j: Tensor, gate: Tensor) -> Tensor:
        """A gated value beside its gate, [M, 2 channels]: both are summed at once, and a masked edge lacks both."""
        return torch.cat([gate * value_j, gate], -1)


class EdgeStates(nn.Module):
    """States of edges before the first layer: a linear map of their features, or where there are none a vector.

    Args:
        edge_dim: width of the edge features, or None.
        channels: of the states.

    Shapes: edge_attr [M, edge_dim] or [M], or None; edge_index [2, M] -> [M, channels].

    Raises:
        ShapeError: from a call, without the edge features that it was made for, or with others.
        ConfigError: from a call, with edge features that it was not made for.
    """

    def __init__(self, edge_dim: int | None, channels: int) -> None:
        super().__init__()
        self.edge_dim = edge_dim or None
        self.embed = Linear(edge_dim, channels) if edge_dim else None
        self.first = None if edge_dim else nn.Parameter(torch.empty(1, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        if self.first is not None:
            nn.init.normal_(self.first)
        reset(self.embed)

    def forward(self, edge_attr: Tensor | None, edge_index: Tensor) -> Tensor:
        """[M, channels]"""
        if edge_attr is not None:
            edge_attr, embed = edges_read(edge_attr, self.embed, self.edge_dim), self.embed
            assert embed is not None
            return embed(edge_attr)
        if self.edge_dim:
            raise missing_edges(self.edge_dim)
        assert self.first is not None
        return self.first.expand(edge_index.size(1), -1)

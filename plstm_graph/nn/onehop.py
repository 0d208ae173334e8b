"""One-hop layers of PyTorch Geometric by name, as local branches and as blocks of stacks."""

from collections.abc import Callable
from math import gcd

from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv, GCNConv, GINConv, GINEConv, ResGatedGraphConv
from torch_geometric.nn.inits import reset

from plstm_graph.errors import ConfigError
from plstm_graph.nn.directed import DirectedMessages
from plstm_graph.nn.gated import EdgeStates, GatedEdges


def gine(channels: int, edge_dim: int | None) -> nn.Module:
    """GINEConv with a two-layer perceptron; GINConv without edge features."""
    perceptron = nn.Sequential(nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels))
    if not edge_dim:
        return GINConv(perceptron, train_eps=True)
    return GINEConv(perceptron, train_eps=True, edge_dim=edge_dim)


def gcn(channels: int, edge_dim: int | None) -> nn.Module:
    """GCNConv. It reads no edge features."""
    return GCNConv(channels, channels)


def gat(channels: int, edge_dim: int | None, heads: int | None = None) -> nn.Module:
    """GATv2Conv; as many heads as divide ``channels``, at most eight, unless told."""
    heads = heads or gcd(channels, 8)
    check_heads(channels, heads)
    return GATv2Conv(channels, channels // heads, heads=heads, edge_dim=edge_dim or None)


def gatedgcn(channels: int, edge_dim: int | None) -> nn.Module:
    """ResGatedGraphConv: GatedGCN whose gates read edge features."""
    return ResGatedGraphConv(channels, channels, edge_dim=edge_dim or None)


class DirectedGINE(nn.Module):
    """GINE along the edges plus one against them, each with weights of its own (Rossi et al. 2023, "Edge directionality
    improves learning on heterophilic graphs").

    Shapes: x [N, channels], edge_index [2, M], edge_attr [M, edge_dim] -> [N, channels].
    """

    def __init__(self, channels: int, edge_dim: int | None) -> None:
        super().__init__()
        self.along, self.against = gine(channels, edge_dim), gine(channels, edge_dim)
        self._edges = bool(edge_dim)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        reset(self.along)
        reset(self.against)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """[N, channels] -> [N, channels]"""
        extra = {"edge_attr": edge_attr} if self._edges else {}
        return self.along(x, edge_index, **extra) + self.against(x, edge_index.flip(0), **extra)


def check_heads(channels: int, heads: int) -> None:
    """Raise ConfigError unless the heads share the channels."""
    if heads < 1 or channels % heads:
        raise ConfigError(f"width must be a multiple of heads, got width={channels}, heads={heads}")


EVOLVING = "gatedgcn-edges"
"""The local branch whose edge states evolve from block to block."""

LOCALS: dict[str, Callable[[int, int | None], nn.Module] | None] = {
    "none": None,
    "gine": gine,
    "dir-gine": DirectedGINE,
    "gcn": gcn,
    "gat": gat,
    "gatedgcn": gatedgcn,
    EVOLVING: GatedEdges,
    "dmpnn": DirectedMessages,
}
"""Local branches by name: (channels, edge_dim) -> conv."""

NEED_EDGES = (GINEConv, ResGatedGraphConv, DirectedGINE, DirectedMessages)
"""Of these what was built with ``edge_dim`` cannot be called without edge features."""


def local_branch(
    name: str, channels: int, edge_dim: int | None, *, norm: str, dropout: float, last: bool
) -> nn.Module | None:
    """The local branch of a block in a stack.

    Args:
        name: in :data:`LOCALS`.
        channels, edge_dim: of what it reads; edge states are ``channels`` wide.
        norm, dropout: as for :class:`PLSTMBlock`; of :data:`EVOLVING` alone.
        last: no block follows, which would read edge states.
    """
    if name == EVOLVING:
        return GatedEdges(channels, channels, norm=norm, dropout=dropout, evolves=not last)
    make = LOCALS[name]
    return make(channels, edge_dim) if make else None


def first_states(name: object, edge_dim: int | None, channels: int) -> EdgeStates | None:
    """Where the edge states of a stack begin; None for a local branch that has none."""
    return EdgeStates(edge_dim, channels) if name == EVOLVING else None

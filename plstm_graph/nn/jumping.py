"""Jumping knowledge: a node is read off what all blocks of a stack left there, not the last one alone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from plstm_graph.errors import ConfigError, unknown
from plstm_graph.nn.norm import norm_layer

JUMPS = ("last", "cat")
"""Names as PyG's: the last block alone, or all states side by side."""


class Jump(nn.Module):
    """Norm and linear map of several states of a node side by side.

    Args:
        channels: width of each state.
        states: how many: one before the first block and one after each.
        norm: as for :class:`PLSTMBlock`, over all of them together.

    Shapes: ``states`` tensors [N, channels] -> [N, channels].

    Reference: Xu et al. 2018, "Representation learning on graphs with jumping knowledge networks".
    """

    def __init__(self, channels: int, states: int, norm: str = "batch") -> None:
        super().__init__()
        self.norm = norm_layer(norm, states * channels)
        self.lin = nn.Linear(states * channels, channels)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        reset(self.norm)
        reset(self.lin)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """``states`` tensors [N, channels] -> [N, channels]"""
        return self.lin(self.norm(torch.cat(list(states), -1)))


def last_norm(jk: str | None, norm: str, channels: int, num_layers: int) -> tuple[nn.Module, bool]:
    """What stands behind the blocks, and whether it reads the states of all of them.

    Raises:
        ConfigError: unknown ``jk``.
    """
    if jk is not None and jk not in JUMPS:
        raise ConfigError(unknown("jk", jk, JUMPS))
    jumps = jk == "cat"
    return (Jump(channels, num_layers + 1, norm) if jumps else norm_layer(norm, channels)), jumps

"""The two linear maps of a layer: one of the nodes, one of the edges."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import inits
from torch_geometric.nn.dense.linear import Linear, reset_bias_

GATE_STD = 0.1
"""Gate weights start at this fraction of unit-variance pre-activations, so that the biases rule at first."""


def reset_gates(weight: Tensor) -> None:
    """Normal with standard deviation ``GATE_STD / sqrt(in_channels)``, of [terms, in_channels]."""
    nn.init.normal_(weight, std=GATE_STD * weight.size(1) ** -0.5)


class NodeLinear(Linear):
    """Queries, keys and values of a node, and its terms of the gates, as one product. Lazy as PyG's Linear.

    Args:
        in_channels: width of the node features; -1 to read it off the first input.
        vectors: width of queries, keys and values in all, which have a bias if ``bias``.
        gates: terms of the gates.

    Attributes:
        weight: [vectors + gates, in_channels]; of the vectors as in GATv2Conv, of the gates near zero.
        bias: [vectors], or None.
    """

    def __init__(self, in_channels: int, vectors: int, gates: int, bias: bool) -> None:
        self.widths = [vectors, gates]
        super().__init__(in_channels, vectors + gates, bias=False)
        if bias:
            self.bias = reset_bias_(nn.Parameter(torch.empty(vectors)), in_channels)

    def reset_parameters(self) -> None:
        """Nothing to do before a lazy one is sized."""
        if self.in_channels > 0:
            vectors, gates = self.weight.detach().split(self.widths)
            inits.glorot(vectors)
            reset_bias_(self.bias, self.in_channels)
            reset_gates(gates)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [N, vectors] and terms of the gates [N, gates]."""
        bias = None if self.bias is None else F.pad(self.bias, (0, self.widths[1]))
        vectors, gates = F.linear(x, self.weight, bias).split(self.widths, -1)
        return vectors, gates


class EdgeLinear(Linear):
    """An edge's terms of the gates: no bias, and near zero at first, also when it is lazy or reset on its own."""

    def __init__(self, in_channels: int, gates: int) -> None:
        super().__init__(in_channels, gates, bias=False)

    def reset_parameters(self) -> None:
        """Nothing to do before a lazy one is sized."""
        if self.in_channels > 0:
            reset_gates(self.weight)

"""Norms: of the features of nodes, columns or graphs, and of a layer's output, each head on its own."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_geometric.nn import BatchNorm

from plstm_graph.errors import ConfigError, unknown
from plstm_graph.nn.counted import told

NORM_EPS = 1e-5
"""Pöppel et al. 2025, table 5."""


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": lambda channels: BatchNorm(channels, allow_single_element=True),
    "rms": nn.RMSNorm,
    "layer": nn.LayerNorm,
    "none": lambda channels: nn.Identity(),
}


def norm_layer(name: str, channels: int, rows: str = "nodes") -> nn.Module:
    """A normalisation by name, of the features of nodes or of other ``rows``, see :data:`counted.ROWS`."""
    if name not in NORMS:
        raise ConfigError(unknown("norm", name, NORMS))
    return told(NORMS[name](channels), rows)


class MultiHeadRMSNorm(nn.Module):
    """Divide every head by its root mean square: ``y / sqrt(mean(y²) + eps) * weight``.

    Args:
        heads: H.
        channels: V, width of a head.
        eps: 1e-5 as in Pöppel et al. 2025, table 5; almost closed gates give outputs below its root, which therefore
            start small and grow as the gates open.

    Shapes: [N, H, V] -> [N, H, V].
    """

    def __init__(self, heads: int, channels: int, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(heads, channels))

    def reset_parameters(self) -> None:
        """Back to weight 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, V] -> [N, H, V]"""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return (wide * self.scale(wide) * self.weight).to(x.dtype)

    def scale(self, x: Tensor) -> Tensor:
        """What each head is multiplied by, but for the weight: [N, H, V] -> [N, H, 1]."""
        return torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"{self.weight.size(0)}, {self.weight.size(1)}, eps={self.eps}"


class HeadScale(nn.Module):
    """In place of a norm: multiply every head by a weight, ``y / sqrt(K) * weight``. What a node reads keeps its size,
    which says how much arrives and over how many paths.

    Args:
        heads: H.
        channels: V, width of a head.
        keys: K, by whose root queries are divided.

    Shapes: [N, H, V] -> [N, H, V].
    """

    def __init__(self, heads: int, channels: int, keys: int) -> None:
        super().__init__()
        self.root = keys**-0.5
        self.weight = nn.Parameter(torch.ones(heads, channels))

    def reset_parameters(self) -> None:
        """Back to weight 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, V] -> [N, H, V]"""
        return x * (self.root * self.weight).to(x.dtype)

    def scale(self, x: Tensor) -> Tensor:
        """What each head is multiplied by, but for the weight: [N, H, V] -> [N, H, 1]."""
        return torch.full_like(x[..., :1], self.root)

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"{self.weight.size(0)}, {self.weight.size(1)}"


class LogNorm(HeadScale):
    """Shrink every head to the logarithm of its root mean square: ``y / r * log(1 + r) * weight`` with r that of
    ``y / sqrt(K)``. Small outputs keep their size, and twice as much, however much that is, still makes a difference.

    Args:
        heads, channels, keys: as for :class:`HeadScale`.

    Shapes: [N, H, V] -> [N, H, V].
    """

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, V] -> [N, H, V]"""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return (wide * self.scale(wide) * self.weight).to(x.dtype)

    def scale(self, x: Tensor) -> Tensor:
        """What each head is multiplied by, but for the weight: [N, H, V] -> [N, H, 1]."""
        size = (self.root**2 * x.square().mean(-1, keepdim=True) + NORM_EPS).sqrt()
        return self.root * size.log1p() / size


# Dividing queries by √K and normalising the outputs is normalising with a K times larger eps.
OUTPUT_NORMS: dict[str, Callable[[int, int, int], MultiHeadRMSNorm | HeadScale]] = {
    "rms": lambda heads, channels, keys: MultiHeadRMSNorm(heads, channels, eps=NORM_EPS * keys),
    "soft": lambda heads, channels, keys: MultiHeadRMSNorm(heads, channels, eps=float(keys)),
    "log": LogNorm,
    "none": HeadScale,
}
"""What follows the operator, by name, for H, V and K. A soft norm has an eps of 1: small outputs keep their size."""

"""Normalisation of a layer's output, each head on its own."""

import torch
from torch import Tensor, nn

NORM_EPS = 1e-5
"""Pöppel et al. 2025, table 5."""


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

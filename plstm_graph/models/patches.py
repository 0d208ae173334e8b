"""Patches: an image as a grid of vectors, with a position each."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plstm_graph.errors import ConfigError, ShapeError
from plstm_graph.nn.checked import check_dtype
from plstm_graph.nn.dropin import check_widths


class Patches(nn.Module):
    """Cut images into patches, map each to a vector and add its learned position.

    Positions belong to the grid of ``image_size`` and are resized for others (bicubic, antialiased when shrinking).
    """

    def __init__(self, width: int, image_size: int | tuple[int, int], patch: int, channels: int, learned: bool) -> None:
        super().__init__()
        check_widths(patch_size=patch, channels=channels)
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        if not isinstance(sides, Sequence) or len(sides) != 2 or not all(isinstance(side, int) for side in sides):
            raise ConfigError(f"image_size must be a whole number, or height and width, got {image_size}")
        self.patch = patch
        self.project = nn.Conv2d(channels, width, patch, patch)
        small_init(self.project)
        rows, columns = self._grid(*sides)
        # flax's fan formula for [1, Y, X, width]: as wide as the patches are many.
        self.position: nn.Parameter | None = None
        if learned:
            self.position = nn.Parameter(torch.randn(1, width, rows, columns) * (2 / (5 * rows * columns)) ** 0.5)

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels, height, width] -> [B, Y, X, width]"""
        channels = self.project.in_channels
        if not isinstance(images, Tensor) or images.dim() != 4 or images.size(1) != channels:
            got = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ShapeError(
                f"images must be [B, {channels}, height, width], got {got}; "
                "channels stand before height and width, and their number is the argument `channels`"
            )
        if not images.is_floating_point():
            raise ShapeError(f"images must be floating point, got {images.dtype}; pixels from 0 to 255 as images / 255")
        check_dtype("images", images, self.project)
        sides = rows, columns = self._grid(*images.shape[-2:])
        # Windows do not overlap: a matrix product, of which the gradient is one, too, and no slow convolution.
        patches = images.unflatten(3, (columns, self.patch)).unflatten(2, (rows, self.patch)).permute(0, 2, 4, 1, 3, 5)
        x = F.linear(patches.flatten(3), self.project.weight.flatten(1), self.project.bias)
        if self.position is not None:
            position: Tensor = self.position
            if position.shape[-2:] != sides:
                position = resized(position, sides)
            x = x + position.permute(0, 2, 3, 1)
        return x

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        if height % self.patch or width % self.patch or height < 1 or width < 1:
            near = " x ".join(str(max(1, round(side / self.patch)) * self.patch) for side in (height, width))
            raise ShapeError(
                f"height and width must be multiples of the patch size {self.patch}, got {height} x {width}; "
                f"resize or pad the images, to {near} for example, or choose another patch size"
            )
        return height // self.patch, width // self.patch


def resized(position: Tensor, sides: tuple[int, int]) -> Tensor:
    """[1, C, Y, X] -> [1, C, *sides], bicubic, antialiased when shrinking.

    By a matrix for each side, which is the resized identity: torch.compile cannot have the gradient of PyTorch's
    bicubic for sizes that it has not fixed.
    """
    wide = position.float() if position.dtype in (torch.float16, torch.bfloat16) else position
    rows, columns = (
        F.interpolate(wide.new_ones(old).diag()[None, None], (old, new), mode="bicubic", antialias=True)[0, 0]
        for old, new in zip(position.shape[-2:], sides, strict=True)
    )
    return (rows.t() @ wide @ columns).to(position.dtype)


@torch.no_grad()
def small_init(linear: nn.Linear | nn.Conv2d) -> None:
    """Weights from N(0, 2 / (5 · fan-in)), biases zero (Nguyen and Salazar 2019, as in the paper)."""
    nn.init.normal_(linear.weight, std=(2 / (5 * linear.weight[0].numel())) ** 0.5)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)

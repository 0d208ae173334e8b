"""Vision: patches of an image as a grid of vectors, blocks of a mixer and a feed-forward layer, corners, classes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plstm_graph.config.models import VisionConfig
from plstm_graph.data.examples import Arrays
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import ConfigError, DataError, listed, unknown
from plstm_graph.grid.gates import P
from plstm_graph.models.convolution import CNN, WIDTH, efficientnet
from plstm_graph.models.patches import Patches, small_init
from plstm_graph.nn import MultiHeadRMSNorm, PLSTMImage
from plstm_graph.nn.dropin import check_widths
from plstm_graph.nn.norm import NORM_EPS
from plstm_graph.tasks import Task


class Size(NamedTuple):
    """Width of the patches' vectors and number of heads."""

    width: int
    heads: int


SIZES = {"tiny": Size(192, 3), "small": Size(384, 6), "base": Size(768, 12)}
"""Pöppel et al. 2025, table 1: 6.3, 23.3 and 89.1 million parameters at 1,000 classes, 12 layers, 224 pixels."""
POSITIONS = ("learned", "none")
READ_OUTS = ("corners", "mean")
TURNS = {"alternating": ("left", "right"), "left": ("left",), "right": ("right",)}
"""What D mode leaves open in one D block and the next, by chirality."""


class VisionModel(nn.Module):
    """Images to classes; subclasses say what mixes the patches.

    Args:
        num_classes: outputs.
        mixers: what mixes the patches, [B, Y, X, width] -> [B, Y, X, width]; a block each.
        width: of a patch's vector.
        image_size: height and width of the images, or one number for both; other sizes may come later, the positions
            are then resized.
        patch_size: side of a patch; images must be multiples of it.
        channels: of the images.
        position: ``"learned"`` or ``"none"``.
        read_out: ``"corners"`` (the four corner patches side by side) or ``"mean"``.
        expansion: width of the feed-forward layer over ``width``.
        layer_scale: initial value of a learned factor on each channel of what a block adds; None for no factor.

    Shapes: images [B, channels, height, width] -> [B, num_classes].

    Raises:
        ConfigError: an unknown position or read-out, or a number out of range.
        ShapeError: images of other channels, or that are no multiples of patches.
    """

    def __init__(
        self,
        num_classes: int,
        mixers: list[nn.Module],
        *,
        width: int,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        channels: int = 3,
        position: str = "learned",
        read_out: str = "corners",
        expansion: float = 4.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        for kind, name, names in (("position", position, POSITIONS), ("read-out", read_out, READ_OUTS)):
            if name not in names:
                raise ConfigError(unknown(kind, name, names))
        hidden = int(expansion * width)
        check_widths(num_classes=num_classes, **{"expansion times width": hidden})
        self.patches = Patches(width, image_size, patch_size, channels, position == "learned")
        self.stack = Blocks(*(VisionBlock(width, mixer, hidden, layer_scale) for mixer in mixers))
        self.norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.read_out = read_out
        self.head = nn.Linear(4 * width if read_out == "corners" else width, num_classes)
        small_init(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels, height, width] -> [B, num_classes]"""
        x = self.norm(self.stack(self.patches(images)))
        return self.head(self.pool(x))

    def pool(self, x: Tensor) -> Tensor:
        """[B, Y, X, width] -> [B, 4 * width] or [B, width]"""
        if self.read_out == "mean":
            return x.mean((1, 2))
        return torch.cat([x[:, row, column] for row in (0, -1) for column in (0, -1)], -1)


class Blocks(nn.Sequential):
    """One block after the other, each compiled by itself: blocks of a kind share their code."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As of any module, for every block; shapes are fixed."""
        for block in self:
            block.compile(*args, **kwargs | {"dynamic": False})


class VisionBlock(nn.Module):
    """``x + mixer(norm(x))``, then ``x + feed_forward(norm(x))``: [B, Y, X, width] -> [B, Y, X, width].

    Args:
        width: channels.
        mixer: reads along the grid, of the shape that it gives.
        hidden: width within the feed-forward.
        layer_scale: initial value of a learned factor on each channel of both branches; None for no factor.
    """

    def __init__(self, width: int, mixer: nn.Module, hidden: int, layer_scale: float | None = None) -> None:
        super().__init__()
        self.norm, self.mixer = nn.RMSNorm(width, eps=NORM_EPS), mixer
        up, down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.feed_forward = nn.Sequential(nn.RMSNorm(width, eps=NORM_EPS), up, nn.GELU(approximate="tanh"), down)
        small_init(up)
        small_init(down)
        self.scales: nn.Parameter | None = None
        if layer_scale is not None:
            self.scales = nn.Parameter(torch.full((2, width), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """[B, Y, X, width] -> [B, Y, X, width]"""
        if self.scales is None:
            x = x + self.mixer(self.norm(x))
            return x + self.feed_forward(x)
        x = x + self.scales[0] * self.mixer(self.norm(x))
        return x + self.scales[1] * self.feed_forward(x)


class PLSTMVision(VisionModel):
    """pLSTM on the patches of images (Pöppel et al. 2025, section 4): blocks of P and D mode in turn.

    Args:
        num_classes: outputs.
        size: a name in :data:`SIZES`, for width and heads.
        width, heads: instead of those of the size.
        layers: blocks.
        modes: modes of the blocks, repeated as needed.
        chirality: turn that D mode leaves open: ``"left"``, ``"right"``, or ``"alternating"`` from one D block to the
            next.
        p_mode: of the P blocks: ``"P"``, or ``"P-code"`` as in the authors' code.
        layer: further arguments of :class:`PLSTMImage`, for all blocks, but those that the network sets (widths, heads,
            ``concat``, ``mode``); unless told, gates read slices of the channels.
        rest: as for :class:`VisionModel`.

    Example:
        >>> model = PLSTMVision(10, size="tiny", layers=2, image_size=64)
        >>> model(torch.randn(1, 3, 64, 64)).shape
        torch.Size([1, 10])
        >>> model(torch.randn(1, 3, 96, 64)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        num_classes: int,
        *,
        size: str = "tiny",
        width: int | None = None,
        heads: int | None = None,
        layers: int = 12,
        modes: str = "PD",
        chirality: str = "alternating",
        p_mode: str = "P",
        layer: dict[str, Any] | None = None,
        **rest: Any,
    ) -> None:
        width, heads = sized(size, width, heads, layers)
        if chirality not in TURNS:
            raise ConfigError(unknown("chirality", chirality, TURNS))
        if not modes:
            raise ConfigError("modes must name at least one mode, for example 'PD'")
        if isinstance(modes, str) and {*modes} - {P, "D"}:
            raise ConfigError(f"modes must be letters P and D, one a block, for example 'PD', got {modes!r}")
        if own := sorted({"in_channels", "out_channels", "heads", "concat", "mode"} & set(layer or ())):
            raise ConfigError(f"the network itself sets {listed(own)} of its layers; leave it out of layer")
        turns = TURNS[chirality]
        mixers: list[nn.Module] = []
        turned = 0
        for mode in (modes[number % len(modes)] for number in range(layers)):
            if mode == "P":
                mode = p_mode
            elif mode == "D":
                mode, turned = f"D-{turns[turned % len(turns)]}", turned + 1
            image = PLSTMImage(width, width // heads, heads, mode=mode, **({"gate_inputs": "slices"} | (layer or {})))
            out = nn.Linear(width, width, bias=False)
            small_init(image.lin)  # queries, keys and values
            small_init(out)
            mixers.append(nn.Sequential(image, out))
        super().__init__(num_classes, mixers, width=width, **rest)


class Attention(nn.Module):
    """Softmax attention between all patches, [B, Y, X, width] -> [B, Y, X, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        small_init(self.qkv)
        small_init(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, Y, X, width] -> [B, Y, X, width]"""
        query, key, value = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2)).view_as(x)


class ViT(VisionModel):
    """A vision transformer of the same size between the same patches and head, with which pLSTM is compared.

    As in the experiments of Pöppel et al. 2025: RMSNorm, learned positions, layer scale from 1.

    Args:
        num_classes, size, width, heads, layers, rest: as for :class:`PLSTMVision`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        size: str = "tiny",
        width: int | None = None,
        heads: int | None = None,
        layers: int = 12,
        **rest: Any,
    ) -> None:
        width, heads = sized(size, width, heads, layers)
        mixers: list[nn.Module] = [Attention(width, heads) for _ in range(layers)]
        super().__init__(num_classes, mixers, width=width, layer_scale=1.0, **rest)


class ImageModel(nn.Module):
    """A network of images as a trainer sees it: batches of examples in, outputs out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def stack(self) -> nn.Module:
        """What torch.compile is for."""
        return self.network.stack if isinstance(self.network, VisionModel) else self.network

    def forward(self, batch: Arrays) -> Tensor:
        """[n, outputs]"""
        found: Tensor = self.network(batch.x)
        return found

    def without_decay(self) -> list[nn.Parameter]:
        """Weights that weight decay leaves alone: biases, norms, positions and factors."""
        norms = [module for module in self.modules() if isinstance(module, nn.RMSNorm | MultiHeadRMSNorm)]
        free = {id(weight) for norm in norms for weight in norm.parameters()}
        last = {"position", "gate_bias", "direct_bias", "scales"}
        return [
            weight
            for name, weight in self.named_parameters()
            if weight.dim() < 2 or id(weight) in free or name.rpartition(".")[2] in last
        ]


def build(config: VisionConfig, features: FeatureSpec, task: Task) -> ImageModel:
    """The network that a config names, for images like those of a data set.

    Raises:
        DataError: the data are no images. ConfigError: the network cannot be built, or an option does not suit it.
    """
    if not features.image:
        raise DataError(f"model {config.model!r} reads images, and these data are none; try --data digits")
    channels, *sides = features.image
    outputs = task.num_outputs
    if config.model == "efficientnet":
        return ImageModel(efficientnet(outputs))
    if config.model == "cnn":
        return ImageModel(CNN(outputs, width=config.width or WIDTH, layers=config.layers, channels=channels))
    common: dict[str, Any] = {
        "size": config.size,
        "width": config.width or None,
        "heads": config.heads or None,
        "layers": config.layers,
        "image_size": tuple(sides),
        "patch_size": config.patch_size,
        "channels": channels,
        "position": config.position,
        "read_out": config.read_out,
    }
    if config.model == "vit":
        return ImageModel(ViT(outputs, **common))
    layer = {"gate_inputs": config.gate_inputs, "transition": config.transition}
    return ImageModel(
        PLSTMVision(
            outputs, modes=config.modes, chirality=config.chirality, p_mode=config.p_mode, layer=layer, **common
        )
    )


def sized(size: str, width: int | None, heads: int | None, layers: int) -> tuple[int, int]:
    """Width and heads of a size, or those given instead.

    Raises:
        ConfigError: there are none such.
    """
    if size not in SIZES:
        raise ConfigError(unknown("size", size, SIZES))
    width, heads = SIZES[size].width if width is None else width, SIZES[size].heads if heads is None else heads
    check_widths(width=width, heads=heads)
    if width % heads:
        raise ConfigError(f"width must be a multiple of heads, got width={width}, heads={heads}")
    if not isinstance(layers, int):
        raise ConfigError(f"layers must be a whole number, got {layers}")
    if layers < 0:
        raise ConfigError(f"layers must be at least 0, got {layers}")
    return width, heads

"""Convolutional networks of images, with which pLSTM is compared."""

from torch import Tensor, nn

from plstm_graph.errors import PLSTMGraphError

WIDTH = 64
"""Channels of a :class:`CNN` where none are chosen."""
POOL_EVERY = 2
"""Layers after which a :class:`CNN` halves height and width."""


class CNN(nn.Module):
    """A small convolutional network: 3 x 3 convolutions with BatchNorm and ReLU, halved every two, a mean, classes.

    Args:
        num_classes: outputs.
        width: channels of every layer.
        layers: convolutions.
        channels: of the images.

    Shapes: images [B, channels, height, width] -> [B, num_classes], of any height and width.
    """

    def __init__(self, num_classes: int, *, width: int = WIDTH, layers: int = 4, channels: int = 3) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for layer in range(layers):
            before = width if layer else channels
            parts += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if (layer + 1) % POOL_EVERY == 0 and layer + 1 < layers:
                parts.append(nn.MaxPool2d(2, ceil_mode=True))
        self.layers = nn.Sequential(*parts)
        self.head = nn.Linear(width if layers else channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels, height, width] -> [B, num_classes]"""
        return self.head(self.layers(images).mean((2, 3)))


def efficientnet(num_classes: int) -> nn.Module:
    """EfficientNet-B0 of torchvision, untrained.

    Raises:
        PLSTMGraphError: torchvision is not installed.
    """
    try:
        from torchvision.models import efficientnet_b0
    except ImportError as error:
        raise PLSTMGraphError(
            "efficientnet needs torchvision, which is not installed; take the build that belongs to your torch"
        ) from error
    return efficientnet_b0(num_classes=num_classes)

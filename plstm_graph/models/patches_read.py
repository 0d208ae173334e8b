"""What a network of images reads: how much each patch speaks for its decision, along each direction."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from plstm_graph.data.examples import Arrays
from plstm_graph.errors import ConfigError
from plstm_graph.grid import DIRECTIONS
from plstm_graph.nn import PLSTMImage


def reads_along_directions(model: nn.Module) -> bool:
    """Whether a network has layers of pLSTM on images, which :func:`patches_read` asks."""
    return any(isinstance(layer, PLSTMImage) for layer in model.modules())


def patches_read(model: nn.Module, images: Tensor | Arrays) -> Tensor:
    """How much what each patch sends along each direction speaks for the class that is decided on.

    The derivative of the class's log-odds by a factor on the sources of the patch, which is 1, in all blocks at once:
    to first order what the decision would lose without them. What a patch reads of itself is no part of it.

    Args:
        model: maps images to classes, with layers :class:`~plstm_graph.PLSTMImage`.
        images: [B, channels, height, width]; of a trained model, which may be an ensemble, the batch that it takes.

    Returns:
        [B, 4, Y, X], directions as in :data:`plstm_graph.grid.DIRECTIONS`.

    Raises:
        ConfigError: the model has no such layer.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, PLSTMImage)]
    if not layers:
        raise ConfigError("the model has no layers of pLSTM on images, so nothing is read along directions")
    with torch.enable_grad(), torch.inference_mode(False), _listening(layers) as sent:
        batch = images.clone() if isinstance(images, Tensor) else replace(images, x=images.x.clone())
        scores = model(batch)
        chosen = scores.argmax(1, keepdim=True)
        rest = scores.scatter(1, chosen, -torch.inf).logsumexp(1)
        odds = scores.gather(1, chosen).squeeze(1) - rest
        found = torch.autograd.grad(odds.sum(), sent)
    return torch.stack(found).sum(0)


@contextmanager
def _listening(layers: list[PLSTMImage]) -> Iterator[list[Tensor]]:
    """Layers whose sources have factors, made for the first input that comes."""
    sent: list[Tensor] = []

    def begin(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        x = inputs[0]
        factor = torch.ones(
            x.size(0), len(DIRECTIONS), *x.shape[1:3], dtype=x.dtype, device=x.device, requires_grad=True
        )
        sent.append(factor)
        layer.sent = factor

    hooks = [layer.register_forward_pre_hook(begin) for layer in layers]
    try:
        yield sent
    finally:
        for hook, layer in zip(hooks, layers, strict=True):
            hook.remove()
            layer.sent = None

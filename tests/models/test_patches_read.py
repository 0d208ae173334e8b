"""What a network of images reads, against differences of its answers."""

import pytest
import torch

from plstm_graph.errors import ConfigError
from plstm_graph.models.patches_read import patches_read
from plstm_graph.models.vision import PLSTMVision, ViT
from plstm_graph.nn import PLSTMImage

SMALL = {"width": 16, "heads": 2, "layers": 2, "image_size": (8, 12), "patch_size": 4, "channels": 1}


def log_odds(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    chances = scores.softmax(1).gather(1, chosen).squeeze(1)
    return chances.log() - (1 - chances).log()


@pytest.mark.parametrize("states", [1, 2])
def test_scores_are_slopes_of_the_log_odds(states: int) -> None:
    torch.manual_seed(0)
    model = PLSTMVision(3, layer={"states": states}, **SMALL).double()
    layers = [layer for layer in model.modules() if isinstance(layer, PLSTMImage)]
    with torch.no_grad():
        for layer in layers:
            layer.gate_bias.normal_()
    images = torch.randn(2, 1, 8, 12).double()
    found = patches_read(model, images)
    assert found.shape == (2, 4, 2, 3)
    assert all(layer.sent is None for layer in layers)
    chosen, answers = model(images).argmax(1, keepdim=True), []
    for direction, y, x in ((0, 0, 0), (1, 1, 2), (2, 1, 0), (3, 0, 1)):
        for step in (1e-5, -1e-5):
            for layer in layers:
                layer.sent = torch.ones(2, 4, 2, 3, dtype=torch.double)
                layer.sent[:, direction, y, x] += step
            answers.append(log_odds(model(images), chosen))
        slope = (answers[-2] - answers[-1]) / 2e-5
        torch.testing.assert_close(found[:, direction, y, x], slope, rtol=1e-4, atol=1e-8)
    assert found.abs().max() > 1e-4


def test_a_transformer_has_no_directions() -> None:
    with pytest.raises(ConfigError, match="no layers of pLSTM on images"):
        patches_read(ViT(3, **SMALL), torch.randn(1, 1, 8, 12))

"""Networks for images: the paper's sizes, any resolution, and which patches can be felt where."""

import pytest
import torch
from torch import nn

from plstm_graph.errors import ConfigError, PLSTMGraphError, ShapeError
from plstm_graph.models.convolution import CNN, efficientnet
from plstm_graph.models.patches import resized
from plstm_graph.models.vision import PLSTMVision, VisionModel, ViT


def parameters(model: nn.Module) -> float:
    return sum(weight.numel() for weight in model.parameters()) / 1e6


@pytest.mark.parametrize(("size", "millions"), [("tiny", 6.31), ("small", 23.27), ("base", 89.12)])
def test_sizes_of_the_paper(size: str, millions: float) -> None:
    with torch.device("meta"):
        model = PLSTMVision(1000, size=size)
        rival = ViT(1000, size=size)
    assert parameters(model) == pytest.approx(millions, rel=0.01)
    assert parameters(rival) == pytest.approx(millions, rel=0.01)


def test_the_model_for_arrows() -> None:
    with torch.device("meta"):
        model = PLSTMVision(2, size="tiny", heads=6, image_size=192)
    assert parameters(model) == pytest.approx(5.55, rel=0.01)
    layers = [block.mixer[0] for block in model.stack]
    assert [layer.mode for layer in layers[:4]] == ["P", "D-left", "P", "D-right"]


def small(network: type[VisionModel], **options) -> VisionModel:
    torch.manual_seed(0)
    return network(2, **({"width": 16, "heads": 2, "layers": 2, "image_size": 32, "patch_size": 8} | options)).eval()


@pytest.mark.parametrize("network", [PLSTMVision, ViT])
@pytest.mark.parametrize("options", [{}, {"position": "none", "read_out": "mean"}])
def test_any_resolution_and_every_weight_learns(network: type[VisionModel], options: dict) -> None:
    model = small(network, **options)
    out = model(torch.randn(3, 3, 32, 48))
    assert out.shape == (3, 2)
    out.square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_learned_positions_are_as_they_are_at_their_own_size() -> None:
    model = small(PLSTMVision)
    zero = torch.zeros(1, 3, 32, 32)
    grid = model.patches(zero)
    assert model.patches.position is not None
    assert torch.equal(grid, model.patches.position.permute(0, 2, 3, 1))  # biases are zero at first
    larger = model.patches(torch.zeros(1, 3, 64, 64))
    assert larger.shape == (1, 8, 8, 16)
    assert torch.allclose(larger.mean(), grid.mean(), atol=0.02)


@pytest.mark.parametrize("sides", [(7, 3), (5, 6), (2, 9)])
def test_positions_are_resized_as_pictures_are(sides: tuple[int, int]) -> None:
    position = torch.randn(1, 3, 5, 6, dtype=torch.float64)
    wanted = torch.nn.functional.interpolate(position, sides, mode="bicubic", antialias=True)
    torch.testing.assert_close(resized(position, sides), wanted, rtol=0, atol=1e-12)


def test_it_learns_from_images_of_any_size_when_compiled() -> None:
    """PyTorch cannot compile the gradient of its own bicubic resizing for a size that is not fixed."""
    patches = small(ViT, layers=0).patches
    compiled = torch.compile(patches, backend="aot_eager")
    for side in (32, 48):
        images = torch.randn(1, 3, side, side)
        outcomes = [torch.autograd.grad(run(images).square().sum(), patches.position) for run in (patches, compiled)]
        torch.testing.assert_close(*outcomes)


def test_corners_read_every_patch() -> None:
    model = small(PLSTMVision, position="none")
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    model(images).square().sum().backward()
    assert images.grad is not None
    assert (images.grad.unfold(2, 8, 8).unfold(3, 8, 8).abs().sum((1, 4, 5)) > 0).all()


def test_what_is_refused() -> None:
    with pytest.raises(ShapeError, match="multiples of the patch size 8, got 30 x 32"):
        small(PLSTMVision)(torch.randn(1, 3, 30, 32))
    for images in (torch.randn(1, 1, 32, 32), torch.randn(3, 32, 32)):
        with pytest.raises(ShapeError, match=r"images must be \[B, 3, height, width\], got \["):
            small(PLSTMVision)(images)
    with pytest.raises(ConfigError, match="read-out"):
        small(ViT, read_out="corner")
    with pytest.raises(ConfigError, match="width must be a multiple of heads"):
        PLSTMVision(2, width=10, heads=4)
    with pytest.raises(ConfigError, match="size"):
        ViT(2, size="huge")


@pytest.mark.parametrize("network", [PLSTMVision, ViT])
def test_numbers_that_make_no_network_are_named(network: type[VisionModel]) -> None:
    for wrong, message in {
        "patch_size": "patch_size must be at least 1, got 0",
        "channels": "channels must be at least 1, got 0",
        "width": "width must be at least 1, got 0",
        "heads": "heads must be at least 1, got 0",
        "expansion": "expansion times width must be at least 1, got 0",
    }.items():
        with pytest.raises(ConfigError, match=message):
            network(2, **({"width": 16, "heads": 2, "image_size": 32, "patch_size": 8} | {wrong: 0}))
    with pytest.raises(ConfigError, match="num_classes must be at least 1"):
        network(0)
    with pytest.raises(ConfigError, match="layers must be at least 0, got -1"):
        network(2, layers=-1)
    with pytest.raises(ConfigError, match=r"layers must be a whole number, got 1\.5"):
        network(2, layers=1.5)
    for size in (32.0, (3, 32, 32), (32, 32.0)):
        with pytest.raises(ConfigError, match="image_size must be a whole number, or height and width, got"):
            small(network, image_size=size)
    with pytest.raises(ConfigError, match="width must be a multiple of heads, got width=18, heads=4"):
        network(2, width=18, heads=4)
    with pytest.raises(ShapeError, match="got -32 x -32"):
        small(network, image_size=-32)
    with pytest.raises(ShapeError, match="got 35 x 3; resize or pad the images, to 32 x 8 for example"):
        small(network, image_size=(35, 3))


def test_arguments_of_a_layer_that_the_network_sets_are_named() -> None:
    """Averaged heads were found at the first call, by a product of matrices that does not fit."""
    with pytest.raises(ConfigError, match="the network itself sets concat, mode of its layers"):
        small(PLSTMVision, layer={"concat": False, "mode": "P", "states": 2})


def test_modes_and_turns_that_are_none_are_named() -> None:
    with pytest.raises(ConfigError, match="at least one mode"):
        small(PLSTMVision, modes="")
    with pytest.raises(ConfigError, match=r"modes must be letters P and D, one a block, .*, got 'PX'"):
        small(PLSTMVision, modes="PX")
    with pytest.raises(ConfigError, match=r"a multiple of 16, 4 directions x 4 heads, got 20; .*gate_inputs='all'"):
        PLSTMVision(2, width=20, heads=4)
    with pytest.raises(ConfigError, match="unknown chirality 'up'; choose one of alternating, left, right"):
        small(PLSTMVision, modes="P", chirality="up")


def test_images_that_are_no_floating_point_tensor_are_named() -> None:
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ShapeError, match=r"got torch.uint8; pixels from 0 to 255 as images / 255"):
        small(PLSTMVision)(images)
    with pytest.raises(ShapeError, match=r"images must be \[B, 3, height, width\], got ndarray"):
        small(PLSTMVision)(images.numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_of_half_precision_are_resized(dtype: torch.dtype) -> None:
    model = small(PLSTMVision)
    images = torch.randn(1, 3, 64, 16)
    want = model.patches(images)
    found = model.to(dtype).patches(images.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), want, rtol=0.02, atol=0.02)


def test_a_small_convolutional_network() -> None:
    network = CNN(10, width=8, layers=4, channels=1)
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in network.layers) == 1
    for size in ((8, 8), (5, 1)):
        assert network(torch.randn(2, 1, *size)).shape == (2, 10)
    assert CNN(3, layers=0)(torch.ones(1, 3, 4, 4)).shape == (1, 3)


def test_efficientnet_comes_from_torchvision() -> None:
    try:
        from torchvision.models import EfficientNet
    except ImportError:
        with pytest.raises(PLSTMGraphError, match="efficientnet needs torchvision"):
            efficientnet(2)
    else:
        assert isinstance(efficientnet(2), EfficientNet)

"""Arrow pointing: scenes as drawn one number after the other, pixels as Pillow draws them."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from plstm_graph.data import load
from plstm_graph.data.arrow import DEVIATION, MEAN, ArrowImages, draw_scenes, normalised, render
from plstm_graph.data.examples import Examples


def one_scene(seed: int, number: int, size: int) -> tuple[float, ...]:
    """Scene ``number``, drawn as the experiments say: step by step, in plain Python."""
    rng = np.random.default_rng(int(np.random.default_rng(seed).integers(1 << 62)) + number)
    hit = rng.uniform() < 0.5
    length, width = int(rng.uniform(15, 30)), int(rng.uniform(2, 4))
    side = size - 60
    ax, ay = side * rng.random(), side * rng.random()
    r = 15 + 15 * rng.random()
    cx = ax + 2 * r + (side - 4 * r) * rng.random()
    cx = cx - side if cx > side else cx
    cy = ay + 2 * r + (side - 4 * r) * rng.random()
    cy = cy - side if cy > side else cy
    half = math.asin((r / 1.2 if hit else 1.2 * r) / math.hypot(cx - ax, cy - ay))
    turn = rng.random()
    to_disc = math.atan2(cy - ay, cx - ax)
    angle = to_disc - half + turn * 2 * half if hit else to_disc + half + turn * (2 * math.pi - 2 * half)
    return ax + 30, ay + 30, angle, cx + 30, cy + 30, r, length, width, float(hit)


def drawn(scene: tuple[float, ...], size: int) -> np.ndarray:
    x, y, angle, disc_x, disc_y, radius, length, width, _ = scene
    image = Image.new("RGB", (size, size), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    tip = x + length // 2 * math.cos(angle), y + length // 2 * math.sin(angle)
    back = x - length // 2 * math.cos(angle), y - length // 2 * math.sin(angle)
    draw.line((*back, *tip), fill=(0, 0, 0), width=int(width))
    for turn in (-0.5, 0.5):
        stroke = length // 2.5
        start = tip[0] - stroke * math.cos(angle + turn), tip[1] - stroke * math.sin(angle + turn)
        draw.line((*start, *tip), fill=(0, 0, 0), width=int(width))
    draw.ellipse((disc_x - radius, disc_y - radius, disc_x + radius, disc_y + radius), fill=(0, 0, 0))
    return np.asarray(image)[..., 0] == 0


@pytest.mark.parametrize(("size", "seed"), [(192, 42), (384, 100043)])
def test_scenes_and_pixels(size: int, seed: int) -> None:
    scenes = draw_scenes(150, seed, size)
    images = render(scenes, size)
    for number in range(150):
        scene = one_scene(seed, number, size)
        assert [float(column[number]) for column in scenes] == pytest.approx(scene, abs=1e-9)
        assert np.array_equal(images[number].numpy(), drawn(scene, size)), number


def test_a_scene_is_a_function_of_its_number() -> None:
    few, many = draw_scenes(3, 7), draw_scenes(9, 7)
    assert all(torch.equal(a, b[:3]) for a, b in zip(few, many, strict=True))
    assert torch.equal(render(many.select(torch.tensor([8, 1])))[1], render(few)[1])


def test_labels_are_what_the_geometry_says() -> None:
    scenes = draw_scenes(2000, 1)
    away = torch.stack([scenes.disc_x - scenes.arrow_x, scenes.disc_y - scenes.arrow_y])
    along = torch.stack([scenes.angle.cos(), scenes.angle.sin()])
    ahead = (away * along).sum(0)
    aside = (away[0] * along[1] - away[1] * along[0]).abs()
    assert torch.equal((ahead > 0) & (aside < scenes.radius), scenes.hit.bool())
    # Neither a near miss nor a graze: between r / 1.2 and 1.2 r nothing passes.
    ratio = torch.where(ahead > 0, aside, away.norm(dim=0)) / scenes.radius
    assert not ((ratio > 1 / 1.2 + 1e-9) & (ratio < 1.2 - 1e-9)).any()
    assert abs(scenes.hit.double().mean() - 0.5) < 0.04


def test_normalised() -> None:
    image = normalised(torch.tensor([[[True, False]]]))
    assert image.shape == (1, 3, 1, 2)
    assert torch.allclose(image[0, :, 0, 0], -torch.tensor(MEAN) / torch.tensor(DEVIATION))
    assert torch.allclose(image[0, :, 0, 1], (1 - torch.tensor(MEAN)) / torch.tensor(DEVIATION))


def test_examples_are_rendered_when_they_are_asked_for() -> None:
    scenes = draw_scenes(6, 3)
    examples = ArrowImages(scenes, 192)
    assert isinstance(examples, Examples)
    batch = examples.batch([4, 0])
    assert torch.equal(batch.x, normalised(render(scenes))[[4, 0]])
    assert torch.equal(batch.y, scenes.hit[[4, 0]])
    assert examples.batch(range(2)).x.shape == (2, 3, 192, 192)
    assert examples.digest == ArrowImages(draw_scenes(6, 3), 192).digest != ArrowImages(draw_scenes(6, 4), 192).digest


def test_the_sets_of_the_experiments() -> None:
    near, far = load("arrow"), load("arrow-384")
    assert {part: len(chosen) for part, chosen in near.split().items()} == {
        "train": 100_000,
        "valid": 5120,
        "test": 10_240,
    }
    assert far.split()["train"] == []
    assert far.examples.batch([0]).x.shape == (1, 3, 384, 384)
    first = near.split()["test"][0]
    assert torch.equal(near.examples.batch([first]).x, ArrowImages(draw_scenes(1, 200042), 192).batch([0]).x)

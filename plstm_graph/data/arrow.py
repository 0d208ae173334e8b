"""Arrow pointing (Pöppel et al. 2025, section 5.1): does the arrow point at the disc? Long range by construction.

A scene is a handful of numbers drawn from its index; images are made from them in batches, on any device. The numbers
and the pixels are those of the published experiments (arrows of 15 to 30 pixels, 2 or 3 wide), which draw with Pillow.
Pillow's lines and discs depend on whole numbers only, so each is drawn once, as a stamp, and images are gathered.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plstm_graph.data.column_splits import Split
from plstm_graph.data.dataset import Dataset, DatasetInfo
from plstm_graph.data.examples import Arrays, Indices, rows_of
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.pictures import DEVIATION, MEAN
from plstm_graph.data.splits import OFFICIAL, one_after_another
from plstm_graph.errors import missing_extra
from plstm_graph.tasks import task_of

PADDING = 30  # pixels around the square in which centres lie
RADIUS = (15, 30)
LENGTH = (15, 30)
WIDTH = (2, 4)  # rounded down: 2 and 3
DISTANCE = 2.0  # of the centres, in radii, at least, along x and along y
FACTOR = 1.2  # arrows pass within r / 1.2 of the disc's centre, or farther away than 1.2 r
HEAD_ANGLE = 0.5  # of the strokes of the arrow's head

STAMP = 64  # side of a stamp; what is drawn leaves a margin of one pixel at least
REACH = 29  # of a line, along x and along y


class Scenes(NamedTuple):
    """What is drawn in n images, [n] each: positions and radius in pixels, angle in radians (float64)."""

    arrow_x: Tensor
    arrow_y: Tensor
    angle: Tensor
    disc_x: Tensor
    disc_y: Tensor
    radius: Tensor
    length: Tensor
    width: Tensor
    hit: Tensor

    def select(self, chosen: Tensor) -> "Scenes":
        """The scenes of some numbers."""
        return Scenes(*(column.index_select(0, chosen) for column in self))

    def to(self, device: torch.device | str) -> "Scenes":
        """The scenes on a device."""
        return Scenes(*(column.to(device) for column in self))


def draw_scenes(count: int, seed: int, size: int = 192) -> Scenes:
    """Scenes 0 to ``count - 1`` of a seed; a scene depends on its number, the seed and the size of the image alone.

    Args:
        count: number of scenes.
        seed: of the set; the experiments train on 42 (100,000 scenes), validate on 100042 and 100043 (384 pixels).
        size: side of the image in pixels.
    """
    first = int(np.random.default_rng(seed).integers(1 << 62))
    rows = (np.random.default_rng(first + number).random(9) for number in range(count))
    coin, length, width, *places, turn = np.fromiter(rows, np.dtype((np.float64, 9)), count).T
    hit = coin < 0.5
    side = size - 2 * PADDING
    arrow_x, arrow_y = side * places[0], side * places[1]
    radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * places[2]
    disc_x, disc_y = (_apart(at, share, radius, side) for at, share in ((arrow_x, places[3]), (arrow_y, places[4])))
    dx, dy = disc_x - arrow_x, disc_y - arrow_y
    squared = dx**2 + dy**2
    limit = np.where(hit, radius / FACTOR, FACTOR * radius)
    half = np.arccos(np.sqrt(np.abs((squared - limit**2) / squared)))  # half the angle under which the limit is seen
    angle = np.arctan2(dy, dx) + np.where(hit, half * (2 * turn - 1), half + turn * (2 * math.pi - 2 * half))
    columns = arrow_x + PADDING, arrow_y + PADDING, angle, disc_x + PADDING, disc_y + PADDING, radius
    whole = LENGTH[0] + (LENGTH[1] - LENGTH[0]) * length, WIDTH[0] + (WIDTH[1] - WIDTH[0]) * width, hit
    return Scenes(*[torch.from_numpy(c) for c in columns], *[torch.from_numpy(c.astype(np.int64)) for c in whole])


def _apart(at: np.ndarray, share: np.ndarray, radius: np.ndarray, side: int) -> np.ndarray:
    """A coordinate at least ``DISTANCE`` radii from ``at`` on both sides, wrapped around."""
    offset = DISTANCE * radius
    found = at + offset + (side - 2 * offset) * share
    return np.where(found > side, found - side, found)


def render(scenes: Scenes, size: int = 192) -> Tensor:
    """Images of scenes: whether each pixel is black, [n, size, size] bool, rows from the top.

    Args:
        scenes: n scenes drawn for this size, on the device that is to render.
        size: side of the image in pixels.
    """
    x, y, angle = scenes.arrow_x, scenes.arrow_y, scenes.angle
    half, stroke = scenes.length // 2, (scenes.length / 2.5).floor()
    tip_x, tip_y = x + half * angle.cos(), y + half * angle.sin()
    device = x.device
    lines, discs = (table.to(device) for table in _stamps(device))
    black = _disc(discs, scenes, size)
    starts = [(x - half * angle.cos(), y - half * angle.sin())]
    starts += [
        (tip_x - stroke * (angle + turn).cos(), tip_y - stroke * (angle + turn).sin())
        for turn in (-HEAD_ANGLE, HEAD_ANGLE)
    ]
    for from_x, from_y in starts:
        black |= _line(lines, (from_x.long(), from_y.long()), (tip_x.long(), tip_y.long()), scenes.width, size)
    return black


def _line(lines: Tensor, start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor], width: Tensor, size: int) -> Tensor:
    across, down = end[0] - start[0] + REACH, end[1] - start[1] + REACH
    which = ((width - WIDTH[0]) * (2 * REACH + 1) + across) * (2 * REACH + 1) + down
    return _stamped(lines, which, start[0] - STAMP // 2, start[1] - STAMP // 2, size)


def _disc(discs: Tensor, scenes: Scenes, size: int) -> Tensor:
    left, right = (scenes.disc_x - scenes.radius).long(), (scenes.disc_x + scenes.radius).long()
    top, bottom = (scenes.disc_y - scenes.radius).long(), (scenes.disc_y + scenes.radius).long()
    which = (right - left) * STAMP + bottom - top
    return _stamped(discs, which, left - 1, top - 1, size)


def _stamped(table: Tensor, which: Tensor, left: Tensor, top: Tensor, size: int) -> Tensor:
    """Stamps of ``table`` at their places in white images, [n, size, size]."""
    place = torch.arange(size, device=table.device)
    row = (place - top[:, None]).clamp(0, STAMP - 1)  # outside of a stamp is its white margin
    column = (place - left[:, None]).clamp(0, STAMP - 1)
    return table[which[:, None, None], row[:, :, None], column[:, None, :]]


@lru_cache(maxsize=4)
def _stamps(device: torch.device) -> tuple[Tensor, Tensor]:
    """Every line that occurs, from the middle of its stamp, and every disc, one pixel from its corner."""
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise ImportError(missing_extra("pillow", "vision")) from error

    def stamp(draw_on: str, box: tuple[int, ...], **options: int) -> np.ndarray:
        image = Image.new("L", (STAMP, STAMP), 0)
        getattr(ImageDraw.Draw(image), draw_on)(box, fill=1, **options)
        return np.asarray(image, dtype=bool)

    middle, reach = STAMP // 2, range(-REACH, REACH + 1)
    lines = [
        stamp("line", (middle, middle, middle + dx, middle + dy), width=width)
        for width in range(*WIDTH)
        for dx in reach
        for dy in reach
    ]
    blank = np.zeros((STAMP, STAMP), dtype=bool)
    sides = range(2 * RADIUS[0] - 1, 2 * RADIUS[1] + 1)
    discs = [
        stamp("ellipse", (1, 1, 1 + wide, 1 + high)) if wide in sides and high in sides else blank
        for wide in range(STAMP)
        for high in range(STAMP)
    ]
    return tuple(torch.from_numpy(np.stack(table)).to(device) for table in (lines, discs))  # type: ignore[return-value]


def normalised(black: Tensor) -> Tensor:
    """Black on white as a network reads it: three equal channels, ImageNet's mean and deviation removed.

    Args:
        black: [n, size, size] bool.

    Returns:
        [n, 3, size, size]
    """
    white = (~black).float()
    return torch.stack([(white - mean) / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)], 1)


@dataclass(frozen=True, eq=False)
class ArrowImages:
    """Scenes as examples: a batch is rendered where the scenes are, when it is asked for.

    Args:
        scenes: what is drawn.
        size: side of the images in pixels.
    """

    scenes: Scenes
    size: int

    def __len__(self) -> int:
        return len(self.scenes.hit)

    @property
    def y(self) -> Tensor:
        """1 where the arrow points at the disc, [n]."""
        return self.scenes.hit

    @property
    def digest(self) -> str:
        """Of the scenes and the size."""
        digest = hashlib.sha256(str(self.size).encode())
        for column in self.scenes:
            digest.update(column.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    def batch(self, indices: Indices) -> Arrays:
        """Normalised images [n, 3, size, size] and labels [n]."""
        scenes = self.scenes.select(rows_of(indices, self.y.device))
        return Arrays(normalised(render(scenes, self.size)), scenes.hit)

    def to(self, device: torch.device | str) -> "ArrowImages":
        """The scenes there."""
        return replace(self, scenes=self.scenes.to(device))


def load(info: DatasetInfo, root: str | Path | None = None) -> Dataset:
    """Images of one size; parts are drawn from seeds of their own, as in the experiments."""
    size, drawn = info.options["size"], info.options["parts"]
    found = [draw_scenes(count, seed, size) for count, seed in drawn.values()]
    parts: Split = {"train": []} | one_after_another({part: count for part, (count, _) in drawn.items()})
    scenes = Scenes(*(torch.cat(columns) for columns in zip(*found, strict=True)))
    task = task_of(info.task)(("hit",), metric=info.metric)
    features = FeatureSpec(image=(3, size, size))
    return Dataset(info.name, ArrowImages(scenes, size), task, features, default_split=info.split, parts=parts)


def _row(name: str, size: int, parts: dict[str, tuple[int, int]]) -> DatasetInfo:
    """``parts``: number of images and seed of each."""
    return DatasetInfo(
        name,
        graphs=sum(count for count, _ in parts.values()),
        task="multiclass",
        metric="accuracy",
        split=OFFICIAL,
        licence="generated",
        source="Pöppel et al. 2025, made here, from a seed",
        loader=load,
        options={"size": size, "parts": parts},
    )


SETS = [
    _row("arrow", 192, {"train": (100_000, 42), "valid": (5120, 100042), "test": (10_240, 200042)}),
    _row("arrow-384", 384, {"valid": (5120, 100043), "test": (10_240, 200043)}),
]

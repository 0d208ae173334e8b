"""Folders of small pictures for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def paint(path: Path, colour: tuple[int, int, int], seed: int = 0, size: tuple[int, int] = (20, 16)) -> Path:
    """A picture [height, width] of one colour with some noise, in the format of its suffix."""
    noise = np.random.default_rng(seed).integers(0, 60, (*size[::-1], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.abs(np.array(colour) - noise).astype(np.uint8)).save(path)
    return path


def paint_folder(top: Path, *classes: str, count: int = 12, suffix: str = ".png") -> Path:
    """So many pictures of each class, named by colours."""
    for seed, name in enumerate(classes or COLOURS):
        for number in range(count):
            paint(top / name / f"{number:02d}{suffix}", COLOURS[name], 100 * seed + number)
    return top

"""A sheet of arrow pointing, images that hit above images that miss: ``python benchmarks/arrow_sheet.py OUT.png``."""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from plstm_graph.data.arrow import draw_scenes, render

COLUMNS, MARGIN = 6, 8
SEED = 42  # of the training images


def sheet(size: int, columns: int) -> np.ndarray:
    """The first images that hit and the first that miss, as two rows on grey, [height, width] uint8."""
    scenes = draw_scenes(16 * columns, SEED, size)
    rows = []
    for wanted in (1, 0):
        chosen = torch.nonzero(scenes.hit == wanted).flatten()[:columns]
        images = np.where(render(scenes.select(chosen), size).numpy(), 0, 255).astype(np.uint8)
        framed = np.pad(images, ((0, 0), (MARGIN, 0), (MARGIN, 0)), constant_values=160)
        rows.append(np.concatenate(list(framed), 1))
    return np.pad(np.concatenate(rows, 0), ((0, MARGIN), (0, MARGIN)), constant_values=160)


def main(arguments: list[str] | None = None) -> int:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=192, help="side of an image")
    options = parser.parse_args(arguments)
    Image.fromarray(sheet(options.size, COLUMNS)).save(options.out, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

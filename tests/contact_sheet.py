"""Figures of reports on made-up runs, one sheet: ``python tests/contact_sheet.py docs/figures_of_reports.png``."""

import io
import sys
import tempfile
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from awkward import gallery
from PIL import Image

from plstm_graph.draw import answers, curves, style
from plstm_graph.train.page import write_page
from plstm_graph.train.page.parts import Figure

compare, single, tested = (import_module(f"plstm_graph.train.page.{name}") for name in ("compare", "single", "tested"))
SHOWN = {
    "two-series": (curves.curves_of_runs, answers.intervals),
    "long-names": (answers.parity, answers.residuals),
    "six-classes": (answers.confusion, answers.roc),
    "many-tasks": (answers.roc, answers.reliability),
}
WIDTH, GAP, DOTS = 1300, 16, 72  # pixels, and dots per inch


def figures(folder: Path) -> list[Image.Image]:
    """What the pages of the runs show in a wide window."""
    found: list[Image.Image] = []
    runs = gallery(folder)

    def keep(figure: Any, out: Any) -> None:
        stream = io.BytesIO()
        figure.savefig(stream, dpi=DOTS)
        found.append(Image.open(stream))

    def chosen(draw: Any, *args: Any, alt: str, caption: str = "", panels: bool = False, **options: Any) -> Figure:
        if draw in SHOWN[name] and not options.get("single"):
            draw(*args, io.BytesIO(), **options)
        return Figure("", alt)

    with ExitStack() as stack:
        stack.enter_context(patch.object(style, "save", keep))
        for module in (compare, single, tested):
            stack.enter_context(patch.object(module, "figure", chosen))
        for name in SHOWN:
            write_page(runs[name], folder / "page.html")
    return sorted(found, key=lambda image: image.height)


def sheet(images: list[Image.Image]) -> Image.Image:
    """Rows of images of about one height."""
    rows: list[list[Image.Image]] = [[]]
    for image in images:
        if sum(each.width + GAP for each in (*rows[-1], image)) > WIDTH:
            rows.append([])
        rows[-1].append(image)
    whole = Image.new("RGB", (WIDTH, sum(max(each.height for each in row) + GAP for row in rows)), "white")
    top = 0
    for row in rows:
        left = 0
        for image in row:
            whole.paste(image, (left, top))
            left += image.width + GAP
        top += max(each.height for each in row) + GAP
    return whole


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        made = sheet(figures(Path(place)))
    made.quantize(256, dither=Image.Dither.NONE).save(sys.argv[1], optimize=True)

"""Every figure of ten awkward runs: no two texts overlap and none is cut, by the boxes that matplotlib renders."""

from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import browser
import pytest
from awkward import gallery
from matplotlib.text import Text

from plstm_graph.draw import style
from plstm_graph.train.page import write_page

NAMES = (
    *("one-epoch", "long-names", "six-classes", "many-tasks", "constant", "series", "two-series", "unfinished"),
    *("forest", "units"),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


def faults(figure: Any) -> list[str]:
    """Texts that a figure draws and that are cut, or lie over another."""
    texts: list[Text] = []
    with patch.object(Text, "draw", lambda text, *_: texts.append(text)):  # ticks beyond the axes are not drawn
        figure.canvas.draw()
    named = [text for text in dict.fromkeys(texts) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text().replace("\n", " "), text.get_window_extent()) for text in named]
    whole = figure.bbox
    found = [
        f"cut: {text!r}"
        for text, box in boxes
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > whole.x1 + 0.5 or box.y1 > whole.y1 + 0.5
    ]
    found += [
        f"overlap: {one!r} and {other!r}"
        for (one, first), (other, second) in combinations(boxes, 2)
        if min(first.x1, second.x1) - max(first.x0, second.x0) > 0.5
        and min(first.y1, second.y1) - max(first.y0, second.y0) > 0.5
    ]
    return found


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures of runs, as they are saved; no pictures where there is no browser to look at the pages."""
    found: list[Any] = []
    save = style.save

    def spy(figure: Any, out: Any) -> None:
        found.append(figure)
        if browser.MISSING:
            figure.draw_without_rendering()  # layouts settle in two passes, and saving has one more
            out.write(b"<svg/>")
        else:
            save(figure, out)

    monkeypatch.setattr(style, "save", spy)
    return found


def test_texts_that_lie_over_each_other_or_are_cut_are_found() -> None:
    figure, (axes,) = style.new_figure(1, 1, width=3, height=3)
    axes.text(0.5, 0.5, "one")
    axes.text(0.5, 0.52, "other")
    axes.set_ylabel(10 * "too long ")
    found = faults(figure)
    assert [text.split(":")[0] for text in found] == ["cut", "overlap"]


@pytest.mark.parametrize("name", NAMES)
def test_every_text_of_every_figure_can_be_read(
    name: str, runs: dict[str, list[Path]], pages: Path, drawn: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plstm_graph.train.analysis.RESAMPLES", 20)
    write_page(runs[name], pages / f"{name}.html")
    assert drawn or name == "forest"
    assert {fault for figure in drawn for fault in faults(figure)} == set()


@pytest.mark.skipif(bool(browser.MISSING), reason=browser.MISSING)
def test_pages_suit_windows_and_phones(pages: Path) -> None:
    """Nothing is wider than the window; for axe-core, nothing serious on pages with all there is between them."""
    written = sorted(pages.glob("*.html"))
    if not written:
        pytest.skip("the pages are written by the tests of their figures")
    audited = [pages / f"{name}.html" for name in ("six-classes", "two-series", "units", "unfinished")]
    assert browser.faults(written, audited) == set()

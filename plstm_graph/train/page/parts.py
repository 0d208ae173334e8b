"""What a page is made of, and how numbers are written on it."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from plstm_graph.errors import rounded
from plstm_graph.train.analysis import Interval, Score


@dataclass(frozen=True)
class Figure:
    """A picture with its words, as a data URI, so that the page needs nothing beside it.

    ``narrow`` is the same for a narrow window, where there is one.
    """

    source: str
    alt: str
    caption: str = ""
    narrow: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first column names the row, ``text`` tells which others hold words, not numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text: Sequence[int] = ()


@dataclass(frozen=True)
class Card:
    """A graph: its drawing, if it has one, and lines of (what, value)."""

    title: str
    lines: Sequence[tuple[str, str]]
    figure: Figure | None = None


@dataclass(frozen=True)
class Folded:
    """What is shown when a reader asks for it."""

    title: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass
class Section:
    """A heading and what stands below it, in this order: words, figures, code, facts, tables, cards, folded parts.

    ``facts`` are pairs of name and value.
    """

    title: str
    text: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    code: str = ""
    facts: Sequence[tuple[str, str]] = ()
    tables: list[Table] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)
    folded: list[Folded] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True)
class Page:
    """``tiles`` are the numbers to see first, as (what, value, note); ``notes`` what a reader has to know."""

    title: str
    subtitle: str
    tiles: Sequence[tuple[str, str, str]]
    notes: Sequence[str]
    sections: Sequence[Section]


def svg(text: str | bytes) -> str:
    """SVG as a data URI."""
    content = text.encode() if isinstance(text, str) else text
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode()


def png(content: bytes) -> str:
    """PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def figure(
    draw: Callable[..., None], *args: Any, alt: str, caption: str = "", panels: bool = False, **options: Any
) -> Figure:
    """What a function of ``plstm_graph.draw`` draws; with ``panels``, in one column for narrow windows."""

    def drawn(**more: Any) -> str:
        stream = io.BytesIO()
        draw(*args, stream, **options, **more)
        return svg(stream.getvalue())

    return Figure(drawn(), alt, caption, drawn(columns=1) if panels else "")


def number(value: Any) -> str:
    """Four significant digits, counts in full, a dash for what is not known."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        short = f"{value:.4f}".rstrip("0").rstrip(".")
        return _minus(f"{value:.4g}" if abs(value) >= 1000 or 0 < abs(value) < 0.01 else short)
    return _minus(f"{value:,}") if isinstance(value, int) and not isinstance(value, bool) else str(value)


def fixed(value: float | None, digits: int = 4) -> str:
    """A number of a column in which all have as many digits, unless nothing would be left of it."""
    return "–" if value is None or not math.isfinite(value) else _minus(rounded(value, digits))


def signed(value: float | None, digits: int = 4) -> str:
    """A difference, with its sign."""
    text = fixed(value, digits)
    return text if text[0] in "–−" else f"+{text}"


def plus_minus(score: Score | None, digits: int = 4) -> str:
    """Mean ± unbiased standard deviation; the value alone for a single run."""
    if score is None:
        return "–"
    spread = f" ± {_minus(rounded(score.deviation, digits, score.mean))}" if score.runs > 1 else ""
    return fixed(score.mean, digits) + spread


def ranges(numbers: Sequence[int]) -> str:
    """``0-9, 12`` for sorted numbers, as ``--seeds`` takes them."""
    parts: list[list[int]] = []
    for each in numbers:
        if parts and each == parts[-1][-1] + 1:
            parts[-1].append(each)
        else:
            parts.append([each])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text.replace("e-", "e−")


def bounds(interval: Interval, digits: int = 4) -> str:
    """The interval as [low, high]."""
    if not math.isfinite(interval.low):
        return "–"
    return f"[{fixed(interval.low, digits)}, {fixed(interval.high, digits)}]"


def option(value: Any) -> str:
    """A value of the config as a reader would type it."""
    return ", ".join(map(str, value)) or "–" if isinstance(value, list) else str(value)

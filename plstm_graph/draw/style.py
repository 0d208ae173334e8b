"""What all pictures share: colours, lettering, panels, and how they are saved.

Colours are Okabe and Ito's, some darkened, so that all readers can tell them apart and see each of them on white.

Every function that draws has an ``out``: the path of an image, whose suffix chooses the format, or a stream that gets
SVG. Those of several panels put as many side by side as ``columns`` says.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from os import PathLike
from textwrap import wrap
from typing import IO, Any, ParamSpec

from plstm_graph.errors import PLSTMGraphError, missing_extra
from plstm_graph.io.files import atomic_write

COLOURS = {"train": "#8C8C8C", "valid": "#C48400", "test": "#0072B2", "best": "#A63D00"}
CYCLE = ("#005A8F", "#A63D00", "#009A70", "#C48400", "#CC79A7", "#3797D3", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = {"train": ".", "valid": "^", "test": "o"}
GREY = "#767676"
MOST_NAMES = 24  # of a legend; beyond, none
LETTER, LONGEST_NAME = 0.083, 30  # inch of a letter; letters of a line of a legend
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.7,
    "svg.hashsalt": "plstm_graph",  # the same picture is the same file
}

Out = str | PathLike[str] | IO[bytes]
P = ParamSpec("P")


def styled(draw: Callable[P, None]) -> Callable[P, None]:
    """Draw in the style of all pictures."""

    @wraps(draw)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            from matplotlib import rc_context
        except ModuleNotFoundError as error:
            raise PLSTMGraphError(missing_extra("matplotlib", "train")) from error
        with rc_context(STYLE):
            draw(*args, **kwargs)

    return run


def looks() -> Iterator[dict[str, str]]:
    """Colour and line of one curve after the other; no two alike among the first 28."""
    while True:
        yield from ({"color": colour, "ls": line} for line in LINES for colour in CYCLE)


def wrapped(text: str, letters: int) -> str:
    """A text on as many lines as it takes."""
    return "\n".join(wrap(" ".join(text.split()), letters)) or text


def name_axes(axes: Any, x: str, y: str, *, width: float) -> None:
    """Labels of axes of so many inches."""
    axes.set_xlabel(wrapped(x, int(width / LETTER)))
    axes.set_ylabel(wrapped(y, int(width / LETTER)))


def legend_above(axes: Any, **more: Any) -> None:
    """Over the panel, where it hides nothing."""
    names = axes.get_legend_handles_labels()[1]
    options = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderpad": 0.1, "handlelength": 1.6}
    axes.legend(ncols=max(1, len(names)), **options | more)


def legend_below(figure: Any, axes: Any, columns: int, **more: Any) -> None:
    """Below all panels."""
    found = axes.get_legend_handles_labels()
    figure.legend(*found, loc="outside lower center", ncols=min(columns, len(found[0])), **more)


def true_minus(text: str) -> str:
    """With the sign of typesetters."""
    return text.replace("-", "−")


def set_title(figure: Any, note: str) -> None:
    """Over all panels."""
    if note:
        figure.suptitle(wrapped(note, int(figure.get_figwidth() / LETTER)), fontsize=11)


def panels(count: int, columns: int, *, width: float, height: float) -> tuple[Any, list[Any]]:
    """So many panels of a size, side by side and below each other."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = new_figure(rows, columns, width=width * columns, height=height * rows)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid[:count]


def new_figure(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Any, list[Any]]:
    """A figure of its own, without pyplot: no global state, no display, safe in any thread."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:  # also for the pictures of ``draw``
        raise PLSTMGraphError(missing_extra("matplotlib", "viz")) from error

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def save(figure: Any, out: Out) -> None:
    """Write an image whole or not at all, or SVG into a stream."""
    if not isinstance(out, str | PathLike):
        figure.savefig(out, format="svg", dpi=150, metadata={"Date": None})
        return
    with atomic_write(out) as temp:
        figure.savefig(temp, dpi=150)

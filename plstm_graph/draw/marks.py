"""Marks that the pictures share: titles, labels, circles, tags, arrows; and how a picture is saved."""

from os import PathLike
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from plstm_graph.errors import ConfigError
from plstm_graph.io.files import atomic_write

SUFFIXES = (".svg", ".png")
INK, MUTED, FAINT = "#222222", "#555555", "#e4e4e4"
TYPE, HEADING, NOTE = 8.0, 10.5, 8.0  # points
PAGE, READABLE = 800, 9  # pixels: width of a page that shows a picture, and the least size of a letter on it
LONGEST_SIDE, RESOLUTION = 20_000, 150  # pixels, dots per inch
BOTH = np.array([-1, 1])


def widest(size: float) -> float:
    """Inches of a picture whose letters of so many points can be read on a page."""
    return size * PAGE / READABLE / 72


def picture_path(path: str | PathLike[str]) -> Path:
    """The path of a picture.

    Raises:
        ConfigError: its suffix is none of :data:`SUFFIXES`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"a picture is written as {' or '.join(SUFFIXES)}, got {path.name!r}; change its suffix")
    return path


def save(figure: Any, path: Path, *, title: str = "") -> None:
    """Whole or not at all; the same figure gives the same bytes. ``title`` is what a screen reader says of an SVG."""
    from matplotlib import rc_context

    vector = path.suffix.lower() == ".svg"
    dots = min(RESOLUTION, LONGEST_SIDE / max(figure.get_size_inches()))
    with rc_context({"svg.hashsalt": "plstm_graph", "svg.fonttype": "none"}), atomic_write(path) as temp:
        figure.savefig(temp, dpi=dots, facecolor="white", metadata={"Date": None} if vector else None)
        if vector and title:
            whole = temp.read_text(encoding="utf-8")
            start, end, rest = whole.partition("<metadata>")
            head = start.rstrip().removesuffix(">") + f' role="img" aria-label={quoteattr(title)}>\n '
            temp.write_text(f"{head}<title>{escape(title)}</title>\n {end}{rest}", encoding="utf-8")


def apart(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of all pairs of points, [N, N] across and [N, N] up; never zero."""
    across, up = np.abs(points[:, None] - points[None]).transpose(2, 0, 1) + 1e-6
    return across, up


def title(axes: Any, zoom: float, text: str, note: str) -> None:
    """A heading over a panel, and a smaller line below it."""
    axes.set_title(text, size=HEADING * zoom, weight="bold", color=INK, pad=17 * zoom)
    style = {"ha": "center", "size": NOTE * zoom, "color": MUTED}
    axes.annotate(note, (0.5, 1), (0, 6 * zoom), "axes fraction", textcoords="offset points", **style)


def label(axes: Any, x: float, y: float, text: str, **style: Any) -> None:
    """A text in the middle of a mark."""
    axes.text(x, y, text, **{"size": TYPE, "ha": "center", "va": "center_baseline", "zorder": 4} | style)


def circle(axes: Any, centre: Any, radius: float, **style: Any) -> Any:
    """White unless told otherwise."""
    from matplotlib.patches import Circle

    return axes.add_patch(Circle(tuple(centre), radius, **{"facecolor": "white", "zorder": 3} | style))


def tag(axes: Any, x: float, y: float, width: float, height: float, **style: Any) -> Any:
    """A box with round ends."""
    from matplotlib.patches import FancyBboxPatch

    box = f"round,pad=0,rounding_size={height / 2}"
    corner = (x - width / 2, y - height / 2)
    return axes.add_patch(FancyBboxPatch(corner, width, height, box, edgecolor=INK, lw=0.5, zorder=3, **style))


def arrow(axes: Any, start: Any, end: Any, *, head: float, outlined: bool = False, **style: Any) -> None:
    """From the rim of one mark to the rim of another."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.patheffects import withStroke

    arrow = FancyArrowPatch(
        *(middle(start), middle(end)),
        patchA=start,
        patchB=end,
        arrowstyle="-|>,head_length=0.6,head_width=0.32",
        mutation_scale=head,
        shrinkA=0.5,
        shrinkB=1,
        zorder=2,
        **style,
    )
    if outlined:  # light colours on white
        arrow.set_path_effects([withStroke(linewidth=style["lw"] + 1, foreground=INK)])
    axes.add_patch(arrow)


def middle(patch: Any) -> tuple[float, float]:
    """The middle of a patch, in the coordinates of its axes."""
    box = patch.get_path().get_extents(patch.get_patch_transform())
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def on(colour: tuple[float, float, float]) -> str:
    """Black or white, whichever has more contrast with a colour, as WCAG defines it: at least 4.5 to 1."""
    parts = np.array(colour)
    linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return "white" if float(linear @ [0.2126, 0.7152, 0.0722]) < 0.179 else "black"

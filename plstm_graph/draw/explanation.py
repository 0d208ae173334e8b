"""Draw an explanation: scores of atoms, and flows between atoms for each mode and reading direction."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from plstm_graph.data.depiction import Layout, layout
from plstm_graph.draw import marks
from plstm_graph.draw.marks import BOTH, INK, MUTED, NOTE
from plstm_graph.draw.molecule import draw_bonds, turned
from plstm_graph.draw.style import CYCLE, new_figure, true_minus
from plstm_graph.errors import ShapeError
from plstm_graph.models.explain import Explanation, as_sum

LOWER, HIGHER = CYCLE[0], CYCLE[3]  # blue and orange: readers who see fewer colours tell them apart, too
ARROWS = 8
"""Most arrows in a panel."""
FAINTEST = 0.05  # of the strongest arrow: weaker ones are left out

# Lengths on paper, in inch.
DISC, GAP, BULGE, BOND_SCALE, LARGEST_SCALE = 0.16, 0.07, 0.26, 0.37, 1.0  # the last two in inch per Å
MARGIN, HEAD, FOOT, BAR = 0.15, 0.46, 0.86, 1.5
NARROWEST, LOWEST, WIDE = 3.3, 0.8, 8.0
NUMBER = 6.0  # points: the smallest letters
LONGEST_UNIT = 24  # letters
BENDS, CLEAR = (0.3, 0.45, 0.6, 0.8, 1.0), 1.15  # tried in turn; room that an arrow leaves to an atom, in radii


class Page(NamedTuple):
    """What to draw on. ``points`` [N, 2] in Å; ``scale`` of the two large panels in inch per Å, small ones have half.

    ``zoom`` is by how much headings and legends are larger on a wide page.
    """

    figure: Any
    molecule: Layout
    points: np.ndarray
    scale: float
    zoom: float
    large: list[Any]
    small: list[Any]


def draw_explanation(explanation: Explanation, smiles: str, path: str | PathLike[str], *, unit: str) -> Path:
    """Picture of an explanation: the whole model's scores of atoms, and what the pLSTM layers carried.

    Orange raises the output and blue lowers it. In the panels of pLSTM layers an atom's colour is the sum of what it
    sent, and arrows are the strongest pairs of different atoms, dashed where they lower the output. All these panels
    share one scale. Small panels show P and D layers, along and against the edges, apart; there are none if the model
    has one kind. Elements of SVG pictures have ids: ``atom-0``, ``sent-0``, ``flow-0-1``, ``P-along-sent-0``,
    ``P-along-flow-0-1``, ...

    Args:
        explanation: of the molecule, from ``explain`` of ``plstm_graph.train`` or of ``plstm_graph.models.explain``.
        smiles: the molecule.
        path: file to write, ``.svg`` or ``.png``.
        unit: of the output, for the legends.

    Returns:
        The path.

    Raises:
        DataError: the text is not a molecule, or rdkit is not installed.
        ShapeError: the explanation is of another molecule.
        ConfigError: unknown suffix.
        OSError: the folder is missing or cannot be written; nothing changes.
    """
    path = marks.picture_path(path)
    words = f"What the prediction for {smiles}, {unit} {explanation.value:.3g}, is made of: the whole model, the layers"
    marks.save(_drawn(explanation, smiles, unit).figure, path, title=true_minus(words))
    return path


def _drawn(explanation: Explanation, smiles: str, unit: str) -> Page:
    molecule = layout(smiles)
    if len(molecule.symbols) != len(explanation.nodes):
        raise ShapeError(
            f"{smiles!r} has {len(molecule.symbols)} atoms, the explanation {len(explanation.nodes)} nodes; "
            "give the molecule that was explained"
        )
    readings = explanation.readings
    page = _page(molecule, len(readings) if len(readings) > 1 else 0)
    unit = " ".join(unit.split())
    unit = unit if len(unit) <= LONGEST_UNIT else unit[: LONGEST_UNIT - 1] + "…"

    scores = explanation.scores.numpy()
    note = as_sum(explanation.value, explanation.blank, explanation.gap, "blank", "atoms and bonds")
    marks.title(page.large[0], page.zoom, "Whole model", note)
    limit = _limit(scores)
    _atoms(page, page.large[0], scores / limit, "atom")
    notes = "blank: the same skeleton, nothing on it", "gap: error of the integral; more --steps, less gap"
    _legend(page, page.large[0], limit, f"{unit}: atoms, each with half of its bonds", *notes)

    whole = explanation.pairs().numpy()
    apart = {reading: explanation.pairs(*reading).numpy() for reading in readings}
    limit = _limit(*(flows.sum(0) for flows in (whole, *apart.values())))
    strongest = _limit(*(_between(flows) for flows in (whole, *apart.values())))
    name = "pLSTM layers" if page.small else "{} layers, {}".format(*readings[0])
    note = as_sum(explanation.value, explanation.silent, explanation.flow_gap, "silent", "flows")
    marks.title(page.large[1], page.zoom, name, note)
    _flows(page, page.large[1], whole, limit, strongest, "")
    notes = _key(whole, strongest), "silent: no pLSTM layer delivers anything"
    same = ["small panels: the same scale of colours and arrows"] if page.small else []
    _legend(page, page.large[1], limit, f"{unit}: what an atom sent", *notes, *same)
    for axes, (mode, direction) in zip(page.small, readings, strict=bool(page.small)):
        flows = apart[mode, direction]
        axes.set_title(
            f"{mode}, {direction}: {_signed(flows.sum())}", size=NOTE * page.zoom, color=INK, pad=4 * page.zoom
        )
        _flows(page, axes, flows, limit, strongest, f"{mode}-{direction}-")
    return page


# ------------------------------------------------------------------ the page


def _page(molecule: Layout, small: int) -> Page:
    """The two large panels, beside each other where their letters can be read on a page, and rows of small ones."""
    points = min(turned(molecule, 30), key=lambda points: round(float((np.ptp(points, axis=0) * [1.0, 1.4]).max()), 3))
    scale = _scale(points)
    low, high = points.min(0), points.max(0)
    width, height = np.maximum((high - low) * scale + 2 * (DISC + BULGE), [NARROWEST, LOWEST])
    columns = 2 if 2 * width + 3 * MARGIN <= marks.widest(NUMBER) else 1
    whole = columns * width + (columns + 1) * MARGIN
    zoom = min(max(whole / WIDE, 1.0), 2.5)
    cell, row, rows = height + (HEAD + FOOT) * zoom, height / 2 + 0.3 * zoom, -(-small // (2 * columns))
    full = np.array([whole, 2 / columns * cell + rows * row + MARGIN])
    figure, panels = new_figure(1, 2 + small, width=full[0], height=full[1])
    figure.set_layout_engine("none")  # sizes on paper are exact
    middle = (low + high) / 2

    def place(axes: Any, left: float, bottom: float, size: np.ndarray, scale: float) -> None:
        axes.set_position([left / full[0], bottom / full[1], size[0] / full[0], size[1] / full[1]])
        axes.set_axis_off()
        half = size / 2 / scale
        axes.set(xlim=middle[0] + half[0] * BOTH, ylim=middle[1] + half[1] * BOTH)

    for number, axes in enumerate(panels[:2]):
        left = MARGIN + number % columns * (width + MARGIN)
        bottom = full[1] - (number // columns + 1) * cell + FOOT * zoom
        place(axes, left, bottom, np.array([width, height]), scale)
    size = np.array([(whole - (2 * columns + 1) * MARGIN) / (2 * columns), height / 2])
    for number, axes in enumerate(panels[2:]):
        line, column = divmod(number, 2 * columns)
        beside = min(2 * columns, small - line * 2 * columns)
        start = (whole - beside * size[0] - (beside - 1) * MARGIN) / 2
        place(axes, start + column * (size[0] + MARGIN), MARGIN + (rows - 1 - line) * row, size, scale / 2)
    return Page(figure, molecule, points, scale, zoom, panels[:2], panels[2:])


def _scale(points: np.ndarray) -> float:
    """Inch per Å at which atoms do not overlap, within limits (rdkit may lay atoms on top of each other)."""
    needed = (2 * DISC + GAP) / np.hypot(*marks.apart(points))
    return min(float(np.triu(needed, 1).max(initial=BOND_SCALE)), LARGEST_SCALE)


def _legend(page: Page, panel: Any, limit: float, *notes: str) -> None:
    """The scale of colours under a panel, and below it what colours and arrows mean."""
    width, height = page.figure.get_size_inches()
    box = panel.get_position()
    long, thick, zoom = BAR * page.zoom, 0.1 * page.zoom, page.zoom
    left, bottom = (box.x0 + box.width / 2) * width - long / 2, box.y0 * height - 0.18 * zoom
    bar = page.figure.add_axes((left / width, bottom / height, long / width, thick / height))
    bar.set_axis_off()
    bar.set(xlim=(-1, 1), ylim=(0, 1))
    edges = np.linspace(-1, 1, 130)
    values = (edges[1:] + edges[:-1])[None] / 2
    bar.pcolormesh(edges, [0, 1], values, cmap=_colours(), vmin=-1, vmax=1, edgecolors="face", lw=0.4)  # no seams
    style = {"size": NOTE * zoom, "va": "center_baseline", "parse_math": False}
    for side, align in ((-1, "right"), (1, "left")):
        bar.text(side * (1 + 0.12 * zoom / long), 0.5, _signed(side * limit), ha=align, color=INK, **style)
    for line, note in enumerate(notes):
        bar.text(0, -0.9 - 1.45 * line, note, ha="center", color=MUTED, **style)


def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", [LOWER, "white", HIGHER], N=257)  # odd: zero is white


# ------------------------------------------------------------------ the panels


def _atoms(page: Page, axes: Any, values: np.ndarray, name: str) -> list[Any]:
    """Atoms as discs, ``values`` [N] from -1 to 1 as colours; with symbol and number where the panel is large."""
    large = axes in page.large
    radius, colours = DISC / page.scale, _colours()  # half the scale in small panels: half the size on paper
    draw_bonds(axes, page.molecule, page.points, page.scale, lw=1.2 if large else 0.6)
    discs = []
    for number, ((x, y), value) in enumerate(zip(page.points, values, strict=True)):
        colour = colours((value + 1) / 2)[:3]
        style = {"facecolor": colour, "edgecolor": MUTED, "lw": 0.6 if large else 0.3, "gid": f"{name}-{number}"}
        discs.append(marks.circle(axes, (x, y), radius, **style))
        if large:
            ink = marks.on(colour)
            marks.label(axes, x, y + 0.25 * radius, page.molecule.symbols[number], color=ink, weight="bold")
            marks.label(axes, x, y - 0.56 * radius, str(number), color=ink, size=NUMBER)
    return discs


def _flows(page: Page, axes: Any, flows: np.ndarray, limit: float, strongest: float, prefix: str) -> None:
    """Arrows over atoms that are coloured by what they sent."""
    discs = _atoms(page, axes, flows.sum(0) / limit, f"{prefix}sent")
    for src, dst, value in _strongest(flows, strongest):
        share = abs(value) / strongest
        marks.arrow(
            axes,
            discs[src],
            discs[dst],
            head=4 + 4 * share,
            color=HIGHER if value > 0 else LOWER,
            lw=0.6 + 1.6 * share,
            linestyle="-" if value > 0 else (0, (2.5, 1.2)),
            connectionstyle=f"arc3,rad={_bend(page, axes, src, dst):.4f}",
            gid=f"{prefix}flow-{src}-{dst}",
        )


def _bend(page: Page, axes: Any, src: int, dst: int) -> float:
    """Curvature of an arrow, the least at which it runs round the atoms between its ends, and within the panel."""
    start, end = page.points[src], page.points[dst]
    across = (end - start) @ np.array([[0, -1], [1, 0]])
    distance = float(np.hypot(*across)) * page.scale + 1e-6
    others = np.delete(page.points, [src, dst], axis=0)
    least = min(0.45, 2 * BULGE / distance)
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    place = np.linspace(0, 1, 41)[1:-1, None]
    best, widest = least, -np.inf
    for size in sorted({least, *(bend for bend in BENDS if bend > least)}):
        for bend in (size, -size):
            middle = (start + end) / 2 + bend * across
            curve = (1 - place) ** 2 * start + 2 * place * (1 - place) * middle + place**2 * end
            room = float(np.hypot(*(curve[:, None] - others[None]).transpose(2, 0, 1)).min(initial=np.inf))
            if not ((curve > low) & (curve < high)).all():
                continue
            if room > CLEAR * DISC / page.scale:
                return bend
            if room > widest:
                best, widest = bend, room
    return best


def _between(flows: np.ndarray) -> np.ndarray:
    """Flows between different atoms."""
    return flows * (1 - np.eye(len(flows)))


def _strongest(flows: np.ndarray, strongest: float) -> Iterator[tuple[int, int, float]]:
    """The pairs to draw, weakest first: (from, to, flow)."""
    between = _between(flows)
    order = np.argsort(np.abs(between), axis=None, kind="stable")[-ARROWS:]
    for dst, src in zip(*np.unravel_index(order, between.shape), strict=True):
        if abs(between[dst, src]) >= max(FAINTEST * strongest, np.finfo(float).tiny):
            yield int(src), int(dst), float(between[dst, src])


def _key(flows: np.ndarray, strongest: float) -> str:
    shown = [abs(value) for _, _, value in _strongest(flows, strongest)]
    return f"arrows: {len(shown)} strongest pairs, {shown[0]:.2g} to {shown[-1]:.2g}; dashed: lower" if shown else ""


def _signed(value: float) -> str:
    return true_minus(f"{value:+.2g}")


def _limit(*values: np.ndarray) -> float:
    """The largest size there is; 1 where all are zero."""
    return max(float(np.abs(value).max(initial=0.0)) for value in values) or 1.0

"""Draw a molecule, the DAG it becomes and the line graph of that DAG in one layout."""

from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from plstm_graph.draw import marks
from plstm_graph.draw.marks import BOTH, FAINT, INK, MUTED, NOTE, TYPE
from plstm_graph.draw.molecule import CHARGES, ELEMENTS, atom_texts, draw_bonds
from plstm_graph.draw.scene import ATOM, LONGEST_NAME, MARGIN, TAG_HEIGHT, Scene, arranged, scene_of, shape_of
from plstm_graph.draw.style import new_figure
from plstm_graph.errors import count
from plstm_graph.orient import check_order

DASHES = (0, (1.8, 1.3))

HYDROGEN, SYMBOL = 0.0, 0.05  # inch: where the hydrogens of an atom begin, and how far each letter moves them
HEAD, LINE, CELL = 0.5, 0.28, 0.22  # inch


class Page(NamedTuple):
    """What to draw on: three ``panels`` in Å, ``scale`` in inch per Å, one of the ``colours`` a level.

    ``zoom`` is by how much headings and legends are larger on a wide page, ``stacked`` whether panels lie below each
    other.
    """

    figure: Any
    panels: list[Any]
    scale: float
    zoom: float
    stacked: bool
    colours: list[tuple[float, float, float]]


def draw(
    smiles: str, path: str | PathLike[str], *, order: str | Tensor = "index", seed: int = 0, title: str | None = None
) -> Path:
    """Picture of molecule → DAG → line graph. The same molecule gives the same SVG, byte for byte.

    In the DAG arrows run from lower to higher rank. In the line graph every edge ``0→1`` of the DAG stands where its
    bond was, an arrow joins two edges that meet at an atom, and pairs that D mode prunes are dashed. Elements of SVG
    pictures have ids: ``atom-0``, ``edge-0-1``, ``tag-0-1``, ``pair-0-1-2``, ``pruned-0-1-2``, ``level-0``.

    Args:
        smiles: one molecule.
        path: file to write, ``.svg`` or ``.png``.
        order: as for :meth:`LineDAG.from_edge_index`, or one of the canonical orders; a rank tensor [N] counts atoms as
            written.
        seed: for ``order="random"``.
        title: of the picture, also for screen readers; the SMILES by default.

    Returns:
        The path.

    Raises:
        DataError: the text is not a molecule, or rdkit is not installed.
        ConfigError: unknown suffix or order.
        OSError: the folder is missing or cannot be written; nothing changes.

    Example:
        >>> draw("CC(=O)Oc1ccccc1C(=O)O", "aspirin.svg")  # doctest: +SKIP
    """
    path = marks.picture_path(path)
    check_order(order)
    scene = arranged(scene_of(smiles, order, seed))
    page = _page(scene)
    title = smiles if title is None else title
    _name(page, title)
    _molecule(scene, page)
    _dag(scene, page, order if isinstance(order, str) else "given by ranks")
    _line_graph(scene, page)
    _levels(page)
    levels, pairs = count(len(page.colours), "level"), count(len(scene.dag.prev), "pair")
    words = f"{title} as a molecule, as a DAG and as its line graph of {levels} and {pairs}"
    marks.save(page.figure, path, title=words)
    return path


def _name(page: Page, title: str) -> None:
    """What is drawn, in the lower left corner."""
    text = title if len(title) <= LONGEST_NAME else f"{title[: LONGEST_NAME - 1]}…"
    style = {"size": NOTE * page.zoom, "color": MUTED, "va": "center_baseline", "parse_math": False}
    page.figure.text(MARGIN / page.figure.get_figwidth(), _line(page, 0), text, gid="name", **style)


def _line(page: Page, number: int) -> float:
    """Height of a line of the foot, counted from below, as a part of the figure's; there is one where there is room."""
    return (LINE * (number * page.stacked + 0.5)) * page.zoom / float(page.figure.get_figheight())


def _colours(levels: int) -> list[tuple[float, float, float]]:
    """One colour a level, dark to light: also an order in greyscale, and for readers who see fewer colours."""
    from matplotlib import colormaps

    return [tuple(colormaps["viridis"](place)[:3]) for place in np.linspace(0.0, 0.9, levels)]


# ------------------------------------------------------------------ the page


def _page(scene: Scene) -> Page:
    scale, widths, height, width, stacked = shape_of(scene)
    zoom = float(np.clip(width / marks.widest(TYPE), 1.0, 2.5))
    rows = 3 if stacked else 1
    head, foot = HEAD * zoom, rows * LINE * zoom + MARGIN
    full = np.array([width, rows * (height + head) + foot])
    figure, panels = new_figure(rows, 3 // rows, width=full[0], height=full[1])
    figure.set_layout_engine("none")  # sizes on paper are exact
    middle = (scene.points.min(0) + scene.points.max(0)) / 2
    for number, axes in enumerate(panels):
        left = MARGIN if stacked else (number + 1) * MARGIN + widths[:number].sum()
        bottom = foot + (rows - 1 - number if stacked else 0) * (height + head)
        axes.set_position([left / full[0], bottom / full[1], widths[number] / full[0], height / full[1]])
        axes.set_axis_off()
        half = np.array([widths[number], height]) / 2 / scale
        axes.set(xlim=middle[0] + half[0] * BOTH, ylim=middle[1] + half[1] * BOTH)
    return Page(figure, panels, scale, zoom, stacked, _colours(scene.dag.num_levels))


def _levels(page: Page) -> None:
    """The scale of colours, under the panel of the DAG: one numbered cell a level."""
    from matplotlib.patches import Rectangle

    levels = len(page.colours)
    if levels == 0:
        return
    width, height = page.figure.get_size_inches()
    panel = page.panels[1].get_position()
    most, word = CELL * page.zoom, 0.42 * page.zoom
    cell = min(most, ((panel.width + (not page.stacked) * panel.x0) * width - 4 * MARGIN - word) / levels)
    long, high = levels * cell, 0.17 * page.zoom
    right = (panel.x0 + panel.width / 2) * width + min(long + word, panel.width * width) / 2
    low = _line(page, 1) * height - high / 2
    bar = page.figure.add_axes(((right - long) / width, low / height, long / width, high / height))
    bar.set(xlim=(0, levels), ylim=(0, 1))
    bar.set_axis_off()
    style = {"va": "center_baseline", "size": NOTE * page.zoom}
    bar.text(-0.08 * page.zoom / cell, 0.5, "level", ha="right", color=INK, **style)
    every = int(np.ceil(0.8 * most / cell))
    for level, colour in enumerate(page.colours):
        bar.add_patch(Rectangle((level, 0), 1, 1, facecolor=colour, edgecolor="white", lw=0.5, gid=f"level-{level}"))
        if level % every == 0:
            bar.text(level + 0.5, 0.5, str(level), ha="center", color=marks.on(colour), **style)


# ------------------------------------------------------------------ the panels


def _molecule(scene: Scene, page: Page) -> None:
    axes, scale = page.panels[0], page.scale
    words = f"{count(len(scene.points), 'atom')}, {count(len(scene.molecule.bonds), 'bond')}"
    marks.title(axes, page.zoom, "Molecule", words)
    draw_bonds(axes, scene.molecule, scene.points, scale)
    for number, (x, y) in enumerate(scene.points):
        symbol, text, side = atom_texts(scene.molecule, scene.points, number)
        marks.circle(axes, (x, y), 0.105 / scale, edgecolor="none")
        colour = ELEMENTS.get(symbol.rstrip(CHARGES), INK)
        style = {"color": colour, "size": TYPE + 1.5, "weight": "bold"}
        marks.label(axes, x, y, symbol, gid=f"atom-{number}", **style)
        if text:  # on white, beside the symbol
            beside = x + side * (HYDROGEN + SYMBOL * len(symbol)) / scale
            box = {"boxstyle": "square,pad=0.02", "facecolor": "white", "edgecolor": "none"}
            marks.label(axes, beside, y, text, ha="left" if side > 0 else "right", bbox=box, zorder=3.5, **style)


def _dag(scene: Scene, page: Page, order: str) -> None:
    axes, scale = page.panels[1], page.scale
    marks.title(
        axes,
        page.zoom,
        "DAG",
        f"{count(len(scene.points), 'node')}, {count(len(scene.dag.src), 'edge')}; order {order}",
    )
    circles = [marks.circle(axes, point, ATOM / scale, edgecolor=INK, lw=0.9) for point in scene.points]
    for number, (x, y) in enumerate(scene.points):
        marks.label(axes, x, y, str(number), color=INK, gid=f"node-{number}")
    ends = zip(scene.dag.src.tolist(), scene.dag.dst.tolist(), scene.dag.level.tolist(), strict=True)
    for src, dst, level in ends:
        marks.arrow(
            axes,
            circles[src],
            circles[dst],
            color=page.colours[level],
            lw=2.2,
            head=7,
            outlined=True,
            gid=f"edge-{src}-{dst}",
        )


def _line_graph(scene: Scene, page: Page) -> None:
    axes, scale, dag = page.panels[2], page.scale, scene.dag
    dropped = dag.num_pairs - len(scene.kept)
    marks.title(axes, page.zoom, "Line graph", f"{count(len(dag.src), 'node')}, {count(len(dag.prev), 'pair')}")
    tags = []
    ends = list(zip(dag.src.tolist(), dag.dst.tolist(), strict=True))
    rows = zip(ends, dag.level.tolist(), scene.centres, scene.tag_widths / scale, strict=True)
    for (src, dst), level, (x, y), width in rows:
        axes.plot(*scene.points[[src, dst]].T, color=FAINT, lw=3, solid_capstyle="round", zorder=0)
        colour = page.colours[level]
        tags.append(marks.tag(axes, x, y, width, TAG_HEIGHT / scale, facecolor=colour))
        marks.label(axes, x, y, f"{src}→{dst}", color=marks.on(colour), gid=f"tag-{src}-{dst}")
    for prev, next in zip(dag.prev.tolist(), dag.next.tolist(), strict=True):
        kept = (prev, next) in scene.kept
        gid = f"{'pair' if kept else 'pruned'}-{ends[prev][0]}-{ends[prev][1]}-{ends[next][1]}"
        style = "-" if kept else DASHES
        marks.arrow(axes, tags[prev], tags[next], color=MUTED, lw=1.1, head=6, linestyle=style, gid=gid)
    if dropped:
        _legend(page, dropped)


def _legend(page: Page, dropped: int) -> None:
    from matplotlib.lines import Line2D

    panel = page.panels[2].get_position()
    page.figure.legend(
        [Line2D([], [], color=MUTED, lw=1.1 * page.zoom, linestyle=DASHES)],
        [f"pruned in D mode ({dropped})"],
        loc="center",
        bbox_to_anchor=(panel.x0 + panel.width / 2, _line(page, 2)),
        frameon=False,
        fontsize=NOTE * page.zoom,
        labelcolor=INK,
        handlelength=2.6,
    )

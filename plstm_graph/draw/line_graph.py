"""Draw a molecule, the DAG it becomes and the line graph of that DAG, side by side in one layout."""

from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from plstm_graph.data.molecules import Layout, canonical_rank, layout
from plstm_graph.draw import marks
from plstm_graph.draw.marks import BOTH, FAINT, INK, MUTED, NOTE, TYPE, count
from plstm_graph.draw.molecule import CHARGES, ELEMENTS, atom_texts, draw_bonds, turned
from plstm_graph.draw.style import new_figure
from plstm_graph.line_dag import LineDAG
from plstm_graph.orient import CANONICAL, check_order

DASHES = (0, (1.8, 1.3))

# Lengths on paper, in inch; the drawing is made as large as they need. Type sizes in points.
ATOM, TAG_HEIGHT, TAG_DIGIT, TAG_ARROW = 0.135, 0.17, 0.066, 0.15
HYDROGEN, SYMBOL = 0.0, 0.05  # where the hydrogens of an atom begin, and how far each letter of it moves them
GAP, REACH = 0.06, 0.18  # between marks that must not touch, and between tags that an arrow joins
BOND_SCALE, CROWDED, LARGEST_SCALE = 0.46, 0.75, 1.4  # inch per Å
MARGIN, HEAD, FOOT, CELL = 0.15, 0.5, 0.42, 0.22
NARROWEST, WIDE = 2.3, 12.0
LONGEST_NAME = 40  # letters


class Scene(NamedTuple):
    """What there is to draw; ``points`` [N, 2] in Å."""

    molecule: Layout
    dag: LineDAG
    points: np.ndarray
    kept: set[tuple[int, int]]
    tag_widths: np.ndarray  # [E], inch

    @property
    def centres(self) -> np.ndarray:
        """Middle of each edge of the DAG, [E, 2] in Å."""
        return (self.points[self.dag.src.numpy()] + self.points[self.dag.dst.numpy()]) / 2


class Page(NamedTuple):
    """What to draw on: three ``panels`` in Å, ``scale`` in inch per Å, one of the ``colours`` a level.

    ``zoom`` is by how much headings and legends are larger on a wide page.
    """

    figure: Any
    panels: list[Any]
    scale: float
    zoom: float
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
        order: as for :meth:`LineDAG.from_edge_index`, or ``"canonical"``; a rank tensor [N] counts atoms as written.
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
    scene = _arranged(_scene(smiles, order, seed))
    page = _page(scene)
    title = smiles if title is None else title
    _name(page, title)
    _molecule(scene, page)
    _dag(scene, page, order if isinstance(order, str) else "given by ranks")
    _line_graph(scene, page)
    _levels(page)
    levels, pairs = count(page.colours, "level"), count(scene.dag.prev, "pair")
    words = f"{title} as a molecule, as a DAG and as its line graph of {levels} and {pairs}"
    marks.save(page.figure, path, title=words)
    return path


def _name(page: Page, title: str) -> None:
    """What is drawn, in the lower left corner."""
    text = title if len(title) <= LONGEST_NAME else f"{title[: LONGEST_NAME - 1]}…"
    width, height = page.figure.get_size_inches()
    style = {"size": NOTE * page.zoom, "color": MUTED, "va": "center_baseline", "parse_math": False}
    page.figure.text(MARGIN / width, 0.145 * page.zoom / height, text, gid="name", **style)


def _scene(smiles: str, order: str | Tensor, seed: int) -> Scene:
    molecule = layout(smiles)
    atoms = len(molecule.symbols)
    ends = torch.tensor([bond[:2] for bond in molecule.bonds], dtype=torch.long).view(-1, 2).t()
    rank = canonical_rank(smiles) if isinstance(order, str) and order == CANONICAL else order
    dag = LineDAG.from_edge_index(ends, atoms, order=rank, batch=torch.zeros(atoms, dtype=torch.long), seed=seed)
    pruned = dag.prune()
    digits = [len(f"{src}{dst}") for src, dst in zip(dag.src.tolist(), dag.dst.tolist(), strict=True)]
    return Scene(
        molecule,
        dag,
        molecule.coordinates,
        set(zip(pruned.prev.tolist(), pruned.next.tolist(), strict=True)),
        np.array(digits) * TAG_DIGIT + TAG_ARROW + 0.07,
    )


def _arranged(scene: Scene) -> Scene:
    """The molecule turned to make the picture small: with bonds at multiples of 30° unless that is crowded."""

    def smallest(step: int) -> Scene:
        return min((scene._replace(points=points) for points in turned(scene.molecule, step)), key=_size)

    upright = smallest(30)
    return upright if _scale(upright) <= CROWDED else smallest(10)


def _size(scene: Scene) -> float:
    """How large the picture becomes, in inch of width; height counts where it is the larger part."""
    width, height = np.ptp(scene.points, axis=0) * _scale(scene)
    return round(max(3 * (width + 0.5), 2 * (height + 0.5)), 3)


def _colours(levels: int) -> list[tuple[float, float, float]]:
    """One colour a level, dark to light: also an order in greyscale, and for readers who see fewer colours."""
    from matplotlib import colormaps

    return [tuple(colormaps["viridis"](place)[:3]) for place in np.linspace(0.0, 0.9, levels)]


# ------------------------------------------------------------------ the page


def _page(scene: Scene) -> Page:
    scale = _scale(scene)
    low, high = scene.points.min(0), scene.points.max(0)
    border = np.array([scene.tag_widths.max(initial=0.0), TAG_HEIGHT]) / 2 + ATOM + 0.05
    width, height = np.maximum((high - low) * scale + 2 * border, [NARROWEST, 0.9])
    zoom = min(max((3 * width + 4 * MARGIN) / WIDE, 1.0), 2.5)
    full = np.array([3 * width + 4 * MARGIN, height + (HEAD + FOOT) * zoom])
    figure, panels = new_figure(1, 3, width=full[0], height=full[1])
    figure.set_layout_engine("none")  # sizes on paper are exact
    middle, half = (low + high) / 2, np.array([width, height]) / 2 / scale
    for number, axes in enumerate(panels):
        left = MARGIN + number * (width + MARGIN)
        axes.set_position([left / full[0], FOOT * zoom / full[1], width / full[0], height / full[1]])
        axes.set_axis_off()
        axes.set(xlim=middle[0] + half[0] * BOTH, ylim=middle[1] + half[1] * BOTH)
    return Page(figure, panels, scale, zoom, _colours(scene.dag.num_levels))


def _scale(scene: Scene) -> float:
    """Inch per Å at which neither atoms nor tags overlap, within limits (rdkit may lay atoms on top of each other)."""
    gap = np.full((len(scene.centres),) * 2, GAP)
    gap[scene.dag.prev.numpy(), scene.dag.next.numpy()] = REACH
    width = np.add.outer(scene.tag_widths, scene.tag_widths) / 2
    across, up = marks.apart(scene.centres)
    tags = np.minimum((width + np.maximum(gap, gap.T)) / across, (TAG_HEIGHT + np.maximum(gap, gap.T)) / up)
    atoms = (2 * ATOM + REACH) / np.hypot(*marks.apart(scene.points))
    needed = [float(np.triu(matrix, 1).max(initial=BOND_SCALE)) for matrix in (tags, atoms)]
    return min(max(needed), LARGEST_SCALE)


def _levels(page: Page) -> None:
    """The scale of colours, under the panel of the DAG: one numbered cell a level."""
    from matplotlib.patches import Rectangle

    levels = len(page.colours)
    if levels == 0:
        return
    width, height = page.figure.get_size_inches()
    panel = page.panels[1].get_position()
    most, word = CELL * page.zoom, 0.4 * page.zoom
    cell = min(most, ((panel.width + panel.x0) * width - 4 * MARGIN - word) / levels)
    long = levels * cell
    right = (panel.x0 + panel.width / 2) * width + min(long + word, panel.width * width) / 2
    low, high = 0.12 * page.zoom, 0.17 * page.zoom
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
    marks.title(axes, page.zoom, "Molecule", f"{count(scene.points, 'atom')}, {count(scene.molecule.bonds, 'bond')}")
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
        f"{count(scene.points, 'node')}, {count(scene.dag.src, 'edge')}; order {order}",
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
    marks.title(axes, page.zoom, "Line graph", f"{count(dag.src, 'node')}, {count(dag.prev, 'pair')}")
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
        loc="lower center",
        bbox_to_anchor=(panel.x0 + panel.width / 2, 0.02 * page.zoom / page.figure.get_figheight()),
        frameon=False,
        fontsize=NOTE * page.zoom,
        labelcolor=INK,
        handlelength=2.6,
    )

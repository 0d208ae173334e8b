"""Draw a molecule, the DAG it becomes and the line graph of that DAG, side by side in one layout."""

from collections import deque
from collections.abc import Iterator, Sized
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from plstm_graph.data.molecules import Layout, canonical_rank, layout
from plstm_graph.errors import ConfigError
from plstm_graph.files import atomic_write
from plstm_graph.line_dag import LineDAG
from plstm_graph.orient import CANONICAL, check_order
from plstm_graph.plots import CYCLE, _figure

SUFFIXES = (".svg", ".png")
INK, MUTED, FAINT = "#222222", "#555555", "#e4e4e4"
DASHES = (0, (1.8, 1.3))
ELEMENTS = {"N": CYCLE[0], "O": CYCLE[3], "S": "#8a6d00", "P": "#8a4f00"}
ELEMENTS |= dict.fromkeys(("F", "Cl", "Br", "I"), "#00694d")

# Lengths on paper, in inch; the drawing is made as large as they need. Type sizes in points.
ATOM, TAG_HEIGHT, TAG_DIGIT, TAG_ARROW = 0.135, 0.17, 0.066, 0.15
GAP, REACH = 0.06, 0.18  # between marks that must not touch, and between tags that an arrow joins
BOND_SCALE, CROWDED, LARGEST_SCALE = 0.46, 0.75, 1.4  # inch per Å
TYPE, HEADING, NOTE = 7.5, 10.0, 7.5
MARGIN, HEAD, FOOT, CELL = 0.15, 0.5, 0.42, 0.22
BOTH = np.array([-1, 1])
NARROWEST, WIDE, LONGEST_SIDE, RESOLUTION = 2.3, 12.0, 20_000, 150  # inch, inch, pixels, dots per inch


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


def draw(smiles: str, path: str | PathLike[str], *, order: str | Tensor = "index", seed: int = 0) -> Path:
    """Picture of molecule → DAG → line graph. The same molecule gives the same SVG, byte for byte.

    In the DAG arrows run from lower to higher rank. In the line graph every edge ``0→1`` of the DAG stands where its
    bond was, an arrow joins two edges that meet at an atom, and pairs that D mode prunes are dashed. Elements of SVG
    pictures have ids: ``atom-0``, ``edge-0-1``, ``tag-0-1``, ``pair-0-1-2``, ``pruned-0-1-2``, ``level-0``.

    Args:
        smiles: one molecule.
        path: file to write, ``.svg`` or ``.png``.
        order: as for :meth:`LineDAG.from_edge_index`, or ``"canonical"``; a rank tensor [N] counts atoms as written.
        seed: for ``order="random"``.

    Returns:
        The path.

    Raises:
        DataError: the text is not a molecule, or rdkit is not installed.
        ConfigError: unknown suffix or order.
        OSError: the folder is missing or cannot be written; nothing changes.

    Example:
        >>> draw("CC(=O)Oc1ccccc1C(=O)O", "aspirin.svg")  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"a picture is written as {' or '.join(SUFFIXES)}, got {path.name!r}; change its suffix")
    check_order(order)
    scene = _arranged(_scene(smiles, order, seed))
    page = _page(scene)
    _molecule(scene, page)
    _dag(scene, page, order if isinstance(order, str) else "given by ranks")
    _line_graph(scene, page)
    _levels(page)
    _save(page.figure, path)
    return path


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
    upright = min(_turned(scene, 30), key=_size)
    return upright if _scale(upright) <= CROWDED else min(_turned(scene, 10), key=_size)


def _turned(scene: Scene, step: int) -> Iterator[Scene]:
    place = scene.points @ [1, 1j]
    bonds = np.array([bond[:2] for bond in scene.molecule.bonds], dtype=int).reshape(-1, 2)
    along = np.angle(place[bonds[:, 1]] - place[bonds[:, 0]])
    tilt = np.angle(np.exp(12j * along).sum()) / 12  # twelve times an angle: 30° is once around
    for degrees in range(0, 180, step):
        turned = place * np.exp(1j * (np.radians(degrees) - tilt))
        yield scene._replace(points=np.stack([turned.real, turned.imag], axis=1))


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
    figure, panels = _figure(1, 3, width=full[0], height=full[1])
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
    across, up = _apart(scene.centres)
    tags = np.minimum((width + np.maximum(gap, gap.T)) / across, (TAG_HEIGHT + np.maximum(gap, gap.T)) / up)
    atoms = (2 * ATOM + REACH) / np.hypot(*_apart(scene.points))
    needed = [float(np.triu(matrix, 1).max(initial=BOND_SCALE)) for matrix in (tags, atoms)]
    return min(max(needed), LARGEST_SCALE)


def _apart(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of all pairs of points, [N, N] across and [N, N] up; never zero."""
    across, up = np.abs(points[:, None] - points[None]).transpose(2, 0, 1) + 1e-6
    return across, up


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
            bar.text(level + 0.5, 0.5, str(level), ha="center", color=_on(colour), **style)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    vector = path.suffix.lower() == ".svg"
    dots = min(RESOLUTION, LONGEST_SIDE / max(figure.get_size_inches()))
    with rc_context({"svg.hashsalt": "plstm_graph", "svg.fonttype": "none"}), atomic_write(path) as temp:
        figure.savefig(temp, dpi=dots, facecolor="white", metadata={"Date": None} if vector else None)


# ------------------------------------------------------------------ the panels


def _molecule(scene: Scene, page: Page) -> None:
    axes, scale = page.panels[0], page.scale
    _title(axes, page.zoom, "Molecule", f"{_count(scene.points, 'atom')}, {_count(scene.molecule.bonds, 'bond')}")
    for first, second, order in scene.molecule.bonds:
        a, b = scene.points[first], scene.points[second]
        along = (b - a) / (np.linalg.norm(b - a) or 1.0)
        side = np.array([-along[1], along[0]]) * 0.05 / scale
        for shift, dashes, shorter in _strokes(scene, first, second, order, side):
            start, end = a + shift * side + shorter * (b - a), b + shift * side - shorter * (b - a)
            axes.plot(*zip(start, end, strict=True), linestyle=dashes, color=INK, lw=1.2, zorder=1)
    for number, (x, y) in enumerate(scene.points):
        symbol = scene.molecule.symbols[number]
        _circle(axes, (x, y), 0.105 / scale, edgecolor="none")
        colour = ELEMENTS.get(symbol, INK)
        _label(axes, x, y, symbol, color=colour, size=TYPE + 1.5, weight="bold", gid=f"atom-{number}")


def _strokes(scene: Scene, first: int, second: int, order: float, side: np.ndarray) -> list[tuple[float, Any, float]]:
    """Lines of a bond: (shift to the side, dash pattern, part left out at each end)."""
    if order == 1.5:  # the dashed line lies inside the ring
        towards = _ring_centre(scene, first, second) - scene.points[first]
        return [(0.0, "-", 0.0), (1.3 if towards @ side >= 0 else -1.3, (0, (2.2, 1.4)), 0.16)]
    if order < 1:
        return [(0.0, ":", 0.0)]
    count = round(order)
    apart = 2.0 if count == 2 else 1.4
    return [(apart * (line - (count - 1) / 2), "-", 0.0) for line in range(count)]


def _ring_centre(scene: Scene, first: int, second: int) -> np.ndarray:
    """Middle of a smallest ring of aromatic bonds through a bond."""
    neighbours: dict[int, list[int]] = {}
    for a, b, order in scene.molecule.bonds:
        if order == 1.5 and {a, b} != {first, second}:
            neighbours.setdefault(a, []).append(b)
            neighbours.setdefault(b, []).append(a)
    before, waiting = {first: first}, deque([first])
    while waiting and second not in before:
        node = waiting.popleft()
        for other in neighbours.get(node, []):
            if other not in before:
                before[other] = node
                waiting.append(other)
    ring = [first]
    node = second
    while node in before and node != first:
        ring.append(node)
        node = before[node]
    return scene.points[ring].mean(0)


def _dag(scene: Scene, page: Page, order: str) -> None:
    axes, scale = page.panels[1], page.scale
    _title(axes, page.zoom, "DAG", f"{_count(scene.points, 'node')}, {_count(scene.dag.src, 'edge')}; order {order}")
    circles = [_circle(axes, point, ATOM / scale, edgecolor=INK, lw=0.9) for point in scene.points]
    for number, (x, y) in enumerate(scene.points):
        _label(axes, x, y, str(number), color=INK, gid=f"node-{number}")
    ends = zip(scene.dag.src.tolist(), scene.dag.dst.tolist(), scene.dag.level.tolist(), strict=True)
    for src, dst, level in ends:
        _arrow(
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
    _title(axes, page.zoom, "Line graph", f"{_count(dag.src, 'node')}, {_count(dag.prev, 'pair')}")
    tags = []
    ends = list(zip(dag.src.tolist(), dag.dst.tolist(), strict=True))
    rows = zip(ends, dag.level.tolist(), scene.centres, scene.tag_widths / scale, strict=True)
    for (src, dst), level, (x, y), width in rows:
        axes.plot(*scene.points[[src, dst]].T, color=FAINT, lw=3, solid_capstyle="round", zorder=0)
        colour = page.colours[level]
        tags.append(_tag(axes, x, y, width, TAG_HEIGHT / scale, facecolor=colour))
        _label(axes, x, y, f"{src}→{dst}", color=_on(colour), gid=f"tag-{src}-{dst}")
    for prev, next in zip(dag.prev.tolist(), dag.next.tolist(), strict=True):
        kept = (prev, next) in scene.kept
        gid = f"{'pair' if kept else 'pruned'}-{ends[prev][0]}-{ends[prev][1]}-{ends[next][1]}"
        style = "-" if kept else DASHES
        _arrow(axes, tags[prev], tags[next], color=MUTED, lw=1.1, head=6, linestyle=style, gid=gid)
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


# ------------------------------------------------------------------ marks


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _title(axes: Any, zoom: float, text: str, note: str) -> None:
    axes.set_title(text, size=HEADING * zoom, weight="bold", color=INK, pad=17 * zoom)
    style = {"ha": "center", "size": NOTE * zoom, "color": MUTED}
    axes.annotate(note, (0.5, 1), (0, 6 * zoom), "axes fraction", textcoords="offset points", **style)


def _label(axes: Any, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, text, **{"size": TYPE, "ha": "center", "va": "center_baseline", "zorder": 4} | style)


def _circle(axes: Any, centre: Any, radius: float, **style: Any) -> Any:
    from matplotlib.patches import Circle

    return axes.add_patch(Circle(tuple(centre), radius, facecolor="white", zorder=3, **style))


def _tag(axes: Any, x: float, y: float, width: float, height: float, **style: Any) -> Any:
    from matplotlib.patches import FancyBboxPatch

    box = f"round,pad=0,rounding_size={height / 2}"
    corner = (x - width / 2, y - height / 2)
    return axes.add_patch(FancyBboxPatch(corner, width, height, box, edgecolor=INK, lw=0.5, zorder=3, **style))


def _arrow(axes: Any, start: Any, end: Any, *, head: float, outlined: bool = False, **style: Any) -> None:
    """From the rim of one mark to the rim of another."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.patheffects import withStroke

    arrow = FancyArrowPatch(
        *(_middle(start), _middle(end)),
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


def _middle(patch: Any) -> tuple[float, float]:
    box = patch.get_path().get_extents(patch.get_patch_transform())
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def _on(colour: tuple[float, float, float]) -> str:
    """Black or white, whichever reads better on a colour."""
    return "white" if float(np.dot(colour, (0.299, 0.587, 0.114))) < 0.55 else "black"

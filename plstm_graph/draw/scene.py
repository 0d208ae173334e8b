"""What a picture of a molecule and its line graph shows, and how large it has to be for all to be read."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plstm_graph.data.depiction import Layout, layout
from plstm_graph.data.molecules import canonical_rank
from plstm_graph.draw import marks
from plstm_graph.draw.molecule import turned
from plstm_graph.line_dag import LineDAG
from plstm_graph.orient import CANONICAL, SEARCHES, search_rank

# Lengths on paper, in inch; the drawing is made as large as they need.
ATOM, TAG_HEIGHT, TAG_DIGIT, TAG_ARROW = 0.135, 0.17, 0.071, 0.15
GAP, REACH = 0.06, 0.18  # between marks that must not touch, and between tags that an arrow joins
BOND_SCALE, CROWDED, LARGEST_SCALE = 0.46, 0.75, 1.4  # inch per Å
MARGIN, NARROWEST, LOWEST, LETTER = 0.12, 2.3, 0.9, 0.066
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


class Shape(NamedTuple):
    """Lengths in inch: of the three panels, which lie below each other where ``stacked``, and of the page."""

    scale: float
    widths: np.ndarray
    height: float
    width: float
    stacked: bool


def shape_of(scene: Scene) -> Shape:
    """Panels side by side where their letters can be read on a page, below each other where not."""
    scale, tag = _scale(scene), scene.tag_widths.max(initial=0.0)
    across, up = np.ptp(scene.points, axis=0) * scale
    sides = np.array([2 * ATOM + 0.3, 2 * ATOM + 0.1, tag + 0.1])  # of hydrogens, circles, tags
    widths, height = np.maximum(across + sides, NARROWEST), max(up + 2 * ATOM + 0.1, LOWEST)
    width = float(widths.sum()) + 4 * MARGIN
    stacked = width > marks.widest(marks.TYPE)
    if stacked:
        widths = np.full(3, max(widths.max(), LONGEST_NAME * LETTER))
        width = float(widths[0]) + 2 * MARGIN
    return Shape(scale, widths, float(height), width, stacked)


def scene_of(smiles: str, order: str | Tensor, seed: int) -> Scene:
    """A molecule as rdkit lays it out, its DAG and its line graph."""
    molecule = layout(smiles)
    atoms = len(molecule.symbols)
    ends = torch.tensor([bond[:2] for bond in molecule.bonds], dtype=torch.long).view(-1, 2).t()
    rank = order
    if isinstance(order, str) and order in (CANONICAL, *SEARCHES):
        rank = canonical_rank(smiles)
        rank = rank if order == CANONICAL else search_rank(ends, rank, order)
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


def arranged(scene: Scene) -> Scene:
    """The molecule turned to make the picture small: with bonds at multiples of 30° unless that is crowded."""

    def smallest(size: Callable[[Scene], tuple[float, ...]]) -> Scene:
        upright, turning = (
            min((scene._replace(points=points) for points in turned(scene.molecule, step)), key=size)
            for step in (30, 10)
        )
        return upright if _scale(upright) <= CROWDED else turning

    found = smallest(_size)
    return smallest(_height) if shape_of(found).stacked else found


def _size(scene: Scene) -> tuple[float, ...]:
    """How large the picture becomes, in inch of width; height counts where it is the larger part."""
    width, height = np.ptp(scene.points, axis=0) * _scale(scene)
    return (round(max(3 * (width + 0.5), 2 * (height + 0.5)), 3),)


def _height(scene: Scene) -> tuple[float, ...]:
    """How high the picture becomes, once its letters can be read."""
    shape = shape_of(scene)
    return round(max(1.0, shape.width / marks.widest(marks.TYPE)), 3), round(shape.height, 3)


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

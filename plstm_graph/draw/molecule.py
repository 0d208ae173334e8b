"""The bonds of a molecule, and the ways to turn it."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from plstm_graph.data.depiction import Layout
from plstm_graph.draw.marks import INK
from plstm_graph.draw.style import CYCLE

WEDGE, BARS = 0.055, 7  # half the wide end, in inch; bars of a bond that goes behind the paper
SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"
CHARGES = "⁺⁻²³⁴⁵⁶⁷⁸⁹"
ELEMENTS = {"N": CYCLE[0], "O": CYCLE[3], "S": "#8a6d00", "P": "#8a4f00"}
ELEMENTS |= dict.fromkeys(("F", "Cl", "Br", "I"), "#00694d")


def turned(molecule: Layout, step: int) -> Iterator[np.ndarray]:
    """Coordinates [N, 2] of the molecule turned by multiples of ``step`` degrees, most bonds at multiples of 30°."""
    place = molecule.coordinates @ [1, 1j]
    bonds = np.array([bond[:2] for bond in molecule.bonds], dtype=int).reshape(-1, 2)
    along = np.angle(place[bonds[:, 1]] - place[bonds[:, 0]])
    tilt = np.angle(np.exp(12j * along).sum()) / 12  # twelve times an angle: 30° is once around
    for degrees in range(0, 180, step):
        found = place * np.exp(1j * (np.radians(degrees) - tilt))
        yield np.stack([found.real, found.imag], axis=1)


def draw_bonds(axes: Any, molecule: Layout, points: np.ndarray, scale: float, *, lw: float = 1.2) -> None:
    """Single, double, triple, aromatic (the dashed line inside the ring) and weaker bonds; ``scale`` in inch per Å."""
    for first, second, order in molecule.bonds:
        ends = (first, second) if (first, second) in molecule.wedges else (second, first)
        if ends in molecule.wedges:
            _draw_wedge(axes, points[ends[0]], points[ends[1]], molecule.wedges[ends], scale, lw)
            continue
        a, b = points[first], points[second]
        along = (b - a) / (np.linalg.norm(b - a) or 1.0)
        side = np.array([-along[1], along[0]]) * 0.05 / scale
        for shift, dashes, shorter in _strokes(molecule, points, first, second, order, side):
            start, end = a + shift * side + shorter * (b - a), b + shift * side - shorter * (b - a)
            axes.plot(*zip(start, end, strict=True), linestyle=dashes, color=INK, lw=lw, zorder=1)


def _draw_wedge(axes: Any, narrow: np.ndarray, wide: np.ndarray, up: bool, scale: float, lw: float) -> None:
    """A filled triangle towards the reader; behind the paper, a row of bars that grow."""
    along = wide - narrow
    side = np.array([-along[1], along[0]]) / (np.linalg.norm(along) or 1.0) * WEDGE / scale
    if up:
        corners = np.array([narrow, wide + side, wide - side])
        axes.fill(*corners.T, facecolor=INK, edgecolor="none", zorder=1)
        return
    for place in np.linspace(0.15, 1.0, BARS):
        bar = np.array([narrow + place * (along + side), narrow + place * (along - side)])
        axes.plot(*bar.T, color=INK, lw=lw, solid_capstyle="butt", zorder=1)


def atom_texts(molecule: Layout, points: np.ndarray, number: int) -> tuple[str, str, float]:
    """What to write at an atom, what beside it for its hydrogens, and on which side: 1 right, -1 left.

    Hydrogens are where there are fewer bonds, right for an atom without any; a charge stands last: NH₄⁺, H₃N⁺.
    """
    symbol, count = molecule.symbols[number], molecule.hydrogens[number]
    ends = [a + b - number for a, b, _ in molecule.bonds if number in (a, b)]
    left = sum(points[other][0] - points[number][0] for other in ends) > 1e-6
    text = ("H" + (SUBSCRIPTS[count] if count > 1 else "")) if count else ""
    if text and not left:
        bare = symbol.rstrip(CHARGES)
        symbol, text = bare, text + symbol[len(bare) :]
    return symbol, text, -1.0 if left else 1.0


def _strokes(
    molecule: Layout, points: np.ndarray, first: int, second: int, order: float, side: np.ndarray
) -> list[tuple[float, Any, float]]:
    """Lines of a bond: (shift to the side, dash pattern, part left out at each end)."""
    if order == 1.5:  # the dashed line lies inside the ring
        towards = _ring_centre(molecule, points, first, second) - points[first]
        return [(0.0, "-", 0.0), (1.3 if towards @ side >= 0 else -1.3, (0, (2.2, 1.4)), 0.16)]
    if order < 1:
        return [(0.0, ":", 0.0)]
    count = round(order)
    apart = 2.0 if count == 2 else 1.4
    return [(apart * (line - (count - 1) / 2), "-", 0.0) for line in range(count)]


def _ring_centre(molecule: Layout, points: np.ndarray, first: int, second: int) -> np.ndarray:
    """Middle of a smallest ring of aromatic bonds through a bond."""
    neighbours: dict[int, list[int]] = {}
    for a, b, order in molecule.bonds:
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
    return points[ring].mean(0)

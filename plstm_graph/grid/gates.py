"""Gates of regular grids and chains: shapes, modes, and the frame in which every direction runs right and down."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.errors import ConfigError, ShapeError, unknown

RIGHT, DOWN = 0, 1
"""Kinds of edges: to the pixel on the right, and to the pixel below (in the frame of a direction)."""
DIRECTIONS = {"right-down": (), "left-down": (-1,), "right-up": (-2,), "left-up": (-2, -1)}
"""Each direction with those of the axes (Y, X) that are flipped so that it runs right and down."""
GENERAL, P, D_LEFT, D_RIGHT = MODES = ("general", "P", "D-left", "D-right")
"""What is known of transitions: nothing; rank one (eq. 10); only the left turn is open, from down to right, or only the
right one, from right to down."""


class GridGates(NamedTuple):
    """Gates of B grids of Y rows and X columns with H heads, for four directions in the order of ``DIRECTIONS``.

    An edge leaves a pixel for the next one to the right (kind 0) or below (kind 1), in the frame of its direction:
    gates stand at their pixel, and the kinds of the direction left-up mean left and up.

    With J > 1 states an edge (Pöppel et al. 2025, B.5) source and mark have a last axis more, [.., 2, J], and the
    transition two, [.., 2, 2, J, J], next x prev.

    Attributes:
        source: what of a pixel enters each edge that leaves it, [B, 4, H, Y, X, 2].
        transition: what passes from an edge that arrives at a pixel to one that leaves it, [B, 4, H, Y, X, 2, 2],
            kind of the next edge x kind of the previous one.
        mark: what a pixel reads of each edge that arrives at it, [B, 4, H, Y, X, 2].
        direct: what a pixel reads of itself, [B, H, Y, X].
        mode: what the maker of the gates promises, one of ``MODES``. ``"P"``: both columns of a transition are the
            same. ``"D-left"``: transition[.., DOWN, RIGHT] is zero, ``"D-right"``: transition[.., RIGHT, DOWN] is.
            A form may rest on it; gradients are then right along the promise (for all that such gates are made of),
            not for each entry of the transition.
    """

    source: Tensor
    transition: Tensor
    mark: Tensor
    direct: Tensor
    mode: str = GENERAL

    @property
    def states(self) -> int:
        """J, or 1."""
        return self.source.size(6) if self.source.dim() == 7 else 1

    def widened(self) -> "GridGates":
        """The same with the axes of J states, also where J = 1."""
        if self.source.dim() == 7:
            return self
        return self._replace(
            source=self.source.unsqueeze(-1),
            transition=self.transition.unsqueeze(-1).unsqueeze(-1),
            mark=self.mark.unsqueeze(-1),
        )

    def narrowed(self) -> "GridGates":
        """The same without the axes of J states where J = 1."""
        if self.source.dim() < 7 or self.states > 1:
            return self
        return self._replace(source=self.source[..., 0], transition=self.transition[..., 0, 0], mark=self.mark[..., 0])

    def turned(self) -> "GridGates":
        """The same with the gates of each direction flipped, so that all run right and down."""
        return self.changed(
            lambda gate: torch.stack([flip(gate[:, at], axes) for at, axes in enumerate(DIRECTIONS.values())], 1)
        )

    def changed(self, change: Callable[[Tensor], Tensor]) -> "GridGates":
        """The same with ``change`` applied to source, transition and mark."""
        return self._replace(source=change(self.source), transition=change(self.transition), mark=change(self.mark))


class ChainGates(NamedTuple):
    """Gates of B chains of n tokens with H heads; an edge leads from each token to the next.

    With J > 1 states an edge source and mark have an axis more, [B, H, n, J], and the transition two, [B, H, n, J, J],
    next x prev.

    Attributes:
        source: what of a token enters the edge that leaves it, [B, H, n].
        transition: what passes a token, from the edge that arrives to the one that leaves, [B, H, n].
        mark: what a token reads of the edge that arrives at it, [B, H, n].
        direct: what a token reads of itself, [B, H, n].
    """

    source: Tensor
    transition: Tensor
    mark: Tensor
    direct: Tensor

    @property
    def states(self) -> int:
        """J, or 1."""
        return self.source.size(-1) if self.source.dim() > self.direct.dim() else 1

    def widened(self) -> "ChainGates":
        """The same with the axes of J states, also where J = 1."""
        if self.source.dim() > self.direct.dim():
            return self
        source, transition, mark, direct = self
        return ChainGates(source.unsqueeze(-1), transition.unsqueeze(-1).unsqueeze(-1), mark.unsqueeze(-1), direct)

    def narrowed(self) -> "ChainGates":
        """The same without the axes of J states where J = 1."""
        if self.source.dim() == self.direct.dim() or self.states > 1:
            return self
        return ChainGates(self.source[..., 0], self.transition[..., 0, 0], self.mark[..., 0], self.direct)


def flip(x: Tensor, axes: Sequence[int]) -> Tensor:
    """``x`` flipped along axes of (Y, X), as ``DIRECTIONS`` has them; Y is axis 2 of ``x``, X the next."""
    return x.flip([4 + axis for axis in axes]) if axes else x


def p_gates(source: Tensor, angle: Tensor, decay: Tensor, mark: Tensor, direct: Tensor) -> GridGates:
    """P mode (Pöppel et al. 2025, eq. 10): ``decay · [[a, a], [1 - a, 1 - a]]``, the source split by the same angle.

    Columns of a transition sum to ``|decay|``, so no state grows.

    Args:
        source, mark: [B, 4, H, Y, X], activated; with J states [.., J].
        angle: share that goes to the right, from 0 to 1, [B, 4, H, Y, X].
        decay: [B, 4, H, Y, X], from -1 to 1; with J states matrices of norm at most 1, [.., J, J].
        direct: [B, H, Y, X].
    """
    share = torch.stack([angle, 1 - angle], -1)

    def split(x: Tensor) -> Tensor:  # [B, 4, H, Y, X, ..] -> [B, 4, H, Y, X, 2, ..]
        return share.view(*share.shape, *[1] * (x.dim() - 5)) * x.unsqueeze(5)

    both = split(decay).unsqueeze(6)
    transition = both.expand(*both.shape[:6], 2, *both.shape[7:])
    marks = mark.unsqueeze(5)
    return GridGates(split(source), transition, marks.expand(*marks.shape[:5], 2, *marks.shape[6:]), direct, P)


def p_code_gates(source: Tensor, angle: Tensor, decay: Tensor, mark: Tensor, direct: Tensor) -> GridGates:
    """P mode as the authors' code has it: ``[[a d, a d], [1 - a d, 1 - a d]]`` with decay d, the source split alike.

    What does not go to the right goes down, whatever the decay and the source: nothing fades, about all of a pixel
    enters below at first, and where the decay is negative states can grow. For comparison; see :func:`p_gates`.

    Args:
        source, angle, decay, mark, direct: as for :func:`p_gates`, with one state an edge.
    """
    if source.dim() != 5:
        raise ConfigError(f"P mode as in the authors' code has one state an edge, got {source.size(-1)}; use mode 'P'")

    def split(x: Tensor) -> Tensor:
        return torch.stack([angle * x, 1 - angle * x], -1)

    transition = split(decay).unsqueeze(-1).expand(*decay.shape, 2, 2)
    return GridGates(split(source), transition, mark.unsqueeze(-1).expand(*mark.shape, 2), direct, P)


def d_gates(
    source: Tensor, right: Tensor, turn: Tensor, down: Tensor, mark: Tensor, direct: Tensor, mode: str = D_LEFT
) -> GridGates:
    """D mode: one of the two turns is closed, so that at most one path joins two edges, and no state grows.

    Args:
        source, mark: [B, 4, H, Y, X, 2], activated; with J states [.., 2, J].
        right, turn, down: transitions from right to right, through the open turn, from down to down, from -1 to 1,
            [B, 4, H, Y, X]; with J states matrices of norm at most 1, [.., J, J].
        direct: [B, H, Y, X].
        mode: ``"D-left"`` (paths run down, turn left once, run right) or ``"D-right"`` (right, then down).
    """
    if mode not in (D_LEFT, D_RIGHT):
        raise ConfigError(unknown("chirality", mode, (D_LEFT, D_RIGHT)))
    none = torch.zeros_like(turn)
    turns = (turn, none) if mode == D_LEFT else (none, turn)
    transition = torch.stack([torch.stack([right, turns[0]], 5), torch.stack([turns[1], down], 5)], 5)
    return GridGates(source, transition, mark, direct, mode)


def general_gates(source: Tensor, transition: Tensor, mark: Tensor, direct: Tensor) -> GridGates:
    """Four free transitions, normalised as eq. 9: what leaves an edge sums to at most 1.

    Args:
        source, mark: [B, 4, H, Y, X, 2], activated; with J states [.., 2, J].
        transition: [B, 4, H, Y, X, 2, 2], next x prev; with J states [.., 2, 2, J, J], measured by their largest
            singular values.
        direct: [B, H, Y, X].
    """
    size = transition.abs() if transition.dim() == 7 else torch.linalg.matrix_norm(transition, 2)
    total = size.sum(-2, keepdim=True).clamp(min=1.0)
    return GridGates(source, transition / total.view(*total.shape, *[1] * (transition.dim() - 7)), mark, direct)


def check_mode(mode: str, more: tuple[str, ...] = ()) -> None:
    """Raise ConfigError unless ``mode`` is one of ``MODES``, or of ``more``."""
    if mode not in (*more, *MODES):
        raise ConfigError(unknown("mode of grid gates", mode, (*more, *MODES)))


def keeps_promise(gates: GridGates) -> bool:
    """Whether transitions are what the mode says; waits for a GPU. NaN, as of a training that diverges, breaks none."""
    transition = gates.transition
    if gates.mode == P:
        right, down = transition[:, :, :, :, :, :, RIGHT], transition[:, :, :, :, :, :, DOWN]
        return torch.equal(right, down) or bool(((right == down) | (right.isnan() & down.isnan())).all())
    if gates.mode in (D_LEFT, D_RIGHT):
        next, prev = (DOWN, RIGHT) if gates.mode == D_LEFT else (RIGHT, DOWN)
        return not bool(transition[:, :, :, :, :, next, prev].any())
    return True


def check_shapes(kind: str, names: Sequence[str], gates: Sequence[Tensor], wanted: Sequence[Sequence[int]]) -> None:
    """Raise ShapeError unless each gate has the shape that is wanted."""
    for name, gate, shape in zip(names, gates, wanted, strict=True):
        if list(gate.shape) != list(shape):
            raise ShapeError(
                f"gate {name} must be {list(shape)} for this {kind}, got {list(gate.shape)}; "
                "kinds of edges (and states, where there are several) stand last, heads before the grid"
            )

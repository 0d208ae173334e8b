"""Tiles: a stretch of a grid or chain as one matrix, and neighbours that become one tile, in logarithmic depth.

A tile of h x w pixels with J states an edge is ``Z = [[T, S], [M, G]]``, the generalised transition, source, mark and
gating matrix of Pöppel et al. 2025, B.4. Its rows are what it gives (states on the edges that leave it, outputs of its
nodes), its columns what it takes (states on the edges that arrive, inputs of its nodes). Two neighbours meet at a
border. What the first gives there the second takes: ``Z₂[:, border] @ Z₁[border, :]`` is all there is to compute.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from plstm_graph.grid.gates import ChainGates, GridGates


class Layout(NamedTuple):
    """How rows and columns of the tiles stand that are joined along one axis: border, other ends, nodes.

    Attributes:
        border: states that pass from a tile to its neighbour.
        ends: states on the sides, for each unit of length.
        nodes: nodes for each unit of length.
    """

    border: int
    ends: int
    nodes: int

    def sides(self, tile: Tensor) -> int:
        """States on the sides of a tile."""
        return (tile.size(-1) - self.border) // (self.ends + self.nodes) * self.ends

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """One tile of two neighbours, or of many pairs: [.., z1, z1] and [.., z2, z2] -> [.., z, z]."""
        border, side1, side2 = self.border, self.sides(first), self.sides(second)
        many = first.size(-1) - border - side1
        link = second[..., :border] @ first[..., :border, :]
        passed, link_side, link_nodes = link.split([border, side2, link.size(-2) - border - side2], -2)
        own_side, own_nodes = first[..., border:, :].split([side1, many], -2)
        left = torch.cat([passed, own_side, link_side, own_nodes, link_nodes], -2)
        kept = second[..., border:]
        top, side, nodes = kept.split([border, side2, kept.size(-2) - border - side2], -2)
        zero = kept.new_zeros(*kept.shape[:-2], side1 + many, kept.size(-1))
        right = torch.cat([top, zero[..., :side1, :], side, zero[..., side1:, :], nodes], -2)
        at = border + side1
        return torch.cat([left[..., :at], right[..., :side2], left[..., at:], right[..., side2:]], -1)

    def joined(self, tiles: Tensor) -> Tensor:
        """All tiles of a line become one, by halves: [.., count, z, z] -> [.., z, z].

        An odd one out waits at the end, so that nothing is filled up.
        """
        rest = None
        while tiles.size(-3) > 1:
            if tiles.size(-3) % 2:
                tiles, last = tiles[..., :-1, :, :], tiles[..., -1:, :, :]
                rest = last if rest is None else self.join(last, rest)
            tiles = self.join(tiles[..., 0::2, :, :], tiles[..., 1::2, :, :])
        return (tiles if rest is None else self.join(tiles, rest)).squeeze(-3)


def tiles(gates: GridGates, height: int, width: int) -> Tensor:
    """Tiles of height x width pixels of gates that run right and down.

    Args:
        gates: with the axes of states, [.., Y, X, 2, J] and so on, Y and X multiples of height and width.
        height, width: h, w.

    Returns:
        [.., Y / h, X / w, z, z] with z = J·w + J·h + h·w: lower ends, right ends, nodes by rows.
    """
    j = gates.source.size(-1)
    line = pixels(gates).unflatten(-3, (-1, width))  # [.., Y, x, w, z, z]
    line = Layout(j, j, 1).joined(line)
    line = _swapped(_swapped(line, j, j * width, -2), j, j * width, -1)
    return Layout(j * width, j, width).joined(line.unflatten(-4, (-1, height)).transpose(-4, -3))


def pixels(gates: GridGates) -> Tensor:
    """Tiles of one pixel, right ends first, [.., Y, X, 2J+1, 2J+1]."""
    source, transition, mark = gates[:3]
    turns = transition.transpose(-3, -2).flatten(-4, -3).flatten(-2)  # next and its state, prev and its state
    upper = torch.cat([turns, source.flatten(-2).unsqueeze(-1)], -1)
    lower = F.pad(mark.flatten(-2), (0, 1)).unsqueeze(-2)
    return torch.cat([upper, lower], -2)


def chain_tiles(gates: ChainGates, size: int) -> Tensor:
    """Chunks of ``size`` tokens, [.., n, J] and so on, n a multiple of it -> [.., n / size, J + size, J + size]."""
    source, transition, mark, _ = gates
    upper = torch.cat([transition, source.unsqueeze(-1)], -1)
    tokens = torch.cat([upper, F.pad(mark, (0, 1)).unsqueeze(-2)], -2)
    return Layout(source.size(-1), 0, 1).joined(tokens.unflatten(-3, (-1, size)))


def reach(transition: Tensor) -> Tensor:
    """Products of the transitions strictly between two places of a line, [.., n, J, J] -> [.., n, J, n, J].

    Where the first does not stand behind the second it is zero.
    """
    n, j = transition.shape[-3:-1]
    eye = torch.eye(j, dtype=transition.dtype, device=transition.device).expand_as(transition)
    upper = torch.cat([transition, eye], -1)
    places = torch.cat([upper, torch.cat([eye, torch.zeros_like(eye)], -1)], -2)
    whole = Layout(j, 0, j).joined(places)
    return whole[..., j:, j:].unflatten(-1, (n, j)).unflatten(-3, (n, j))


def _swapped(tile: Tensor, first: int, second: int, axis: int) -> Tensor:
    """The two groups of ends change places."""
    a, b, rest = tile.split([first, second, tile.size(axis) - first - second], axis)
    return torch.cat([b, a, rest], axis)

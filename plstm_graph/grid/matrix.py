"""Parallel forms: the four directions' gating matrices are added, then one masked linear attention."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from plstm_graph.errors import BackendUnavailable
from plstm_graph.grid.gates import D_LEFT, D_RIGHT, DIRECTIONS, DOWN, RIGHT, GridGates
from plstm_graph.grid.merge import reach, tiles

MAX_BYTES = 2**33
"""Largest working set of the gating matrices of four directions, 8 GiB."""


def log(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """Gating matrices in logarithmic depth: neighbours merge over their borders until one tile is left."""
    return _attend(query, key, value, gates, _log)


def rows(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """Gating matrices row after row: Y steps, each one triangular product for all that lies above."""
    return _attend(query, key, value, gates, _rows)


def closed(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """Gating matrices of D mode, no recurrence: every path is a column's piece, one turn, and a row's piece."""
    if gates.mode not in (D_LEFT, D_RIGHT):
        raise BackendUnavailable(
            f"form 'closed' is for gates whose mode is {D_LEFT!r} or {D_RIGHT!r}, these are {gates.mode!r}; use 'log'"
        )
    return _attend(query, key, value, gates, _left if gates.mode == D_LEFT else _right)


def matrix_bytes(gates: GridGates) -> int:
    """Bytes of the gating matrices of four directions."""
    images, heads, rows, columns = gates.direct.shape
    return 4 * images * heads * (rows * columns) ** 2 * gates.direct.element_size()


def _attend(query: Tensor, key: Tensor, value: Tensor, gates: GridGates, make: Callable[[GridGates], Tensor]) -> Tensor:
    """``y = ((Q Kᵀ) ⊙ Σ G) V + direct (q·k) v``; ``make`` gives [B, 4, H, Y, X, Y, X]."""
    needed = matrix_bytes(gates)
    if needed > MAX_BYTES:
        raise BackendUnavailable(
            f"gating matrices of {list(gates.direct.shape)} pixels need {needed / 2**30:.1f} GiB, more than the limit "
            f"of {MAX_BYTES / 2**30:.0f}; use form='tiles'"
        )
    matrix = added(make(gates.widened().turned()))
    q, k, v = (x.flatten(2, 3) for x in (query, key, value))
    output = ((q @ k.transpose(-1, -2)) * matrix.flatten(-2).flatten(2, 3)) @ v
    return output.view(value.shape) + gates.direct.unsqueeze(-1) * (query * key).sum(-1, keepdim=True) * value


def added(matrices: Tensor) -> Tensor:
    """Matrices of the four directions turned back and added, [B, 4, H, .., Y, X, Y, X] -> [B, H, .., Y, X, Y, X]."""
    total = matrices[:, 0]
    for number, axes in enumerate(DIRECTIONS.values()):
        if axes:
            total = total + matrices[:, number].flip([*axes, *(axis - 2 for axis in axes)])
    return total


def _log(gates: GridGates) -> Tensor:
    height, width = gates.direct.shape[2:]
    whole = tiles(gates, height, width)[..., 0, 0, :, :]
    ends = gates.states * (height + width)
    return whole[..., ends:, ends:].unflatten(-1, (height, width)).unflatten(-3, (height, width))


def _rows(gates: GridGates) -> Tensor:
    """With W the products between places of a row, b what arrives from above as a matrix on all sources so far:
    ``a = W (t[R,D] b + s[R])``, ``b' = t[D,D] b + t[D,R] a + s[D]``, output ``m[R] a + m[D] b``."""
    source, transition, mark = gates[:3]
    height, width, _, j = source.shape[3:]
    between = reach(transition[..., RIGHT, RIGHT, :, :])  # [B, 4, H, Y, X, J, X, J]
    above = source.new_zeros(*source.shape[:3], width, j, 0)
    output = []
    for i in range(height):
        into = torch.diag_embed(source[:, :, :, i].movedim(3, -1)).movedim(-2, 3)  # [B, 4, H, X, 2, J, X]
        turn = transition[:, :, :, i]  # [B, 4, H, X, 2, 2, J, J]
        fed = torch.cat([turn[..., RIGHT, DOWN, :, :] @ above, into[..., RIGHT, :, :]], -1)
        left = (between[:, :, :, i].flatten(-2).flatten(3, 4) @ fed.flatten(3, 4)).view(fed.shape)
        above = F.pad(above, (0, width))
        read = mark[:, :, :, i, :, :, None, :] @ torch.stack([left, above], 4)  # [B, 4, H, X, 2, 1, ..]
        output.append(F.pad(read.sum(4).squeeze(4), (0, (height - 1 - i) * width)))
        down = F.pad(into[..., DOWN, :, :], (i * width, 0))
        above = turn[..., DOWN, DOWN, :, :] @ above + turn[..., DOWN, RIGHT, :, :] @ left + down
    return torch.stack(output, 3).unflatten(-1, (height, width))


def _left(gates: GridGates) -> Tensor:
    """Paths run down, turn left, run right: from (y', x') through (y, x') to (y, x)."""
    source, transition, mark = gates[:3]
    height = source.size(3)
    across = torch.einsum("bdhyxj,bdhyxjpi->bdhyxpi", mark[..., RIGHT, :], reach(transition[..., RIGHT, RIGHT, :, :]))
    row = torch.einsum("bdhyxpj,bdhypji->bdhyxpi", across, transition[..., RIGHT, DOWN, :, :])
    row = row + torch.diag_embed(mark[..., DOWN, :].transpose(-1, -2)).movedim(-3, -1)  # or it ends where it came down
    below = reach(transition[..., DOWN, DOWN, :, :].transpose(3, 4))  # [B, 4, H, X, Y, J, Y, J]
    column = torch.einsum("bdhxyjqi,bdhqxi->bdhxyjq", below, source[..., DOWN, :])
    whole = torch.einsum("bdhyxpj,bdhpyjq->bdhyxqp", row, column)
    same = torch.einsum("bdhyxpj,bdhypj->bdhyxp", across, source[..., RIGHT, :])  # and those that never leave a row
    eye = torch.eye(height, dtype=whole.dtype, device=whole.device).view(height, 1, height, 1)
    return whole + same.unsqueeze(5) * eye


def _right(gates: GridGates) -> Tensor:
    """Paths run right, then down: the same with rows and columns, and the two kinds of edges, exchanged."""
    source, transition, mark, direct, _ = gates
    mirrored = GridGates(
        source.transpose(3, 4).flip(5), transition.transpose(3, 4).flip(5, 6), mark.transpose(3, 4).flip(5), direct
    )
    return _left(mirrored).transpose(3, 4).transpose(5, 6)

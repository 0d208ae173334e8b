"""Chunkwise form of images (B.7): tiles in parallel form, K x V states on their borders alone."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from plstm_graph.grid.gates import DIRECTIONS, GridGates, flip
from plstm_graph.grid.matrix import added
from plstm_graph.grid.merge import tiles

TILE = 8
PIECE = 2**28
"""Bytes of an intermediate result from which on it is made in pieces, which the backward pass makes again."""


def tiled(query: Tensor, key: Tensor, value: Tensor, gates: GridGates, height: int = TILE, width: int = TILE) -> Tensor:
    """Tiles of height x width pixels; their borders along anti-diagonals of tiles, Y/h + X/w - 1 serial steps."""
    rows, columns = value.shape[2:4]
    h, w = min(height, rows), min(width, columns)
    fill = (-columns % w, -rows % h)

    def cut(x: Tensor) -> Tensor:  # [B, H, Y, X, width] -> [B, H, y, x, h*w, width]
        return x.unflatten(3, (-1, w)).unflatten(2, (-1, h)).transpose(3, 4).flatten(4, 5)

    def whole(x: Tensor) -> Tensor:
        return x.unflatten(4, (h, w)).transpose(3, 4).flatten(4, 5).flatten(2, 3)

    query, key, filled = (F.pad(x, (0, 0, 0, fill[0], 0, fill[1])) for x in (query, key, value))
    wide = gates.widened().changed(lambda gate: _filled(gate, fill)).turned()
    matrices = tiles(wide, h, w)  # [B, 4, H, y, x, z, z]
    ends = gates.states * (h + w)
    inside = _inside(matrices[..., ends:, ends:], h, w)
    q, k, v = (cut(x) for x in (query, key, filled))
    output = whole(((q @ k.transpose(-1, -2)) * inside) @ v)

    def carried(number: int, axes: tuple[int, ...]) -> Tensor:
        """What one direction carries from tile to tile."""
        q, k, v = (cut(flip(x, axes)) for x in (query, key, filled))
        return flip(whole(_between(q, k, v, matrices[:, number], w * gates.states)), axes)

    states = q[..., 0, 0].numel() * ends * key.size(-1) * value.size(-1) * value.element_size()
    for number, axes in enumerate(DIRECTIONS.values()):
        output = output + _again_if(states > PIECE, carried, number, axes)
    output = output[:, :, :rows, :columns]
    query, key = query[:, :, :rows, :columns], key[:, :, :rows, :columns]
    return output + gates.direct.unsqueeze(-1) * (query * key).sum(-1, keepdim=True) * value


def _filled(gate: Tensor, fill: tuple[int, int]) -> Tensor:
    """Closed gates to the right and below, [B, 4, H, Y, X, ..]."""
    return F.pad(gate, [*[0, 0] * (gate.dim() - 5), 0, fill[0], 0, fill[1]])


def _inside(matrices: Tensor, h: int, w: int) -> Tensor:
    """Gating matrices inside the tiles, turned back and added, [B, 4, H, y, x, n, n] -> [B, H, y, x, n, n]."""
    parts = matrices.unflatten(-1, (h, w)).unflatten(-3, (h, w))
    turned = torch.stack([flip(parts[:, at], axes) for at, axes in enumerate(DIRECTIONS.values())], 1)
    return added(turned).flatten(-2).flatten(-3, -2)


def _between(query: Tensor, key: Tensor, value: Tensor, matrices: Tensor, upper: int) -> Tensor:
    """What comes from other tiles in one direction: [B, H, y, x, n, ..] and [B, H, y, x, z, z] -> [B, H, y, x, n, V].

    ``upper`` of the ends of a tile are those above (below, where it gives).
    """
    down, right, nodes = value.shape[2:5]
    keys, values = key.size(-1), value.size(-1)
    order = torch.tensor(_by_diagonal(down, right), device=value.device)
    back = torch.argsort(order)
    query, key, value, matrices = (x.flatten(2, 3).index_select(2, order) for x in (query, key, value, matrices))
    ends = matrices.size(-1) - nodes
    through, source, mark = (
        matrices[..., :ends, :ends], matrices[..., :ends, ends:], matrices[..., ends:, :ends]
    )  # fmt: skip
    given = _in_pieces(_give, ends * keys, source, key, value).unflatten(3, (ends, keys)).flatten(-2)
    states = _diagonals(through, given, (down, right), upper).unflatten(-1, (keys, values)).flatten(3, 4)
    found = _in_pieces(_read, ends * keys, mark, query, states)
    return found.index_select(2, back).unflatten(2, (down, right))


def _give(source: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What tiles put on their ends, ``Σ source k ⊗ v``: [.., ends, n], [.., n, K], [.., n, V] -> [.., ends * K, V]."""
    fed = source.unsqueeze(-2) * key.transpose(-1, -2).unsqueeze(-3)
    return fed.flatten(-3, -2) @ value


def _read(mark: Tensor, query: Tensor, states: Tensor) -> Tensor:
    """What nodes read of the states that arrive: [.., n, ends], [.., n, K], [.., ends * K, V] -> [.., n, V]."""
    return (mark.unsqueeze(-1) * query.unsqueeze(-2)).flatten(-2) @ states


def _diagonals(through: Tensor, given: Tensor, shape: tuple[int, int], upper: int) -> Tensor:
    """States that arrive at each tile, tiles by anti-diagonal: [B, H, T, e, e], [B, H, T, e, S] -> [B, H, T, e, S]."""
    spans = _spans(*shape)
    sizes = [high - low for low, high in spans]
    arriving = given.new_zeros(*given.shape[:2], 1, *given.shape[3:])
    taken = []
    steps = zip(through.split(sizes, 2), given.split(sizes, 2), spans, [*spans[1:], (0, 0)], strict=True)
    for carry, add, (low, _), (next_low, next_high) in steps:
        taken.append(arriving)
        # A row more on either side, where nothing leaves: the first tile of a row or column takes from there.
        leaving = F.pad(carry @ arriving + add, (0, 0, 0, 0, 1, 1))
        begin, end = next_low - low, next_high - low
        above = leaving[:, :, begin:end, :upper]
        before = leaving[:, :, begin + 1 : end + 1, upper:]
        arriving = torch.cat([above, before], 3)
    return torch.cat(taken, 2)


def _spans(down: int, right: int) -> list[tuple[int, int]]:
    """Rows of the tiles on each anti-diagonal."""
    return [(max(0, at - right + 1), min(down, at + 1)) for at in range(down + right - 1)]


@lru_cache(maxsize=64)
def _by_diagonal(down: int, right: int) -> list[int]:
    """Numbers of the tiles by anti-diagonal, in it by row."""
    spans = enumerate(_spans(down, right))
    return [row * right + at - row for at, (low, high) in spans for row in range(low, high)]


def _in_pieces(run: Callable[..., Tensor], rows: int, matrices: Tensor, *vectors: Tensor) -> Tensor:
    """``run`` on some tiles at a time where its factor of ``rows`` x n would be large, [B, H, T, ..] each."""
    nodes = vectors[0].size(3)
    needed = matrices[..., 0, 0].numel() * rows * nodes * matrices.element_size()
    tensors = (matrices, *vectors)
    if needed <= PIECE:
        return run(*tensors)
    each = max(1, matrices.size(2) * PIECE // needed)
    pieces = zip(*(x.split(each, 2) for x in tensors), strict=True)
    return torch.cat([_again_if(True, run, *piece) for piece in pieces], 2)


def _again_if(large: bool, run: Callable[..., Tensor], *inputs: object) -> Tensor:
    """What ``run`` gives; if ``large`` the backward pass computes it again instead of keeping what led to it."""
    if not large:
        return run(*inputs)
    found: Tensor = checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
    return found

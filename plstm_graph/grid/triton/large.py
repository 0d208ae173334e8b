"""Images of any size by kernels: tiles in parallel form, states on their borders along anti-diagonals."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from plstm_graph.grid.gates import GridGates
from plstm_graph.grid.triton import attention, sweep, tile
from plstm_graph.launch import ceil_div, in_units, launch, power_of_2
from plstm_graph.ops.functional import once_differentiable

SIDE = 8
"""Rows and columns of a tile. Per pixel, products with states cost as much as this, and bytes of states its inverse."""
GROUPS, ROWS = 4, 4
"""Programs that share the K rows of a tile's states, and how many of them each deals with at once."""
ROOM = 2**32
"""Bytes that the states of a launch may take; more images than that go one part after the other."""
Options = tuple[tuple[str, Any], ...]
ONE_WARP: Options = (("num_warps", 1),)
FOUR_WARPS: Options = (("num_warps", 4),)
CARRY = SEE = FOUR_WARPS


class Sizes:
    """What kernels are told of an image at compile time, its tiles, and the rooms that they need.

    Args:
        value: [B, H, Y, X, V].
        keys: K.
        wide: dtype of matrices, and of states but for bfloat16.
    """

    def __init__(self, value: Tensor, keys: int, wide: torch.dtype) -> None:
        self.images, self.heads, self.rows, self.columns, self.values = value.shape
        self.keys, self.wide = keys, wide
        self.down, self.right = ceil_div(self.rows, SIDE), ceil_div(self.columns, SIDE)
        self.tiles, self.pixels, self.ends = self.down * self.right, SIDE * SIDE, 2 * SIDE
        self.lanes = power_of_2(self.pixels + self.ends)
        some = ceil_div(ceil_div(keys, GROUPS), ROWS) * ROWS
        self.groups = ceil_div(keys, some)
        kp, vp = max(16, power_of_2(keys)), max(16, power_of_2(self.values))
        half = value.dtype.itemsize == 2
        self.states = value.dtype if value.dtype == torch.bfloat16 else wide
        precision = "ieee" if wide == torch.float64 else "tf32" if half else "tf32x3"
        self.see = (SIDE, keys, self.values, vp, ROWS, precision)
        self.carry = (*self.see, some, self.groups)
        block = 64 if half or max(kp, vp) <= 64 else 32
        self.attend = (1, self.pixels, self.pixels, 1, keys, self.values, kp, vp, block, block, precision)
        self.blocks = ceil_div(self.pixels, block)
        each = 4 * self.tiles * self.ends * keys * self.values * self.states.itemsize
        self.at_once = max(1, ROOM // each)

    def cut(self, x: Tensor) -> Tensor:
        """[B, H, .., Y, X, width] -> [B * H, .., TILES, N, width], zero where a tile has no pixel."""
        x = F.pad(x, (0, 0, 0, -self.columns % SIDE, 0, -self.rows % SIDE))
        x = x.unflatten(-2, (-1, SIDE)).unflatten(-4, (-1, SIDE)).transpose(-4, -3)
        return x.flatten(-3, -2).flatten(-4, -3).flatten(0, 1).contiguous()

    def whole(self, x: Tensor) -> Tensor:
        """The other way round."""
        x = x.unflatten(-2, (SIDE, SIDE)).unflatten(-4, (self.down, self.right)).transpose(-4, -3)
        x = x.flatten(-5, -4).flatten(-3, -2)[..., : self.rows, : self.columns, :]
        return x.unflatten(0, (self.images, self.heads))

    def diagonals(self) -> list[tuple[int, int, int]]:
        """First row, number and count of the tiles of each anti-diagonal."""
        found = []
        for at in range(self.down + self.right - 1):
            low = max(0, at - self.right + 1)
            found.append((low, at, min(self.down, at + 1) - low))
        return found


class Tiles:
    """Some images and heads, M of them, tile by tile, and the matrices of their tiles, see ``tile``.

    Attributes:
        query, key, value: [M, TILES, N, K or V].
        gates: [M, 4, TILES, N, 8].
        direct: [M, TILES, N, 1].
        turned: query and key [M, TILES, K, N].
        through, source, mark, inside: the matrices.
        walked: with ``keep``, what arrives at each pixel.
    """

    def __init__(
        self, sizes: Sizes, query: Tensor, key: Tensor, value: Tensor, gates: Tensor, direct: Tensor, keep: bool
    ) -> None:
        self.sizes, self.many = sizes, query.size(0)
        self.query, self.key, self.value, self.gates, self.direct = query, key, value, gates, direct
        self.turned = [x.transpose(-1, -2).contiguous() for x in (query, key)]
        ends, pixels = sizes.ends, sizes.pixels
        self.through, self.source, self.mark = (
            self.empty(*shape) for shape in ((ends, ends), (ends, pixels), (pixels, ends))
        )
        self.inside = gates.new_empty(self.many, sizes.tiles, pixels, pixels)
        self.walked = self.empty(pixels, 2, sizes.lanes) if keep else gates
        tensors = [gates, direct, self.through, self.source, self.mark, self.inside, self.walked]
        grid, constants = (self.many * sizes.tiles,), (SIDE, sizes.lanes, keep)
        launch(tile.walk, grid, tensors, (), [sizes.tiles], constants, ONE_WARP)

    def empty(self, *shape: int, parts: int = 1, dtype: torch.dtype | None = None) -> Tensor:
        """Room for each tile in each direction, or for parts of it."""
        groups = (parts,) if parts > 1 else ()
        return self.gates.new_empty(*groups, self.many, 4, self.sizes.tiles, *shape, dtype=dtype)

    def carried(self) -> Tensor:
        """States that leave the tiles."""
        sizes = self.sizes
        states = self.empty(sizes.ends, sizes.keys, sizes.values, dtype=sizes.states)
        self._carry([self.turned[1], self.value, self.through, self.source, states, states], back=False)
        return states

    def carried_back(self, states: Tensor, d_y: Tensor) -> Tensor:
        """Puts adjoints of the states in their place; the gradient of ``through``, in parts."""
        d_through = self.empty(*self.through.shape[3:], parts=self.sizes.groups)
        self._carry([self.turned[0], d_y, self.through, self.mark, states, d_through], back=True)
        return d_through

    def _carry(self, tensors: list[Tensor], back: bool) -> None:
        sizes = self.sizes
        for low, at, count in sizes.diagonals()[:: -1 if back else 1]:
            grid, numbers = (self.many * 4 * count * sizes.groups,), [low, at, count, sizes.down, sizes.right]
            launch(sweep.carry, grid, tensors, (), numbers, (*sizes.carry, back), CARRY)

    def _see(self, tensors: list[Tensor], read: bool, gradients: bool, back: bool) -> None:
        sizes = self.sizes
        grid, constants = (self.many * 4 * sizes.tiles,), (*sizes.see, read, gradients, back)
        launch(sweep.see, grid, tensors, (), [sizes.down, sizes.right], constants, SEE)

    def _attend(self, kernel: Any, tensors: list[Tensor], *vectors: Tensor) -> None:
        """Attention within tiles; each tile is an image of one head."""
        strides = [stride for x in vectors for stride in (x.stride(1), 0, x.stride(2))]
        strides, unit = in_units(strides, vectors[0].dtype.itemsize)
        grid = (self.many * self.sizes.tiles * self.sizes.blocks,)
        launch(kernel, grid, tensors, (), [0, *strides], (*self.sizes.attend, unit), FOUR_WARPS)

    def forward(self) -> Tensor:
        """Output [M, TILES, N, V]."""
        query, key, value, wide = self.query, self.key, self.value, self.sizes.wide
        states = self.carried()
        seen, y = self.empty(*value.shape[2:]), torch.empty_like(value, dtype=wide)
        self._see([self.turned[0], value, self.mark, states, seen, seen, seen], True, False, False)
        self._attend(attention.forward, [query, key, value, self.inside, y], query, key, value)
        return y.add_(seen.sum(1))

    def backward(self, d_y: Tensor) -> list[Tensor]:
        """Gradients of query, key, value [M, TILES, N, ..], gates and direct, from that of the output."""
        sizes, query, key, value = self.sizes, self.query, self.key, self.value
        states = self.carried()
        d_queries, d_keys = (self.empty(sizes.keys, sizes.pixels) for _ in range(2))
        d_mark, d_source = torch.empty_like(self.mark), torch.empty_like(self.source)
        d_values = self.empty(*value.shape[2:])
        self._see([self.turned[0], d_y, self.mark, states, d_values, d_mark, d_queries], False, True, False)
        d_through = self.carried_back(states, d_y)
        self._see([self.turned[1], value, self.source, states, d_values, d_source, d_keys], True, True, True)
        d_query, d_key, d_value = (torch.empty_like(x, dtype=sizes.wide) for x in (query, key, value))
        d_direct, d_gates = torch.empty_like(self.direct), torch.empty_like(self.gates)
        self._attend(attention.back_queries, [key, value, d_y, self.inside, d_query], key, value)
        tensors = [query, key, value, d_y, self.inside, d_key, d_value, d_direct]
        self._attend(attention.back_keys, tensors, query, key, value)  # leaves the gradient of ``inside`` in its place
        tensors = [self.gates, d_gates, d_through, d_source, d_mark, self.inside, self.walked]
        constants = (SIDE, sizes.lanes, sizes.groups)
        launch(tile.back, (self.many * 4 * sizes.tiles,), tensors, (), [sizes.tiles], constants, ONE_WARP)
        d_query.add_(d_queries.sum(1).transpose(-1, -2))
        d_key.add_(d_keys.sum(1).transpose(-1, -2))
        return [d_query, d_key, d_value.add_(d_values.sum(1)), d_gates, d_direct]


def _tiles(sizes: Sizes, tensors: list[Tensor], keep: bool) -> Iterator[Tiles]:
    """Query, key, value, source, transition, mark and direct as tiles, some images and heads at a time."""
    query, key, value, source, transition, mark, direct = tensors
    gates = torch.cat([source, transition.flatten(-2), mark], -1).transpose(1, 2)
    cut = [sizes.cut(x) for x in (query, key, value, gates, direct.unsqueeze(-1))]
    for query, key, value, gates, direct in zip(*(x.split(sizes.at_once) for x in cut), strict=True):
        yield Tiles(sizes, query, key, value, gates, direct, keep)


def forward(*inputs: Any) -> Tensor:
    """Output [B, H, Y, X, V] of query, key, value, four gates and their mode."""
    *tensors, _ = inputs
    query, _, value, source = tensors[:4]
    sizes = Sizes(value, query.size(-1), source.dtype)
    found = [part.forward() for part in _tiles(sizes, tensors, keep=False)]
    return sizes.whole(torch.cat(found)).to(value.dtype).contiguous()


def backward(d_y: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    """Gradients of the seven tensors among the inputs of :func:`forward`, from that of its output."""
    *tensors, _ = inputs
    query, _, value, source = tensors[:4]
    sizes = Sizes(value, query.size(-1), source.dtype)
    d_ys = sizes.cut(d_y).split(sizes.at_once)
    found = [
        part.backward(each.contiguous()) for part, each in zip(_tiles(sizes, tensors, keep=True), d_ys, strict=True)
    ]
    d_query, d_key, d_value, d_gates, d_direct = (sizes.whole(torch.cat(x)) for x in zip(*found, strict=True))
    d_source, d_transition, d_mark = d_gates.transpose(1, 2).split([2, 4, 2], -1)
    vectors = (x.to(value.dtype) for x in (d_query, d_key, d_value))
    return *vectors, d_source, d_transition.unflatten(-1, (2, 2)), d_mark, d_direct.squeeze(-1)


class LargeImage(torch.autograd.Function):
    """Keeps nothing but its inputs between the passes."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, ctx.mode = inputs
        ctx.save_for_backward(*tensors)
        return forward(*inputs)

    @staticmethod
    @once_differentiable("compiled forms have no second derivatives; use form='tiles'")
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        return *backward(d_y, *ctx.saved_tensors, ctx.mode), None


def image(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """See :func:`plstm_graph.grid.image`; one state an edge."""
    found: Tensor = LargeImage.apply(query, key, value, *gates)
    return found

"""Images by kernels: the gating matrices of four directions added in one walk, then one attention."""

from typing import Any

import torch
from torch import Tensor

from plstm_graph.grid.gates import D_LEFT, D_RIGHT, GridGates, P
from plstm_graph.grid.triton import attention, line, walk
from plstm_graph.launch import ceil_div, in_units, launch, power_of_2
from plstm_graph.ops.functional import once_differentiable

Options = tuple[tuple[str, Any], ...]

NARROW = 16
"""Columns up to which a walk takes 32 lanes, and from which on a walk back needs its registers limited."""
PIXELS = 64
"""Pixels of a program that adds up what blocks of sources say of gates."""
LANES = 32, 64
"""Sources that walks of narrow and of wide images take side by side."""
ROOM = 2**30
"""Bytes that the gating matrices of a launch may take; more images than that go one part after the other."""
ONE_WARP: Options = (("num_warps", 1),)
FEWER_REGISTERS: Options = (("num_warps", 1), ("maxnreg", 128))


class Sizes:
    """What kernels are told of an image at compile time, and the rooms that they need.

    Args:
        value: [B, H, Y, X, V].
        keys: K.
        mode: of the gates.
        wide: dtype of matrices.
    """

    def __init__(self, value: Tensor, keys: int, mode: str, wide: torch.dtype) -> None:
        self.images, self.heads, self.rows, self.columns, values = value.shape
        self.pixels = self.rows * self.columns
        self.wide = wide
        self.shared, self.line, self.mirrored = mode == P, mode in (D_LEFT, D_RIGHT), mode == D_RIGHT
        narrow = self.columns <= NARROW or (self.line and self.columns <= 32)
        self.lanes = LANES[0 if narrow else 1]
        self.line_back = ONE_WARP if self.columns <= NARROW else FEWER_REGISTERS
        self.blocks = ceil_div(self.pixels, self.lanes)
        self.span = min(self.rows, ceil_div(self.lanes - 1, self.columns) + 1)
        padded = (max(16, power_of_2(keys)), max(16, power_of_2(values)))
        half, steps = value.dtype.itemsize == 2, (self.pixels, 1)  # of a matrix, from row to row and column to column
        precision = "ieee" if wide == torch.float64 else "tf32" if half else "tf32x3"
        self.walk = (self.heads, self.rows, self.columns, self.lanes)
        common = (self.heads, self.pixels, *(steps[::-1] if self.mirrored else steps), keys, values, *padded)
        self.attend, self.attend_options = _tiled(common, 64 if max(padded) <= 64 or half else 32, precision)
        small = max(padded) <= 32 if half else max(padded) > 32
        self.keys, self.keys_options = _tiled(common, 32 if small else 64, precision, 1 if half and small else 4)
        self.at_once = max(1, ROOM // (self.heads * self.pixels**2 * wide.itemsize))

    def parts(self) -> list[tuple[int, int]]:
        """First image times head of each launch, and how many it takes."""
        h, step = self.heads, self.at_once
        return [(i * h, min(step, self.images - i) * h) for i in range(0, self.images, step)]

    def matrix(self, like: Tensor, many: int) -> Tensor:
        return like.new_empty(many, self.pixels, self.pixels)

    def states(self, like: Tensor, many: int) -> Tensor:
        planes, rows = (1 if self.shared else 2), self.rows + self.span
        return like.new_empty(many, 2, self.blocks, planes, rows, self.columns, self.lanes)


def _tiled(common: tuple[Any, ...], tile: int, precision: str, warps: int = 4) -> tuple[tuple[Any, ...], Options]:
    """Constants and options of a kernel of attention: rows and columns of a matrix at a time, warps of a program."""
    return (*common, tile, tile, precision), (("num_warps", warps),)


def _strides(*vectors: Tensor) -> tuple[list[int], int]:
    """Strides of image, head and pixel, and their unit."""
    strides = [stride for x in vectors for stride in (x.stride(0), x.stride(1), x.stride(3))]
    return in_units(strides, vectors[0].dtype.itemsize)


def _flat(x: Tensor) -> Tensor:
    """Pixels have one stride, and their numbers stand side by side."""
    flat = x.stride(4) == 1 and x.stride(2) == x.size(3) * x.stride(3)
    return x if flat else x.contiguous()


def _ready(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    source: Tensor,
    transition: Tensor,
    mark: Tensor,
    direct: Tensor,
    mode: str,
) -> tuple[list[Tensor], Sizes]:
    """The seven tensors as the kernels read them; of P mode's transition one column."""
    vectors = [_flat(x) for x in (query, key, value)]
    gates = [x.contiguous() for x in (source, transition[..., 0] if mode == P else transition, mark, direct)]
    return [*vectors, *gates], Sizes(vectors[2], query.size(-1), mode, source.dtype)


def _forward(tensors: list[Tensor], sizes: Sizes) -> Tensor:
    query, key, value, *gates = tensors
    y = torch.empty(value.shape, dtype=value.dtype, device=value.device)
    for first, many in sizes.parts():
        matrix = sizes.matrix(gates[0], many)
        _walk(sizes, gates, matrix, None, first, many)
        given, (strides, unit) = [query, key, value, matrix, y], _strides(query, key, value)
        grid, constants = (many * ceil_div(sizes.pixels, sizes.attend[-3]),), (*sizes.attend, unit)
        launch(attention.forward, grid, given, (), [first, *strides], constants, sizes.attend_options)
    return y


def _backward(tensors: list[Tensor], sizes: Sizes, d_y: Tensor) -> tuple[Tensor, ...]:
    query, key, value, *gates = tensors
    d_y = d_y.contiguous()
    d_query, d_key, d_value = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value))
    d_gates = [torch.empty_like(x) for x in gates]
    for first, many in sizes.parts():
        matrix = sizes.matrix(gates[0], many)
        states = None if sizes.line else sizes.states(gates[0], many)
        _walk(sizes, gates, matrix, states, first, many)
        grid = (many * ceil_div(sizes.pixels, sizes.attend[-3]),)
        given, (strides, unit) = [key, value, d_y, matrix, d_query], _strides(key, value)
        constants = (*sizes.attend, unit)
        launch(attention.back_queries, grid, given, (), [first, *strides], constants, sizes.attend_options)
        given, (strides, unit) = (
            [query, key, value, d_y, matrix, d_key, d_value, d_gates[3]],
            _strides(query, key, value),
        )
        grid, constants = (many * ceil_div(sizes.pixels, sizes.keys[-2]),), (*sizes.keys, unit)
        launch(attention.back_keys, grid, given, (), [first, *strides], constants, sizes.keys_options)
        if states is None:
            _line_back(sizes, gates, d_gates, matrix, first, many)
        else:
            _walk_back(sizes, gates, d_gates, matrix, states, first, many)
    d_transition = d_gates[1]
    if sizes.shared:
        d_transition = d_transition.unsqueeze(-1).expand(*d_transition.shape, 2)
    return d_query, d_key, d_value, d_gates[0], d_transition, d_gates[2], d_gates[3]


def forward(*inputs: Any) -> Tensor:
    """Output [B, H, Y, X, V] of query, key, value, four gates and their mode."""
    return _forward(*_ready(*inputs))


def backward(d_y: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    """Gradients of the seven tensors among the inputs of :func:`forward`, from that of its output."""
    return _backward(*_ready(*inputs), d_y)


class Image(torch.autograd.Function):
    """Keeps nothing but its inputs between the passes."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        tensors, ctx.sizes = _ready(*inputs)
        ctx.save_for_backward(*tensors)
        return _forward(tensors, ctx.sizes)

    @staticmethod
    @once_differentiable("compiled forms have no second derivatives; use form='tiles'")
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        return *_backward(list(ctx.saved_tensors), ctx.sizes, d_y), None


def _walk(sizes: Sizes, gates: list[Tensor], matrix: Tensor, states: Tensor | None, first: int, many: int) -> None:
    grid = (many * sizes.blocks,)
    if sizes.line:
        tensors = [*_seen(sizes, gates), gates[3], matrix]
        launch(line.line, grid, tensors, (), [first], (*sizes.walk, sizes.mirrored), ONE_WARP)
    else:
        tensors = [*gates, matrix, matrix if states is None else states]
        constants = (*sizes.walk, sizes.span, sizes.shared, states is not None)
        launch(walk.walk, grid, tensors, (), [first], constants, ONE_WARP)


def _seen(sizes: Sizes, gates: list[Tensor]) -> list[Tensor]:
    """Source, transition and mark as the kernels of D mode see them."""
    return gates[2::-1] if sizes.mirrored else gates[:3]


def _walk_back(
    sizes: Sizes, gates: list[Tensor], d_gates: list[Tensor], d_matrix: Tensor, states: Tensor, first: int, many: int
) -> None:
    parts = states.new_empty(sizes.blocks, many, 4, sizes.pixels, 4 if sizes.shared else 6)
    tensors, constants = [*gates[:3], d_gates[0], parts, d_matrix, states], (*sizes.walk, sizes.span, sizes.shared)
    launch(walk.back, (many * sizes.blocks * 4,), tensors, (), [first], constants, ONE_WARP)
    grid = (many * 4 * ceil_div(sizes.pixels, PIXELS),)
    tensors = [parts, d_gates[1], d_gates[2]]
    launch(walk.add_blocks, grid, tensors, (), [first], (*sizes.walk, sizes.shared, PIXELS), ())


def _line_back(
    sizes: Sizes, gates: list[Tensor], d_gates: list[Tensor], d_matrix: Tensor, first: int, many: int
) -> None:
    parts = d_matrix.new_empty(sizes.blocks, many, 4, sizes.pixels, 2)
    columns = d_matrix.new_empty(many, 4, 3, sizes.rows, sizes.pixels)
    edge = d_matrix.new_empty(many, 4, sizes.blocks, sizes.rows, sizes.lanes)
    d_source, d_transition, d_mark = _seen(sizes, d_gates)
    tensors, constants = [*_seen(sizes, gates), d_source, parts, columns, d_matrix, edge], (*sizes.walk, sizes.mirrored)
    launch(line.back, (many * sizes.blocks * 4,), tensors, (), [first], constants, sizes.line_back)
    grid = (many * 4 * ceil_div(sizes.pixels, PIXELS),)
    launch(line.add_blocks, grid, [parts, columns, d_transition, d_mark], (), [first], (*constants, PIXELS), ())


def image(query: Tensor, key: Tensor, value: Tensor, gates: GridGates) -> Tensor:
    """See :func:`plstm_graph.grid.image`; one state an edge."""
    found: Tensor = Image.apply(query, key, value, *gates)
    return found

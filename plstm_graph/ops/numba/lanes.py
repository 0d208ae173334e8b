"""Rows in SIMD registers: numba leaves short loops over rows that might overlap to single numbers.

A ``Lanes`` is ``LANES`` numbers side by side. Where numba does not compile (NUMBA_DISABLE_JIT), they are numpy's.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

from plstm_graph.ops.numba.runtime import part

LANES = 8
"""Numbers in one: a register of AVX in float32, two of them in float64."""
_FUSE = ("contract",)


class Lanes(types.Type):
    """``LANES`` numbers of a dtype."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, type: Lanes) -> None:
        number = manager.lookup(type.dtype).get_value_type()
        super().__init__(manager, type, ir.VectorType(number, LANES))


def _place(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Pointer to the lanes that begin at an entry of a contiguous array."""
    data = context.make_array(array_type)(context, builder, array).data
    lanes = ir.VectorType(context.get_value_type(array_type.dtype), LANES)
    return builder.bitcast(builder.gep(data, [at]), lanes.as_pointer())


def _splat(builder: Any, number: Any) -> Any:
    """The same number in all lanes."""
    lanes = ir.VectorType(number.type, LANES)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(lanes, ir.Undefined), order)


def _plus(builder: Any, lanes: Any, a: Any, b: Any) -> Any:
    return builder.fadd(lanes, builder.fmul(a, b, flags=_FUSE), flags=_FUSE)


def _get(typing: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.intp), generate


def _put(typing: Any, array: Any, at: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        builder.store(args[2], builder.gep(data, [args[1]]))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), generate


def _load(typing: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature.args[0], *args)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, types.intp), generate


def _store(typing: Any, array: Any, at: Any, lanes: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


def _scale(typing: Any, number: Any, lanes: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(_splat(builder, args[0]), args[1], flags=_FUSE)

    return lanes(lanes.dtype, lanes), generate


def _sum(typing: Any, a: Any, b: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=_FUSE)

    return a(a, a), generate


def _add(typing: Any, lanes: Any, number: Any, others: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _plus(builder, args[0], _splat(builder, args[1]), args[2])

    return lanes(lanes, lanes.dtype, lanes), generate


def _product(typing: Any, a: Any, b: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args, flags=_FUSE)

    return a(a, a), generate


def _multiply(typing: Any, lanes: Any, a: Any, b: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _plus(builder, *args)

    return lanes(lanes, lanes, lanes), generate


def _halves(builder: Any, a: Any, b: Any) -> Any:
    """Sums of neighbours, first those of ``a``, then those of ``b``."""
    order = ir.VectorType(ir.IntType(32), LANES)
    even, odd = (builder.shuffle_vector(a, b, ir.Constant(order, list(range(first, 2 * LANES, 2)))) for first in (0, 1))
    return builder.fadd(even, odd)


def _total(typing: Any, lanes: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (found,) = args
        width = LANES
        while width > 1:
            width //= 2
            half = ir.VectorType(ir.IntType(32), width)
            low, high = (
                builder.shuffle_vector(found, found, ir.Constant(half, list(range(first, first + width))))
                for first in (0, width)
            )
            found = builder.fadd(low, high)
        return builder.extract_element(found, ir.Constant(ir.IntType(32), 0))

    return lanes.dtype(lanes), generate


def _totals(typing: Any, array: Any, at: Any, stride: Any, lanes: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found, place = [], args[1]
        for _ in range(LANES):
            pointer = _place(context, builder, array, args[0], place)
            row = builder.load(pointer, align=array.dtype.bitwidth // 8)
            found.append(builder.fmul(row, args[3], flags=_FUSE))
            place = builder.add(place, args[2])
        while len(found) > 1:
            found = [_halves(builder, found[i], found[i + 1]) for i in range(0, len(found), 2)]
        return found[0]

    return lanes(array, types.intp, types.intp, lanes), generate


def _spread(typing: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return Lanes(number)(number), generate


def _assign(array: np.ndarray, at: int, number: np.generic) -> None:
    array[at] = number


def _assign_lanes(array: np.ndarray, at: int, lanes: np.ndarray) -> None:
    array[at : at + LANES] = lanes


def _either(generate: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    return plain if numba.config.DISABLE_JIT else intrinsic(generate)


get = _either(_get, lambda array, at: array[at])
"""(array, at): a number of a contiguous row. Not ``array[at]``, which first asks whether ``at`` counts from the end."""
put = _either(_put, _assign)
"""(array, at, number): into a contiguous row."""
load = _either(_load, lambda array, at: array[at : at + LANES].copy())
"""(array, at): lanes from a contiguous row."""
store = _either(_store, _assign_lanes)
"""(array, at, lanes): lanes into a contiguous row."""
scale = _either(_scale, lambda number, lanes: number * lanes)
"""(number, lanes): their product."""
times = _either(_product, lambda a, b: a * b)
"""(a, b): their product, lane by lane."""
plus = _either(_sum, lambda a, b: a + b)
"""(a, b): their sum, lane by lane."""
add = _either(_add, lambda lanes, number, others: lanes + number * others)
"""(lanes, number, others): ``lanes + number * others``."""
multiply = _either(_multiply, lambda lanes, a, b: lanes + a * b)
"""(lanes, a, b): ``lanes + a * b``, lane by lane."""
spread = _either(_spread, lambda number: np.full(LANES, number))
"""(number): in all lanes."""
total = _either(_total, lambda lanes: lanes.sum())
"""(lanes): their sum."""
totals = _either(
    _totals,
    lambda array, at, stride, lanes: np.array([array[at + i * stride :][:LANES] @ lanes for i in range(LANES)]),
)
"""(array, at, stride, lanes): for ``LANES`` rows, a stride apart, their inner products with ``lanes``."""


@part
def add_row(rows, at, weight, others, other, size):  # type: ignore[no-untyped-def]
    """``rows[at : at + size] += weight * others[other : other + size]``"""
    full = size - size % LANES
    for i in range(0, full, LANES):
        store(rows, at + i, add(load(rows, at + i), weight, load(others, other + i)))
    for i in range(full, size):
        put(rows, at + i, get(rows, at + i) + weight * get(others, other + i))


@part
def inner(a, at_a, b, at_b, size):  # type: ignore[no-untyped-def]
    """``a · b``"""
    full = size - size % LANES
    lanes = spread(a.dtype.type(0))
    for i in range(0, full, LANES):
        lanes = multiply(lanes, load(a, at_a + i), load(b, at_b + i))
    found = total(lanes)
    for i in range(full, size):
        found += get(a, at_a + i) * get(b, at_b + i)
    return found

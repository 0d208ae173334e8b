"""Start Triton's kernels at little cost to the host."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import reduce
from operator import attrgetter, or_
from typing import Any

import torch
import triton
from torch import Tensor


@triton.jit
def _probe():  # type: ignore[no-untyped-def]
    pass


INTERPRETED = not isinstance(_probe, triton.runtime.JITFunction)
"""Whether kernels run under Triton's interpreter (TRITON_INTERPRET=1), which takes tensors on the CPU."""

_compiled: dict[Any, Any] = {}
_compiling_only = False
AT_A_TIME = 8
"""Kernels that are compiled at a time, on as many threads."""


def power_of_2(number: int) -> int:
    """The smallest power of two from ``number`` (at least 1) on. Triton's own costs the host as much as a launch."""
    return 1 << (number - 1).bit_length()


def ceil_div(number: int, by: int) -> int:
    """How many parts of size ``by`` hold ``number`` things."""
    return -(-number // by)


def in_units(strides: Sequence[int], itemsize: int) -> tuple[list[int], int]:
    """Strides over a unit, and the unit, which a kernel is told at compile time: as many numbers as 16 bytes hold, if
    all strides are multiples of that, so that a thread reads them at once; else one number.

    Args:
        strides: in numbers.
        itemsize: bytes of a number.
    """
    unit = 16 // itemsize
    if any(stride % unit for stride in strides):
        unit = 1
    return [stride // unit for stride in strides], unit


class At:
    """A place inside a contiguous tensor, by its flat index: what a kernel gets is the pointer, and no view is made.

    Attributes:
        tensor, place: as given.
        device, dtype, data_ptr: as a tensor has them.
    """

    __slots__ = ("data_ptr", "device", "dtype", "place", "tensor")

    def __init__(self, tensor: Tensor, place: int) -> None:
        self.tensor, self.place, self.device, self.dtype = tensor, place, tensor.device, tensor.dtype
        self.data_ptr = (tensor.data_ptr() + place * self.dtype.itemsize).__index__

    def view(self) -> Tensor:
        """The tensor from there on, [numbers]."""
        return self.tensor.view(-1)[self.place :]


_dtype = attrgetter("dtype")


@contextmanager
def compiled_only() -> Iterator[None]:
    """Within, kernels are compiled, on several threads, and not started: what they would write stays as it was. One
    that does not compile says so where it is started."""
    global _compiling_only
    mode = getattr(triton, "AsyncCompileMode", None)  # from Triton 3.4 on
    before, _compiling_only = _compiling_only, True
    try:
        with ThreadPoolExecutor(AT_A_TIME) as threads, mode(threads, ignore_errors=True) if mode else nullcontext():
            yield
    finally:
        _compiling_only = before


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    tensors: Sequence[Tensor | At],
    tables: Sequence[Tensor],
    numbers: Sequence[int],
    constants: tuple[Any, ...],
    options: tuple[tuple[str, Any], ...],
) -> None:
    """Run a kernel on the device of its tensors.

    Triton looks at every argument of every launch anew, which can cost the host more than the kernel costs the GPU. So
    what it compiled is kept by all that it may depend on (constants, options, device, dtypes and alignment), and
    started with plain pointers.

    Args:
        kernel: a ``triton.jit`` function of ``(*tensors, *tables, *numbers, *constants)``.
        grid: number of programs along up to three axes.
        tensors: of any dtype, or places in tensors.
        tables: int32; the kernel must not be specialised on their alignment.
        numbers: whole numbers, not specialised either.
        constants: the ``constexpr`` parameters.
        options: ``num_warps`` and the like, with their values.
    """
    pointers = [x.data_ptr() for x in tensors]
    ends = reduce(or_, pointers) % 16
    device: Any = (tables or tensors)[0].device
    aligned = tuple(pointer % 16 for pointer in pointers) if ends else ()
    key = (kernel.fn, device, constants, options, aligned, *map(_dtype, tensors))
    found = None if _compiling_only else _compiled.get(key)
    if found is not None and device.index == torch._C._cuda_getDevice():
        width, height, depth = (*grid, 1, 1)[:3]
        found.run(
            *(width, height, depth, torch._C._cuda_getCurrentRawStream(device.index)),
            *(found.function, found.packed_metadata),
            *(None, None, None),  # no hooks of profilers that ride on Triton's own launches
            *pointers,
            *[x.data_ptr() for x in tables],
            *numbers,
            *constants,
        )
        return
    given = (*(x.view() if type(x) is At else x for x in tensors), *tables, *numbers, *constants)
    if INTERPRETED:
        kernel[grid](*given)
        return
    how = {"num_stages": 1} | dict(options)
    with torch.cuda.device(device):
        if _compiling_only:
            kernel.warmup(*given, grid=grid, **how)
        else:
            _compiled[key] = kernel[grid](*given, **how)

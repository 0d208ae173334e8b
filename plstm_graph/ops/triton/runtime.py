"""Start kernels at little cost to the host."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, reduce
from operator import attrgetter, methodcaller, or_
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


class _Local(threading.local):
    """Where kernels start if not on the current stream."""

    stream: Any = None


_local = _Local()


def power_of_2(number: int) -> int:
    """The smallest power of two from ``number`` (at least 1) on. Triton's own costs the host as much as a launch."""
    return 1 << (number - 1).bit_length()


def ceil_div(number: int, by: int) -> int:
    """How many parts of size ``by`` hold ``number`` things."""
    return -(-number // by)


class At:
    """A place inside a contiguous tensor, by its flat index: what a kernel gets is the pointer, and no view is made.

    Attributes:
        tensor, place: as given.
        dtype, data_ptr: as a tensor has them.
    """

    __slots__ = ("data_ptr", "dtype", "place", "tensor")

    def __init__(self, tensor: Tensor, place: int) -> None:
        self.tensor, self.place, self.dtype = tensor, place, tensor.dtype
        self.data_ptr = (tensor.data_ptr() + place * self.dtype.itemsize).__index__

    def view(self) -> Tensor:
        """The tensor from there on, [numbers]."""
        return self.tensor.view(-1)[self.place :]


_pointer, _dtype = methodcaller("data_ptr"), attrgetter("dtype")


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
    started with plain pointers. Nothing here loops in Python.

    Args:
        kernel: a ``triton.jit`` function of ``(*tensors, *tables, *numbers, *constants)``.
        grid: number of programs along up to three axes.
        tensors: of any dtype, or places in tensors; without tables, the first one is a tensor.
        tables: int32; the kernel must not be specialised on their alignment.
        numbers: whole numbers, not specialised either.
        constants: the ``constexpr`` parameters.
        options: ``num_warps`` and the like, with their values.
    """
    if INTERPRETED:
        plain = (x.view() if type(x) is At else x for x in tensors)
        kernel[grid](*plain, *tables, *numbers, *constants)
        return
    pointers = tuple(map(_pointer, tensors))
    ends = reduce(or_, pointers) % 16
    device: Any = (tables or tensors)[0].device  # type: ignore[union-attr]
    aligned = tuple(pointer % 16 for pointer in pointers) if ends else ()
    key = (kernel.fn, device, constants, options, aligned, *map(_dtype, tensors))
    found = _compiled.get(key)
    if found is not None and device.index == torch._C._cuda_getDevice():
        width, height, depth = (*grid, 1, 1)[:3]
        stream = _local.stream
        raw = torch._C._cuda_getCurrentRawStream(device.index) if stream is None else stream.cuda_stream
        found.run(
            *(width, height, depth, raw),
            *(found.function, found.packed_metadata),
            *(None, None, None),  # no hooks of profilers that ride on Triton's own launches
            *pointers,
            *map(_pointer, tables),
            *numbers,
            *constants,
        )
        return
    with torch.cuda.device(device), torch.cuda.stream(_local.stream):
        plain = (x.view() if type(x) is At else x for x in tensors)
        _compiled[key] = kernel[grid](*plain, *tables, *numbers, *constants, num_stages=1, **dict(options))


class Fork:
    """Kernels of a branch run beside what is started on the current stream, until the fork ends.

    They fill a GPU badly that walk along lists, and matrix products use what they leave. Tensors are allocated on the
    current stream all the while, and whatever a branch needs from it is started before the fork.

    Args:
        device: of the tensors.
        worth: else all runs on the current stream, as for work so small that the host is what takes the time.
    """

    def __init__(self, device: torch.device, worth: bool) -> None:
        self.device = device
        self.side = side_stream(device) if worth and not INTERPRETED else None

    def __enter__(self) -> "Fork":
        if self.side is not None:
            self.side.wait_stream(torch.cuda.current_stream(self.device))
        return self

    def __exit__(self, *error: Any) -> None:
        if self.side is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.side)

    @contextmanager
    def branch(self) -> Iterator[None]:
        """Kernels started within belong to the branch."""
        _local.stream = self.side
        try:
            yield
        finally:
            _local.stream = None


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """A second stream, one for each GPU. What is in a branch takes longest, so it goes first where there is room."""
    return torch.cuda.Stream(device, priority=-1)

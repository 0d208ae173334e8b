"""Start kernels at little cost to the host."""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor


@triton.jit
def _probe():  # type: ignore[no-untyped-def]
    pass


INTERPRETED = not isinstance(_probe, triton.runtime.JITFunction)
"""Whether kernels run under Triton's interpreter (TRITON_INTERPRET=1), which takes tensors on the CPU."""

_compiled: dict[Any, Any] = {}


def power_of_2(number: int) -> int:
    """The smallest power of two from ``number`` (at least 1) on. Triton's own costs the host as much as a launch."""
    return 1 << (number - 1).bit_length()


def ceil_div(number: int, by: int) -> int:
    """How many parts of size ``by`` hold ``number`` things."""
    return -(-number // by)


class At(NamedTuple):
    """A place inside a contiguous tensor, by its flat index: what a kernel gets is the pointer, and no view is made."""

    tensor: Tensor
    place: int

    def view(self) -> Tensor:
        """The tensor from there on, [numbers]."""
        return self.tensor.view(-1)[self.place :]


def launch(
    kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], constants: tuple[Any, ...], **options: Any
) -> None:
    """Run a kernel on the device of its tensors.

    Triton looks at every argument of every launch anew, which can cost the host more than the kernel costs the GPU. So
    what it compiled is kept by all that it may depend on (constants, options, device, dtypes and alignment), and
    started with plain pointers.

    Args:
        kernel: a ``triton.jit`` function; whole numbers and int32 tables must not be specialised.
        grid: number of programs along up to three axes.
        arguments: tensors, places in tensors (:class:`At`) and whole numbers, in the order of the kernel.
        constants: its ``constexpr`` parameters, which come last.
        options: ``num_warps`` and the like.
    """
    if INTERPRETED:
        kernel[grid](*(x.view() if type(x) is At else x for x in arguments), *constants)
        return
    plain: list[int] = []
    traits: list[Any] = []
    for x in arguments:
        if type(x) is int:
            plain.append(x)
            continue
        if type(x) is At:
            tensor = x.tensor
            pointer = tensor.data_ptr() + x.place * tensor.element_size()
        else:
            tensor = x
            pointer = tensor.data_ptr()
        plain.append(pointer)
        if tensor.dtype is not torch.int32:
            traits += (tensor.dtype, pointer % 16)
    device = tensor.device
    key = (kernel.fn, device, constants, *options.values(), *traits)
    compiled = _compiled.get(key)
    if compiled is not None and device.index == torch._C._cuda_getDevice():
        stream = torch._C._cuda_getCurrentRawStream(device.index)
        size = (*grid, 1, 1)
        compiled.run(
            *(size[0], size[1], size[2], stream, compiled.function, compiled.packed_metadata),
            *(None, None, None),  # no hooks of profilers that ride on Triton's own launches
            *plain,
            *constants,
        )
        return
    with torch.cuda.device(device):
        tensors = (x.view() if type(x) is At else x for x in arguments)
        _compiled[key] = kernel[grid](*tensors, *constants, num_stages=1, **options)

"""Start kernels at little cost to the host."""

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


def launch(
    kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], constants: tuple[Any, ...], **options: Any
) -> None:
    """Run a kernel on the device of its tensors.

    Triton looks at every argument of every launch anew, which can cost the host more than the kernel costs the GPU. So
    what it compiled is kept by all that it may depend on: constants, options, device, dtypes and alignment.

    Args:
        kernel: a ``triton.jit`` function; whole numbers and int32 tables must not be specialised.
        grid: number of programs along up to three axes.
        arguments: tensors and whole numbers, in the order of the kernel.
        constants: its ``constexpr`` parameters, which come last.
        options: ``num_warps`` and the like.
    """
    if INTERPRETED:
        kernel[grid](*arguments, *constants)
        return
    device = arguments[0].device
    traits = [(x.dtype, x.data_ptr() % 16 == 0) for x in arguments if isinstance(x, Tensor) and x.dtype != torch.int32]
    key = (kernel.fn, device, constants, *options.values(), *traits)
    compiled = _compiled.get(key)
    if compiled is not None and device.index == torch.cuda.current_device():
        compiled[(*grid, 1, 1)](*arguments, *constants)
        return
    with torch.cuda.device(device):
        _compiled[key] = kernel[grid](*arguments, *constants, num_stages=1, **options)

"""Out of memory: which batch size to try."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from plstm_graph.errors import OutOfMemory


@contextmanager
def memory_advice(batch_size: int) -> Iterator[None]:
    """Around work on batches of so many graphs.

    Raises:
        OutOfMemory: in place of what torch raises when the memory of a GPU, or of the host, runs out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        on_host = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
        if not (on_host or isinstance(error, torch.OutOfMemoryError)):
            raise
        advice = f"--batch-size {batch_size // 2}" if batch_size > 1 else "a smaller --width or fewer --layers"
        where = "the computer" if on_host else "the GPU"
        raise OutOfMemory(f"{where} is out of memory at --batch-size {batch_size}; try {advice}") from error

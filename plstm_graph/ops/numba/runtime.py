"""Things that all loops share: how they are compiled, on how many threads they run, and tensors as numpy's arrays."""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba import njit
from numba.core.event import Event, Listener, register
from torch import Tensor

from plstm_graph import gates

log = logging.getLogger(__name__)


def sources() -> str:
    """SHA-256 of all files that loops take functions and constants from."""
    digest = hashlib.sha256()
    for path in (*sorted(Path(__file__).parent.glob("*.py")), Path(gates.__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_sources = sources()


def _loop(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compiles what it decorates, and keeps that on disk until any of these files changes.

    Numba itself compares only the file of the function: what was inlined from others would stay as it was.
    """
    # Sums may be reordered for SIMD and products fused into them.
    compile = njit(fastmath={"reassoc", "contract"}, error_model="numpy", cache=True, **options)

    def compiled(function: Callable[..., Any]) -> Any:
        found = compile(function)
        if hasattr(found, "_cache"):  # NUMBA_DISABLE_JIT leaves a function as it is
            file = found._cache._cache_file
            file._source_stamp = file._source_stamp, _sources
        return found

    return compiled


parallel = _loop(parallel=True)
"""A loop over work items that share nothing they write."""
part = _loop(forceinline=True)
"""A part of such a loop."""
exact = {"fastmath": {"contract"}, "error_model": "numpy", "forceinline": True}
"""Options of a function whose sums are to be taken as they are written."""


class _Notice(Listener):
    """Notice that says, once, why the first pass takes so long: numba is silent while it compiles."""

    said = False

    def on_start(self, event: Event) -> None:
        if not self.said and event.data["dispatcher"].__module__.startswith(f"{__package__}."):
            log.warning("compiling loops for this CPU, once on this machine; the first pass takes up to a minute")
            self.said = True

    def on_end(self, event: Event) -> None:
        """Nothing to say."""


register("numba:compile", _Notice())

_pool: int | None = None  # the process that has started numba's threads
_turn = threading.Lock()


def arrays(tensors: Iterable[Tensor]) -> tuple[np.ndarray, ...]:
    """View the same memory as numpy's arrays."""
    return tuple((x.detach() if x.requires_grad else x).numpy() for x in tensors)


def flat(x: Tensor) -> Tensor:
    """All memory from the first to the last number of a tensor whose last dimension is contiguous, [numbers]."""
    numbers = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    return x.as_strided((numbers,), (1,))


def runs_here(device: torch.device) -> str | None:
    """Reason why the loops cannot run for tensors on ``device`` in this process, or None."""
    if device.type != "cpu":
        return f"numba's loops are for the CPU, the tensors are on {device}"
    if _pool not in (None, os.getpid()):
        return "numba ran before this process was forked, and its threads did not come along; start processes by spawn"
    return None


def tried_on(device: torch.device) -> bool:
    """Tell whether the loops have been run on such a device: on every CPU that numba knows."""
    return device.type == "cpu"


@contextmanager
def torch_threads() -> Iterator[None]:
    """As many threads as torch may use, so that one setting rules both.

    Numba's own pool, which it takes where there is neither OpenMP nor TBB, ends the process if two threads launch at
    once: there they take turns.
    """
    global _pool
    with _turn:
        _pool = os.getpid()
        threads = torch.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # starts the pool, which says what it is
        if torch.get_num_threads() != threads:  # numba starts it by setting OpenMP's threads, which are torch's too
            torch.set_num_threads(threads)
    with _turn if numba.threading_layer() == "workqueue" else nullcontext():
        yield

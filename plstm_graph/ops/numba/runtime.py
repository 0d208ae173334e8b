"""Things that all loops share: how they are compiled, on how many threads they run, and tensors as numpy's arrays."""

import hashlib
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numba
import numpy as np
import torch
from numba import njit
from numba.core.caching import IndexDataCacheFile
from numba.core.event import Event, Listener, register
from torch import Tensor

from plstm_graph import gates
from plstm_graph.io.files import cache_folder

log = logging.getLogger(__name__)

LOOPS = "loops"
"""Folder in the cache folder for what was compiled."""


@cache
def _digest_of(*places: Path) -> str:
    """SHA-256 of the content of files, and of all sources in folders."""
    digest = hashlib.sha256()
    for place in places:
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(path.read_bytes())
    return digest.hexdigest()


_sources = _digest_of(Path(__file__).parent, Path(gates.__file__))
"""All files that loops elsewhere, too, take functions and constants from."""


def _loop(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compiles what it decorates, and keeps that on disk until any of these files changes, or one beside its own."""
    # Sums may be reordered for SIMD and products fused into them.
    compile = njit(fastmath={"reassoc", "contract"}, error_model="numpy", cache=True, **options)

    def compiled(function: Callable[..., Any]) -> Any:
        found = compile(function)
        if hasattr(found, "_cache"):  # NUMBA_DISABLE_JIT leaves a function as it is
            _keep(found._cache, function)
        return found

    return compiled


def _keep(kept: Any, function: Callable[..., Any]) -> None:
    """Numba compares only the file of the function: what was inlined from others would stay as it was. And it keeps
    what it compiled beside that file, so that each environment and each copy of the sources takes its minute."""
    stamp = numba.__version__, _digest_of(Path(inspect.getfile(function)).parent), _sources
    folder = None if numba.config.CACHE_DIR else _folder_of(stamp)
    if folder is None:
        kept._cache_file._source_stamp = stamp
        return
    name = f"{function.__module__}.{function.__qualname__}.{sys.implementation.cache_tag}"
    kept._cache_path = str(folder)
    kept._cache_file = IndexDataCacheFile(kept._cache_path, name, stamp)


@cache
def _folder_of(stamp: tuple[str, ...]) -> Path | None:
    """Where what these sources become is kept; None where nothing can be written."""
    folder = cache_folder() / LOOPS / hashlib.sha256(repr(stamp).encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return folder


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

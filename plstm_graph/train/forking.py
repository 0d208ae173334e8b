"""How child processes start: forked from a server that has imported what all of them need. Importing this is cheap.

Where several trainings run side by side, each would otherwise import the same for seconds before its first step. The
server only imports: neither CUDA nor loops have run in it, which survive no fork.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

PRELOADED = "plstm_graph.train.preloaded"
ASKS_NO_CUDA = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""With this torch looks for GPUs without CUDA, which would be of no use in children afterwards."""

NOT_STARTED = 3
"""What the driver answers before (``CUDA_ERROR_NOT_INITIALIZED``)."""

PARENT = "PLSTM_GRAPH_FORKS_FOR"
"""Tells the server that it is one, and whose."""


def context() -> BaseContext:
    """Of children that train: forked from the server on Linux, elsewhere started anew."""
    if not sys.platform.startswith("linux") or not _is_of_use():
        return multiprocessing.get_context("spawn")
    return _forked()


def _forked() -> BaseContext:
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([PRELOADED])
    return found


@cache
def _is_of_use() -> bool:
    """Whether children of the server can use CUDA, as a first one tells: an extension may start it as it loads."""
    if not cuda_there():
        return True
    first: Any = _forked().Process(target=_tell)  # type: ignore[attr-defined]
    first.start()
    first.join()
    return first.exitcode == 0


def _tell() -> None:
    sys.exit(int(cuda_runs()))


def cuda_there() -> bool:
    """Whether there is a driver for NVIDIA GPUs."""
    try:
        return bool(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return False


def cuda_runs() -> bool:
    """Whether CUDA has been started in this process, by whomever: torch knows of itself only."""
    if not cuda_there():
        return False
    return ctypes.CDLL("libcuda.so.1").cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != NOT_STARTED


def start_server() -> None:
    """The server starts to import, while this process goes on; nothing where there is none, or where it runs."""
    if sys.platform.startswith("linux"):
        _forked()
        with inherited({"OMP_NUM_THREADS": "1", PARENT: str(os.getpid())} | ASKS_NO_CUDA):
            forkserver.ensure_running()


@contextmanager
def inherited(environment: dict[str, str]) -> Iterator[None]:
    """Children that start meanwhile get this environment, and leave Ctrl-C to their parent."""
    resource_tracker.ensure_running()  # it would let Ctrl-C through again when it starts
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # here it waits, in the child for ever
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

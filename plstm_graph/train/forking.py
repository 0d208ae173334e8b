"""How child processes start: forked from a server that has imported what all of them need. Importing this is cheap.

Where several trainings run side by side, each would otherwise import the same for seconds before its first step. The
server only imports: neither CUDA nor loops have run in it, which survive no fork.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext

PRELOADED = "plstm_graph.train.preloaded"
ASKS_NO_CUDA = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""With this torch looks for GPUs without CUDA, which would be of no use in children afterwards."""

PARENT = "PLSTM_GRAPH_FORKS_FOR"
"""Tells the server that it is one, and whose."""


def context() -> BaseContext:
    """Of children that train: forked from the server on Linux, elsewhere started anew."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([PRELOADED])
    return found


def start_server() -> None:
    """The server starts to import, while this process goes on; nothing where there is none, or where it runs."""
    if context().get_start_method() == "forkserver":
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

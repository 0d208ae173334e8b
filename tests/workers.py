"""Work for child processes: a module that they can import, and soon."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from typing import Any, NamedTuple

import torch

from plstm_graph.errors import ConfigError
from plstm_graph.train.pool import Say, Status


class Work(NamedTuple):
    """A job, and how it ends."""

    number: int
    end: str = "row"


def act(work: Work, say: Say) -> dict[str, Any]:
    say(Status(1, 2, f"half of {work.number}"))
    if work.end == "error":
        raise ValueError(f"number {work.number}\nis wrong")
    if work.end == "bad option":
        raise ConfigError("no such thing")
    if work.end == "holds":
        lock = multiprocessing.Lock()
        say(Status(2, 2, "has a lock"))
        with lock:
            time.sleep(60)
    if work.end == "in a callback":
        ctypes.CFUNCTYPE(None)(lambda: (say(Status(2, 2, "is there")), time.sleep(10), None)[-1])()
        time.sleep(60)
    if work.end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if work.end == "told":
        return {"parent": os.getppid(), "told": os.environ.get("PLSTM_GRAPH_TOLD")}
    if work.end == "cuda":
        return {"parent": os.getppid(), "on_gpu": torch.ones(3, device="cuda").sum().item()}
    threads = os.environ["OMP_NUM_THREADS"], torch.get_num_threads()
    return {"number": work.number, "process": os.getpid(), "threads": threads}


def spoiled() -> None:
    """A first child of a server that has started CUDA."""
    sys.exit(1)


def unspoiled() -> None:
    """Another, that has not."""

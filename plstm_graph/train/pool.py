"""Many jobs, several at a time: child processes that take jobs in turns, stop together and fail alone."""

import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

import torch

from plstm_graph.errors import PLSTMGraphError, said
from plstm_graph.train.forking import context, inherited, start_server

GRACE_S = 30.0
"""So long may a job take to end once it is told to."""

Row = dict[str, Any]


class Status(NamedTuple):
    """How far a run is: finished epochs, epochs in all, and the numbers of the last one."""

    epoch: int
    epochs: int
    text: str


Say = Callable[[Status], None]
J = TypeVar("J")


class Failure(NamedTuple):
    """Why there is no row: one line, the traceback, and whether the error is one of this package's own."""

    reason: str
    trace: str = ""
    foreseen: bool = False


def unseen(job: Any, status: Status) -> None:
    """Nobody watches."""


def outcomes(
    jobs: Sequence[J],
    run: Callable[[J, Say], Row],
    *,
    workers: int = 1,
    watch: Callable[[J, Status], None] = unseen,
) -> Generator[tuple[J, Row | Failure]]:
    """Runs ``jobs`` and gives each with its row, or why it failed, in the order in which they end.

    One worker is this process. More are child processes side by side, each with its share of this process's threads;
    several GPUs are dealt out in turns, one is shared. A child that dies (out of memory, say) fails its run alone.
    Closing the iterator, as an exception does, stops all of them.

    Args:
        jobs: what to run, each of which can be pickled.
        run: makes a row of a job, and says now and then how far it is. A child keeps what ``run`` caches.
        workers: how many run at a time.
        watch: told how far each job is.
    """
    if workers == 1:
        for job in jobs:
            yield job, _attempt(run, job, partial(watch, job))
        return
    workers = min(workers, len(jobs))
    start_server()
    staff = [_Worker(run, number, workers) for number in range(workers)]
    waiting, idle = deque(jobs), list(staff)
    busy: dict[Connection, tuple[_Worker, J]] = {}
    try:
        while waiting or busy:
            while waiting and idle:
                worker, job = idle.pop(0), waiting.popleft()
                worker.start(job)
                busy[worker.pipe] = worker, job
            for pipe in wait(list(busy)):
                worker, job = busy[pipe]  # type: ignore[index]  # they are the connections that went in
                answer = worker.answer()
                if isinstance(answer, Status):
                    watch(job, answer)
                    continue
                del busy[pipe]  # type: ignore[arg-type]
                idle.append(worker)
                yield job, answer
    finally:
        _stop(staff, [worker for worker, _ in busy.values()])


class _Worker:
    """A child process, started with its first job and anew where it died."""

    def __init__(self, run: Callable[[Any, Say], Row], number: int, workers: int) -> None:
        self.run = run
        self.threads = max(1, torch.get_num_threads() // workers)
        self.environment = {"OMP_NUM_THREADS": str(self.threads)} | gpu_turn(number)
        self.process: Any = None
        self.pipe: Connection

    def start(self, job: Any) -> None:
        if self.process is None or not self.process.is_alive():
            how: Any = context()
            self.pipe, end = how.Pipe()
            given = end, self.run, self.threads, dict(os.environ) | self.environment
            self.process = how.Process(target=_work, args=given, daemon=True)
            with inherited(self.environment):
                self.process.start()
            end.close()
        with suppress(BrokenPipeError):  # answer() will say that it died
            self.pipe.send(job)

    def answer(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            if code is not None and code < 0:
                hint = "; is there enough memory for so many at a time?" if code == -signal.SIGKILL else ""
                return Failure(f"its process was ended by {signal.Signals(-code).name}{hint}")
            return Failure(f"its process ended with exit code {code}")


def _stop(workers: Iterable[_Worker], busy: Sequence[_Worker]) -> None:
    """Ends all children; a run has its last finished epoch on disk whenever it is stopped."""
    alive = [worker for worker in workers if worker.process is not None and worker.process.is_alive()]
    for worker in alive:
        if worker in busy:
            worker.process.terminate()
        else:  # it waits for a job, and ends by itself
            worker.pipe.close()
    until = time.monotonic() + GRACE_S
    for worker in alive:
        worker.process.join(max(0.0, until - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _work(pipe: Connection, run: Callable[[Any, Say], Row], threads: int, environment: dict[str, str]) -> None:
    """What a child does: take jobs, send statuses and rows, until the parent stops it or is gone."""
    os.environ.clear()  # it has that of a server which may be older than the parent's
    os.environ.update(environment)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends in order, with its semaphores
    sys.unraisablehook = _again
    torch.set_num_threads(threads)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            pipe.send(_attempt(run, pipe.recv(), pipe.send))


def _again(lost: Any) -> None:
    """An interruption that a callback of C has lost, as there are while loops are compiled, comes again."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
    again.daemon = True
    again.start()


def _attempt(run: Callable[[J, Say], Row], job: J, say: Say) -> Row | Failure:
    try:
        return run(job, say)
    except Exception as error:
        reason = f"{type(error).__name__}: {said(error)}"
        return Failure(reason, traceback.format_exc(), isinstance(error, PLSTMGraphError))


def gpu_turn(number: int) -> dict[str, str]:
    """What makes a child see the one GPU that is its turn, where there are several."""
    count = torch.cuda.device_count()
    if count < 2:
        return {}
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = names if len(names) == count else [str(each) for each in range(count)]
    return {"CUDA_VISIBLE_DEVICES": names[number % count]}


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM stops a series as Ctrl-C does: a parent that just died would leave its children behind."""
    taken = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # the command line stops on it by itself
    if taken or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

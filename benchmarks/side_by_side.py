"""Run as many runs of a config as fit into some minutes, on GPUs and the cores beside them, and store their rows.

``python benchmarks/side_by_side.py CONFIG.toml --root DATA --minutes 9 --cpu 13 --gpu 3``: runs on the CPU have one
thread each, those on the GPU captured passes. All entries with the first seed come first, ensembles last; of those that
are left the GPU takes the largest and a core the smallest, and none begins that would not end in time. Called again, it
goes on with what is missing: rows and keys are those of ``leaderboard.py``, which also prints the table.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import records
import torch
from boards import board
from leaderboard import placed, row_of, trained
from plan import Job, read_plan, stored

from plstm_graph.config.architectures import architecture
from plstm_graph.errors import ConfigError
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import load_data
from plstm_graph.train.forking import inherited
from plstm_graph.train.pool import Failure, Status, gpu_turn, terminable

CPU, GPU = "cpu", "gpu"
SECONDS = {CPU: 1e-3, GPU: 3e-4}
"""A guess of what a graph of an epoch takes, until the first run has ended."""
MARGIN = 1.15
"""A run is taken to need so much more than those of its model, or else of all, have needed a graph."""


@dataclass
class Staff:
    """What waits, and how fast runs have been: seconds for a graph of an epoch, by kind of worker and model."""

    waiting: list[tuple[Job, float]]
    gpu: bool = False
    rates: dict[str, list[tuple[str, float]]] = field(default_factory=lambda: {CPU: [], GPU: []})

    def needs(self, kind: str, job: Job, size: float) -> float:
        """Seconds that a run is likely to take."""
        known = self.rates[kind]
        same = [rate for model, rate in known if model == job.config.model.model]
        return size * (MARGIN * statistics.median(same or [rate for _, rate in known]) if known else SECONDS[kind])

    def next(self, kind: str, left: float) -> tuple[Job, float] | None:
        """A run that a worker of a kind can finish in time, taken off the list; None if there is none."""
        fits = [
            pair
            for pair in self.waiting
            if self.needs(kind, *pair) <= left and (kind == CPU or capturable(pair[0].config))
        ]
        if not fits:
            return None

        def turn(pair: tuple[Job, float]) -> tuple[float, ...]:
            config, size = pair[0].config, pair[1]
            wanted = self.gpu and kind == CPU and capturable(config)  # by the GPU: cores leave it what it can do
            return config.seed, config.ensemble, wanted, size if kind == CPU else -size

        chosen = min(fits, key=turn)
        self.waiting.remove(chosen)
        return chosen

    def ended(self, kind: str, job: Job, size: float, seconds: float) -> None:
        """Learn from a run how long the next one will take."""
        self.rates[kind].append((job.config.model.model, seconds / size))


def capturable(config: TrainConfig) -> bool:
    """Whether the passes of a run can be CUDA graphs."""
    return architecture(config.model.model).uncaptured(config.model) is None


def sized(jobs: Iterable[Job]) -> list[tuple[Job, float]]:
    """Each job with the graphs that it trains on, times epochs."""
    counts: dict[tuple[object, ...], int] = {}
    found = []
    for job in jobs:
        config = job.config
        key = *job.source, config.split, config.fold
        if key not in counts:
            dataset = load_data(replace(placed(config), descriptors=()))
            seed = config.seed if config.split_seed is None else config.split_seed
            counts[key] = len(dataset.split(config.split, seed, config.fold)["train"])
        found.append((job, float(counts[key] * config.epochs * config.ensemble)))
    return found


def _unseen(status: Status) -> None:
    """Nobody watches."""


def _found(job: Job, kind: str) -> dict[str, Any]:
    """What a run found on a device; passes that cannot be captured after all run one by one."""
    config = placed(job.config)
    if kind == CPU:
        return trained(job, replace(config, accelerator="cpu"), _unseen)
    config = replace(config, accelerator="gpu", devices="1")
    try:
        return trained(job, replace(config, capture=True), _unseen)
    except ConfigError as error:
        if not str(error).startswith("capture"):
            raise
        return trained(job, config, _unseen)


def _work(pipe: Connection, kind: str) -> None:
    """A worker: gets jobs, sends rows or why there is none."""
    torch.set_num_threads(1)
    while True:
        job = pipe.recv()
        try:
            pipe.send(row_of(job, _found(job, kind)))
        except Exception as error:  # one run that fails is a line, no end
            pipe.send(Failure(f"{type(error).__name__}: {error}"))


def run_all(
    staff: Staff, path: Path, workers: dict[str, int], deadline: float, commit: str | None
) -> list[tuple[Job, str]]:
    """Runs what fits until the deadline (of ``time.monotonic``) and stores each row; what is under way then is lost."""
    context = multiprocessing.get_context("spawn")
    busy: dict[Any, tuple[str, Job, float, float]] = {}
    failed: list[tuple[Job, str]] = []
    processes = []
    idle: list[tuple[str, Connection]] = []
    for kind, count in workers.items():
        for number in range(count):
            here, there = context.Pipe()
            processes.append(context.Process(target=_work, args=(there, kind), daemon=True))
            turn = gpu_turn(number) if kind == GPU else {}
            with inherited({"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} | turn):
                processes[-1].start()
            there.close()  # else nobody would hear of the end of its process
            idle.append((kind, here))
    try:
        while time.monotonic() < deadline:
            for kind, free in list(idle):
                found = staff.next(kind, deadline - time.monotonic())
                if found:
                    free.send(found[0])
                    busy[free] = kind, *found, time.monotonic()
                    idle.remove((kind, free))
            if not busy:
                break
            for ready in wait(list(busy), timeout=max(0.0, deadline - time.monotonic())):
                pipe: Any = ready
                kind, job, size, begun = busy.pop(pipe)
                try:
                    row = pipe.recv()
                except (EOFError, OSError):
                    failed.append((job, "its process died"))
                    continue
                if isinstance(row, Failure):
                    failed.append((job, row.reason))
                    print(f"{job.entry} seed {job.config.seed}: failed: {row.reason}", file=sys.stderr, flush=True)
                else:
                    staff.ended(kind, job, size, time.monotonic() - begun)
                    records.append(path, row | ({"commit": commit, "dirty": False} if commit else {}))
                    name = row["metric"]
                    numbers = f"valid {row['valid'][name]:.4f} test {row['test'][name]:.4f}"
                    print(
                        f"[{kind}] {job.entry} seed {job.config.seed}: {numbers} ({row['minutes']:.2f} min)", flush=True
                    )
                idle.append((kind, pipe))
    finally:
        for process in processes:
            process.kill()
    return failed


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """Runs what is missing and prints the table."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--root", help="folder with public or prepared data")
    parser.add_argument("--minutes", type=float, default=9.0, help="until when, counted from the start of this command")
    parser.add_argument("--cpu", type=int, default=1, help="runs at a time on the CPU, with one thread each")
    parser.add_argument("--gpu", type=int, default=0, help="runs at a time on all GPUs together")
    parser.add_argument("--only", action="append", help="entries whose name holds this text; may be repeated")
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder for the rows")
    parser.add_argument("--commit", help="of these files, where git cannot tell")
    options = parser.parse_args(arguments)
    plan, path = read_plan(options.config, options.root), options.results / f"{options.config.stem}.jsonl"
    done = stored(plan, path)
    asked = [job for job in plan.jobs if not options.only or any(text in job.entry for text in options.only)]
    todo = [job for job in asked if job.key not in done]
    print(f"{plan.name}: {len(asked)} runs, {len(asked) - len(todo)} done, {len(todo)} to do", flush=True)
    staff = Staff(sized(todo), gpu=options.gpu > 0)
    workers = {GPU: options.gpu, CPU: options.cpu}  # the GPU's first: it has the largest to choose from
    with terminable():  # a process that just died would leave its workers behind
        failed = run_all(staff, path, workers, begun + 60 * options.minutes, options.commit)
    rows = stored(plan, path)
    print(f"\n{len(rows) - len(done)} new rows, {len(failed)} runs failed\n\n{board(plan, rows)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Train every entry of a config over its seeds and folds: ``python benchmarks/leaderboard.py CONFIG.toml --root DATA``.

A run that is stored already is skipped, so that an interrupted leaderboard goes on where it stopped.
"""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import records
import torch
from plan import Job, read_plan, stored
from tables import leaderboard_table
from torch_geometric.data import Data

from plstm_graph.data import GraphDataset
from plstm_graph.errors import ConfigError, PLSTMGraphError, unknown
from plstm_graph.nn.model import ModelConfig, prepare
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import load_data

_SOURCE = TrainConfig()
READ_FROM = ("data", "root", "targets", "smiles_column", "task")  # what decides which data set a run reads


def run_job(job: Job) -> dict[str, Any]:
    """Trains one job and returns its row."""
    from plstm_graph.train.run import train

    source = replace(_SOURCE, **{name: getattr(job.config, name) for name in READ_FROM})
    dataset = _dataset(source)
    return row_of(job, train(job.config, dataset, graphs=_prepared(source, job.config.model)))


def row_of(job: Job, found: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a run; ``minutes`` depend on how many runs shared the machine (``jobs`` in ``command``)."""
    return {
        "entry": job.entry,
        "config": job.content(),
        "config_hash": job.key,
        "seed": job.config.seed,
        "fold": job.config.fold,
        "metric": found["metric"],
        "valid": found["valid"],
        "test": found["test"],
        "epoch": found["best_epoch"],
        "params": found["parameters"],
        "minutes": found["minutes"],
        **records.provenance(found["device"]),
    }


@lru_cache(maxsize=1)
def _dataset(source: TrainConfig) -> GraphDataset:
    return load_data(source)


@lru_cache(maxsize=1)
def _prepared(source: TrainConfig, model: ModelConfig) -> list[Data]:
    return prepare(_dataset(source).graphs, model)


def run_all(
    jobs: list[Job], path: Path, *, workers: int = 1, run: Callable[[Job], dict[str, Any]] = run_job
) -> list[tuple[Job, Exception]]:
    """Runs ``jobs`` and stores each row as soon as there is one. Returns those that failed; the others go on."""
    failed = []
    for done, (job, row) in enumerate(_rows(jobs, workers, run), start=1):
        where = f"[{done}/{len(jobs)}] {job.entry} seed {job.config.seed} fold {job.config.fold}"
        if isinstance(row, Exception):
            failed.append((job, row))
            print(f"{where}: failed: {type(row).__name__}: {row}", file=sys.stderr, flush=True)
            continue
        records.append(path, row)
        name = row["metric"]
        print(
            f"{where}: valid {row['valid'][name]:.4f} test {row['test'][name]:.4f} ({row['minutes']:.2f} min)",
            flush=True,
        )
    return failed


def _rows(jobs: list[Job], workers: int, run: Callable[[Job], dict[str, Any]]) -> Iterator[tuple[Job, Any]]:
    if workers == 1:
        for job in jobs:
            try:
                yield job, run(job)
            except Exception as error:
                yield job, error
        return
    threads = max(1, records.machine()["cores"] // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(threads, sys.argv)) as pool:
        waiting = {pool.submit(run, job): job for job in jobs}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.exception() or future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(threads: int, words: list[str]) -> None:
    torch.set_num_threads(threads)
    sys.argv = words  # for the record of the command


def main(arguments: list[str] | None = None) -> int:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--root", help="folder with public data (TUDataset/NAME/raw)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; each gets its share of the cores")
    parser.add_argument("--only", action="append", help="entry to run; may be repeated")
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder for the rows")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and print the table")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, records.machine()["cores"] // options.jobs)))
    try:
        plan = read_plan(options.config, options.root)
        if missing := set(options.only or ()) - set(plan.entries):
            raise ConfigError(unknown("entry", min(missing), plan.entries))
    except PLSTMGraphError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    path = options.results / f"{plan.name}.jsonl"
    done = stored(plan, path)
    todo = [job for job in plan.jobs if job.key not in done and (not options.only or job.entry in options.only)]
    print(f"{plan.name}: {len(plan.jobs)} runs, {len(done)} done, {len(todo)} to do")
    failed = [] if options.dry_run else run_all(todo, path, workers=options.jobs)
    print("\n" + leaderboard_table(plan, stored(plan, path)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Train every entry of a config over its seeds and folds: ``python benchmarks/leaderboard.py CONFIG.toml --root DATA``.

A run that is stored already is skipped, so that an interrupted leaderboard goes on where it stopped. Runs that last
longer than a machine can be had: ``--minutes 8 --runs FOLDER`` stops them after an epoch, and the next call goes on.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import records
from boards import board
from plan import Job, read_plan, stored

from plstm_graph.errors import ConfigError, DataError, PLSTMGraphError, TimeUp, unknown
from plstm_graph.io.waiting import watched
from plstm_graph.train import results, shared
from plstm_graph.train.callbacks import Reporter
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.pool import Failure, Say, outcomes
from plstm_graph.train.run import train

OTHER_DATA = "the stored rows are of other data of this name"


BEGIN = 1.5
"""With fewer minutes left no run is begun: compiling it and one epoch would take longer."""


class Until(NamedTuple):
    """When to stop, in seconds of ``time.time``, and the folder in which runs wait to go on."""

    seconds: float
    runs: Path


def run_job(job: Job, say: Say, until: Until | None = None, keep: Path | None = None) -> dict[str, Any]:
    """Trains one job and returns its row; if it has to wait, ``{"waits": why}``. Its folder stays in ``keep``.

    Raises:
        DataError: the data are not those of the rows that are stored.
    """
    config = placed(job.config)
    if keep is not None:
        return row_of(job, trained(job, replace(config, out=str(keep / folder_of(job))), say, overwrite=True))
    if until is None:
        return row_of(job, trained(job, config, say))
    minutes = (until.seconds - time.time()) / 60
    if minutes < BEGIN:
        return {"waits": "there is no time to begin"}
    out = until.runs / job.key
    how = {"resume": (out / results.CONFIG).is_file(), "minutes": minutes}
    try:
        return row_of(job, trained(job, replace(config, out=str(out)), say, **how))
    except TimeUp as pause:
        return {"waits": str(pause)}


def folder_of(job: Job) -> Path:
    """Where its run is kept: seeds of an entry side by side, as those of a series."""
    fold = f"fold-{job.config.fold}_" if job.config.fold else ""
    return Path(job.entry.replace(os.sep, "-")) / f"{fold}seed-{job.config.seed}"


def trained(job: Job, config: TrainConfig, say: Say, **how: Any) -> dict[str, Any]:
    """What a run found.

    Args:
        job: with the hash of the data that it has to read.
        config: how it is run here: what does not change its result may be another than the job's.
        say: told how far it is.
        how: more for ``train``.
    """
    dataset = shared.dataset(config)
    if job.data_hash not in (None, dataset.examples.digest):
        raise DataError(f"{OTHER_DATA}; bring those back, or give another --results")
    reporter = Reporter(say, config.epochs)
    with watched(reporter.wait):
        return train(config, dataset, graphs=shared.graphs(config), callbacks=[reporter], **how)


def placed(config: TrainConfig) -> TrainConfig:
    """With prepared data from the folder of ``root``, if that is where they are."""
    path = Path(config.root or "") / config.data
    return replace(config, data=str(path.resolve()), root=None) if config.root and path.is_file() else config


def row_of(job: Job, found: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a run; ``minutes`` depend on how many runs shared the machine (``jobs`` in ``command``)."""
    return {
        "entry": job.entry,
        "config": job.content(),
        "config_hash": job.key,
        "data_hash": found["data_hash"],
        "seed": job.config.seed,
        "fold": job.config.fold,
        "metric": found["metric"],
        "valid": found["valid"],
        "test": found["test"],
        **{name: found[name] for name in ("also", "by_target") if name in found},
        "epoch": found["best_epoch"],
        "params": found["parameters"],
        "minutes": found["minutes"],
        **records.provenance(found["device"]),
    }


def run_all(
    jobs: list[Job],
    path: Path,
    *,
    workers: int = 1,
    commit: str | None = None,
    run: Callable[[Job, Say], dict[str, Any]] = run_job,
) -> list[tuple[Job, Failure]]:
    """Runs ``jobs`` and stores each row as soon as there is one. Returns those that failed; the others go on."""
    failed = []
    known = {job.source: job.data_hash for job in jobs if job.data_hash}
    with closing(outcomes(jobs, run, workers=workers)) as found:
        for done, (job, row) in enumerate(found, start=1):
            where = f"[{done}/{len(jobs)}] {job.entry} seed {job.config.seed} fold {job.config.fold}"
            if isinstance(row, dict) and "waits" in row:
                print(f"{where}: {row['waits']}", flush=True)
                continue
            if not isinstance(row, Failure) and known.setdefault(job.source, row["data_hash"]) != row["data_hash"]:
                row = Failure(OTHER_DATA)  # they changed meanwhile
            if isinstance(row, Failure):
                failed.append((job, row))
                print(f"{where}: failed: {row.reason}", file=sys.stderr, flush=True)
                continue
            records.append(path, row | ({"commit": commit, "dirty": False} if commit else {}))
            name = row["metric"]
            print(
                f"{where}: valid {row['valid'][name]:.4f} test {row['test'][name]:.4f} ({row['minutes']:.2f} min)",
                flush=True,
            )
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Runs what is missing and prints the table."""
    begun = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--root", help="folder with public data (TUDataset/NAME/raw)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; each gets its share of the cores")
    parser.add_argument("--only", action="append", help="entry to run; may be repeated")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="of them these, for one config on several machines or GPUs"
    )
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="folder for the rows")
    parser.add_argument("--commit", help="of these files, where git cannot tell")
    parser.add_argument("--minutes", type=float, help="stop after so many; with --runs")
    parser.add_argument("--runs", type=Path, help="folder in which runs that are stopped wait for the next call")
    parser.add_argument("--keep", type=Path, help="folder in which those of the runs stay, as ENTRY/seed-S")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and print the table")
    options = parser.parse_args(arguments)
    if (options.minutes is None) != (options.runs is None):
        parser.error("--minutes and --runs go together: what is stopped has to wait somewhere")
    if options.keep and options.runs:
        parser.error("--keep is for runs that end in one call: leave out --minutes and --runs")
    try:
        plan = read_plan(options.config, options.root)
        entries, seeds = options.only or plan.entries, options.seeds or {job.config.seed for job in plan.jobs}
        if missing := set(entries) - set(plan.entries):
            raise ConfigError(unknown("entry", min(missing), plan.entries))
        if missing := set(seeds) - {job.config.seed for job in plan.jobs}:
            raise ConfigError(f"seed {min(missing)} is none of the config's")
    except PLSTMGraphError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    path = options.results / f"{plan.name}.jsonl"
    done = stored(plan, path)
    hashes = {job.source: found for job in plan.jobs if (found := done.get(job.key, {}).get("data_hash"))}
    jobs = [replace(job, data_hash=hashes.get(job.source)) for job in plan.jobs]
    todo = [job for job in jobs if job.key not in done and job.entry in entries and job.config.seed in seeds]
    print(f"{plan.name}: {len(plan.jobs)} runs, {len(done)} done, {len(todo)} to do")
    until = Until(begun + 60 * options.minutes, options.runs.resolve()) if options.minutes else None
    run = partial(run_job, until=until, keep=options.keep.resolve() if options.keep else None)
    how: dict[str, Any] = {"workers": options.jobs, "commit": options.commit, "run": run}
    failed = [] if options.dry_run else run_all(todo, path, **how)
    print("\n" + board(plan, stored(plan, path)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

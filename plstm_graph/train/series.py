"""A series: one training over many seeds and folds, several runs at a time, each with a folder of its own."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from plstm_graph.config.models import AnyConfig
from plstm_graph.data.dataset import AnyDataset
from plstm_graph.data.splits import IN_FOLDS
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.io.files import atomic_write
from plstm_graph.train import results
from plstm_graph.train.analysis import score_runs
from plstm_graph.train.callbacks import Reporter, progress_console
from plstm_graph.train.config import TrainConfig, anywhere, differences, read_toml, to_dict, toml
from plstm_graph.train.data import load_data
from plstm_graph.train.folders import stored_series
from plstm_graph.train.owner import owned
from plstm_graph.train.pool import Failure, Row, Say, Status, outcomes, terminable, unseen
from plstm_graph.train.progress import left
from plstm_graph.train.results import RUN_ROWS, SERIES, SUMMARY
from plstm_graph.train.run import train
from plstm_graph.train.start import changes

READ_FROM = ("data", "root", "targets", "smiles_column", "task", "featuriser", "descriptors")
"""What decides which data set a run reads."""
EVERY_S = 30.0
"""Between two lines on a run where there is no terminal."""


# ---------------------------------------------------------------------- data, read once a process


def shared_dataset(config: TrainConfig) -> AnyDataset:
    """The data set of a run, kept for the next run of this process if it reads the same."""
    return _dataset(_source(config))


def shared_graphs(config: TrainConfig) -> Any:
    """Its graphs prepared for the model of the run, kept likewise."""
    return _prepared(_source(config), config.model)


def _source(config: TrainConfig) -> TrainConfig:
    return replace(TrainConfig(), **{name: getattr(config, name) for name in READ_FROM})


@lru_cache(maxsize=1)
def _dataset(source: TrainConfig) -> AnyDataset:
    return load_data(source)


@lru_cache(maxsize=1)
def _data_hash(source: TrainConfig) -> str:
    return _dataset(source).examples.digest


@lru_cache(maxsize=1)
def _prepared(source: TrainConfig, model: AnyConfig) -> Any:
    return _dataset(source).encoded(model)


# ---------------------------------------------------------------------- a series of the command line


@dataclass(frozen=True)
class Job:
    """One run of a series; its folder is ``config.out``."""

    config: TrainConfig
    data_hash: str
    resume: bool = False
    overwrite: bool = False
    command: str | None = None

    @property
    def name(self) -> str:
        return Path(str(self.config.out)).name

    @property
    def finished(self) -> bool:
        return (Path(str(self.config.out)) / results.SCORES).is_file()


def train_series(
    config: TrainConfig,
    *,
    seeds: Sequence[int] | None = None,
    folds: Sequence[int] | None = None,
    jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str | None = None,
) -> dict[str, Any]:
    """Trains every fold with every seed and returns what ``summary.json`` holds.

    A run goes to ``config.out/seed-S``, with folds to ``config.out/fold-F_seed-S``.

    Each run is what :func:`train` makes of it, and adds a line to ``runs.jsonl``. One that fails does not keep the
    others from running. Where the folder holds a series with the same settings, these seeds and folds join it: the
    summary is of every seed and fold of both, and so is what ``resume`` runs.

    Args:
        config: of all runs, with ``out``.
        seeds, folds: those to run; the config's own if not given.
        jobs: runs at a time; see :func:`pool.outcomes`.
        resume: skip finished runs, go on with those begun, start the rest.
        overwrite: replace all runs.
        progress: show on stderr how far they are.
        command: for the record.

    Raises:
        ConfigError: options that do not suit a series, a folder that cannot be used, that another process is at work
            in, or that holds a series with other settings or of other data; before anything runs.
        DataError: the data cannot be read; likewise.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once all runs have stopped.
    """
    if config.out is None:
        raise ConfigError("a series needs an output folder; set out")
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1 (got {jobs})")
    if config.devices not in ("auto", "1") or config.num_nodes > 1:
        raise ConfigError("the runs of a series have one device each; leave --devices and --num-nodes out")
    config = anywhere(config)
    with owned(str(config.out)):
        members = list(seeds or [config.seed]), list(folds or [config.fold])
        return _train_series(config, Path(str(config.out)), *members, jobs, resume, overwrite, progress, command)


def _train_series(
    config: TrainConfig,
    out: Path,
    seeds: list[int],
    folds: list[int],
    jobs: int,
    resume: bool,
    overwrite: bool,
    progress: bool,
    command: str | None,
) -> dict[str, Any]:
    """A series whose folder belongs to this process."""
    known = {"seeds": [], "folds": []} if overwrite else _joined(out, config)
    for kept_by_process in (_dataset, _data_hash, _prepared):
        kept_by_process.cache_clear()  # the files of an earlier series may have changed
    asked = set(product(seeds, folds))
    seeds, folds = _union(known["seeds"], seeds), _union(known["folds"], folds)
    data_hash = _checked_data(out, config, overwrite)
    members = [
        _job(
            replace(config, devices="1", fold=fold, seed=seed, out=str(_folder(out, config, fold, seed))),
            data_hash,
            resume or (seed, fold) not in asked,
        )
        for seed in seeds
        for fold in folds
    ]
    members = [replace(run, overwrite=overwrite, command=command) for run in members]
    runs = [run for run in members if resume or (run.config.seed, run.config.fold) in asked]
    for run in members:
        if run in runs or run.finished:
            results.check_folder(run.config, resume=run.resume, overwrite=overwrite)
    _open(out, config, {"seeds": seeds, "folds": folds, "data_hash": data_hash}, overwrite)
    if jobs > 1:  # the runs have processes of their own
        _dataset.cache_clear()
    kept = {row["run"]: row for row in results.read_lines(out / RUN_ROWS)}
    todo = [run for run in runs if not (run.resume and run.finished)]
    there = [run for run in members if run not in todo and (run.finished or run.name in kept)]
    rows = {run.name: kept.get(run.name) or _stored_row(run, out) for run in there}
    left = {run.name for run in members if run not in todo and run.name not in rows}
    before = results.read_json(out / SUMMARY)["failed"] if (out / SUMMARY).is_file() else {}
    failed: dict[str, str] = {name: reason for name, reason in before.items() if name in left}
    display = Display(len(runs), len(runs) - len(todo)) if progress else None
    with terminable(), display or nullcontext():
        found = outcomes(todo, _run, workers=jobs, watch=display.watch if display else unseen)
        with closing(found):
            for run, row in found:
                if isinstance(row, Failure):
                    failed[run.name] = row.reason
                else:
                    rows[run.name] = row
                    results.append_line(out / RUN_ROWS, row)
                if display:
                    display.end(run, row)
    summary = summarise([rows[run.name] for run in members if run.name in rows], failed)
    summary |= {"seeds": seeds, "folds": folds, "command": command}
    results.write_json(out / SUMMARY, summary)
    return summary


def _folder(out: Path, config: TrainConfig, fold: int, seed: int) -> Path:
    """Of a run: by its seed, and by its fold where the split has folds."""
    long = out / f"fold-{fold}_seed-{seed}"  # as all runs were called once
    folds = (config.split or shared_dataset(config).default_split) in IN_FOLDS
    return long if folds or fold or long.is_dir() else out / f"seed-{seed}"


def _joined(out: Path, config: TrainConfig) -> dict[str, list[int]]:
    """Seeds and folds of the series that is in the folder already, none where there is none."""
    stored, known = stored_series(out) or (config, {"seeds": [], "folds": []})
    differing = differences(replace(config, seed=stored.seed, fold=stored.fold, devices=stored.devices), stored)
    if differing:
        raise ConfigError(
            f"the series in {out} has other options: {'; '.join(differing)}; give these, --overwrite or another --out"
        )
    return known


def _checked_data(out: Path, config: TrainConfig, overwrite: bool) -> str:
    """The hash of the data, which is that of the series in the folder, if there is one."""
    found = _data_hash(_source(config))
    count = len(shared_dataset(config).examples)
    stored = None if overwrite or not (out / SERIES).is_file() else read_toml(out / SERIES)["series"].get("data_hash")
    changed = changes(stored or found, found, None, count)
    if changed:
        raise ConfigError(
            f"the series in {out} is of other data: {changed}; bring those back, or give --overwrite or another --out"
        )
    return found


def _union(first: Iterable[int], second: Iterable[int]) -> list[int]:
    return list(dict.fromkeys([*first, *second]))


def _job(config: TrainConfig, data_hash: str, resume: bool) -> Job:
    """A run that was never begun starts anew, resumed or not."""
    return Job(config, data_hash, resume and (Path(str(config.out)) / results.CONFIG).is_file())


def _run(job: Job, say: Say) -> Row:
    options: dict[str, Any] = {"resume": job.resume, "overwrite": job.overwrite, "command": job.command}
    if _data_hash(_source(job.config)) != job.data_hash:
        raise DataError("the data have changed since the series began; bring those back, or give --overwrite")
    dataset, graphs = shared_dataset(job.config), shared_graphs(job.config)
    return _row(job, train(job.config, dataset, graphs=graphs, callbacks=[Reporter(say)], **options))


def _row(job: Job, found: dict[str, Any]) -> Row:
    return {
        "run": job.name,
        "config": to_dict(replace(job.config, out=None)),
        "config_hash": found["config_hash"],
        "data_hash": found["data_hash"],
        "seed": job.config.seed,
        "fold": job.config.fold,
        "metric": found["metric"],
        "valid": found["valid"],
        "test": found["test"],
        "epoch": found["best_epoch"],
        "params": found["parameters"],
        "minutes": found["minutes"],
        "date": results.now(),
        "device": found["device"],
        "commit": found["commit"],
        "versions": found["versions"],
        "command": found["command"],
    }


def _stored_row(job: Job, out: Path) -> Row:
    """The row of a run that ended just before its line was written."""
    row = _row(job, results.read_json(Path(str(job.config.out)) / results.SCORES))
    results.append_line(out / RUN_ROWS, row)
    return row


def _open(out: Path, config: TrainConfig, series: dict[str, Any], overwrite: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in (RUN_ROWS, SUMMARY):
            (out / name).unlink(missing_ok=True)
    with atomic_write(out / SERIES) as temp:
        temp.write_text(toml({"series": series, **to_dict(config)}), "utf-8")


def summarise(rows: Sequence[Row], failed: dict[str, str]) -> dict[str, Any]:
    """Mean and spread of every metric on validation and test, see :class:`plstm_graph.train.analysis.Score`."""
    found: dict[str, Any] = {"runs": len(rows), "failed": failed}
    if not rows:
        return found
    parts = {
        part: {
            name: score_runs((row["seed"], _number(row[part][name])) for row in rows)._asdict()
            for name in rows[0][part]
        }
        for part in ("valid", "test")
    }
    return found | {
        "metric": rows[0]["metric"],
        **parts,
        "parameters": rows[0]["params"],
        "minutes": round(sum(row["minutes"] for row in rows), 4),
        "device": rows[0]["device"],
        "commit": rows[0]["commit"],
        "versions": rows[0]["versions"],
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else value  # JSON has no NaN


def summary_table(summary: Mapping[str, Any]) -> Any:
    """A rich table: a metric a row, mean ± unbiased standard deviation over the runs."""
    from rich.table import Table

    runs, failed = summary["runs"], summary["failed"]
    heads = ("metric", "valid", "test", "s.e. over seeds")
    title = f"{runs} run{'' if runs == 1 else 's'}" + (f", {len(failed)} failed" if failed else "")
    table = Table(*heads, title=title, title_justify="left", box=None, pad_edge=False)
    if runs:
        for name, test in summary["test"].items():
            cells = (f"{part['mean']:.4f} ± {part['deviation']:.4f}" for part in (summary["valid"][name], test))
            between = f"{test['error_repeats']:.4f}" if test["repeats"] > 1 else "-"
            table.add_row(name + (" (chosen by)" if name == summary["metric"] else ""), *cells, between)
        size = f"{summary['parameters']:,} parameters; " if summary["parameters"] else ""
        table.caption = (
            f"± is the unbiased standard deviation over {runs} runs, s.e. the standard error of the mean over seeds\n"
            f"{size}{summary['minutes'] / runs:.1f} minutes of training a run"
        )
        table.caption_justify = "left"
    return table


class Display:
    """On stderr: a bar for each run that is under way and one for all; without a terminal, lines now and then."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done = total, done
        self._before, self._since = done, time.monotonic()
        self._begun: dict[str, float] = {}
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> "Display":
        if self.done:
            self._print(f"{self.done} of {self.total} runs are finished already")
        if sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[text]}"))
            self._progress = Progress(*columns, console=progress_console())
            self._all = self._progress.add_task("all runs", total=self.total, completed=self.done, text="")
            self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._progress:
            self._progress.stop()

    def watch(self, job: Job, status: Status) -> None:
        """How far a run is."""
        epoch, epochs, text = status
        self._begun.setdefault(job.name, time.monotonic())
        if self._progress:
            if job.name not in self._tasks:
                self._tasks[job.name] = self._progress.add_task(job.name, total=epochs, text="")
            rest = left(time.monotonic() - self._begun[job.name], epoch, epochs)
            self._progress.update(self._tasks[job.name], completed=epoch, text=f"{rest}  {text}")
        elif time.monotonic() - self._said.setdefault(job.name, time.monotonic()) > EVERY_S:
            self._said[job.name] = time.monotonic()
            self._print(f"{job.name}: epoch {epoch}/{epochs}  {text}")

    def end(self, job: Job, row: Row | Failure) -> None:
        """How a run ended."""
        self.done += 1
        if self._progress:
            if job.name in self._tasks:
                self._progress.remove_task(self._tasks.pop(job.name))
            rest = left(time.monotonic() - self._since, self.done - self._before, self.total - self._before)
            self._progress.update(self._all, completed=self.done, text=rest)
        where = f"[{self.done}/{self.total}] {job.name}"
        if isinstance(row, Failure):
            self._print(f"{where}: failed: {row.reason}" + ("" if row.foreseen else f"\n{row.trace}".rstrip()))
        else:
            valid, test = (_number(row[part][row["metric"]]) for part in ("valid", "test"))
            self._print(f"{where}: {row['metric']} valid {valid:.4f} test {test:.4f} ({row['minutes']:.1f} min)")

    def _print(self, text: str) -> None:
        if self._progress:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

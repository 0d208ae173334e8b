"""A series: one training over many seeds and folds, several runs at a time, each with a folder of its own."""

from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from plstm_graph.data.splits import IN_FOLDS
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.io.files import write_text
from plstm_graph.io.json_csv import append_line, nan_for_none, read_json, read_lines, write_json
from plstm_graph.io.waiting import watched
from plstm_graph.train import provenance, results, shared
from plstm_graph.train.analysis import score_runs
from plstm_graph.train.callbacks import Reporter
from plstm_graph.train.config import TrainConfig, anywhere, differences, read_toml, to_dict, toml
from plstm_graph.train.display import Display, ending
from plstm_graph.train.folders import stored_series
from plstm_graph.train.owner import owned
from plstm_graph.train.pool import Failure, Row, Say, outcomes, terminable, unseen
from plstm_graph.train.progress import shown
from plstm_graph.train.results import RUN_ROWS, SERIES, SUMMARY
from plstm_graph.train.run import train
from plstm_graph.train.start import changes
from plstm_graph.train.unused import check_unused


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
    check_unused(config)
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
    shared.forget()  # the files of an earlier series may have changed
    asked = set(product(seeds, folds))
    seeds, folds = _union(known["seeds"], seeds), _union(known["folds"], folds)
    with shown(progress):
        data_hash = _checked_data(out, config, overwrite)
    members = []
    for seed, fold in product(seeds, folds):
        place = _folder(out, config, fold, seed)
        again = (resume or (seed, fold) not in asked) and (place / results.CONFIG).is_file()  # else it starts anew
        own = replace(config, devices="1", fold=fold, seed=seed, out=str(place))
        members.append(Job(own, data_hash, again, overwrite, command))
    runs = [run for run in members if resume or (run.config.seed, run.config.fold) in asked]
    for run in members:
        if run in runs or run.finished:
            results.check_folder(run.config, resume=run.resume, overwrite=overwrite)
    _open(out, config, {"seeds": seeds, "folds": folds, "data_hash": data_hash}, overwrite)
    if jobs > 1:  # the runs have processes of their own
        shared.forget()
    kept = {row["run"]: row for row in read_lines(out / RUN_ROWS)}
    todo = [run for run in runs if not (run.resume and run.finished)]
    there = [run for run in members if run not in todo and (run.finished or run.name in kept)]
    rows = {run.name: kept.get(run.name) or _stored_row(run, out) for run in there}
    left = {run.name for run in members if run not in todo and run.name not in rows}
    before = read_json(out / SUMMARY)["failed"] if (out / SUMMARY).is_file() else {}
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
                    append_line(out / RUN_ROWS, row)
                if display:
                    display.end(run, ending(row))
    summary = summarise([rows[run.name] for run in members if run.name in rows], failed)
    summary |= {"seeds": seeds, "folds": folds, "command": command}
    write_json(out / SUMMARY, summary)
    return summary


def _folder(out: Path, config: TrainConfig, fold: int, seed: int) -> Path:
    """Of a run: by its seed, and by its fold where the split has folds."""
    long = out / f"fold-{fold}_seed-{seed}"  # as all runs were called once
    folds = (config.split or shared.dataset(config).default_split) in IN_FOLDS
    return long if folds or fold or long.is_dir() else out / f"seed-{seed}"


def _joined(out: Path, config: TrainConfig) -> dict[str, list[int]]:
    """Seeds and folds of the series that is in the folder already, none where there is none."""
    if (out / results.CONFIG).is_file():
        raise ConfigError(f"{out} holds a run, no series; give --overwrite or another --out")
    stored, known = stored_series(out) or (config, {"seeds": [], "folds": []})
    differing = differences(replace(config, seed=stored.seed, fold=stored.fold, devices=stored.devices), stored)
    if differing:
        raise ConfigError(
            f"the series in {out} has other options: {'; '.join(differing)}; give these, --overwrite or another --out"
        )
    return known


def _checked_data(out: Path, config: TrainConfig, overwrite: bool) -> str:
    """The hash of the data, which is that of the series in the folder, if there is one."""
    found = shared.data_hash(config)
    count = len(shared.dataset(config).examples)
    stored = None if overwrite or not (out / SERIES).is_file() else read_toml(out / SERIES)["series"].get("data_hash")
    changed = changes(stored or found, found, None, count)
    if changed:
        raise ConfigError(
            f"the series in {out} is of other data: {changed}; bring those back, or give --overwrite or another --out"
        )
    return found


def _union(first: Iterable[int], second: Iterable[int]) -> list[int]:
    return list(dict.fromkeys([*first, *second]))


def _run(job: Job, say: Say) -> Row:
    reporter = Reporter(say, job.config.epochs)
    options: dict[str, Any] = {"resume": job.resume, "overwrite": job.overwrite, "command": job.command}
    with watched(reporter.wait):
        if shared.data_hash(job.config) != job.data_hash:
            raise DataError("the data have changed since the series began; bring those back, or give --overwrite")
        dataset, graphs = shared.dataset(job.config), shared.graphs(job.config)
        return _row(job, train(job.config, dataset, graphs=graphs, callbacks=[reporter], **options))


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
        "date": provenance.now(),
        "device": found["device"],
        "commit": found["commit"],
        "versions": found["versions"],
        "command": found["command"],
    }


def _stored_row(job: Job, out: Path) -> Row:
    """The row of a run that ended just before its line was written."""
    row = _row(job, read_json(Path(str(job.config.out)) / results.SCORES))
    append_line(out / RUN_ROWS, row)
    return row


def _open(out: Path, config: TrainConfig, series: dict[str, Any], overwrite: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if overwrite:
        results.clear(out)
    write_text(out / SERIES, toml({"series": series, **to_dict(config)}))


def summarise(rows: Sequence[Row], failed: dict[str, str]) -> dict[str, Any]:
    """Mean and spread of every metric on validation and test, see :class:`plstm_graph.train.analysis.Score`."""
    found: dict[str, Any] = {"runs": len(rows), "failed": failed}
    if not rows:
        return found
    parts = {
        part: {
            name: score_runs((row["seed"], nan_for_none(row[part][name])) for row in rows)._asdict()
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

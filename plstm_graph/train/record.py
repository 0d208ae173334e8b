"""What a run left in its folder, read back: finished or not, of this version or an earlier one."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from plstm_graph.errors import DataError
from plstm_graph.io.files import expanded
from plstm_graph.io.json_csv import read_json
from plstm_graph.tasks import METRICS, TASKS
from plstm_graph.train import results
from plstm_graph.train.config import read_toml
from plstm_graph.train.folders import check_run

UNLIKE = ("out", "seed", "split_seed", "fold")  # what may differ between repeats of one setting


@dataclass(frozen=True)
class PartPredictions:
    """A part of ``predictions.csv``.

    ``index`` [n] counts graphs in the data set; ``target`` is [n, targets] with NaN where there is no label, or [n]
    class numbers; ``prediction`` is [n, outputs]; ``smiles`` are empty for graphs that are no molecules, and nodes;
    ``names`` say where each stands: its row and id in the file, or its place in the data set.
    """

    index: np.ndarray
    smiles: list[str]
    target: np.ndarray
    prediction: np.ndarray
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Record:
    """A run's folder.

    Attributes:
        path: of the folder.
        options: the config by flat name (``lr``, ``model.width``), as stored.
        metrics: content of ``metrics.json``; None while the run is not finished.
        history: one row an epoch with ``epoch`` from 0.
        predictions: by part; empty where an earlier version left none, or nothing that a page can show.
        rejected: rows of ``rejected.csv``.
    """

    path: Path
    options: dict[str, Any]
    metrics: dict[str, Any] | None
    history: list[dict[str, float]]
    predictions: dict[str, PartPredictions]
    rejected: list[dict[str, str]]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def metric(self) -> str | None:
        """What validation is judged by; None before the first epoch of a run that does not say."""
        if self.metrics:
            return str(self.metrics["metric"])
        logged = [key.removeprefix("valid_") for key in (self.history[0] if self.history else ()) if "valid_" in key]
        return next((name for name in logged if name in METRICS), self.options.get("metric"))

    @property
    def best_epoch(self) -> int:
        """Epoch of the best validation metric, from 0; -1 before the first one ended."""
        if self.metrics:
            return int(self.metrics["best_epoch"] or 0) - 1  # a model without epochs has no best one
        values = [row[f"valid_{self.metric}"] for row in self.history]
        if not values or np.isnan(values).all() or self.metric is None:
            return -1
        return int(np.nanargmax(values) if METRICS[self.metric].higher_is_better else np.nanargmin(values))

    @property
    def setting(self) -> tuple[tuple[str, str], ...]:
        """The options that repeats of this run (other seeds, splits, folds) share."""
        return tuple(sorted((key, repr(value)) for key, value in self.options.items() if key not in UNLIKE))


def read_run(folder: str | PathLike[str]) -> Record:
    """Reads a run's folder.

    Raises:
        ConfigError: it is no folder of a run.
        DataError: a file in it is damaged.
    """
    path = expanded(folder)
    check_run(path)
    metrics = _metrics(path / results.SCORES)
    return Record(
        path,
        _flat(read_toml(path / results.CONFIG)),
        metrics,
        _history(path / results.HISTORY),
        _predictions(path / results.PREDICTIONS, metrics) if metrics else {},
        _rows(path / results.REJECTED),
    )


def read_scored(folder: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, PartPredictions]]:
    """``metrics.json`` of a folder and its predictions by part: of a run, or of a blend.

    Raises:
        DataError: there is none, it is not finished, or a file in it is damaged.
    """
    path = expanded(folder)
    metrics = _metrics(path / results.SCORES)
    if metrics is None:
        raise DataError(
            f"{path} holds no {results.SCORES}: give the folder of a finished run (one that was stopped goes on with "
            "train --resume)"
        )
    return metrics, _predictions(path / results.PREDICTIONS, metrics)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def _metrics(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        if found["metric"] in METRICS and {"task", "targets", "test", "valid", "best_epoch"} <= found.keys():
            return dict(found)
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{path} is not what a run writes there; train again, or delete it to report an unfinished run")


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _history(path: Path) -> list[dict[str, float]]:
    try:
        rows = [{key: float(value) for key, value in row.items()} for row in _rows(path)]
        return sorted(rows, key=lambda row: row["epoch"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); train again") from error


def _predictions(path: Path, metrics: Mapping[str, Any]) -> dict[str, PartPredictions]:
    task, targets = TASKS.get(metrics["task"]), len(metrics["targets"])
    if task is None or task.picture is None or not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        header, *rows = list(csv.reader(stream)) or [[]]
    first = next((place for place in range(2, len(header)) if header[place] not in ("row", "id")), 2) + 1
    told, before = header[first - 1 : first] == ["smiles"], header[2 : first - 1]
    found = {}
    try:
        for part in ("train", "valid", "test"):
            chosen = [row for row in rows if row[0] == part and not (task.exclusive and row[first] == "")]  # no class
            if not chosen:
                continue
            numbers = np.array([[float(cell or "nan") for cell in row[first:]] for row in chosen])
            target = numbers[:, 0].astype(int) if task.exclusive else numbers[:, :targets]
            index, smiles = np.array([int(row[1]) for row in chosen]), [row[first - 1] * told for row in chosen]
            names = [_place(row, before) for row in chosen]
            answers = numbers[:, targets:]
            if metrics.get("ensemble"):  # behind the answers stand their spreads
                answers = answers[:, : answers.shape[1] // 2]
            found[part] = PartPredictions(index, smiles, target, answers, names)
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} is damaged ({error}); train again, or delete it to report without it") from error
    return found


def _place(row: list[str], before: list[str]) -> str:
    """Where a graph stands, in words: of the columns between its number and its SMILES."""
    known = dict(zip(before, row[2:], strict=False))
    words = [f"row {known['row']}"] if known.get("row") else [f"graph {row[1]}"]
    return ", ".join([*words, *([known["id"]] if known.get("id") else [])])

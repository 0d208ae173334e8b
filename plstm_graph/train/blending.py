"""Finished runs joined by their predictions: a mean, weighted as the validation part says.

Reference: Caruana et al. 2004, "Ensemble selection from libraries of models".
"""

import csv
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plstm_graph.errors import ConfigError, DataError, listed
from plstm_graph.io.files import expanded
from plstm_graph.io.json_csv import read_json, write_json, write_rows
from plstm_graph.tasks import METRICS, score, task_of
from plstm_graph.tasks.calibration import mean_ranks
from plstm_graph.train import provenance, results
from plstm_graph.train.analysis import interval_of
from plstm_graph.train.folders import runs_of
from plstm_graph.train.record import PartPredictions, read_scored

PARTS = ("valid", "test")
ROUNDS = 100
"""Of the selection: a weight is a multiple of a hundredth, or of a larger share."""
BY_ORDER = ("rocauc", "ap", "kendall")
"""Metrics to which the order of answers is all."""


@dataclass(frozen=True)
class Scored:
    """A finished run.

    Attributes:
        folder: its own.
        metrics: content of its ``metrics.json``.
        parts: its predictions on validation and test, in the order of the data set.
        content: hash of its data without SMILES; empty where its folder does not tell.
    """

    folder: Path
    metrics: dict[str, Any]
    parts: dict[str, PartPredictions]
    content: str

    def same_data(self, other: "Scored") -> bool:
        """Whether both read the same graphs; of molecules, whether both were scored on the same, since the hash of the
        data is also of descriptors and of the features that a featuriser makes."""
        alike = self.metrics["data_hash"] == other.metrics["data_hash"] or self.content == other.content != ""
        told = all(any(run.parts[part].smiles) for run in (self, other) for part in PARTS)
        return alike or (told and all(self.parts[part].smiles == other.parts[part].smiles for part in PARTS))


@dataclass(frozen=True)
class Member:
    """What is weighed: a run, or the mean of a series.

    ``answers`` are by part, [n, outputs] in float64.
    """

    name: str
    runs: list[Scored]
    answers: dict[str, Tensor]


def blend(
    runs: Sequence[str | PathLike[str]], out: str | PathLike[str], *, ranks: bool = False, equal: bool = False
) -> dict[str, Any]:
    """Joins what finished runs say of validation and test, and returns what ``metrics.json`` in ``out`` holds.

    Weights are chosen on the validation part alone: from the best member on, the one that helps most is added again and
    again, the same one as often as it helps, and the best of these sums is kept. The test part is scored once they are
    known.

    Args:
        runs: folders of runs or of blends; that of a series is one member, the mean of its runs.
        out: folder for ``metrics.json`` and ``predictions.csv``; new or empty.
        ranks: join the rank of each graph within its part in place of values; answers are ranks then, from 0 to 1.
        equal: one weight for all, and nothing is chosen.

    Raises:
        ConfigError: fewer than two runs, those of other data, tasks or parts, ranks for a metric of values; a folder
            that is not empty.
        DataError: a run is not finished, or has no predictions to blend.
    """
    out = _checked(out)
    members = [_member(folder, ranks) for folder in runs]
    first = _checked_members(members, ranks)
    metric, names = first.metrics["metric"], _names(first.metrics, ranks)
    target = {part: torch.from_numpy(first.parts[part].target) for part in PARTS}
    same = [1 / len(members)] * len(members)
    weights = same if equal else select([each.answers["valid"] for each in members], target["valid"], metric)

    def scores(answers: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        return {part: {name: score(name, answers[part], target[part]) for name in names} for part in PARTS}

    found = _joined(members, weights)
    content = {
        **{name: first.metrics.get(name) for name in ("metric", "task", "level", "targets", "data", "split")},
        "data_hash": first.metrics["data_hash"],
        **scores(found),
        **_interval(first.metrics, found["test"], target["test"]),
        "mean": scores(_joined(members, same)),
        "members": [
            {"run": each.name, "runs": len(each.runs), "weight": weight, **scores(each.answers)}
            for each, weight in zip(members, weights, strict=True)
        ],
        "ranks": ranks,
        "equal": equal,
        "best_epoch": None,
        "graphs": {part: len(target[part]) for part in PARTS},
        "date": provenance.now(),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
    }
    _write(out, first, found, content)
    return content


def select(answers: Sequence[Tensor], target: Tensor, metric: str) -> list[float]:
    """Weights of members by greedy forward selection with replacement, :data:`ROUNDS` at most, which sum to 1.

    Args:
        answers: of each member on the validation part, [n, outputs].
        target: labels there, as for :func:`plstm_graph.tasks.score`.
        metric: what is to be best, a key of ``METRICS``.

    Raises:
        DataError: the metric is not defined there.
    """
    sign = 1 if METRICS[metric].higher_is_better else -1
    taken: list[int] = []
    total, best, kept = torch.zeros_like(answers[0]), -math.inf, 0
    for count in range(1, ROUNDS + 1):
        values = [sign * score(metric, (total + each) / count, target) for each in answers]
        place = max(range(len(values)), key=lambda one: -math.inf if math.isnan(values[one]) else values[one])
        taken.append(place)
        total = total + answers[place]
        if values[place] > best:
            best, kept = values[place], count
    if not kept:
        raise DataError(f"{METRICS[metric].label} is not defined on the validation part; there is nothing to choose by")
    return [taken[:kept].count(place) / kept for place in range(len(answers))]


def ranked(values: Tensor) -> Tensor:
    """Of each column the ranks of its values over their number, equal values at their mean: [n, outputs] in (0, 1]."""
    return torch.stack([mean_ranks(column) / len(column) for column in values.T], 1) if len(values) else values


def _joined(members: Sequence[Member], weights: Sequence[float]) -> dict[str, Tensor]:
    """Of those that have a weight: the others may hold what is no number."""
    pairs = [(weight, each.answers) for each, weight in zip(members, weights, strict=True) if weight]
    return {part: torch.stack([weight * answers[part] for weight, answers in pairs]).sum(0) for part in PARTS}


# ---------------------------------------------------------------------- reading


def _member(folder: str | PathLike[str], ranks: bool) -> Member:
    """A run, or the mean of the runs of a series."""
    path = expanded(folder)
    runs = [_scored(place) for place in runs_of(path) or [path]]
    for other in runs[1:]:
        _check_alike(runs[0], other)
    means = {part: torch.from_numpy(np.mean([run.parts[part].prediction for run in runs], 0)) for part in PARTS}
    return Member(str(folder), runs, {part: ranked(mean) for part, mean in means.items()} if ranks else means)


def _scored(folder: Path) -> Scored:
    metrics, parts = read_scored(folder)
    if missing := [part for part in PARTS if part not in parts]:
        raise DataError(
            f"{folder} has no predictions of {listed(missing)} to blend: its {results.PREDICTIONS} is missing, or "
            f"answers to task {metrics['task']} have no mean"
        )
    start = folder / results.START
    try:
        content = read_json(start).get("content", "") if start.is_file() else ""
    except (ValueError, AttributeError) as error:
        raise DataError(f"{start} is damaged: it should tell what data the run had; train again") from error
    return Scored(folder, metrics, {part: _in_order(parts[part]) for part in PARTS}, content)


def _in_order(part: PartPredictions) -> PartPredictions:
    """By the place of the graphs in the data set; nodes of one graph stay as they are."""
    order = np.argsort(part.index, kind="stable")
    smiles = [part.smiles[place] for place in order]
    return PartPredictions(part.index[order], smiles, part.target[order], part.prediction[order])


def _checked_members(members: Sequence[Member], ranks: bool) -> Scored:
    """One of their runs, after a check that all can be joined."""
    whole = [run for member in members for run in member.runs]
    if len(whole) < 2:
        raise ConfigError(f"a blend is of two runs or more (got {len(whole)}); give more folders")
    first = whole[0]
    for other in whole[1:]:
        _check_alike(first, other)
    if first.metrics["metric"] not in _names(first.metrics, ranks):
        label = METRICS[first.metrics["metric"]].label
        raise ConfigError(f"ranks say nothing of {label}; leave them out, which joins values")
    if not ranks and len({bool(run.metrics.get("ranks")) for run in whole}) > 1:
        raise ConfigError("some of these are blends of ranks, and others are not; give --ranks, which ranks them all")
    return first


def _names(metrics: Mapping[str, Any], ranks: bool) -> list[str]:
    """Metrics that are told: those of a run, or those of them that ranks have."""
    return [name for name in metrics["valid"] if not ranks or name in BY_ORDER]


def _check_alike(first: Scored, other: Scored) -> None:
    """Raise ConfigError unless two runs answer the same question on the same graphs."""
    names = ("task", "level", "targets", "metric")
    pairs = [(name, first.metrics.get(name), other.metrics.get(name)) for name in names]
    differing = [f"{name} {new} instead of {old}" for name, old, new in pairs if new != old]
    for part in PARTS:
        here, there = first.parts[part], other.parts[part]
        if not np.array_equal(here.index, there.index):
            shared = len(np.intersect1d(here.index, there.index))
            differing.append(f"{part} has {len(there.index)} rows, {shared} of the graphs of the other's")
        elif not np.array_equal(here.target, there.target, equal_nan=True):
            differing.append(f"{part} has other labels")
    if not differing and not first.same_data(other):
        hashes = (run.metrics["data_hash"] for run in (other, first))
        differing.append("data_hash {} instead of {}, and no SMILES say that these are the same".format(*hashes))
    if differing:
        raise ConfigError(
            f"{other.folder} cannot be blended with {first.folder}: {'; '.join(differing)}; train both with the same "
            "--data, --targets, --split and --split-seed"
        )


def _interval(metrics: Mapping[str, Any], answers: Tensor, target: Tensor) -> dict[str, Any]:
    """As ``metrics.json`` of a run has it."""
    task = task_of(metrics["task"])(tuple(metrics["targets"]), metrics["metric"])
    ends = interval_of(task, answers, target)
    return {"test_interval": ends} if ends else {}


# ---------------------------------------------------------------------- writing


def _checked(out: str | PathLike[str]) -> Path:
    path = expanded(out)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"output folder {path} is not empty; give another --out")
    return path


def _write(out: Path, first: Scored, found: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Scores last: a folder with ``metrics.json`` is complete."""
    out.mkdir(parents=True, exist_ok=True)
    if (first.folder / results.START).is_file():
        shutil.copyfile(first.folder / results.START, out / results.START)
    with (first.folder / results.PREDICTIONS).open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    outputs = found["test"].size(1)
    spreads = outputs if first.metrics.get("ensemble") else 0
    header, *rows = (row[: len(row) - spreads] for row in (header, *rows))  # a blend has none
    if task_of(first.metrics["task"]).exclusive:
        rows = [row for row in rows if row[-outputs - 1]]  # those with a class, which are what is read
    write_rows(out / results.PREDICTIONS, header, _rows(rows, found))
    write_json(out / results.SCORES, content)


def _rows(rows: Sequence[list[str]], found: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Those of a run with the blend's answers in place of its own."""
    for part, answers in found.items():
        chosen = sorted((row for row in rows if row[0] == part), key=lambda row: int(row[1]))
        for row, values in zip(chosen, answers.tolist(), strict=True):
            yield [*row[: -len(values)], *(f"{value:.7g}" for value in values)]

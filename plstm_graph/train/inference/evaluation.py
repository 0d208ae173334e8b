"""Scores of a checkpoint on a data set."""

from contextlib import suppress
from copy import copy
from dataclasses import replace
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

from plstm_graph.data.dataset import AnyDataset, GraphDataset
from plstm_graph.data.datasets import is_table, reads_smiles
from plstm_graph.data.tables import read_table
from plstm_graph.errors import ConfigError, DataError, count, listed, unknown
from plstm_graph.io.files import expanded
from plstm_graph.io.json_csv import read_json
from plstm_graph.tasks import Task
from plstm_graph.tasks.thresholds import at_thresholds
from plstm_graph.train.analysis import interval_of
from plstm_graph.train.checkpoint import Meta
from plstm_graph.train.compatible import check_same_kind, classes_as
from plstm_graph.train.config import TrainConfig, override
from plstm_graph.train.data import labels, load_data, split_of
from plstm_graph.train.folders import locate
from plstm_graph.train.inference.restored import restore
from plstm_graph.train.inference.seen import part_to_score, same_source
from plstm_graph.train.outputs import outputs
from plstm_graph.train.parts import check_labelled
from plstm_graph.train.results import CHECKPOINTS, SCORES

PARTS = ("train", "valid", "test", "all")
REASONS = 3
"""How many rejected rows the notes of an evaluation explain."""


def evaluate(
    checkpoint: str | PathLike[str],
    data: str | PathLike[str] | AnyDataset | None = None,
    *,
    part: str | None = None,
    batch_size: int = 256,
    device: str = "auto",
    **options: Any,
) -> dict[str, Any]:
    """Metrics of a checkpoint on a part of a data set, split as in training unless told otherwise.

    Args:
        checkpoint: file, or folder of a run.
        data: name, path or data set; the one it was trained on when not given.
        part: "train", "valid", "test" or "all". When not given, "test" for the data, targets and split that it was
            trained on, told by their content and wherever they are, and "all" for others.
        batch_size: graphs at once.
        device: "auto", "cpu", "cuda", ...
        options: fields of TrainConfig that say what to load (``root``, ``targets``, ``smiles_column``, ``task``,
            ``descriptors``, ``censored``) and how to split it (``split``, ``split_seed``, ``fold``). Of several targets
            data may have some, which are scored.

    Returns:
        Name of the ``data``, ``part`` and ``why`` this one, how many ``graphs`` were scored and rows ``rejected``,
        the metrics, ``by_target`` every metric of each of several targets (empty for one), ``interval`` the bootstrap
        interval of the metric that validation is judged by, ``thresholds`` by target what the threshold that validation
        chose does here (both empty where there is none), and ``notes``, sentences on what a reader should know.

    Raises:
        CheckpointError, ConfigError, DataError: the checkpoint, an option or the data cannot be used.
    """
    if part is not None and part not in PARTS:
        raise ConfigError(unknown("part of the split", part, PARTS))
    learner, meta = restore(checkpoint, device)
    config = meta.train_config
    if data is not None and not isinstance(data, AnyDataset):
        data = fspath(data)
        config = _pointed_at(data, meta)
    own = {"featuriser": meta.featuriser if reads_smiles(config.data) else None}
    config = override(config, own | {key: value for key, value in options.items() if value is not None})
    # A table has numbers of classes, and need not have them all.
    task = meta.asked if meta.asked.exclusive and is_table(config.data) and config.task == meta.asked.name else None
    dataset = data if isinstance(data, AnyDataset) else load_data(config, meta.spec, task)
    dataset = classes_as(_in_order(dataset, meta), meta.asked)
    trained = meta.asked.targets
    some = set(dataset.task.targets) < set(trained)  # the others have no label
    alike = replace(dataset, task=replace(dataset.task, targets=trained)) if some else dataset
    check_same_kind(alike, meta.asked, meta.spec, meta.featuriser)
    if isinstance(data, AnyDataset):
        check_labelled(dataset)
    why = "as asked"
    if part is None:
        part, why = part_to_score(config, meta, dataset, in_hand=isinstance(data, AnyDataset))
    chosen = range(len(dataset.examples)) if part == "all" else split_of(config, dataset)[part]
    graphs = dataset.encoded(meta.model_config, chosen)
    if not len(graphs):
        raise DataError(f"the {part} part of {dataset.name} is empty; give another --split-part")
    (values, spread), given = outputs(learner, graphs, batch_size), labels(graphs)
    known = dataset.task.exact(given)  # that of the model may know no bounds
    if some:
        places = [trained.index(name) for name in dataset.task.targets]
        known = known.new_full((len(known), len(trained)), torch.nan).index_copy(1, torch.tensor(places), known)
    found = learner.task.scores(values, known)
    found |= learner.task.calibration(values, known, spread)
    by_target = learner.task.by_target(values, known)
    by_target = {name: found for name, found in by_target.items() if not some or name in dataset.task.targets}
    thresholds = _at_thresholds(checkpoint, learner.task, values, known)
    counts = {"graphs": len(graphs), "rejected": len(dataset.rejected)}
    return {
        "data": dataset.name,
        "part": part,
        "why": why,
        **counts,
        **found,
        "by_target": by_target,
        "interval": interval_of(learner.task, values, known),
        "thresholds": {name: found for name, found in thresholds.items() if not some or name in dataset.task.targets},
        "notes": [*_notes(dataset, meta), *_bounds(dataset.task, given), *_undefined(learner.task, known)],
    }


def _at_thresholds(checkpoint: str | PathLike[str], task: Task, chance: Tensor, label: Tensor) -> dict[str, Any]:
    """What the thresholds of the training do here, by target; nothing where its folder does not tell them."""
    folder, chosen = locate(checkpoint).absolute().parent, {}
    if folder.name == CHECKPOINTS and (folder.parent / SCORES).is_file():
        with suppress(ValueError, KeyError, AttributeError, TypeError):  # damaged, or not of a run
            stored = read_json(folder.parent / SCORES).get("thresholds", {})
            chosen = {name: float(each["threshold"]) for name, each in stored.items()}
    found = at_thresholds(task, chance, label, chosen)
    return {name: {"threshold": chosen[name], **scores} for name, scores in found.items()}


def _bounds(task: Task, given: Tensor) -> list[str]:
    """What to say of labels that are bounds."""
    bounds = int(task.count(given)) - int(task.count(task.exact(given)))
    return [f"{bounds} labels are bounds, and not scored"] if bounds else []


def _undefined(task: Task, known: Tensor) -> list[str]:
    """That the metric says nothing of these labels."""
    if task.is_defined(task.metric, known):
        return []
    return [f"no {task.rule.label}: {'labels are all alike' if bool(task.known(known).any()) else 'there is no label'}"]


def _pointed_at(data: str, meta: Meta) -> TrainConfig:
    """The config of a checkpoint for other data, or for its own by another path."""
    file = is_table(data)
    if file and same_source(data, meta.train_config.data):
        return override(meta.train_config, {"data": data})
    own: dict[str, Any] = {"targets": (), "task": meta.asked.name if file else None}
    if file:  # those of the targets that it has, or all, for the error
        there = [name for name in meta.asked.targets if read_table(expanded(data)).has(name)]
        own["targets"] = there or meta.asked.targets
    own |= {"split_column": None, "test_data": None, "censored": file and meta.train_config.censored}
    column = meta.train_config.smiles_column if file else None  # what has a name brings its own
    column = column if column and read_table(expanded(data)).has(column) else None
    return override(meta.train_config, {"data": data, "smiles_column": column, **own})


def _in_order(dataset: AnyDataset, meta: Meta) -> AnyDataset:
    """With the targets of the training in its order, where they are the same: a file may have them in another one."""
    asked, trained = dataset.task.targets, meta.asked.targets
    if asked == trained or sorted(asked) != sorted(trained) or not isinstance(dataset, GraphDataset):
        return dataset
    graphs = [copy(graph) for graph in dataset.graphs]
    for graph in graphs:
        columns = graph.y.unflatten(-1, (-1, len(asked)))  # bounded labels have a side each behind them
        graph.y = columns[..., [asked.index(name) for name in trained]].flatten(-2)
    return replace(dataset, graphs=graphs, task=replace(dataset.task, targets=trained))


def _notes(dataset: AnyDataset, meta: Meta) -> list[str]:
    notes, targets = [], dataset.task.targets
    named, trained = bool(dataset.task.class_names), bool(meta.asked.class_names)
    if named != trained and dataset.task.exclusive:
        one, other = ("data", "checkpoint") if named else ("checkpoint", "data")
        notes.append(f"classes have names in the {one} and none in the {other}: they are taken by their numbers")
    if dataset.features.pictures and not meta.spec.pictures:
        notes.append(
            "the images of the training were not made of pictures as these are: colours may mean another thing"
        )
    if set(targets) < set(meta.asked.targets):
        absent = [name for name in meta.asked.targets if name not in targets]
        notes.append(f"no labels of {listed(absent)} in the data, so no score")
    elif targets != meta.asked.targets:
        columns = ", ".join(map(repr, targets))
        kind = "column" if len(targets) == 1 else "columns"
        notes.append(f"scores {', '.join(meta.asked.targets)} against {kind} {columns}")
    if dataset.rejected:
        files = bool(dataset.features.image)
        places = [row.text if files else f"row {row.row}" for row in dataset.rejected[:REASONS]]
        told = [
            f"{place}: {' '.join(row.reason.split())}" for place, row in zip(places, dataset.rejected, strict=False)
        ]
        told += ["..."] if len(dataset.rejected) > REASONS else []
        notes.append(f"{count(len(dataset.rejected), 'file' if files else 'row')} rejected: {'; '.join(told)}")
    return notes

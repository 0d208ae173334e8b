"""What a run is trained, chosen and scored on: the parts of its data, encoded for its model."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch_geometric.data import Data

from plstm_graph.config.names import DATA_SETS
from plstm_graph.data.dataset import AnyDataset, Dataset, GraphDataset
from plstm_graph.data.examples import Arrays, take
from plstm_graph.data.splits import BY_COLUMN, OFFICIAL, UNSEEDED
from plstm_graph.data.suiting import check_graphs
from plstm_graph.errors import ConfigError, DataError, count, listed
from plstm_graph.tasks import Task
from plstm_graph.train.compatible import check_same_kind, classes_as
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import labels, load_data, repeats, split_of
from plstm_graph.train.trainer import first_process

log = logging.getLogger(__name__)


def parts_of(
    config: TrainConfig, dataset: AnyDataset, split: dict[str, list[int]], graphs: Sequence[Data] | None
) -> dict[str, Any]:
    """Train, valid and test, and the test parts of ``config.also`` by their names.

    Args:
        config: of the run.
        dataset: its data.
        split: numbers of the examples of each part.
        graphs: all of them as the model reads them, where that is known already.

    Raises:
        DataError: there is nothing to train on or to choose by; a further data set is of another kind.
    """
    prepared = dataset.encoded(config.model) if graphs is None else graphs
    parts = {name: take(prepared, chosen) for name, chosen in split.items()}
    for name in ("train", "valid"):
        if not len(parts[name]):
            raise DataError(_nothing_in(name, config.split or dataset.default_split, dataset.name, len(prepared)))
    return parts | dict(_further(config, dataset))


def _unseen(task: Task, train: Any) -> list[str]:
    """Classes with a name of which a training part has nothing."""
    names = task.class_names
    there = {*labels(train).unique().tolist()} if names else set()
    return [name for number, name in enumerate(names) if number not in there]


def tell_labels(task: Task, parts: dict[str, Any]) -> None:
    """Warns of what a part says nothing about: classes, and targets without labels, or with labels all alike."""
    if not first_process():
        return
    if unseen := _unseen(task, parts["train"]):
        log.warning(f"no example of {listed(unseen)} in the train part, so it cannot be learnt")
    for part in ("train", "valid", "test"):
        given = labels(parts[part], task)
        target = task.values(given) if part == "train" else task.exact(given)
        if not len(target) or target.dim() != 2 or not target.is_floating_point():
            continue
        if none := task.unlabelled(target):
            lost = "nothing to learn" if part == "train" else f"no {part} score"
            log.warning(f"{lost} for {listed(none)}: no label there; use another split, or leave it out")
        same = target.nan_to_num(torch.inf).amin(0) == target.nan_to_num(-torch.inf).amax(0)
        alike = [name for name, one in zip(task.targets, same.tolist(), strict=True) if one]
        if alike and part == "train":
            log.warning(f"nothing to learn for {listed(alike)}: labels are all alike in the train part")
        elif alike and not task.is_defined(task.metric, target[:, same]):
            rest = "; the mean is over others" if len(task.targets) > 1 else ""
            log.warning(f"no {part} {task.rule.label} for {listed(alike)}: labels are all alike there{rest}")


def check_labelled(dataset: Any) -> AnyDataset:
    """A data set that a caller made.

    Raises:
        DataError: it is none, or has labels that do not suit its task, or graphs that are not as it says.
    """
    if not isinstance(dataset, Dataset | GraphDataset):
        raise DataError(f"a Dataset or GraphDataset of plstm_graph.data is needed, got {type(dataset).__name__}")
    if dataset.task.tabular:
        try:
            found = dataset.examples.y
        except (TypeError, RuntimeError) as error:  # as torch.cat puts it
            raise DataError(f"{dataset.name}: all examples must have labels y of one shape ({error})") from error
        dataset.task.check_labels(found)
    if isinstance(dataset, GraphDataset):
        check_graphs(dataset)
    elif isinstance(dataset.examples, Arrays):
        x = dataset.examples.x
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise DataError(f"{dataset.name}: x must be finite numbers; fill what is not known")
    return dataset


def _further(config: TrainConfig, dataset: AnyDataset) -> Iterator[tuple[str, Any]]:
    """Name and test part of each further data set that the run is scored on."""
    for name in config.also:
        other = classes_as(load_data(replace(config, data=name, also=()), dataset.features), dataset.task)
        check_same_kind(other, dataset.task, dataset.features, dataset.featuriser)
        yield name, other.encoded(config.model, split_of(config, other)["test"])


def _nothing_in(part: str, split: str, name: str, count: int) -> str:
    if part != "train" or split != OFFICIAL:
        return f"the {part} split of {name} is empty ({count} examples); use another split"
    other = name.rpartition("-")[0]
    other = f"--data {other}" if other != name and other in DATA_SETS else "other data"
    return (
        f"{name} has no training part: it is there to score what was trained on {other}, with evaluate "
        f"--checkpoint RUN --data {name} --split-part test; train on that, or give --split random"
    )


def check_split(config: TrainConfig, dataset: AnyDataset) -> None:
    """The split reads the column and the seed that are given for it, and rows that it puts into no group are said.

    Raises:
        ConfigError: it does not.
    """
    kind = config.split or dataset.default_split
    if config.split_seed is not None and kind in UNSEEDED:
        raise ConfigError(
            f"the split {kind!r} is the same for every seed: leave out --split-seed, or choose another split, as "
            "--split random"
        )
    if config.split_column and kind not in BY_COLUMN:
        raise ConfigError(
            f"the split {kind!r} does not read column {config.split_column!r}; with --split-column give --split column "
            "(its texts name parts), group or group-folds (rows with one text stay together) or time, or leave it out"
        )
    empty = sum(not cell for cell in getattr(dataset, "column", ()))
    if empty and kind.startswith("group") and first_process():
        log.warning(
            f"{count(empty, 'row')} with an empty cell in column {config.split_column!r} stay together as one group; "
            "if they are not one, name a group for each"
        )


def tell_repeats(config: TrainConfig, dataset: AnyDataset, split: dict[str, list[int]]) -> None:
    """Warns of molecules that stand in the data more than once, where no official split is used."""
    if not (config.test_data or (config.split or dataset.default_split) != OFFICIAL) or not first_process():
        return
    found = repeats(dataset, split)
    if found.rows:
        rows = f"{found.rows} rows repeat" if found.rows > 1 else "1 row repeats"
        one = found.molecules == 1
        which = "" if one else f"{found.contradicting} of them "
        labels = f", {which}with labels that contradict each other" * bool(found.contradicting)
        log.warning(f"{rows} {'a molecule' if one else f'one of {found.molecules} molecules'}, in any spelling{labels}")
    if found.leaked:
        ways = ["merge rows that repeat a molecule"]
        if config.test_data:
            ways.append(f"take them out of {config.test_data}")
        if not config.group_repeats:
            ways.append("leave out --no-group-repeats")
        log.warning(
            f"{found.leaked} molecules of valid and test stand in train, too, and flatter scores: {', or '.join(ways)}"
        )

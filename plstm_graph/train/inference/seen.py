"""Whether data are those that a checkpoint was trained on, and so which part of them says how good it is."""

import os
from pathlib import Path

from plstm_graph.config.names import folder_prefix
from plstm_graph.data.dataset import AnyDataset
from plstm_graph.data.datasets import DATASETS
from plstm_graph.data.prepared import SUFFIX, read_prepared
from plstm_graph.data.tables import SMILES_COLUMNS
from plstm_graph.errors import DataError
from plstm_graph.io.files import expanded, kind
from plstm_graph.train.checkpoint import Meta
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import split_of

SPLIT = ("split", "split_column", "test_data", "split_seed", "fold", "group_repeats")


def part_to_score(asked: TrainConfig, meta: Meta, dataset: AnyDataset, *, in_hand: bool = False) -> tuple[str, str]:
    """The part to score where none was given, ``"test"`` or ``"all"``, and why.

    Args:
        asked: config that ``dataset`` was loaded by and would be split by.
        meta: of the checkpoint.
        dataset: what ``asked`` names, or what the caller had in hand.
        in_hand: which of both.

    Raises:
        ConfigError, DataError: the data cannot be split as asked.
    """
    trained = meta.train_config
    resplit = any(getattr(asked, name) != getattr(trained, name) for name in SPLIT)
    hint = "; give --split-part for a part of another split" if resplit else ""
    placed_alike = not in_hand and same_source(asked.data, trained.data, dataset.name) and _same_column(asked, trained)
    if dataset.task.targets != meta.asked.targets:
        return "all", f"not the {'targets' if placed_alike else 'data'} it was trained on{hint}"
    same = placed_alike if meta.content is None else meta.content == dataset.content
    if not same and placed_alike:
        return "all", f"the data have changed since it was trained, and some may have been trained on{hint}"
    if not same:
        return "all", f"not the data it was trained on{hint}"
    if resplit and split_of(asked, dataset) != split_of(trained, dataset):
        return "all", f"not the split it was trained on{hint}"
    return "test", "the data and the split it was trained on"


def same_source(asked: str, trained: str, name: str | None = None) -> bool:
    """Whether two values of ``data`` are one: a name in any case, a path however written.

    Args:
        asked, trained: as ``TrainConfig.data``.
        name: of the data set that ``asked`` led to, which makes a prepared file equal to the set it was made of.
    """
    if asked == trained:
        return True
    known = {row.casefold(): row for row in DATASETS}
    first, second = (known.get(data.casefold()) or _place(data) for data in (asked, trained))
    if kind(asked) == SUFFIX and name in DATASETS:
        first = name
    if kind(trained) == SUFFIX and first in DATASETS:
        second = _prepared_name(trained)
    return first == second


def _place(data: str) -> str:
    """The path that a value of ``data`` ends with, whatever stands before it."""
    return os.path.realpath(expanded(data.removeprefix(folder_prefix(data))))


def _prepared_name(path: str) -> str:
    try:
        return read_prepared(Path(path)).name
    except DataError:  # it was trained elsewhere, or the file is gone since
        return path


def _same_column(asked: TrainConfig, trained: TrainConfig) -> bool:
    """Whether the molecules come from one column; ``None`` finds one by its usual name."""
    first, second = asked.smiles_column, trained.smiles_column
    return first == second or (None in (first, second) and (first or second or "").casefold() in SMILES_COLUMNS)

"""Whether data are those that a checkpoint was trained on, and so which part of them says how good it is."""

import os
from collections.abc import Sequence
from pathlib import Path

from plstm_graph.data.dataset import GraphDataset
from plstm_graph.data.datasets import DATASETS
from plstm_graph.data.prepared import SUFFIX, read_prepared
from plstm_graph.data.tables import SMILES_COLUMNS
from plstm_graph.errors import DataError
from plstm_graph.files import kind
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import split_of

SPLIT = ("split", "split_seed", "fold", "group_repeats")


def part_to_score(
    asked: TrainConfig, trained: TrainConfig, dataset: GraphDataset, targets: Sequence[str]
) -> tuple[str, str]:
    """The part to score where none was given, ``"test"`` or ``"all"``, and why.

    Args:
        asked: config that ``dataset`` was loaded by and would be split by.
        trained: config of the checkpoint.
        dataset: what ``asked`` names.
        targets: of the checkpoint.

    Raises:
        ConfigError, DataError: the data cannot be split as asked.
    """
    resplit = any(getattr(asked, name) != getattr(trained, name) for name in SPLIT)
    hint = "; give --split-part for a part of another split" if resplit else ""
    if not same_source(asked.data, trained.data, dataset.name) or not _same_column(asked, trained):
        return "all", f"not the data it was trained on{hint}"
    if dataset.task.targets != tuple(targets):
        return "all", f"not the targets it was trained on{hint}"
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
    first, second = (known.get(data.casefold()) or os.path.realpath(data) for data in (asked, trained))
    if kind(asked) == SUFFIX and name in DATASETS:
        first = name
    if kind(trained) == SUFFIX and first in DATASETS:
        second = _prepared_name(trained)
    return first == second


def _prepared_name(path: str) -> str:
    try:
        return read_prepared(Path(path)).name
    except DataError:  # it was trained elsewhere, or the file is gone since
        return path


def _same_column(asked: TrainConfig, trained: TrainConfig) -> bool:
    """Whether the molecules come from one column; ``None`` finds one by its usual name."""
    first, second = asked.smiles_column, trained.smiles_column
    return first == second or (None in (first, second) and (first or second or "").casefold() in SMILES_COLUMNS)

"""Molecules of a CSV file, read from their SMILES, with the labels of its columns."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from plstm_graph.data.dataset import METRICS, MOLECULE, GraphDataset
from plstm_graph.data.molecules import CIP, Rejected, read_molecules
from plstm_graph.data.tables import Table, read_table
from plstm_graph.errors import ConfigError, DataError, unknown
from plstm_graph.files import stem

log = logging.getLogger(__name__)

MOST_CLASSES = 10
"""Whole numbers from -1 on and below it may well be classes."""


def load_csv(
    path: str | Path,
    targets: Sequence[str],
    smiles_column: str | None = None,
    task: str | None = None,
    featuriser: str = CIP,
) -> GraphDataset:
    """Molecules and labels of a CSV file; see :func:`load`. Rows that cannot be used are in ``rejected``."""
    if task is not None and task not in METRICS:
        raise ConfigError(unknown("task", task, METRICS))
    table = read_table(path)
    texts, labels = table.smiles(smiles_column), table.labels(targets)
    if task is None:
        task = "binary" if all(_is(row, (0, 1)) for row in labels) else "regression"
        for name, column in zip(targets, zip(*labels, strict=True), strict=True):
            if task == "regression" and (kinds := _like_classes(column)):
                log.warning(
                    f"{table.path.name}: {kinds} in column {name!r} are taken as quantities; if they are classes, "
                    "number them 0, 1, ... and give the task: binary or multiclass"
                )
    num_outputs = _check_labels(table, targets, labels, task)

    molecules, rejected = read_molecules(texts, featuriser)
    graphs = []
    for row, graph in molecules:
        label = labels[row - 1]
        if all(math.isnan(value) for value in label):
            rejected.append(Rejected(row, texts[row - 1], f"no label in {', '.join(targets)}"))
            continue
        graph.y = torch.tensor([label], dtype=torch.float) if task != "multiclass" else torch.tensor([int(label[0])])
        graphs.append(graph)
    rejected.sort()
    if not graphs:
        first = rejected[0]
        raise DataError(
            f"{table.path.name}: none of the {len(texts)} rows can be used; row {first.row}: {first.reason}"
        )
    return GraphDataset(
        *(stem(table.path), graphs, task, METRICS[task], tuple(targets), num_outputs, MOLECULE, rejected, "random"),
        featuriser=featuriser,
    )


def _like_classes(column: Sequence[float]) -> str:
    """Labels that may be classes, in words; empty for those that are not whole, or many."""
    kinds = {value for value in column if not math.isnan(value)}
    if not all(value.is_integer() for value in kinds):
        return ""
    if len(kinds) <= 2:
        return f"whole numbers {' and '.join(f'{value:.0f}' for value in sorted(kinds))}"
    few = kinds <= set(range(-1, MOST_CLASSES))
    return f"whole numbers {min(kinds):.0f} to {max(kinds):.0f}" if few else ""


def _is(labels: Sequence[float], allowed: Sequence[int]) -> bool:
    return all(math.isnan(value) or value in allowed for value in labels)


def _check_labels(table: Table, targets: Sequence[str], labels: list[list[float]], task: str) -> int:
    """Number of outputs a model needs, after a check that the labels suit the task."""
    where = table.path.name
    if task == "multiclass":
        if len(targets) != 1:
            raise DataError(f"multiclass needs exactly one target column of {where}, got {', '.join(targets)}")
        present = {row[0] for row in labels if not math.isnan(row[0])}
        if present != set(range(len(present))) or len(present) < 2:
            some = ", ".join(f"{value:g}" for value in sorted(present)[:5])
            raise DataError(f"{where}: multiclass labels must be 0, 1, ... without gaps, got {some}, ...")
        return len(present)
    if task == "binary":
        for row, label in enumerate(labels, start=1):
            if not _is(label, (0, 1)):
                raise DataError(f"{where}, row {row} (header not counted): a binary label must be 0 or 1, got {label}")
    return len(targets)

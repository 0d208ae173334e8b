"""What scikit-learn hands over, as this package takes it: texts, names of targets, molecules held out."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from plstm_graph.data.dataset import GraphDataset
from plstm_graph.data.molecules import Rejected
from plstm_graph.errors import ConfigError, DataError

TOLD = 3
"""Rows that a warning names."""


def tell(rejected: Sequence[Rejected], count: int, what: str) -> None:
    """Warn of rows that are no molecules."""
    if rejected:
        some = "; ".join(f"row {row.row}: {row.reason}" for row in rejected[:TOLD])
        warnings.warn(f"{len(rejected)} of {count} molecules are {what}: {some}", stacklevel=3)


def as_texts(X: Any) -> list[str]:
    """SMILES of a list, an array [n] or [n, 1], or a column of a table.

    Raises:
        DataError: none, or of another shape or kind.
    """
    found = np.asarray(X, dtype=object)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise DataError(f"X must be a list of SMILES, [n], got the shape {list(found.shape)}; reshape your data")
    if not len(found):
        raise DataError("X must hold at least one SMILES, got 0 sample(s)")
    return found.tolist()


def names_of(y: Any) -> tuple[str, ...]:
    """Names of targets: of the columns of a table, or y, y0, y1, ..."""
    if hasattr(y, "columns"):
        return tuple(map(str, y.columns))
    if y is None:
        raise DataError("requires y to be passed, but the target y is None")
    shape = np.asarray(y).shape
    if len(shape) == 2 and shape[1] > 1:
        return tuple(f"y{k}" for k in range(shape[1]))
    return (str(getattr(y, "name", None) or "y"),)


def defined(dataset: GraphDataset) -> str:
    """The usual metric, or the next one that says something of so few molecules."""
    valid = dataset.parts["valid"] if dataset.parts else []
    target = torch.cat([dataset.graphs[index].y for index in valid])
    task = dataset.task
    return next((name for name in task.metrics if task.is_defined(name, target)), task.metrics[0])


def held_out(dataset: GraphDataset, fraction: float, seed: int) -> dict[str, list[int]]:
    """Train and validation: all rows of a molecule in one of them, classes in both alike where there are some."""
    if not 0 < fraction < 1:
        raise ConfigError(f"validation_fraction must be above 0 and below 1 (got {fraction})")
    owners, draw = np.array(dataset.molecules()), np.random.default_rng(seed)
    first = np.unique(owners, return_index=True)[1]
    kinds: dict[Any, list[int]] = {}
    for owner in draw.permutation(len(first)).tolist():
        y = dataset.graphs[int(first[owner])].y
        kinds.setdefault(int(y) if dataset.task.chances and y.numel() == 1 else 0, []).append(owner)
    counts = {kind: min(len(group) - 1, max(1, round(fraction * len(group)))) for kind, group in kinds.items()}
    chosen = np.isin(owners, [owner for kind, group in kinds.items() for owner in group[: counts[kind]]])
    if not chosen.any():
        raise DataError(f"training takes 2 different molecules of a class at least, got n_samples = {len(owners)}")
    return {"train": np.flatnonzero(~chosen).tolist(), "valid": np.flatnonzero(chosen).tolist(), "test": []}

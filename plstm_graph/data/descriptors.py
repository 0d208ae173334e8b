"""Descriptors of whole molecules, which networks read beside the graph: rdkit's by name, or a table of one's own."""

import math
from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.config.names import DESCRIPTORS
from plstm_graph.data.molecules import UnreadableSMILES, canonical, fingerprints, rdkit_descriptors
from plstm_graph.data.tables import read_rows
from plstm_graph.errors import ConfigError, DataError, unknown
from plstm_graph.io.files import expanded


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise ConfigError unless each is in ``plstm_graph.config.names.DESCRIPTORS`` or a file, and none comes twice."""
    for kind in kinds:
        if kind not in DESCRIPTORS and not expanded(kind).is_file():
            raise ConfigError(f"{unknown('descriptors', kind, DESCRIPTORS)} There is no such file, either")
    if len(set(kinds)) < len(kinds):
        raise ConfigError(f"descriptors must be named once each (got {', '.join(kinds)})")


def describe(kind: str, smiles: Sequence[str]) -> Tensor:
    """Descriptors of one kind, float32 [molecules, columns]; NaN where there is none.

    Args:
        kind: one of :data:`plstm_graph.config.names.DESCRIPTORS`, or the path of a CSV file with SMILES (in any
            spelling) and columns of numbers.
        smiles: of the molecules.

    Raises:
        ConfigError, DataError: no such kind; the file cannot be used.
    """
    check_kinds([kind])
    if kind == "rdkit2d":
        return torch.from_numpy(rdkit_descriptors(smiles).clip(-LARGEST, LARGEST)).float()
    if kind in DESCRIPTORS:
        return torch.from_numpy(fingerprints(smiles, counts=kind == "morgan-counts")).float()
    return _from_file(expanded(kind), smiles)


LARGEST = 1e30
"""Of a descriptor, either way: Ipc of a large molecule is beyond any float."""


def _from_file(path: Path, smiles: Sequence[str]) -> Tensor:
    table, texts = read_rows(path)
    cells = np.array([[_number(cell) for cell in row] for row in table.rows], dtype=np.float64)
    chosen = np.isfinite(cells).any(0) if len(cells) else np.zeros(0, dtype=bool)
    if not chosen.any():
        raise DataError(f"{path} has no column of numbers beside the SMILES")
    known: dict[str, np.ndarray] = {}
    for text, row in zip(texts, cells[:, chosen].clip(-LARGEST, LARGEST), strict=True):
        if not np.array_equal(known.setdefault(_key(text), row), row, equal_nan=True):
            raise DataError(f"{path} must have one row a molecule, but {text} has two that differ; leave one out")
    none = np.full(int(chosen.sum()), np.nan)
    found = [known.get(_key(text)) for text in smiles]
    if smiles and not any(row is not None for row in found):
        raise DataError(f"none of {len(found)} molecules is in {path}; does it have the same molecules?")
    return torch.from_numpy(np.array([none if row is None else row for row in found])).float().view(-1, len(none))


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _key(text: str) -> str:
    try:
        return canonical(text)
    except UnreadableSMILES:
        return text.strip()


def with_descriptors(graphs: Sequence[Data], kinds: Sequence[str], columns: int) -> list[Data]:
    """Molecules with the descriptors that a trained model reads.

    Args:
        graphs: with ``smiles``.
        kinds: those of its training.
        columns: how many they were.

    Raises:
        DataError: they are not as many here.
    """
    if not kinds:
        return list(graphs)
    rows = torch.cat([describe(kind, [graph.smiles for graph in graphs]) for kind in kinds], 1)
    if rows.size(1) != columns:
        raise DataError(
            f"descriptors {', '.join(kinds)} have {rows.size(1)} columns here and had {columns} in training; bring "
            "back that file, or install the version of rdkit that the checkpoint names"
        )
    return described(graphs, rows)


def described(graphs: Iterable[Data], rows: Tensor) -> list[Data]:
    """Copies of the graphs, each with its row as ``descriptors`` [1, columns]."""
    found = [copy(graph) for graph in graphs]
    for graph, row in zip(found, rows.split(1), strict=True):
        graph.descriptors = row
    return found

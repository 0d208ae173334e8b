"""From a checkpoint to numbers for molecules: predictions and learned fingerprints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.data.descriptors import Lookup, with_descriptors
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.examples import batches
from plstm_graph.data.molecules import Rejected, read_molecules
from plstm_graph.data.tables import SMI, Table, read_rows
from plstm_graph.errors import CheckpointError
from plstm_graph.io.files import kind
from plstm_graph.io.json_csv import apart, write_rows
from plstm_graph.models.ensemble import Ensemble
from plstm_graph.models.graph import GraphModel
from plstm_graph.train.answering import Answering
from plstm_graph.train.checkpoint import Meta, read, read_meta
from plstm_graph.train.inference.restored import restore_for_molecules
from plstm_graph.train.memory import memory_advice
from plstm_graph.train.outputs import outputs

UNLIKE = "unlike_training"
"""Column of what the training never had in a molecule."""


@dataclass(frozen=True)
class Predictions:
    """One row per input row, in order.

    Attributes:
        smiles: the texts as given.
        columns: what the values are: targets in their own units, probabilities, or ``class`` and one column a class;
            behind them, for an ensemble, ``_std`` of each, the spread over its members.
        values: [rows, columns], NaN where the text is not a molecule.
        rejected: rows without a prediction, with the reason.
        unlike: of each row what the training never had, in words and empty where there is nothing; None where that is
            not known. See :class:`plstm_graph.train.domain.Domain`.
        classes: names of the classes, by number, where they have some: ``class`` is then written as a name.
    """

    smiles: list[str]
    columns: list[str]
    values: Tensor
    rejected: list[Rejected]
    unlike: list[str] | None = None
    classes: tuple[str, ...] = ()

    def write(self, path: str | PathLike[str], table: Table | None = None) -> None:
        """CSV with the columns of ``table``, the predicted ones, ``unlike_training`` and ``error``; empty where there
        is no prediction.

        Args:
            path: of the file, written whole or not at all.
            table: the rows that ``smiles`` came from, in order; without one, a column ``smiles``.
        """
        rows = table.rows if table else [(text,) for text in self.smiles]
        lines = ([*cells, *added] for cells, added in zip(rows, self.rows(), strict=True))
        write_rows(path, self.header(table), lines)

    def header(self, table: Table | None = None) -> list[str]:
        """Names of the columns of :meth:`write`: those of :attr:`added`, which ``table`` may have already, last."""
        given = table.columns if table else ("smiles",)
        return [*given, *apart(self.added, given)]

    @property
    def added(self) -> list[str]:
        """Names of what a row has beside the molecule: the columns, ``unlike_training`` where known, ``error``."""
        own = [*([] if self.unlike is None else [UNLIKE]), "error"]
        return [*apart(self.columns, own), *own]

    def rows(self) -> Iterator[list[str]]:
        """Of each molecule the cells below :attr:`added`; those of a rejected one are empty but for the reason."""
        reasons = {row.row - 1: row.reason for row in self.rejected}
        empty = [""] * len(self.columns)
        marks = [[]] * len(self.smiles) if self.unlike is None else [[mark] for mark in self.unlike]
        for index, (values, mark) in enumerate(zip(self.values.tolist(), marks, strict=True)):
            cells = empty if index in reasons else [f"{value:.6g}" for value in values]
            if self.classes and index not in reasons:
                cells[0] = self.classes[int(values[0])]
            yield [*cells, *mark, reasons.get(index, "")]


def read_as_trained(
    checkpoint: str | PathLike[str], path: str | PathLike[str], smiles_column: str | None = None
) -> tuple[Table, list[str]]:
    """The table and the molecules of a file. Without ``smiles_column`` they are those of the column that the training
    named, where the file has it as well: beside the structures as registered, say, stand those it read.

    Raises:
        CheckpointError, DataError: as :func:`restore_for_molecules`, :func:`plstm_graph.data.tables.read_rows`.
    """
    path, usual = Path(path), None
    if smiles_column is None and kind(path) not in SMI:
        usual = read_meta(read(checkpoint), checkpoint).train_config.smiles_column
    return read_rows(path, smiles_column, usual)


def as_trained(graphs: Sequence[Data], meta: Meta, kinds: Sequence[str] | Lookup = ()) -> Sequence[Data]:
    """Molecules with the descriptors of the training; ``kinds`` of them from other files, say, if given."""
    return with_descriptors(graphs, kinds or meta.train_config.descriptors, meta.spec)


def columns_of(learner: Answering) -> list[str]:
    """Names of what is predicted; behind them, of an ensemble, those of its spreads."""
    task = learner.task
    spreads = [f"{name}_std" for name in task.outputs] if isinstance(learner.model, Ensemble) else []
    return [*apart(task.columns, spreads), *spreads]


def answers(
    learner: Answering,
    meta: Meta,
    smiles: Sequence[str],
    *,
    batch_size: int = 256,
    descriptors: Sequence[str] | Lookup = (),
) -> Predictions:
    """Predictions by a model that :func:`restore_for_molecules` gave, all molecules as graphs at once.

    Arguments are those of :func:`plstm_graph.train.predict`; ``descriptors`` may be looked up by what has read them.
    """
    assert meta.featuriser is not None
    molecules, rejected = read_molecules(smiles, meta.featuriser)
    task = learner.task
    columns = columns_of(learner)
    values = torch.full((len(smiles), len(columns)), torch.nan)
    domain, unlike = meta.domain, [""] * len(smiles)
    if molecules:
        graphs = add_encodings(as_trained([graph for _, graph in molecules], meta, descriptors), meta.model_config)
        found, spread = outputs(learner, graphs, batch_size)
        found = task.table(found)
        whole = found if spread is None else torch.cat([found, spread.to(found.dtype)], 1)
        values[torch.tensor([row - 1 for row, _ in molecules])] = whole.to(values.dtype)
        if domain:
            marks = domain.unlike_each(graphs, task.targets, whole[:, : len(task.targets)].to(values.dtype))
            for (row, _), mark in zip(molecules, marks, strict=True):
                unlike[row - 1] = mark
    return Predictions(list(smiles), columns, values, rejected, unlike if domain else None)


def embed(
    checkpoint: str | PathLike[str],
    smiles: Sequence[str],
    *,
    batch_size: int = 256,
    device: str = "auto",
    descriptors: Sequence[str] = (),
) -> Predictions:
    """Learned fingerprints of molecules: what the last layers of a network read, member by member of an ensemble.

    Arguments and errors are those of :func:`plstm_graph.train.predict`; a forest has none.
    """
    learner, meta = restore_for_molecules(checkpoint, device)
    return embeddings(learner, meta, smiles, batch_size=batch_size, descriptors=descriptors)


@torch.inference_mode()
def embeddings(
    learner: Answering,
    meta: Meta,
    smiles: Sequence[str],
    *,
    batch_size: int = 256,
    descriptors: Sequence[str] = (),
) -> Predictions:
    """As :func:`embed`, of a model that :func:`restore_for_molecules` gave."""
    members: Any = learner.model.members if isinstance(learner.model, Ensemble) else [learner.model]
    if not all(isinstance(member, GraphModel) for member in members):
        raise CheckpointError("a forest has no learned fingerprints: it reads those of Morgan; give a network")
    assert meta.featuriser is not None
    molecules, rejected = read_molecules(smiles, meta.featuriser)
    graphs = add_encodings(as_trained([graph for _, graph in molecules], meta, descriptors), meta.model_config)
    learner.eval()
    with memory_advice(batch_size):
        moved = (batch.to(learner.device) for batch in batches(graphs, batch_size))
        parts = [torch.cat([member.embed(batch).float() for member in members], -1).cpu() for batch in moved]
    names = [f"embedding_{k}" for k in range(sum(member.channels for member in members))]
    values = torch.full((len(smiles), len(names)), torch.nan)
    if parts:
        values[torch.tensor([row - 1 for row, _ in molecules])] = torch.cat(parts)
    return Predictions(list(smiles), names, values, rejected)

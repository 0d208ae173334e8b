"""Predictions line by line, by a model that stays in memory: one SMILES in, one row of a table out."""

import csv
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import TextIO

from plstm_graph.data.descriptors import Lookup
from plstm_graph.errors import PLSTMGraphError, said
from plstm_graph.train.inference.molecules import answers
from plstm_graph.train.inference.restored import restore_for_molecules


def answer_lines(
    checkpoint: str | PathLike[str],
    lines: Iterable[str],
    stream: TextIO,
    *,
    device: str = "auto",
    descriptors: Sequence[str] = (),
) -> tuple[int, int]:
    """Write a header, and a row for every line as soon as it is read; a line without a prediction gets the reason.

    Args:
        checkpoint: file, or folder of a run.
        lines: SMILES, one a line.
        stream: gets the rows, comma-separated, each sent off at once.
        device: "auto", "cpu", "cuda", ...
        descriptors: as for :func:`plstm_graph.train.predict`.

    Returns:
        How many lines there were, and how many of them without a prediction.

    Raises:
        ConfigError, DataError: there are no such descriptors.
        CheckpointError: the file cannot be used, or its model was not trained on molecules.
    """
    learner, meta = restore_for_molecules(checkpoint, device)
    kinds = descriptors or meta.train_config.descriptors
    look = Lookup(kinds, features=meta.spec) if kinds else ()
    writer = csv.writer(stream, lineterminator="\n")
    added = answers(learner, meta, []).added
    writer.writerow(["smiles", *added])
    stream.flush()
    count = missed = 0
    for line in lines:
        text = line.strip()
        try:
            cells = next(answers(learner, meta, [text], descriptors=look).rows())
        except PLSTMGraphError as error:  # it is a molecule, but not one that the model can read
            cells = [*[""] * (len(added) - 1), said(error)]
        writer.writerow([text, *cells])
        stream.flush()
        count, missed = count + 1, missed + bool(cells[-1])
    return count, missed

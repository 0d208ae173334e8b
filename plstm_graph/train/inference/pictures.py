"""From a checkpoint to the classes of pictures in files."""

from collections import deque
from collections.abc import Sequence
from os import PathLike

import torch
from torch import Tensor

from plstm_graph.config.names import asked_side, folder_of
from plstm_graph.data.image_folder import Pictures, look_at, pictures_in, shown
from plstm_graph.data.molecules import Rejected
from plstm_graph.data.tables import Table
from plstm_graph.errors import CheckpointError, DataError
from plstm_graph.train.answering import Answering
from plstm_graph.train.inference.molecules import Predictions, columns_of
from plstm_graph.train.inference.restored import restore
from plstm_graph.train.memory import memory_advice
from plstm_graph.train.outputs import output_of

PATH = "path"
"""Column of the file that a row is about."""


def predict_pictures(
    checkpoint: str | PathLike[str],
    place: str | PathLike[str],
    *,
    batch_size: int = 256,
    device: str = "auto",
) -> tuple[Predictions, Table]:
    """Predictions for a picture, or for all below a folder, made images as those of the training were.

    Args:
        checkpoint: file, or folder of a run.
        place: of the picture or the folder; ``images-64:FOLDER`` for images of so many pixels, not of the training's.
        batch_size: pictures at once.
        device: "auto", "cpu", "cuda", ...

    Returns:
        A row a file, in order; and the column with their paths, for :meth:`Predictions.write`. What cannot be read
        gets NaN and a reason, and the rest goes on.

    Raises:
        CheckpointError: the file cannot be used, or its model was not trained on pictures.
        DataError: there are no pictures there.
    """
    learner, meta = restore(checkpoint, device)
    if not meta.spec.pictures:
        raise CheckpointError(
            f"{checkpoint} was trained on {meta.train_config.data!r}, not on pictures in files; give what it reads as "
            "--input, or use evaluate"
        )
    side = asked_side(str(place)) or meta.spec.image[-1]
    place = folder_of(place)
    paths = pictures_in(place)
    reasons = {row: each.reason for row, each in enumerate(look_at(paths)) if each.reason}
    examples = Pictures("", paths, torch.zeros(len(paths), dtype=torch.long), side, "").to(learner.device)
    task = learner.task
    columns = columns_of(learner)
    values = torch.full((len(paths), len(columns)), torch.nan)
    good = [row for row in range(len(paths)) if row not in reasons]
    with memory_advice(batch_size):
        reasons |= _fill(values, learner, examples, good, batch_size)
    texts = [shown(path) for path in paths]
    rejected = [Rejected(row + 1, texts[row], reasons[row]) for row in sorted(reasons)]
    table = Table(place, (PATH,), tuple((text,) for text in texts))
    return Predictions(texts, columns, values, rejected, classes=task.class_names), table


@torch.inference_mode()
def _fill(
    values: Tensor, learner: Answering, examples: Pictures, rows: Sequence[int], batch_size: int
) -> dict[int, str]:
    """Write what the model says of files, [n, columns]; returns by row what is wrong with those that are damaged."""
    reasons: dict[int, str] = {}
    groups = deque(list(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size))
    while groups:
        try:
            for batch in examples.ahead(list(groups)):
                found, spread = output_of(learner, batch)
                parts = [learner.task.table(found), *([] if spread is None else [spread])]
                values[torch.tensor(groups.popleft())] = torch.cat([part.float() for part in parts], 1)
        except DataError:  # a file of the first group: the others of it are answered all the same
            groups[0] = [row for row in groups[0] if not _damaged(examples, row, reasons)]
            if not groups[0]:
                groups.popleft()
    return reasons


def _damaged(examples: Pictures, row: int, reasons: dict[int, str]) -> bool:
    try:
        examples.batch([row])
    except DataError as error:
        reasons[row] = str(error)
    return row in reasons

"""Molecules of a CSV file, read from their SMILES, with the labels of its columns."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from plstm_graph.data.column_splits import is_split_column
from plstm_graph.data.dataset import MOLECULE, GraphDataset
from plstm_graph.data.molecules import CIP, Rejected, read_molecules
from plstm_graph.data.splits import COLUMN
from plstm_graph.data.tables import Table, read_table
from plstm_graph.errors import ConfigError, DataError, listed, unknown
from plstm_graph.io.files import stem
from plstm_graph.tasks import TASKS, Binary, Regression, Task, task_of, yes_or_no

log = logging.getLogger(__name__)

MOST_DECADES = 4
"""Of labels; beyond, they were better logarithms."""
MOST_CLASSES = 10
"""Whole numbers from -1 on and below it may well be classes."""


def load_csv(
    path: str | Path,
    targets: Sequence[str],
    smiles_column: str | None = None,
    task: str | Task | None = None,
    featuriser: str = CIP,
    split_column: str | None = None,
    censored: bool = False,
) -> GraphDataset:
    """Molecules and labels of a table; see :func:`load`. Rows that cannot be used are in ``rejected``.

    ``task`` may also be a task itself, to have rows for it from another file, whose columns may be called otherwise.
    """
    given = task_of(task) if isinstance(task, str) else None
    if given is not None and not given.tabular:
        raise ConfigError(unknown("task", task, [name for name, kind in TASKS.items() if kind.tabular]))
    if censored and given not in (None, Regression):
        raise ConfigError(f"censored labels are bounds of quantities, for task regression (got {task})")
    bounds = task.bounded if isinstance(task, Regression) else censored
    given = Regression if bounds else given
    table = read_table(path)
    texts, targets = table.smiles(smiles_column), table.targets(targets, smiles_column)
    labels, unusable = table.usable_labels(
        targets, (given or (type(task) if isinstance(task, Task) else Task)).required, bounds=bounds
    )
    if isinstance(task, Task):
        asked = replace(task, targets=tuple(targets)).of_rows(labels, table.path.name)
    else:
        asked = (given or _guess(targets, labels, table.path.name)).from_table(targets, labels, table.path.name)
    _tell_unused(table, [*targets, split_column])

    where, ids = table.path.name, table.ids(taken=targets)
    found = from_smiles(
        texts, labels, asked, stem(table.path), where=where, unusable=unusable, ids=ids, featuriser=featuriser
    )
    if split_column is None:
        return found
    cells = table.column(split_column)
    return replace(found, column=[cells[row - 1] for row in found.rows], default_split=COLUMN)


def _tell_unused(table: Table, used: Sequence[str | None]) -> None:
    """A column that splits the rows, and does not here, is said."""
    for name in table.columns:
        if name not in used and table.columns.count(name) == 1 and is_split_column(table.column(name)):
            log.warning(f"{table.path.name}: column {name!r} names parts and is not used; give --split-column {name!r}")


def from_smiles(
    texts: Sequence[str],
    labels: Sequence[Sequence[float]],
    asked: Task,
    name: str,
    *,
    where: str,
    unusable: Mapping[int, str] | None = None,
    ids: Sequence[str] = (),
    featuriser: str = CIP,
) -> GraphDataset:
    """Molecules with labels, in order; rows that cannot be used are in ``rejected``.

    Args:
        texts: SMILES.
        labels: numbers of each, one a target, NaN where there is none.
        asked: the task.
        name: of the data set.
        where: what errors call it.
        unusable: why a row, from 1, has no label at all.
        ids: what the rows are called, if they are.
        featuriser: how a SMILES becomes a graph.

    Raises:
        DataError: no row can be used.
    """
    molecules, rejected = read_molecules(texts, featuriser)
    graphs, rows = [], []
    for row, graph in molecules:
        label = labels[row - 1]
        if all(math.isnan(value) for value in label):
            reason = (unusable or {}).get(row, f"no label in {listed(asked.targets)}")
            rejected.append(Rejected(row, texts[row - 1], reason))
            continue
        graph.y = asked.label(label)
        graphs.append(graph)
        rows.append(row)
    rejected = sorted(each._replace(id=ids[each.row - 1]) if ids else each for each in rejected)
    if not graphs:
        first = rejected[0]
        raise DataError(f"{where}: none of the {len(texts)} rows can be used; row {first.row}: {first.reason}")
    return GraphDataset(
        name,
        graphs,
        asked,
        MOLECULE,
        rejected,
        featuriser=featuriser,
        rows=rows,
        ids=[ids[row - 1] for row in rows] if ids else [],
    )


def _guess(targets: Sequence[str], labels: list[list[float]], where: str) -> type[Task]:
    """Yes or no if all labels are 0 or 1, else quantities."""
    if all(map(yes_or_no, labels)):
        return Binary
    for name, column in zip(targets, zip(*labels, strict=True), strict=True):
        if kinds := _like_classes(column):
            log.warning(
                f"{where}: {kinds} in column {name!r} are taken as quantities; if they are classes, "
                "number them 0, 1, ... and give the task: binary or multiclass"
            )
        if decades := _decades(column):
            log.warning(
                f"{where}: labels of column {name!r} run over {decades} decades, so that the largest decide all; take "
                "logarithms, for example pIC50 = 9 - log10(IC50 in nM)"
            )
        if filler := _filler(column):
            log.warning(
                f"{where}: {column.count(filler)} labels of column {name!r} are {filler:g}, far from all others; where "
                "that stands for none, leave the cell empty"
            )
    return Regression


def _filler(column: Sequence[float]) -> float:
    """A number as -999, farther from all others than they are from one another; 0 where there is none."""
    known = [value for value in column if not math.isnan(value)]
    for value in {min(known), max(known)} if known else ():
        others = [other for other in known if other != value]
        nines = value.is_integer() and abs(value) > 9 and set(f"{abs(value):.0f}") == {"9"}
        if nines and others and min(abs(value - min(others)), abs(value - max(others))) > max(others) - min(others):
            return value
    return 0.0


def _decades(column: Sequence[float]) -> int:
    """How many powers of ten positive labels run over; 0 for few, and where they are signed."""
    known = [value for value in column if not math.isnan(value)]
    if not known or min(known) <= 0 or max(known) / min(known) < 10**MOST_DECADES:
        return 0
    return math.floor(math.log10(max(known) / min(known)))


def _like_classes(column: Sequence[float]) -> str:
    """Labels that may be classes, in words; empty for those that are not whole, or many."""
    kinds = {value for value in column if not math.isnan(value)}
    if not all(value.is_integer() for value in kinds):
        return ""
    if len(kinds) <= 2:
        return f"whole numbers {' and '.join(f'{value:.0f}' for value in sorted(kinds))}"
    few = kinds <= set(range(-1, MOST_CLASSES))
    return f"whole numbers {min(kinds):.0f} to {max(kinds):.0f}" if few else ""

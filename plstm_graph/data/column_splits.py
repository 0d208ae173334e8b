"""Splits that a column of the table decides: by the names of parts, by groups, by time; and folds of whole groups."""

from collections.abc import Hashable, Sequence
from datetime import UTC, datetime

import numpy as np

from plstm_graph.errors import ConfigError, DataError, listed

PARTS = ("train", "valid", "test")
ALIASES = {
    name: part
    for part, names in zip(
        PARTS,
        (("train", "training"), ("valid", "validation", "val", "dev"), ("test", "testing", "holdout")),
        strict=True,
    )
    for name in names
}
"""What cells may call the parts, in small letters."""
Split = dict[str, list[int]]


def is_split_column(cells: Sequence[str]) -> bool:
    """Whether cells name parts, and at least two of them."""
    names = {cell.strip().casefold() for cell in cells}
    return len({ALIASES.get(name) for name in names}) > 1 and names <= ALIASES.keys()


def named_split(cells: Sequence[str], *, seed: int = 0) -> Split:
    """By names: train, valid and test, or one of :data:`ALIASES`. Without a valid part it is a tenth of train.

    Raises:
        DataError: a cell names no part; no row is for training.
    """
    parts: Split = {name: [] for name in PARTS}
    for row, cell in enumerate(cells):
        part = ALIASES.get(cell.strip().casefold())
        if part is None:
            raise DataError(f"a split column names one of {listed(ALIASES)} in every row, got {cell!r}")
        parts[part].append(row)
    if not parts["valid"]:
        order = np.random.default_rng(seed).permutation(parts["train"]).tolist()
        count = max(1, round(0.1 * len(order)))
        parts |= {"valid": sorted(order[:count]), "train": sorted(order[count:])}
    if not parts["train"]:
        raise DataError("the split column leaves no row for training; name some 'train'")
    return parts


def time_split(cells: Sequence[str]) -> Split:
    """The oldest 80 % for training, the newest 10 % for the test; rows of one time stay together.

    Args:
        cells: all numbers, or all dates and times as ISO 8601 writes them (2024-05-31).

    Raises:
        DataError: a cell is neither; all are one time.
    """
    times = _times(cells)
    order = sorted(range(len(times)), key=lambda row: times[row])
    ends = [0, *(_end(order, times, share) for share in (0.8, 0.9)), len(order)]
    found = {name: sorted(order[ends[k] : ends[k + 1]]) for k, name in enumerate(PARTS)}
    if empty := [name for name, part in found.items() if not part]:
        raise DataError(f"a split by time leaves {' and '.join(empty)} empty: too many rows have one time")
    return found


def _end(order: list[int], times: Sequence[float], share: float) -> int:
    end = round(share * len(order))
    while 0 < end < len(order) and times[order[end]] == times[order[end - 1]]:
        end += 1
    return end


def _times(cells: Sequence[str]) -> list[float]:
    for read in (float, _stamp):
        try:
            found = [read(cell) for cell in cells]
        except ValueError:
            continue
        if np.isfinite(found).all():
            return found
    odd = next((cell for cell in cells if not _is_time(cell)), "numbers beside dates")
    raise DataError(f"a split by time needs numbers, or dates as 2024-05-31, in every row, got {odd!r}")


def _stamp(cell: str) -> float:
    found = datetime.fromisoformat(cell)
    if found.tzinfo is None:  # of Greenwich, unless the cell says another
        found = found.replace(tzinfo=UTC)
    return (found - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def _is_time(cell: str) -> bool:
    try:
        _stamp(cell)
    except ValueError:
        return False
    return True


def folds_of_groups(owners: Sequence[Hashable], count: int, *, seed: int = 0, fold: int = 0) -> Split:
    """Folds in which groups stay together, of about equal size: ``fold`` is the test part, the next one validation.

    Groups are taken by falling size, equals in an order drawn from ``seed``, each for the fold with the fewest rows.

    Raises:
        ConfigError: no such fold.
        DataError: fewer groups than folds.
    """
    if not 0 <= fold < count:
        raise ConfigError(f"fold must be from 0 to {count - 1}, got {fold}")
    groups: dict[Hashable, list[int]] = {}
    for row, owner in enumerate(owners):
        groups.setdefault(owner, []).append(row)
    if len(groups) < count:
        raise DataError(f"{count} folds of whole groups need as many groups, got {len(groups)}; use the group split")
    order = [list(groups.values())[k] for k in np.random.default_rng(seed).permutation(len(groups))]
    folds: list[list[int]] = [[] for _ in range(count)]
    for group in sorted(order, key=len, reverse=True):
        min(folds, key=len).extend(group)
    test, valid = fold, (fold + 1) % count
    train = [row for k, part in enumerate(folds) if k not in (test, valid) for row in part]
    return {"train": sorted(train), "valid": sorted(folds[valid]), "test": sorted(folds[test])}

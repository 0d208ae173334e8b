"""Which graphs are for training, validation and test: every split is a function of the data and a seed."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
from torch_geometric.data import Data

from plstm_graph.data.column_splits import Split, folds_of_groups, named_split, time_split
from plstm_graph.data.smiles import scaffold
from plstm_graph.data.stacked import values
from plstm_graph.errors import ConfigError, DataError, count, listed, missing_extra, unknown
from plstm_graph.tasks import Task

OFFICIAL = "official"  # published with the graphs
COLUMN = "column"  # the parts that a column names
SPLITS = (OFFICIAL, "random", "scaffold", "folds", "scaffold-folds", COLUMN, "group", "group-folds", "time")
BY_COLUMN = (COLUMN, "group", "group-folds", "time")
UNSEEDED = (OFFICIAL, "time")
IN_FOLDS = ("folds", "scaffold-folds", "group-folds")
GROUPED = ("random", "folds")  # may keep repeats of a molecule together; scaffolds do so by themselves
PARTS = ("train", "valid", "test")
FOLDS = 10
PARTS_OF_NODES = (
    "for parts of the nodes of one graph, give a copy of the graph for each part, with {} as labels of all other "
    "nodes, and parts={{'train': [0], 'valid': [1], 'test': [2]}}, default_split='official'"
)
"""What to do with one graph, for the label that means none."""


def make_split(
    kind: str,
    graphs: Sequence[Data],
    task: Task,
    *,
    seed: int = 0,
    fold: int = 0,
    official: Split | None = None,
    groups: Sequence[Hashable] | None = None,
    column: Sequence[str] = (),
) -> Split:
    """Split graphs by one of ``SPLITS``.

    Args:
        kind: of the split.
        graphs, task: as of a data set.
        seed: of the split.
        fold: 0 to 9, for ``IN_FOLDS``.
        official: the published split.
        groups: of each graph, for ``GROUPED``: graphs of one group go to one part. Each group counts once, with the
            class of its first graph, so that a split without repeats is the same with groups and without.
        column: a text for each graph, for ``BY_COLUMN``: the name of its part, its group, or its time.

    Raises:
        ConfigError: unknown kind, or a fold other than 0 for a split without folds.
        DataError: the graphs do not allow this split (too few, no SMILES, no classes).
    """
    if kind not in SPLITS:
        raise ConfigError(unknown("split", kind, SPLITS))
    if kind in BY_COLUMN and len(column) != len(graphs):
        raise ConfigError(f"the split {kind!r} goes by a column of a table; name it with --split-column")
    if fold != 0 and kind not in IN_FOLDS:
        raise ConfigError(f"fold {fold} was asked for, but the {kind} split has no folds; use split 'folds' or fold 0")
    if kind == COLUMN:
        return named_split(column, seed=seed)
    if kind == "time":
        return time_split(column)
    if kind == "group":
        return group_split(column, seed=seed, what="group")
    if kind == "group-folds":
        return folds_of_groups(column, FOLDS, seed=seed, fold=fold)
    if kind == OFFICIAL:
        if official is None:
            raise ConfigError("these graphs have no official split; use random, scaffold or folds")
        if official.keys() != {*PARTS}:
            raise DataError(
                f"the official split must have the parts {listed(PARTS)}, got {listed(official)}; one may be empty"
            )
        official = {part: [int(index) for index in chosen] for part, chosen in official.items()}
        if sorted(chain.from_iterable(official.values())) != list(range(len(graphs))):
            raise DataError(
                f"the official split must hold each of {len(graphs)} graphs once; are the files of one release?"
            )
        return official
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(range(len(graphs)) if groups is None else groups):
        members.setdefault(group, []).append(index)
    together = list(members.values())
    if kind == "folds":
        classes = task.strata(values(graphs, "y"))
        return _expanded(fold_split([classes[first] for first, *_ in together], seed=seed, fold=fold), together)
    if kind == "random":
        if len(together) < len(PARTS):
            raise DataError(_too_few(len(graphs), len(together), task))
        return _expanded(random_split(len(together), seed=seed), together)
    if None in (texts := values(graphs, "smiles")):
        raise DataError("a scaffold split needs molecules, but these graphs have no SMILES; use 'random' or 'folds'")
    if kind == "scaffold-folds":
        return folds_of_groups([scaffold(text) for text in texts], FOLDS, seed=seed, fold=fold)
    return scaffold_split(texts, seed=seed)


def _too_few(graphs: int, groups: int, task: Task) -> str:
    """What to do where graphs, or their molecules, are fewer than parts."""
    found = f"a split needs at least {len(PARTS)} graphs, one a part, got {graphs}"
    if groups < graphs:
        return f"{found} of {count(groups, 'molecule')}, whose repeats stay in one part; add others"
    return f"{found}; {PARTS_OF_NODES.format(task.missing)}" if task.level == "node" else f"{found}; add others"


def one_after_another(counts: Mapping[str, int]) -> Split:
    """The split of graphs that stand part by part, so many in each."""
    ends = accumulate(counts.values())
    return {name: list(range(end - count, end)) for (name, count), end in zip(counts.items(), ends, strict=True)}


def random_split(size: int, *, seed: int = 0) -> Split:
    """80/10/10 at random, at least one graph in each part."""
    if size < len(PARTS):
        raise DataError(f"a split needs at least {len(PARTS)} graphs, one a part, got {size}")
    part = max(1, round(0.1 * size))
    order = np.random.default_rng(seed).permutation(size).tolist()
    return _sorted(train=order[2 * part :], valid=order[:part], test=order[part : 2 * part])


def scaffold_split(smiles: Sequence[str], *, seed: int = 0) -> Split:
    """80/10/10 by Bemis-Murcko scaffold (with chirality): no scaffold stands in two parts.

    Groups of molecules with one scaffold are taken by falling size and fill train, then valid, then test, so that the
    rarest scaffolds are tested. Seed 0 takes groups of one size by falling first index, which gives the published
    index sets of OGB exactly, but for a few molecules whose scaffold there depends on how the SMILES was written (2 of
    2,039 in ogbg-molbbbp); any other seed shuffles among the groups of one size.
    """
    return group_split([scaffold(text) for text in smiles], seed=seed)


def group_split(owners: Sequence[Hashable], *, seed: int = 0, what: str = "scaffold") -> Split:
    """:func:`scaffold_split` where the scaffold (or any other group) of each graph is known."""
    groups: dict[Hashable, list[int]] = {}
    for index, owner in enumerate(owners):
        groups.setdefault(owner, []).append(index)
    order = list(groups.values())
    if seed:
        tie = np.random.default_rng(seed).permutation(len(order)).tolist()
        order = [order[i] for i in tie]
        order.sort(key=len, reverse=True)  # stable: keeps the shuffled order among equals
    else:
        order.sort(key=lambda group: (len(group), group[0]), reverse=True)
    parts = _fill(order, len(owners))
    empty = [name for name, part in parts.items() if not part]
    if empty:
        raise DataError(
            f"a {what} split of {len(owners)} molecules with {len(order)} {what}s leaves {' and '.join(empty)} "
            "empty; use the random split"
        )
    return parts


def fold_split(classes: Sequence[int], *, seed: int = 0, fold: int = 0) -> Split:
    """Ten stratified folds, 8/1/1: ``fold`` is the test part and the next one (cyclic) validation.

    This is the protocol of Pöppel et al. 2025 on TUDatasets (seed 42 there).
    """
    if not 0 <= fold < FOLDS:
        raise ConfigError(f"fold must be from 0 to {FOLDS - 1}, got {fold}")
    labels = np.asarray(classes)
    rarest = int(np.unique(labels, return_counts=True)[1].min()) if len(labels) else 0
    if rarest < FOLDS:
        raise DataError(f"{FOLDS} stratified folds need {FOLDS} graphs of every class; the rarest has {rarest}")
    try:
        from sklearn.model_selection import StratifiedKFold
    except ModuleNotFoundError as error:
        raise DataError(missing_extra("scikit-learn", "train")) from error
    folds: Any = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)
    parts = [part.tolist() for _, part in folds]
    test, valid = fold, (fold + 1) % FOLDS
    train = [index for i, part in enumerate(parts) if i not in (test, valid) for index in part]
    return _sorted(train=train, valid=parts[valid], test=parts[test])


def _expanded(split: Split, groups: Sequence[list[int]]) -> Split:
    """From parts with numbers of groups to parts with all their members."""
    return _sorted(**{name: [index for group in part for index in groups[group]] for name, part in split.items()})


def _fill(groups: list[list[int]], size: int) -> Split:
    """Greedy: a group that would overfill train goes to valid, and one that would overfill both goes to test."""
    parts: Split = {"train": [], "valid": [], "test": []}
    for group in groups:
        trained, validated = len(parts["train"]), len(parts["valid"])
        if trained + len(group) <= 0.8 * size:
            parts["train"] += group
        elif trained + validated + len(group) <= 0.9 * size:
            parts["valid"] += group
        else:
            parts["test"] += group
    return _sorted(**parts)


def _sorted(**parts: list[int]) -> Split:
    return {name: sorted(part) for name, part in parts.items()}

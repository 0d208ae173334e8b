"""Splits: parts, seeds, scaffolds, and OGB's published index sets."""

import gzip
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from plstm_graph.data import load, splits
from plstm_graph.data.dataset import MOLECULE, GraphDataset
from plstm_graph.data.smiles import scaffold
from plstm_graph.data.splits import FOLDS, fold_split, make_split, random_split, scaffold_split
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.tasks import Multiclass, Regression

found_once = cache(scaffold)


@pytest.fixture(scope="module")
def nav17() -> GraphDataset:
    return load("nav17")


def assert_partition(parts: dict[str, list[int]], size: int) -> None:
    assert list(parts) == ["train", "valid", "test"]
    assert sorted(chain(*parts.values())) == list(range(size))
    assert all(part == sorted(part) and part for part in parts.values())


@pytest.mark.parametrize(("size", "part"), [(3, 1), (4, 1), (10, 1), (29, 3), (1017, 102)])
def test_random(size: int, part: int) -> None:
    parts = random_split(size, seed=1)
    assert_partition(parts, size)
    assert len(parts["valid"]) == len(parts["test"]) == part
    assert parts == random_split(size, seed=1)
    if size > 10:
        assert parts != random_split(size, seed=2)


def test_too_few_graphs() -> None:
    with pytest.raises(DataError, match="at least 3 graphs, one a part, got 2"):
        random_split(2)


@pytest.mark.parametrize("name", ["ogbg_molbace", "ogbg_molesol", "ogbg_molfreesolv"])
def test_scaffold_split_is_ogbs(shared_data: Path, name: str) -> None:
    folder = shared_data / "ogb" / name
    with gzip.open(folder / "mapping" / "mol.csv.gz", "rt") as lines:
        header = next(lines).strip().split(",")
        smiles = [line.strip().split(",")[header.index("smiles")] for line in lines]
    parts = scaffold_split(smiles)
    for part, indices in parts.items():
        published = np.loadtxt(folder / "split" / "scaffold" / f"{part}.csv.gz", dtype=int)
        assert indices == sorted(published.tolist())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_scaffold_in_two_parts(nav17: GraphDataset, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "scaffold", found_once)
    parts = nav17.split("scaffold", seed=seed)
    assert_partition(parts, 1017)
    owners: dict[str, set[str]] = {}
    for part, indices in parts.items():
        for index in indices:
            owners.setdefault(found_once(nav17.graphs[index].smiles), set()).add(part)
    assert {len(owner) for owner in owners.values()} == {1}
    assert parts == nav17.split("scaffold", seed=seed)
    assert (parts == nav17.split("scaffold")) == (seed == 0)


def test_scaffold_split_needs_scaffolds_and_smiles(shared_data: Path) -> None:
    with pytest.raises(DataError, match="12 molecules with 1 scaffolds leaves train and valid empty"):
        scaffold_split(["C" * n for n in range(1, 13)])
    with pytest.raises(DataError, match="have no SMILES"):
        load("MUTAG", root=shared_data).split("scaffold")


def test_folds_of_mutag(shared_data: Path) -> None:
    data = load("MUTAG", root=shared_data)
    classes = [int(graph.y) for graph in data.graphs]
    tested: list[int] = []
    for fold in range(FOLDS):
        parts = data.split(seed=42, fold=fold)
        assert_partition(parts, 188)
        assert parts["valid"] == data.split(seed=42, fold=(fold + 1) % FOLDS)["test"]
        assert Counter(classes[i] for i in parts["test"])[1] in (12, 13)  # 125 of 188
        tested += parts["test"]
    assert sorted(tested) == list(range(188))
    assert data.split(seed=42) != data.split(seed=43)


def test_folds_that_cannot_be(nav17: GraphDataset) -> None:
    with pytest.raises(ConfigError, match="from 0 to 9, got 10"):
        fold_split([0, 1] * 20, fold=10)
    with pytest.raises(DataError, match="the rarest has 2"):
        fold_split([0] * 20 + [1] * 2)
    with pytest.raises(DataError, match="the rarest has 0"):
        fold_split([])
    with pytest.raises(DataError, match="one class label a graph"):
        nav17.split("folds")


SPELLINGS = [
    ("CCO", "OCC", "[CH3:1][CH2:2][OH:3]", "[CH3:3][CH2:1][OH:2]"),
    ("c1ccccc1C", "CC1=CC=CC=C1", "C[c:7]1[cH:1][cH:2]cc[cH:5]1"),
    ("C[C@H](N)C1CC1", "N[C@@H](C)C1CC1", "[NH2:8][C@@H:1]([CH3:2])C1[CH2:5]C1"),
    ("O[C@H]1CC[C@@H](N)CC1", "N[C@@H]1CC[C@H](O)CC1"),
    ("F/C=C/C1CCC1", "C(\\C1CCC1)=C/F", "[F:9]/[CH:1]=[CH:4]/C1CCC1"),
]


@pytest.mark.parametrize("kind", ["random", "folds", "scaffold"])
@pytest.mark.parametrize("seed", [0, 1])
def test_all_spellings_of_a_molecule_stand_in_one_part(kind: str, seed: int) -> None:
    texts = [(text, number % 2) for number, group in enumerate(SPELLINGS) for text in group]
    texts += [(f"{'C' * number}1CC{'N' * (number % 2)}CC1", number % 2) for number in range(2, 40)]
    graphs = [Data(smiles=text, y=torch.tensor([label])) for text, label in texts]
    dataset = GraphDataset("some", graphs, Multiclass(("y",)), MOLECULE)
    parts = dataset.split(kind, seed)
    assert_partition(parts, len(graphs))
    part_of = {texts[index][0]: part for part, indices in parts.items() for index in indices}
    assert all(len({part_of[text] for text in group}) == 1 for group in SPELLINGS)
    if kind != "scaffold":
        apart = dataset.split(kind, seed, group_repeats=False)
        assert_partition(apart, len(graphs))
        assert apart != parts


def test_groups_change_nothing_where_nothing_repeats(nav17: GraphDataset) -> None:
    assert nav17.split("random", 3) == nav17.split("random", 3, group_repeats=False) == random_split(1017, seed=3)


def test_unknown_split_and_fold_without_folds(nav17: GraphDataset) -> None:
    with pytest.raises(ConfigError, match=r"unknown split 'scafold'; choose one of .*did you mean 'scaffold'"):
        nav17.split("scafold")
    with pytest.raises(ConfigError, match="has no folds"):
        make_split("random", nav17.graphs, nav17.task, fold=3)


def test_the_official_split_is_given() -> None:
    graphs = [object()] * 3
    parts = {"train": [2], "valid": [0], "test": [1]}
    assert make_split("official", graphs, Regression(("y",)), official=parts) == parts
    with pytest.raises(ConfigError, match="no official split; use random"):
        make_split("official", graphs, Regression(("y",)))
    with pytest.raises(DataError, match="must hold each of 4 graphs once"):
        make_split("official", [*graphs, object()], Regression(("y",)), official=parts)
    with pytest.raises(DataError, match="must hold each of 3 graphs once"):
        make_split("official", graphs, Regression(("y",)), official={"train": [0], "valid": [1], "test": [1]})
    with pytest.raises(ConfigError, match="the official split has no folds"):
        make_split("official", graphs, Regression(("y",)), official=parts, fold=1)

"""MoleculeNet's files in the layout of PyG's loader."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch_geometric.datasets import MoleculeNet

from plstm_graph.data import DATASETS, load, moleculenet
from plstm_graph.errors import DataError

FREESOLV = 'iupac,smiles,expt,calc\na,CCO,-5.0,-4.1\nb,c1ccccc1,-0.9,0\n"c, salt",C1CC,1.0,1\nd,CCN,-4.5,2\n'


@pytest.fixture
def root(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(DATASETS, "freesolv", replace(DATASETS["freesolv"], graphs=4))
    monkeypatch.setitem(DATASETS, "tox21", replace(DATASETS["tox21"], graphs=2))
    (tmp_path / "freesolv" / "raw").mkdir(parents=True)
    (tmp_path / "freesolv" / "raw" / "SAMPL.csv").write_text(FREESOLV)
    return tmp_path


def test_every_set_of_pygs_loader_has_a_row() -> None:
    assert {row.name for row in moleculenet.SETS} == set(MoleculeNet.names)


def test_molecules_labels_and_rejected_rows(root: Path) -> None:
    for _ in range(2):  # then from the cache
        data = load("freesolv", root=root)
        assert (data.task.name, data.task.metric, data.task.targets, data.default_split) == (
            "regression",
            "rmse",
            ("expt",),
            "scaffold",
        )
        assert [graph.smiles for graph in data.graphs] == ["CCO", "c1ccccc1", "CCN"]
        assert torch.allclose(torch.cat([graph.y for graph in data.graphs]).view(-1), torch.tensor([-5.0, -0.9, -4.5]))
        assert [(row.row, row.text) for row in data.rejected] == [(3, "C1CC")]


def test_many_targets_with_missing_labels_from_a_packed_file(root: Path) -> None:
    names = [f"t{number}" for number in range(12)]
    first, second = ["0", "1"] + 10 * [""], ["1", "", "0"] + 9 * ["1"]
    lines = [[*names, "mol_id", "smiles"], [*first, "TOX1", "CCO"], [*second, "TOX2", "CCN"]]
    folder = root / "MoleculeNet" / "tox21" / "raw"
    folder.mkdir(parents=True)
    (folder / "tox21.csv.gz").write_bytes(gzip.compress("\n".join(map(",".join, lines)).encode()))
    data = load("tox21", root=root)
    assert (data.task.name, data.task.num_outputs, data.task.targets[:2]) == ("binary", 12, ("t0", "t1"))
    assert data.graphs[0].y[0, :2].tolist() == [0, 1]
    assert data.graphs[0].y[0, 2:].isnan().all()


def test_truncated_and_missing_files(root: Path) -> None:
    path = root / "freesolv" / "raw" / "SAMPL.csv"
    path.write_text("\n".join(FREESOLV.splitlines()[:-1]))
    with pytest.raises(DataError, match="must have 4 rows, got 3: truncated"):
        load("freesolv", root=root)
    path.unlink()
    with pytest.raises(DataError, match=r"there is no SAMPL\.csv in"):
        load("freesolv", root=root)

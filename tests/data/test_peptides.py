"""Peptides from files in the benchmark's layout."""

import gzip
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from plstm_graph.data import DATASETS, load, peptides, smiles_to_data, source
from plstm_graph.errors import DataError

SMILES = ("CC(=O)N", "NCC(=O)O", "CCO")
FLAGS = ("[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]", "[1, 0, 0, 0, 0, 0, 0, 0, 0, 1]", "[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]")
VALUES = (1.0, 2.0, 6.0)
SPLIT = {"train": np.array([2]), "val": np.array([0]), "test": np.array([1])}


@pytest.fixture
def root(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    properties = ",".join(peptides.PROPERTIES)
    tables = {
        "peptides-func": "smiles,labels\n" + "".join(f'{s},"{f}"\n' for s, f in zip(SMILES, FLAGS, strict=True)),
        "peptides-struct": f"smiles,{properties}\n"
        + "".join(
            s + "".join(f",{v * (i + 1)}" for i in range(11)) + "\n" for s, v in zip(SMILES, VALUES, strict=True)
        ),
    }
    for name, text in tables.items():
        info = DATASETS[name]
        monkeypatch.setitem(DATASETS, name, replace(info, graphs=3))
        raw = tmp_path / name / "raw"
        raw.mkdir(parents=True)
        (raw / info.options["file"][0]).write_bytes(gzip.compress(text.encode()))
        (tmp_path / name / peptides.SPLIT).write_bytes(pickle.dumps(SPLIT))
    monkeypatch.setattr(peptides, "SPLIT_MD5", source.md5(pickle.dumps(SPLIT)))
    return tmp_path


def test_functions(root: Path) -> None:
    data = load("peptides-func", root=root)
    assert (data.task.name, data.task.metric, data.task.num_outputs) == ("binary", "ap", 10)
    assert data.split() == {"train": [2], "valid": [0], "test": [1]}
    for graph, text in zip(data.graphs, SMILES, strict=True):
        assert graph.smiles == text
        assert torch.equal(graph.x, smiles_to_data(text).x)
    assert data.graphs[1].y.tolist() == [[1, 0, 0, 0, 0, 0, 0, 0, 0, 1]]


def test_properties_in_standard_deviations(root: Path) -> None:
    data = load("peptides-struct", root=root)
    assert (data.task.name, data.task.metric, data.task.num_outputs) == ("regression", "mae", 11)
    y = torch.cat([graph.y for graph in data.graphs])
    values = torch.tensor(VALUES)
    assert torch.allclose(y, ((values - 3) / 7**0.5)[:, None].expand(3, 11))  # mean 3, variance 14 / 2


def test_a_foreign_split_is_not_unpickled(root: Path) -> None:
    (root / "peptides-func" / peptides.SPLIT).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match="is not the published file"):
        load("peptides-func", root=root)


def test_published_molecules_and_split(shared_data: Path) -> None:
    folder = shared_data / "peptides-func"
    parts = peptides.read_split(folder)
    assert {name: len(part) for name, part in parts.items()} == {"train": 10873, "valid": 2331, "test": 2331}
    stored = pickle.loads((folder / peptides.SPLIT).read_bytes())
    assert source.md5((folder / peptides.SPLIT).read_bytes()) == peptides.SPLIT_MD5
    assert parts == {
        "train": stored["train"].tolist(),
        "valid": stored["val"].tolist(),
        "test": stored["test"].tolist(),
    }
    content = (folder / "raw" / peptides.FUNCTION_FILE).read_bytes()
    assert source.md5(content) == DATASETS["peptides-func"].options["file"][1]
    found = peptides.read(folder / "raw" / peptides.FUNCTION_FILE, count=4)
    assert found.nodes.tolist() == [graph.num_nodes for graph in map(smiles_to_data, found.smiles)]
    assert found.y.shape == (4, 10)

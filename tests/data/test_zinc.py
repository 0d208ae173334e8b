"""ZINC through PyG's loader, from a folder that is only read."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plstm_graph.data import DATASETS, load
from plstm_graph.errors import DataError


@pytest.fixture
def raw(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Chains of two to six atoms; the subset takes the second and fourth of each part."""
    monkeypatch.setitem(DATASETS, "ZINC", replace(DATASETS["ZINC"], graphs=6))
    raw = tmp_path / "ZINC" / "raw"
    raw.mkdir(parents=True)
    for shift, part in enumerate(("train", "val", "test")):
        molecules = []
        for size in range(2, 6):
            bonds = torch.diag(torch.full((size - 1,), 1 + shift), 1)
            label = torch.tensor([10.0 * shift + size])
            molecules.append(
                {"atom_type": torch.arange(size), "bond_type": bonds + bonds.T, "logP_SA_cycle_normalized": label}
            )
        (raw / f"{part}.pickle").write_bytes(pickle.dumps(molecules))
        (raw / f"{part}.index").write_text("1,3\n")
    for path in (*raw.iterdir(), raw, raw.parent):
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    return raw


def test_the_subset_and_its_split(raw: Path) -> None:
    for _ in range(2):  # then from the cache
        data = load("ZINC", root=raw.parents[1])
        assert data.split() == {"train": [0, 1], "valid": [2, 3], "test": [4, 5]}
        assert [graph.num_nodes for graph in data.graphs] == [3, 5] * 3
        assert [graph.y.tolist() for graph in data.graphs[2:4]] == [[[13.0]], [[15.0]]]
        assert data.graphs[2].x.tolist() == [[0], [1], [2]]
        assert data.graphs[2].edge_attr.tolist() == [[2]] * 4
        assert (data.features.node_sizes, data.features.edge_sizes) == ((28,), (4,))
    assert {path.name for path in raw.parent.iterdir()} == {"raw"}


def test_a_damaged_file(raw: Path) -> None:
    os.chmod(raw / "val.pickle", 0o644)
    (raw / "val.pickle").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"PyG cannot read .*raw"):
        load("ZINC", root=raw.parents[1])

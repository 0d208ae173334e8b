import json
import math
from dataclasses import replace
from pathlib import Path

import explanations
import planted
import pytest
import torch

from plstm_graph.data.dataset import MOLECULE
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.molecules import smiles_to_data
from plstm_graph.models.graph import GraphModel

ENDS = ("C(=O)C", "OC", "C(C)C", "C=O", "CO", "C#N", "CN", "CC=C")
CORES = ("C", "CC", "c1ccccc1", "C1CCCC1", "CSC", "CCO", "N(C)C", "c1ccncc1", "C(C)(C)")


def test_groups_by_hand() -> None:
    graph = smiles_to_data("CC(=O)NCC(=O)OC(N)=O")
    assert planted.carbonyls(graph) == [[1, 2], [5, 6], [8, 10]]
    assert sorted(map(sorted, planted.amides(graph))) == [[1, 2, 3], [8, 9, 10]]
    assert planted.truth(graph, "amides").nonzero().flatten().tolist() == [1, 2, 3, 8, 9, 10]
    dataset = planted.planted(["CC(=O)NCC(=O)OC(N)=O", "C", "not a molecule", "CC"], "amides")
    assert [float(found.y) for found in dataset.graphs] == [2.0, 0.0]


def test_area_by_hand() -> None:
    assert planted.auc(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([True, False, False])) == 1.0
    assert planted.auc(torch.tensor([1.0, 1.0, 2.0]), torch.tensor([True, False, False])) == 0.25
    assert math.isnan(planted.auc(torch.zeros(2), torch.tensor([True, True])))


def test_the_atoms_that_a_label_counts_score_highest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The benchmark in small: it trains, explains and stores a row."""
    texts = [f"C{first}{second}{end}" for first in CORES[:2] for second in CORES for end in ENDS]
    monkeypatch.setattr(planted, "nci", lambda count: texts)
    monkeypatch.setattr(explanations, "MODEL", replace(explanations.MODEL, width=16))
    monkeypatch.setattr(explanations.records, "RESULTS", tmp_path)
    words = ["--group", "carbonyls", "--model", "plstm", "--epochs", "12", "--tested", "8", "--mask-epochs", "2"]
    assert explanations.main(words) == 0
    row = json.loads((tmp_path / explanations.FILE).read_text())
    assert row["explained"] >= 3
    assert row["auc"]["scores"] >= 0.9
    assert row["gap_max"] < 0.05
    assert set(row["auc"]) == {"scores", "sent", "node mask", "edge mask"}
    assert "carbonyls, plstm: scores" in capsys.readouterr().out


def test_what_gnnexplainer_masks_is_the_model() -> None:
    model = GraphModel(MOLECULE, 1, explanations.MODEL).eval()
    (graph,) = add_encodings([smiles_to_data("CC(=O)O")], model.config)
    x, edge_attr = model.encoder(graph.x, graph.edge_index, graph.edge_attr, None)
    out = explanations.Encoded(model, graph)(x, graph.edge_index, edge_attr)
    torch.testing.assert_close(out, model(graph))
    nodes, edges = explanations.masks(model, graph, epochs=2)
    assert nodes.shape == edges.shape == (4,)

"""The embedded data set."""

from pathlib import Path

import pytest
import torch

from plstm_graph.data import load
from plstm_graph.data.smiles import contrib_folder


def test_nav17() -> None:
    data = load("nav17")
    assert (data.name, data.task.name, data.task.metric, data.task.targets, data.task.num_outputs) == (
        "nav17",
        "regression",
        "r2",
        ("pIC50",),
        1,
    )
    assert len(data.graphs) == len({graph.smiles for graph in data.graphs}) == 1017
    assert data.rejected == []
    labels = torch.cat([graph.y for graph in data.graphs])
    assert labels.shape == (1017, 1)
    assert labels.dtype == torch.float32
    assert labels.min().item() == pytest.approx(4.27)
    assert labels.max().item() == pytest.approx(9.22)
    # joined by the id, not by the order: ids and values of three lines, copied from the files
    by_smiles = {graph.smiles: graph.y.item() for graph in data.graphs}
    assert by_smiles["O=S(=O)(Nc1cccs1)c2ccc(Oc3ccccc3c4ccccc4)c(c2)C#N"] == pytest.approx(5.48)
    lines = (Path(contrib_folder()) / "FreeWilson" / "data" / "CHEMBL2321810.smi").read_text().splitlines()
    assert by_smiles[lines[2].split()[0]] == pytest.approx(5.50)
    assert {key: len(part) for key, part in data.split().items()} == {"train": 813, "valid": 102, "test": 102}

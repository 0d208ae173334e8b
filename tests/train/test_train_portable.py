"""An exported model predicts in a process that has torch and nothing of this package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import molecules, small_config, write_csv

from plstm_graph.data import smiles_to_data
from plstm_graph.errors import BackendUnavailable, CheckpointError
from plstm_graph.models.padded import Padded
from plstm_graph.train import export, predict, train
from plstm_graph.train.inference.portable import DESCRIPTION, operators

ALONE = """
import json, sys
for name in ("plstm_graph", "torch_geometric", "triton", "numba", "rdkit", "ogb", "pytorch_lightning", "torch_scatter"):
    sys.modules[name] = None
import torch
files = {"plstm_graph.json": ""}
program = torch.export.load(sys.argv[1], extra_files=files)
names = json.loads(files["plstm_graph.json"])["inputs"]
batches = torch.load(sys.argv[2])
torch.save([program.module()(*(batch[name] for name in names)) for batch in batches], sys.argv[3])
print(sorted(name for name, module in sys.modules.items() if module and "plstm" in name))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """D mode (pruning is the one loop), read against the edges, with local branch and walk encodings; two targets."""
    folder = tmp_path_factory.mktemp("export")
    options = {"epochs": 1, "model_modes": "D", "model_rwse": 2, "model_directions": "against", "targets": "y,z"}
    train(small_config(out=folder / "run", data=write_csv(folder / "small.csv"), **options))
    return folder / "run"


def test_predicts_without_this_package(run: Path, tmp_path: Path) -> None:
    description = export(run, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2", extra_files=(stored := {DESCRIPTION: ""}))
    assert json.loads(stored[DESCRIPTION]) == description
    assert description["outputs"] == ["y", "z"]
    assert description["inputs"]["x"] == "int64 [graphs, nodes, features]"
    assert description["rank"] == "canonical"
    assert operators(program) == {"aten", "higher_order"}

    texts = [["CC(=O)Oc1ccccc1C(=O)O", "C1CC2CCC1CC2", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", *molecules(5)], ["C"], ["CC"]]
    graphs = [[smiles_to_data(text) for text in batch] for batch in texts]
    torch.save([Padded.from_data_list(batch)._asdict() for batch in graphs], tmp_path / "in.pt")
    words = [tmp_path / name for name in ("model.pt2", "in.pt", "out.pt")]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, words)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    for got, batch in zip(torch.load(tmp_path / "out.pt"), texts, strict=True):
        torch.testing.assert_close(got, predict(run, batch, device="cpu").values, rtol=1e-5, atol=1e-5)

    module = program.module()
    wrong = Padded.from_data_list(graphs[1])
    with pytest.raises(RuntimeError, match="outside its vocabulary"):
        module(*wrong._replace(x=wrong.x + 500))


def test_nothing_is_written_for_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="truncated"):
        export(tmp_path / "best.ckpt", tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_a_torch_that_cannot_export_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no loops\nand more")

    monkeypatch.setattr("torch.export.export", refuse)
    with pytest.raises(BackendUnavailable, match=r"use torch 2.13 \(RuntimeError: no loops\)"):
        export(run, tmp_path / "model.pt2")


def test_operators_of_other_packages_are_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.export.export", lambda *args, **kwargs: None)
    monkeypatch.setattr("plstm_graph.train.inference.portable.operators", lambda program: {"aten", "torch_scatter"})
    with pytest.raises(CheckpointError, match="beyond torch's own: torch_scatter"):
        export(run, tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()

"""A prediction for a molecule unlike all of the training is marked: in the file, on the terminal, beside a picture."""

import csv
from pathlib import Path

import pytest
import torch
from small_runs import molecules, small_config, write_csv
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.data import load, smiles_to_data
from plstm_graph.errors import CheckpointError
from plstm_graph.train import predict, train
from plstm_graph.train.checkpoint import read
from plstm_graph.train.domain import Domain
from plstm_graph.train.inference.restored import restore

LIKE = molecules(8)[3]
CASES = {  # molecules of the training have C, N and O, and no charge
    LIKE: "",
    "no molecule": "",
    "C[Si](C)(C)CC": "element Si",
    "CCCCC[NH3+]": "charge +1",
    "[O-]CCCCC": "charge -1",
    "*CCCCC": "a wildcard atom",
    "CO": "2 atoms, not {} to {}",
    "[Br-].[K+]" + "C" * 20: "element K; element Br; charge -1; charge +1; 22 atoms, not {} to {}",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domain")
    train(small_config(out=folder / "run", data=write_csv(folder / "small.csv"), targets="y", epochs=2))
    return folder / "run"


def test_what_the_training_never_had_is_marked(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.smi").write_text("\n".join(CASES) + "\n")
    words = ["predict", "--checkpoint", run, "--input", tmp_path / "in.smi", "--out", tmp_path / "out.csv"]
    found = CliRunner().invoke(app, list(map(str, words)))
    assert f"{len(CASES)} rows, 1 without a prediction (see column error), 6 unlike the training" in found.stdout
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    domain = restore(run)[1].domain
    for row, mark in zip(rows, CASES.values(), strict=True):
        told = [part for part in row["unlike_training"].split("; ") if not part.startswith("y ")]
        assert "; ".join(told) == mark.format(*domain.atoms), row


def test_labels_beyond_those_of_the_training_are_marked(tmp_path: Path) -> None:
    data = load(str(write_csv(tmp_path / "small.csv")), targets=["y", "z"])
    domain = Domain.of(data.graphs, data.task)
    labels = torch.cat([graph.y for graph in data.graphs])
    (low, _), (_, high) = domain.labels
    assert (low, high) == (float(labels[:, 0].min()), float(labels[:, 1].max()))
    graph = smiles_to_data(LIKE)
    assert domain.unlike(graph, ("y", "z"), torch.tensor([low, high])) == ""
    assert domain.unlike(graph, ("y", "z"), torch.tensor([2.87, high])).startswith("y 2.87, labels ")
    assert domain.unlike(graph, ("y", "z"), torch.tensor([low, 9999.0])).startswith("z 1e+04, labels ")
    assert Domain.restored(domain.plain()) == domain
    yes = load(str(write_csv(tmp_path / "yes.csv", task="binary")), targets=["y"])
    assert Domain.of(yes.graphs, yes.task).labels == ()


def test_an_explanation_says_so(run: Path) -> None:
    words = ["explain", "--checkpoint", str(run), "--smiles", "C[Si](C)(C)CC", "--steps", "2"]
    assert "unlike the training: element Si" in CliRunner().invoke(app, words).stdout
    assert "wildcard" not in CliRunner().invoke(app, [*words[:4], LIKE, *words[5:]]).stdout


def test_a_checkpoint_without_a_record_marks_nothing(run: Path, tmp_path: Path) -> None:
    content = read(run)
    seen = content["plstm_graph"].pop("seen")
    torch.save(content, tmp_path / "old.ckpt")
    found = predict(tmp_path / "old.ckpt", ["C[SiH3]"])
    assert found.unlike is None
    found.write(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("smiles,y,error\n")
    for key, wrong in (("atoms", [1]), ("labels", 3), ("elements", ["C"]), ("aromatic", 1), ("more", [])):
        content["plstm_graph"]["seen"] = seen | {key: wrong}
        torch.save(content, tmp_path / "wrong.ckpt")
        with pytest.raises(CheckpointError, match="what was seen in training is described wrongly"):
            predict(tmp_path / "wrong.ckpt", ["CCO"])


def test_aromatic_atoms_are_told_where_the_training_had_none(tmp_path: Path) -> None:
    (tmp_path / "chains.csv").write_text("smiles,y\n" + "".join(f"{'C' * size}O,{size}\n" for size in range(2, 12)))
    data = load(str(tmp_path / "chains.csv"), targets=["y"])
    domain = Domain.of(data.graphs, data.task)
    graphs, values = [smiles_to_data(text) for text in ("c1ccccc1O", "C1CCCCC1O")], torch.full((2, 1), 5.0)
    for known in (domain, Domain.restored(domain.plain())):
        assert known.unlike_each(graphs, ("y",), values) == ["aromatic atoms", ""]
        assert known.unlike(graphs[0], ("y",), values[0]) == "aromatic atoms"
    old = domain.plain()
    del old["aromatic"]  # as checkpoints were: whether there were some is not known
    assert Domain.restored(old).unlike_each(graphs, ("y",), values) == ["", ""]


def test_many_molecules_are_told_what_each_alone_is():
    graphs = [smiles_to_data(text) for text in ("CCO", "CC[Si]", "C[N+](C)(C)C", "C", "CCO", "CCCCCCCC")]
    values = torch.tensor([[1.0], [1.0], [1.0], [1.0], [9.0], [float("nan")]])
    domain = Domain((5, 7), (5,), (2, 6), ((0.0, 2.0),))
    each = [domain.unlike(graph, ("y",), row) for graph, row in zip(graphs, values, strict=True)]
    assert domain.unlike_each(graphs, ("y",), values) == each
    assert [bool(mark) for mark in each] == [False, True, True, True, True, True]

"""Descriptors through a run: scaled by the training part, stored in the checkpoint, made again for a prediction."""

import csv
from pathlib import Path

import pytest
import torch
from small_runs import molecules, small_config, write_csv

from plstm_graph.errors import ConfigError, DataError
from plstm_graph.train import evaluate, predict, train
from plstm_graph.train.infer import restore


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A column that says what y is, and one that says nothing."""
    path = tmp_path_factory.mktemp("own") / "own.csv"
    rows = [f"{text},{len(text)},7" for text in molecules()]
    path.write_text("\n".join(["smiles,length,seven", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, own: Path) -> Path:
    folder = tmp_path_factory.mktemp("described")
    kinds = (str(own), "morgan")
    train(small_config(out=folder / "run", data=write_csv(folder / "small.csv"), targets="y", descriptors=kinds))
    return folder / "run"


def test_predictions_are_those_of_the_run(run: Path) -> None:
    with (run / "predictions.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["part"] == "test"]
    found = predict(run, [row["smiles"] for row in rows])
    want = torch.tensor([[float(row["y_predicted"])] for row in rows])
    torch.testing.assert_close(found.values, want, rtol=1e-5, atol=1e-5)
    assert evaluate(run)["graphs"] == len(rows)


def test_the_scale_is_that_of_the_training_part(run: Path) -> None:
    learner, meta = restore(run)
    reader = learner.model.descriptors
    with (run / "predictions.csv").open() as stream:
        lengths = [len(row["smiles"]) for row in csv.DictReader(stream) if row["part"] == "train"]
    assert float(reader.middle[0]) == torch.tensor(lengths).float().quantile(0.5)
    assert meta.spec.descriptors == 2 + 2048
    assert reader.factor[1] == 0


def test_new_molecules_take_another_file(run: Path, own: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 1 molecules"):
        predict(run, ["CCCCCCCCCCO"])
    other = tmp_path / "new.csv"
    other.write_text("smiles,length,seven\nCCCCCCCCCCO,11,7\n")
    (found,) = predict(run, ["CCCCCCCCCCO"], descriptors=[str(other), "morgan"]).values
    assert found.isfinite().all()
    with pytest.raises(DataError, match="have 2048 columns here and had 2050"):
        predict(run, ["CCO"], descriptors=["morgan"])


def test_other_descriptors_are_other_runs(run: Path, tmp_path: Path) -> None:
    config = small_config(out=run, data=run.parent / "small.csv", targets="y", descriptors="morgan")
    with pytest.raises(ConfigError, match="descriptors is"):
        train(config, resume=True)
    with pytest.raises(ConfigError, match="morgan"):
        train(small_config(data=run.parent / "small.csv", targets="y", descriptors="morgen"))


def test_a_run_does_not_go_on_with_other_descriptors(run: Path, own: Path, tmp_path: Path) -> None:
    """Nor are data the ones it was trained on, where their molecules are described otherwise."""
    data, kind = write_csv(tmp_path / "small.csv"), tmp_path / "own.csv"
    kind.write_text(own.read_text())
    config = small_config(out=tmp_path / "run", data=data, targets="y", descriptors=(str(kind),))
    train(config)
    assert evaluate(tmp_path / "run")["part"] == "test"
    kind.write_text(own.read_text().replace(",7", ",8"))
    with pytest.raises(ConfigError, match="began with other data"):
        train(config, resume=True)
    assert evaluate(tmp_path / "run")["part"] == "all"

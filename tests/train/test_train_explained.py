import csv
from pathlib import Path

import pytest
import torch
from small_runs import small_config, small_dataset, three_classes, write_csv

from plstm_graph.errors import CheckpointError, ConfigError, DataError
from plstm_graph.train import explain, predict, train

ANISOLE = "COc1ccccc1"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished regression run with two targets."""
    folder = tmp_path_factory.mktemp("explained")
    config = small_config(out=folder / "run", data=write_csv(folder / "small.csv"), targets="y,z", epochs=1)
    train(config)
    return folder / "run"


def test_the_value_is_the_prediction_in_its_units(run: Path) -> None:
    (predicted,) = predict(run, [ANISOLE]).values.tolist()
    first, second = explain(run, ANISOLE), explain(run, ANISOLE, target="z")
    assert (first.unit, second.unit) == ("y", "z")
    assert first.choices == ["y", "z"]
    assert [first.explanation.value, second.explanation.value] == pytest.approx(predicted, rel=1e-5)
    assert abs(second.explanation.gap) < 0.02 * abs(second.explanation.value - second.explanation.blank)


def test_log_odds_of_classes(tmp_path: Path) -> None:
    train(small_config(out=tmp_path / "binary", epochs=1), small_dataset(tmp_path, "binary"))
    found = explain(tmp_path / "binary", ANISOLE)
    assert found.unit == "log-odds of y"
    probability = predict(tmp_path / "binary", [ANISOLE]).values[0, 0].item()
    assert torch.tensor(found.explanation.value).sigmoid().item() == pytest.approx(probability, abs=1e-5)
    train(small_config(out=tmp_path / "classes", epochs=1), three_classes(small_dataset(tmp_path)))
    probabilities = predict(tmp_path / "classes", [ANISOLE]).values[0, 1:].tolist()
    for target, number in ((None, 0), ("1", 1), ("p_2", 2)):
        found = explain(tmp_path / "classes", ANISOLE, target=target)
        assert found.unit == f"log-odds of class {number}"
        assert torch.tensor(found.explanation.value).sigmoid().item() == pytest.approx(probabilities[number], abs=1e-5)


def test_tables(run: Path, tmp_path: Path) -> None:
    found = explain(run, ANISOLE)
    found.write_atoms(tmp_path / "atoms.csv")
    found.write_pairs(tmp_path / "pairs.csv")
    with (tmp_path / "atoms.csv").open(newline="") as stream:
        atoms = list(csv.DictReader(stream))
    assert [row["symbol"] for row in atoms] == list("COCCCCCC")
    assert [float(row["score"]) for row in atoms] == pytest.approx(found.explanation.scores.tolist(), rel=1e-4)
    kinds = [f"{mode} {direction}" for mode, direction in found.explanation.readings]
    for row in atoms:
        parts = [float(row[f"sent {kind}"]) for kind in kinds]
        assert float(row["sent"]) == pytest.approx(sum(parts), rel=1e-3, abs=1e-6)
    with (tmp_path / "pairs.csv").open(newline="") as stream:
        pairs = list(csv.DictReader(stream))
    flows = [abs(float(row["flow"])) for row in pairs]
    assert flows == sorted(flows, reverse=True)
    whole = found.explanation.pairs()
    assert len(pairs) == int((whole != 0).sum())
    for row in pairs:
        assert float(row["flow"]) == pytest.approx(whole[int(row["to"]), int(row["from"])].item(), rel=1e-4)
        assert row["from_symbol"] == atoms[int(row["from"])]["symbol"]


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown target 'yy'; choose one of y, z; did you mean 'y'\?"):
        explain(run, ANISOLE, target="yy")
    with pytest.raises(DataError, match="C1CC"):
        explain(run, "C1CC")
    with pytest.raises(CheckpointError, match="No such file"):
        explain(tmp_path, ANISOLE)
    train(small_config(out=tmp_path / "gin", epochs=1, model_model="gin"), small_dataset(tmp_path))
    with pytest.raises(ConfigError, match=r"'gin' has no pLSTM layer.*GNNExplainer"):
        explain(tmp_path / "gin", ANISOLE)

"""Censored labels: how they are read, learnt from and left out of scores, wherever data and models are kept."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from small_runs import small_config, write_csv
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.data import load, read_prepared
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.tasks import Regression, restore
from plstm_graph.train import evaluate, predict, train
from plstm_graph.train.checkpoint import read, read_meta

NAN = math.nan


def with_bounds(path: Path, *, step: int = 4, more: str = "") -> Path:
    """Of 40 molecules every ``step``-th has ``y`` as a bound, in turn of each spelling; z is exact but for one."""
    signs = [">", "<", ">=", "<= ", "≥", "≤ ", "> ", "=<", "=>", "<"]
    lines = write_csv(path).read_text().splitlines()
    for place in range(1, 41, step):
        smiles, y, z = lines[place].split(",")
        lines[place] = f"{smiles},{signs[place // 4 % 10]}{y},{'>' * (place == 5)}{z}"
    path.write_text("\n".join(lines) + "\n" + more)
    return path


def test_the_loss_by_hand() -> None:
    """Labels 2 in units of the data with mean 1 and deviation 2, so 0.5; a row is exact, above, below, unknown."""
    task = Regression(("y",), mean=(1.0,), deviation=(2.0,), bounded=True)
    target = torch.tensor([[2.0, 0], [2.0, 1], [2.0, -1], [NAN, NAN]])
    scaled = task.standardised(target, torch.tensor([1.0]), torch.tensor([2.0]))
    assert scaled[:3].tolist() == [[0.5, 0], [0.5, 1], [0.5, -1]]
    for answer, errors in ((1.5, (1.0, 0.0, 1.0)), (-1.5, (2.0, 2.0, 0.0)), (0.5, (0.0, 0.0, 0.0))):
        expected = {
            "mse": sum(e**2 for e in errors) / 3,
            "mae": sum(errors) / 3,
            "huber": sum(e**2 / 2 if e <= 1 else e - 0.5 for e in errors) / 3,
        }
        for name, value in expected.items():
            output = torch.full((4, 1), answer, requires_grad=True)
            loss = task.trained_with(name, False).loss(output, scaled)
            assert loss.item() == pytest.approx(value)
            loss.backward()
            sign = 1 if answer > 0.5 else -1
            slopes = {"mse": [2 * e for e in errors], "mae": [float(e > 0) for e in errors]}
            slopes["huber"] = [min(e, 1.0) for e in errors]
            wanted = [sign * slope / 3 for slope in slopes[name]] + [0.0]
            assert output.grad.flatten().tolist() == pytest.approx(wanted)


def test_several_targets_each_have_their_sides() -> None:
    task = Regression(("a", "b"), bounded=True)
    target = torch.tensor([[1.0, 5.0, 1.0, 0.0], [3.0, NAN, 0.0, NAN]])
    assert task.values(target).tolist()[0] == [1.0, 5.0]
    assert torch.equal(task.exact(target).isnan(), torch.tensor([[True, False], [False, True]]))
    assert (int(task.count(target)), int(task.count(task.exact(target)))) == (3, 2)
    output = torch.tensor([[4.0, 4.0], [0.0, 0.0]])
    assert float(task.loss(output, target)) == pytest.approx((0 + 1 + 9) / 3)
    assert task.fitted(target).mean == (2.0, 5.0)
    assert restore(task.plain()) == task
    assert restore({key: value for key, value in task.plain().items() if key != "bounded"}).bounded is False


def test_files_say_bounds_in_many_ways(tmp_path: Path) -> None:
    path = with_bounds(tmp_path / "a.csv", more="CCS,>x,1\nCCCS,> ,2\nCCCCS,,3\n")
    found = load(str(path), targets=["y"], censored=True)
    y = torch.cat([graph.y for graph in found.graphs])
    assert y[::4, 1].tolist() == [1, -1, 1, -1, 1, -1, 1, -1, 1, -1]
    assert (y[1::4, 1] == 0).all()
    exact = load(str(write_csv(tmp_path / "exact.csv")), targets=["y"])
    assert torch.equal(y[:, :1], torch.cat([graph.y for graph in exact.graphs]))
    assert [(row.row, row.reason.partition(",")[0]) for row in found.rejected] == [
        (41, "a label must be a finite number"),
        (42, "a label must be a finite number"),
        (43, "no label in y"),
    ]
    assert "got '>x'" in found.rejected[0].reason
    semicolons = tmp_path / "b.csv"
    semicolons.write_text("smiles;y\nCCO;>1,5\nCCN;2,5\nCCC;≤ 3,5\n")
    rows = torch.cat([graph.y for graph in load(str(semicolons), targets=["y"], censored=True).graphs])
    assert rows.tolist() == [[1.5, 1], [2.5, 0], [3.5, -1]]


def test_without_the_option_they_are_refused(tmp_path: Path) -> None:
    path = with_bounds(tmp_path / "a.csv")
    with pytest.raises(DataError, match="bounds such as <5 take --censored"):
        load(str(path), targets=["y"])
    assert [row.reason for row in load(str(path), targets=["z"]).rejected] == [
        "a label must be a finite number, or a bound with --censored, or empty where there is none, "
        "got '>1000.0' in column 'z'"
    ]
    with pytest.raises(ConfigError, match="censored labels are bounds of quantities"):
        load(str(path), targets=["y"], censored=True, task="binary")
    with pytest.raises(ConfigError, match="censored can only be chosen for a CSV file"):
        load("nav17", censored=True)
    config = small_config(data=path, targets="y", censored=True, model_model="fingerprint")
    with pytest.raises(ConfigError, match="learns from no bounds"):
        train(config)


def test_a_run_scores_exact_labels_and_says_how_many_are_bounds(tmp_path: Path) -> None:
    path, out = with_bounds(tmp_path / "a.csv", step=2), tmp_path / "run"
    config = small_config(data=path, targets=("y", "z"), censored=True, ensemble=2, epochs=1, out=out)
    found = train(config)
    assert sum(found["censored"].values()) == 21
    with (out / "predictions.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["part"] == "test"]
    exact = [(float(row["y"]), float(row["y_predicted"])) for row in rows if row["y"]]
    assert len(exact) < len(rows)
    error = sum(abs(label - value) for label, value in exact) / len(exact)
    assert found["by_target"]["y"]["test"]["mae"] == pytest.approx(error, rel=1e-4)
    assert read_meta(read(out), out).asked.bounded
    scored = evaluate(out, part="test")
    assert scored["by_target"]["y"] == pytest.approx(found["by_target"]["y"]["test"])
    assert any("labels are bounds, and not scored" in note for note in scored["notes"])
    assert predict(out, ["CCO"]).columns[:2] == ["y", "z"]
    other = evaluate(out, write_csv(tmp_path / "exact.csv"))
    assert other["graphs"] == 40
    swapped = evaluate(out, path, part="test", targets=("z", "y"), split="random", split_seed=0)
    assert swapped["by_target"]["y"] == pytest.approx(scored["by_target"]["y"])


def test_a_model_of_exact_labels_is_scored_where_some_are_bounds(tmp_path: Path) -> None:
    """Which is what the error asks for."""
    exact, path, out = write_csv(tmp_path / "exact.csv"), with_bounds(tmp_path / "a.csv", step=2), tmp_path / "run"
    train(small_config(data=exact, targets=("y", "z"), epochs=1, out=out))
    words = ["evaluate", "--checkpoint", str(out), "--data", str(path)]
    assert "take --censored" in CliRunner().invoke(app, words).stderr
    found = CliRunner().invoke(app, [*words, "--censored", "--out", str(tmp_path / "found.json")])
    assert "note: 21 labels are bounds, and not scored" in found.stderr
    lines = [line.split(",") for line in exact.read_text().splitlines()[1:]]
    told = [line.split(",")[1] for line in path.read_text().splitlines()[1:]]
    answers = predict(out, [line[0] for line in lines]).values[:, 0].tolist()
    errors = [
        abs(float(y) - answer)
        for (_, y, _), cell, answer in zip(lines, told, answers, strict=True)
        if not set(cell) & set("<>≤≥=")
    ]
    assert len(errors) == 20
    scored = json.loads((tmp_path / "found.json").read_text())
    assert scored["by_target"]["y"]["mae"] == pytest.approx(sum(errors) / 20, rel=1e-5)


def test_prepared_files_train_to_the_same(tmp_path: Path) -> None:
    path, packed = with_bounds(tmp_path / "a.csv"), tmp_path / "a.pt"
    words = ["prepare", "--data", path, "--targets", "y", "--censored", "--out", packed]
    assert CliRunner().invoke(app, [*map(str, words)]).exit_code == 0
    assert read_prepared(packed).task.bounded
    how = {"epochs": 1, "split": "random"}
    table = train(small_config(data=path, targets="y", censored=True, **how))
    stored = train(small_config(data=packed, **how))
    assert stored["test"] == table["test"]
    assert stored["censored"] == table["censored"]
    assert json.dumps(stored["valid"]) == json.dumps(table["valid"])

"""Thresholds and intervals are where a reader looks: on the page of a run, and where a checkpoint is evaluated."""

import json
from pathlib import Path

import pytest
from small_runs import small_config, write_csv
from test_train_page import Reader
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.train import evaluate, train
from plstm_graph.train.page import write_page


def test_they_are_shown(tmp_path: Path) -> None:
    data, out = write_csv(tmp_path / "a.csv", task="binary"), tmp_path / "run"
    train(small_config(data=data, targets=("y", "z"), epochs=2, out=out))
    stored = json.loads((out / "metrics.json").read_text())
    assert set(stored["thresholds"]) == {"y", "z"}

    found = evaluate(out, part="test")
    for name, scores in stored["thresholds"].items():
        known = {key: value for key, value in scores["test"].items() if value is not None}
        assert {key: found["thresholds"][name][key] for key in known} == pytest.approx(known)
        assert found["thresholds"][name]["threshold"] == scores["threshold"]
    assert found["interval"] == pytest.approx(stored["test_interval"])
    said = CliRunner().invoke(app, ["evaluate", "--checkpoint", str(out)])
    assert said.exit_code == 0, said.output
    assert f"y: yes above {stored['thresholds']['y']['threshold']:.4f}, as validation chose: sensitivity" in said.stdout
    assert f"rocauc lies between {stored['test_interval']['low']:.4f} and" in said.stdout

    page = Reader(write_page([out]))
    assert "yes above" in page.text
    assert f"{stored['thresholds']['z']['threshold']:.3f}" in page.text

    (out / "metrics.json").unlink()
    assert evaluate(out, part="test")["thresholds"] == {}

"""Rivals get the molecules and parts of the plan, and their rows fill one table."""

import shutil
import sys
import textwrap
from dataclasses import replace

import pytest
import records
import rivals
from plan import read_plan

from plstm_graph.data.datasets import load
from plstm_graph.data.prepared import write_prepared

PROGRAM = """
    import csv, pathlib, sys

    def main():
        words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
        rows = list(csv.DictReader(open(words["--data-path"])))
        out = pathlib.Path(words["-o"]) / "model_0"
        out.mkdir(parents=True)
        with (out / "test_predictions.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["smiles", "y"])
            writer.writerows([row["smiles"], float(row["y"]) + 0.5] for row in rows if row["part"] == "test")
"""


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Sixty molecules of nav17 with descriptors, as a set of its own."""
    whole, file = load("nav17"), tmp_path_factory.mktemp("few") / "few.pt"
    part = replace(whole, graphs=whole.graphs[:60], rows=[], ids=[], rejected=[])
    write_prepared(file, part, descriptors=rivals.READ)
    return file


@pytest.fixture
def plan(few, tmp_path, monkeypatch):
    shutil.copy(few, tmp_path)
    config = tmp_path / "small_sets.toml"
    text = '[data]\nname = "few.pt"\nseeds = [0, 1]\n[train]\nmetric = "rmse"\n'
    text += '[[set]]\nname = "few"\n[[entry]]\nname = "x"\n'
    config.write_text(text)
    monkeypatch.setattr(rivals, "CONFIG", config)
    return read_plan(config, str(tmp_path))


def test_chemprop_is_asked_about_the_test_part_and_scored_by_our_metric(plan, tmp_path, monkeypatch):
    (tmp_path / "chemprop" / "cli").mkdir(parents=True)
    for folder in ("chemprop", "chemprop/cli"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "chemprop" / "cli" / "main.py").write_text(textwrap.dedent(PROGRAM))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    metric, scores = rivals.chemprop(plan.jobs[0].config)
    assert metric == "rmse"
    assert scores["test"] == pytest.approx(0.5)  # the labels of the test part in its order, off by a half


def test_a_rival_that_fails_says_why(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="chemprop failed"):
        rivals.chemprop(plan.jobs[0].config)


def test_rows_are_stored_once_and_fill_a_table(plan, tmp_path, capsys):
    words = ["boosting", "--root", str(tmp_path), "--results", str(tmp_path)]
    assert rivals.main(words) == 0
    rows = records.read(tmp_path / rivals.RESULTS)
    assert [row["seed"] for row in rows] == [0, 1] or [row["seed"] for row in rows] == [1, 0]
    assert {"valid", "test", "data_hash", "commit"} <= rows[0].keys()
    assert "scikit-learn" in rows[0]["versions"]
    shown = capsys.readouterr().out
    assert "| valid / test | few, rmse |" in shown
    values = [row["test"] for row in sorted(rows, key=lambda row: row["seed"])]
    assert f"/ {sum(values) / 2:.3f} ± {abs(values[0] - values[1]) / 2**0.5:.3f} |" in shown
    assert rivals.main(words) == 0
    assert len(records.read(tmp_path / rivals.RESULTS)) == 2

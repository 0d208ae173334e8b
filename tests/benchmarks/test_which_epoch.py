"""Which of equal epochs to keep: what is scored, rows and their table."""

import pytest
import records
import which_epoch
from small_runs import small_config, small_dataset
from tables import which_epoch_table


@pytest.fixture
def one_run(tmp_path, monkeypatch):
    dataset = small_dataset(tmp_path, "binary")
    config = small_config()
    monkeypatch.setattr(which_epoch, "load_data", lambda config: dataset)
    return which_epoch.of_run(config), which_epoch.train(config, dataset)


def test_scores_are_those_of_a_run(one_run):
    """The last of the best epochs is what a run keeps, and the end is its last epoch."""
    found, run = one_run
    metric = run["metric"]
    assert found["last"] == pytest.approx(run["test"][metric], abs=1e-6)
    assert found["end"] == pytest.approx(run["test_last_epoch"][metric], abs=1e-6)
    assert 1 <= found["epoch"] <= run["best_epoch"] <= found["epochs"] == run["epochs"]
    assert found["equal"] >= 1


def test_rows_and_their_table(monkeypatch, tmp_path):
    row = {"metric": "accuracy", "equal": 3, "epoch": 5, "epochs": 9, "first": 0.5, "last": 0.75, "end": 0.25}
    calls = []
    monkeypatch.setattr(which_epoch, "of_run", lambda config: calls.append(config.fold) or row)
    words = ["mutag", "--only", "plstm", "--root", str(tmp_path), "--out", str(tmp_path / "rows.jsonl")]
    for _ in range(2):  # the second finds all of them stored
        assert which_epoch.main(words) == 0
    assert calls == list(range(10))
    rows = records.read(tmp_path / "rows.jsonl")
    assert [(each["entry"], each["seed"], each["fold"]) for each in rows] == [("plstm", 42, fold) for fold in range(10)]
    assert "| plstm | 10 | 3.0 | 5.0 | 0.5000 | 0.7500 | 0.2500 |" in which_epoch_table(rows)

"""A search: what it tries, what it reads, how it goes on, and what it leaves."""

import json
import pickle
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from small_runs import invoke, small_config, write_csv
from test_train_page import checked

from plstm_graph.config.models import ForestConfig
from plstm_graph.errors import ConfigError, PLSTMGraphError
from plstm_graph.io.json_csv import read_lines
from plstm_graph.train import search
from plstm_graph.train.config import TrainConfig, override
from plstm_graph.train.defaults import default_config
from plstm_graph.train.page import write_page
from plstm_graph.train.searching import Range, default_space, read_space
from plstm_graph.train.searching.plan import begun
from plstm_graph.train.searching.space import from_plain, plain
from plstm_graph.train.searching.study import distributions, study_of
from plstm_graph.train.searching.trial import Job

pytest.importorskip("optuna")
SPACE = {"lr": Range(1e-3, 1e-1, log=True), "model.width": (4, 8), "model.layers": Range(1, 2)}
TIMES = ("seconds", "date")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return small_config(data=write_csv(tmp_path / "small.csv"), targets="y", out=tmp_path / "run", epochs=2)


def rows_in(out: str | Path | None) -> list[dict[str, Any]]:
    return read_lines(Path(str(out)) / "search" / "trials.jsonl")


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def test_the_best_on_validation_is_given(config: TrainConfig) -> None:
    best = search(config, 5, space=SPACE)
    rows = rows_in(config.out)
    assert [row["trial"] for row in rows] == list(range(5))
    assert rows[0]["values"] == {"lr": 0.01, "model.width": 8, "model.layers": 1}  # the options as they are
    assert len({json.dumps(row["values"]) for row in rows}) > 3
    winner = max((row for row in rows if row["state"] == "complete"), key=lambda row: row["valid"])
    assert best == override(config, winner["values"])
    assert {"config", "config_hash", "seconds", "params", "epoch", "date", "metric"} <= winner.keys()
    assert winner["config"]["lr"] == winner["values"]["lr"]
    assert not (Path(str(config.out)) / "config.toml").exists()


def test_the_test_part_is_never_read(tmp_path: Path) -> None:
    """Other labels there, and even none that can be learnt from, change no number."""
    found = []
    for name, label in (("as-it-is", None), ("other", "-900")):
        lines = write_csv(tmp_path / f"{name}.csv").read_text().splitlines()
        parts = ["train"] * 24 + ["valid"] * 8 + ["test"] * 8
        for place, part in enumerate(parts, start=1):
            smiles, y, z = lines[place].split(",")
            lines[place] = f"{smiles},{label if label and part == 'test' else y},{z},{part}"
        data = tmp_path / f"{name}.csv"
        data.write_text("\n".join([lines[0] + ",part", *lines[1:]]) + "\n")
        config = small_config(data=data, targets="y", split_column="part", out=tmp_path / name, epochs=2)
        search(config, 3, space=SPACE)
        found.append([(row["values"], row["valid"]) for row in rows_in(config.out)])
    assert found[0] == found[1]


def test_a_search_goes_on_to_the_same_trials(config: TrainConfig, tmp_path: Path, monkeypatch: Any) -> None:
    from plstm_graph.train.searching import trial

    search(config, 4, space=SPACE)
    cut = override(config, {"out": str(tmp_path / "cut")})
    validate, calls = trial.validate, []

    def stopped(chosen: Any, dataset: Any, callbacks: Any) -> None:
        calls.append(chosen)
        if len(calls) == 3:
            raise KeyboardInterrupt
        validate(chosen, dataset, callbacks)

    monkeypatch.setattr(trial, "validate", stopped)
    with pytest.raises(KeyboardInterrupt):
        search(cut, 4, space=SPACE)
    assert len(rows_in(cut.out)) == 2
    best = search(cut, resume=True)
    assert calls[3] == calls[2]
    assert without_times(rows_in(cut.out)) == without_times(rows_in(config.out))
    assert search(cut, resume=True) == best
    assert len(calls) == 5  # nothing was left to try
    search(cut, 5, resume=True)
    assert [row["trial"] for row in rows_in(cut.out)] == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match=r"has other options: lr is 0\.01, not 0\.5"):
        search(override(cut, {"lr": 0.5}), resume=True)


def test_poor_trials_are_stopped_and_failures_are_told(config: TrainConfig, monkeypatch: Any) -> None:
    """With a learning rate of 10 the score falls behind the median; a width of 6 is no multiple of 4 heads."""
    from plstm_graph.train.searching import study

    monkeypatch.setattr(study, "UNPRUNED", 1)
    config = override(config, {"epochs": 6, "model.width": 8})
    search(config, 6, space={"lr": (0.01, 10.0), "model.width": (8, 6)})
    rows = rows_in(config.out)
    assert rows[0]["state"] == "complete"
    assert {row["state"] for row in rows if row["values"] == {"lr": 10.0, "model.width": 8}} <= {"pruned", "failed"}
    failed = [row for row in rows if row["values"]["model.width"] == 6]
    assert failed
    assert all(row["state"] == "failed" and "multiple" in row["reason"] for row in failed)
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert all(row["epochs"] < 6 for row in pruned)
    with pytest.raises(ConfigError, match="none of 1 trials came to its end"):
        search(override(config, {"model.width": 6}), 1, space={"lr": (0.1, 0.2)}, overwrite=True)


def test_minutes_leave_one_complete_trial(config: TrainConfig) -> None:
    best = search(config, 9, space=SPACE, minutes=1e-9)
    assert [row["state"] for row in rows_in(config.out)] == ["complete"]
    assert best == override(config, rows_in(config.out)[0]["values"])
    assert search(config, resume=True) == best  # it is a search of one trial now
    assert len(rows_in(config.out)) == 1


def test_processes_share_the_storage(config: TrainConfig) -> None:
    """As trials do that run side by side; that children work through jobs is tested with the pool."""
    plan = begun(config, 2, SPACE, [], {}, overwrite=False)
    first, second = (study_of(plan, number) for number in (0, 1))
    trials = [study.ask(distributions(SPACE)) for study in (second, first)]
    assert [trial.number for trial in trials] == [0, 1]
    assert trials[0].params == {"lr": 0.01, "model.width": 8, "model.layers": 1} != trials[1].params
    assert pickle.loads(pickle.dumps(Job(plan, 0, float("inf")))).plan == plan


def test_spaces() -> None:
    config = TrainConfig()
    usual = default_space(config)
    assert {"lr", "model.width", "model.layers", "model.heads", "model.dropout", "model.local"} <= usual.keys()
    assert {"model.order", "model.pooling"} <= usual.keys()
    assert "lr" not in default_space(config, ["lr"])
    assert default_space(override(config, {"model.model": "gine"})).keys() == {
        *("lr", "model.width", "model.layers", "model.dropout", "model.pooling")
    }
    images = override(TrainConfig(data="photos"), {"model.model": "efficientnet"})
    assert default_space(images).keys() == {"lr", "weight_decay"}  # it reads no layers
    assert "model.width" not in default_space(override(config, {"budget": "100k"}))
    assert "model.width" not in default_space(override(config, {"model.heads": 3}), ["model.heads"])  # 96 alone
    assert "model.heads" not in default_space(override(config, {"model.width": 50}), ["model.width"])
    assert "model.layers" not in default_space(default_config("carry"))  # it brings its own
    with pytest.raises(ConfigError, match="fitted at once"):
        default_space(TrainConfig(model=ForestConfig()))
    assert from_plain(plain(usual)) == usual
    for model in ("plstm", "gine", "gat", "gps", "dmpnn", "plstm-vision", "cnn"):
        chosen = override(config, {"model.model": model})
        for key, choice in default_space(chosen).items():
            for value in (choice.low, choice.high) if isinstance(choice, Range) else choice:
                override(chosen, {key: value})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lr = 3", "must be a list of values or a range"),
        ("lr = { low = 2, high = 1 }", "from low to a higher number"),
        ("lr = { low = 0.0, high = 1.0, log = true }", "from above 0"),
        ("lrr = [1.0]", "did you mean 'lr'"),
        ("epochs = [1.5]", "epochs must be a whole number"),
        ('[model]\nlocal = ["ginne"]', "did you mean 'gine'"),
        ("", "names what is searched"),
    ],
)
def test_a_space_that_cannot_be(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(PLSTMGraphError, match=reason):
        read_space(path, TrainConfig())


# ---------------------------------------------------------------------- from the command line


def test_the_command_searches_trains_and_reports(tmp_path: Path) -> None:
    data, out, space = write_csv(tmp_path / "small.csv"), tmp_path / "run", tmp_path / "space.toml"
    space.write_text("lr = { low = 0.001, high = 0.1, log = true }\n[model]\nwidth = [4, 8]\n")
    words = ["--data", data, "--targets", "y", "--epochs", 2, "--batch-size", 8, "--accelerator", "cpu"]
    words += ["--layers", 1, "--heads", 4, "--rwse", 0, "--out", out]
    found = invoke(*words, "--search", 3, "--search-space", space, "--seeds", "0,1")
    assert found.exit_code == 0, found.output
    rows = rows_in(out)
    best = max((row for row in rows if row["state"] == "complete"), key=lambda row: row["valid"])
    runs = read_lines(out / "runs.jsonl")
    assert [run["config"]["lr"] for run in runs] == [best["values"]["lr"]] * 2
    assert f"trial {best['trial']} of 3" in found.output

    (out / "runs.jsonl").unlink()
    again = invoke("--resume", "--out", out)
    assert again.exit_code == 0, again.output
    assert len(rows_in(out)) == 3
    assert "2 of 2 runs are finished already" in again.output

    page = checked(write_page([out]))
    assert "3 trials in" in page.text
    assert "The best" in page.text
    assert "test part was not read" in page.text
    assert any("best so far" in picture["alt"] for picture in page.pictures)
    with sqlite3.connect(out / "search" / "optuna.db") as storage:
        assert storage.execute("select count(*) from trials").fetchone() == (3,)


def test_options_that_are_given_are_not_searched(tmp_path: Path, monkeypatch: Any) -> None:
    from plstm_graph.train import searching

    seen: dict[str, Any] = {}

    def spy(*_: Any, **how: Any) -> Any:
        seen.update(how)
        raise ConfigError("seen")

    monkeypatch.setattr(searching, "search", spy)
    config = tmp_path / "config.toml"
    config.write_text("epochs = 3\n[model]\ndropout = 0.1\n")
    invoke("--search", 2, "--width", 16, "--config", config, "--set", "model.heads=4", "--out", tmp_path / "run")
    assert {"model.width", "model.dropout", "model.heads", "epochs"} <= seen["fixed"]


def test_a_search_that_cannot_be(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for words, reason in (
        (["--search", 0], "must be above 0"),
        (["--search-space", "x.toml"], "--search-space is for a new search"),
        (["--search", 2, "--devices", 2], "one device each"),
        (["--search", 2, "--model", "fingerprint"], "fitted at once"),
        (["--search", 2, "--resume"], "nothing to resume"),
    ):
        found = invoke(*words, "--out", out)
        assert found.exit_code == 2
        assert reason in found.output
    assert not out.exists()

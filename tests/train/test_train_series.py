"""Many runs side by side: what each leaves, what a failure costs, and how they stop."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import contents, invoke, small_config, told, write_csv

from plstm_graph.errors import CheckpointError, ConfigError
from plstm_graph.io.json_csv import append_line, read_lines
from plstm_graph.train import series, shared, train, train_series
from plstm_graph.train.analysis import score_runs
from plstm_graph.train.checkpoint import read
from plstm_graph.train.config import TrainConfig, write_toml
from plstm_graph.train.folders import check_checkpoint, numbers, runs_of, stored_series
from plstm_graph.train.page.entries import entries
from plstm_graph.train.pool import Status
from plstm_graph.train.results import SCORES

SMALL = ["--epochs", 2, "--batch-size", 8, "--accelerator", "cpu"]
SMALL += ["--width", 8, "--layers", 1, "--heads", 4, "--rwse", 0]


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    data = write_csv(tmp_path / "small.csv")
    return small_config(data=data, targets="y", out=tmp_path / "series", epochs=2)


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("minutes", "date", "command")}


# ---------------------------------------------------------------------- a series


def test_what_an_earlier_training_left_is_none_of_the_next(config: TrainConfig) -> None:
    """Neither the page nor a command may take the runs of another training in the folder for those of the last."""
    out = Path(config.out)

    def shown() -> list[str]:
        (entry,) = entries([out])
        return [run.name for run in entry.runs]

    train(config)
    with pytest.raises(ConfigError, match="holds a run, no series; give --overwrite or another --out"):
        train_series(config, seeds=[0, 1])
    train_series(config, seeds=[0, 1], overwrite=True)
    assert shown() == ["seed-0", "seed-1"]
    with pytest.raises(CheckpointError, match="is a series"):
        check_checkpoint(out)
    train_series(config, seeds=[1], overwrite=True)
    assert shown() == ["seed-1"]
    assert runs_of(out) == [out / "seed-1"]
    train(config, overwrite=True)
    assert shown() == [out.name]
    assert runs_of(out) == []


def test_each_run_is_what_train_makes_of_it(tmp_path: Path, config: TrainConfig) -> None:
    found = train_series(config, seeds=[0, 2], command="plstm-graph train")
    names = ["seed-0", "seed-2"]
    assert sorted(os.listdir(config.out)) == ["runs.jsonl", *names, "series.toml", "summary.json"]
    rows = {row["run"]: row for row in read_lines(Path(config.out) / "runs.jsonl")}
    assert sorted(rows) == names
    for name, seed in zip(names, (0, 2), strict=True):
        alone = train(small_config(**vars_of(config), seed=seed, out=tmp_path / f"alone-{seed}", devices="1"))
        stored = json.loads((Path(config.out) / name / SCORES).read_text())
        assert without_times(stored) == without_times(alone)
        states = [read(folder)["state_dict"] for folder in (Path(config.out) / name, tmp_path / f"alone-{seed}")]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        row = rows[name]
        assert (row["seed"], row["fold"], row["params"]) == (seed, 0, alone["parameters"])
        assert (row["valid"], row["test"]) == (alone["valid"], alone["test"])
        assert {"config", "config_hash", "date", "device", "versions", "commit", "command"} <= row.keys()
        assert row["config"]["seed"] == seed
    tests = [rows[name]["test"]["r2"] for name in names]
    assert found["test"]["r2"]["mean"] == pytest.approx(sum(tests) / 2)
    assert found["test"]["r2"]["deviation"] == pytest.approx(abs(tests[0] - tests[1]) / math.sqrt(2))
    assert (found["runs"], found["failed"], found["seeds"], found["folds"]) == (2, {}, [0, 2], [0])
    assert json.loads((Path(config.out) / "summary.json").read_text()) == json.loads(json.dumps(found))


def test_a_run_says_what_it_waits_for(config: TrainConfig) -> None:
    said: list[Status] = []
    one = replace(config, epochs=1, out=None)
    series._run(series.Job(one, shared.data_hash(one)), said.append)
    words = [(status.epoch, status.text.split()[0]) for status in said if status.text]
    assert {(0, "encoding"), (0, "hashing"), (0, "packing"), (1, "loss"), (1, "scoring")} <= set(words)
    assert {status.epochs for status in said} == {1}


def vars_of(config: TrainConfig) -> dict[str, Any]:
    return {"data": config.data, "targets": config.targets, "epochs": config.epochs}


def test_its_runs_read_what_a_run_reads(tmp_path: Path) -> None:
    """Also a column of parts, and a file to test on."""
    lines = write_csv(tmp_path / "parts.csv").read_text().splitlines()
    parts = ["part", *["train"] * 20, *["valid"] * 12, *["test"] * 8]
    data, more = tmp_path / "parts.csv", write_csv(tmp_path / "more.csv", count=7)
    data.write_text("".join(f"{line},{part}\n" for line, part in zip(lines, parts, strict=True)))
    config = small_config(data=data, targets="y", epochs=1)
    for name, values, count in (("column", {"split_column": "part"}, 8), ("file", {"test_data": str(more)}, 7)):
        train_series(replace(config, out=str(tmp_path / name), **values), seeds=[0])
        stored = json.loads((tmp_path / name / "seed-0" / SCORES).read_text())
        assert stored["graphs"]["test"] == count


def test_resuming_runs_what_is_missing_and_what_was_cut_short(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plstm_graph.train import series

    train_series(config, seeds=[0, 1, 2])
    out = Path(config.out)
    rows = {row["run"]: without_times(row) for row in read_lines(out / "runs.jsonl")}
    (out / "seed-1" / SCORES).unlink()  # as if it had been killed before its results
    lines = (out / "runs.jsonl").read_text().splitlines()
    (out / "runs.jsonl").write_text(lines[0] + "\n" + lines[2][:50])  # and the last line had been cut short
    ran: list[tuple[str, bool]] = []
    run = series._run

    def spy(job: Any, say: Any) -> Any:
        ran.append((job.name, job.resume))
        return run(job, say)

    monkeypatch.setattr(series, "_run", spy)
    train_series(config, seeds=[0, 1, 2, 3], resume=True)
    assert ran == [("seed-1", True), ("seed-3", False)]
    again = {row["run"]: without_times(row) for row in read_lines(out / "runs.jsonl")}
    assert {name: again[name] for name in rows} == rows
    assert len(again) == 4


def test_what_is_wrong_shows_before_anything_runs(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plstm_graph.train.series.outcomes", lambda *_, **__: pytest.fail("it ran"))
    for values, reason in (({"devices": 2}, "one device each"), ({"num_nodes": 2}, "one device each")):
        with pytest.raises(ConfigError, match=reason):
            train_series(small_config(**values, out=config.out), seeds=[0])
    with pytest.raises(ConfigError, match="needs an output folder"):
        train_series(small_config(), seeds=[0])
    with pytest.raises(ConfigError, match="jobs must be at least 1"):
        train_series(config, seeds=[0], jobs=0)
    assert not Path(config.out).exists()
    taken = Path(config.out) / "seed-1" / "thesis.txt"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    with pytest.raises(ConfigError, match=r"seed-1 is not empty; give --resume, --overwrite"):
        train_series(config, seeds=[0, 1])
    assert os.listdir(config.out) == ["seed-1"]


def test_other_options_are_named_on_resuming(config: TrainConfig) -> None:
    train_series(config, seeds=[0])
    with pytest.raises(ConfigError, match="has other options: epochs is 2, not 3"):
        train_series(small_config(**vars_of(config) | {"epochs": 3}, out=config.out), seeds=[0], resume=True)
    with pytest.raises(ConfigError, match="is not empty"):
        train_series(config, seeds=[0])
    train_series(config, seeds=[0], overwrite=True)
    assert len(read_lines(Path(config.out) / "runs.jsonl")) == 1


def test_more_seeds_join_a_series_and_other_settings_do_not(config: TrainConfig) -> None:
    out = Path(config.out)
    train_series(config, seeds=[0, 1])
    before = contents(out)
    for how in ({}, {"resume": True}):
        with pytest.raises(ConfigError, match=r"the series in .*series has other options: lr is 0.01, not 0.5; give"):
            train_series(replace(config, lr=0.5), seeds=[2], **how)
    assert contents(out) == before

    moved = out.rename(out.with_name("moved"))
    found = train_series(replace(config, out=str(moved), seed=5, devices="1"), seeds=[2])
    after = contents(moved)
    assert {name for name in before if after[name] != before[name]} == {"runs.jsonl", "series.toml", "summary.json"}
    assert after["runs.jsonl"].startswith(before["runs.jsonl"])
    rows = read_lines(moved / "runs.jsonl")
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert (found["runs"], found["seeds"], found["folds"]) == (3, [0, 1, 2], [0])
    assert found["test"]["r2"]["mean"] == pytest.approx(sum(row["test"]["r2"] for row in rows) / 3)
    assert stored_series(moved)[1] == {"seeds": [0, 1, 2], "folds": [0]}

    train_series(replace(config, out=str(moved), lr=0.5), seeds=[2], overwrite=True)
    assert [row["config"]["lr"] for row in read_lines(moved / "runs.jsonl")] == [0.5]
    assert stored_series(moved)[1] == {"seeds": [2], "folds": [0]}


def test_a_joined_series_is_resumed_as_one(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from plstm_graph.train import series

    ran: list[str] = []

    def fake(job: Any, say: Any) -> Any:
        ran.append(job.name)
        if job.config.seed == 1 and len(ran) < 4:
            raise ValueError("an accident")
        found = {
            "config_hash": "",
            "data_hash": "",
            "metric": "r2",
            "valid": {"r2": 0.5},
            "test": {"r2": float(job.config.seed)},
        }
        found |= dict.fromkeys(("best_epoch", "parameters", "minutes", "device", "commit", "versions", "command"), 1)
        Path(job.config.out).mkdir(parents=True)
        (Path(job.config.out) / SCORES).write_text(json.dumps(found))
        write_toml(job.config, Path(job.config.out) / "config.toml")
        return series._row(job, found)

    monkeypatch.setattr(series, "_run", fake)
    train_series(config, seeds=[0, 1])
    lines = Path(config.out) / "runs.jsonl"
    lines.unlink()  # as if it had been killed before the line of its first run
    found = train_series(config, seeds=[2], folds=[1])
    assert ran == ["seed-0", "seed-1", "fold-1_seed-2"]
    assert (found["runs"], found["test"]["r2"]["mean"]) == (2, 1.0)
    assert found["failed"] == {"seed-1": "ValueError: an accident"}
    found = train_series(config, seeds=[2], folds=[1], resume=True)
    assert ran[3:] == ["fold-1_seed-0", "seed-1", "fold-1_seed-1", "seed-2"]
    assert (found["runs"], found["failed"], found["seeds"], found["folds"]) == (6, {}, [0, 1, 2], [0, 1])
    assert len(read_lines(lines)) == 6


@pytest.mark.parametrize(
    ("text", "wanted"), [("0-2,7", [0, 1, 2, 7]), ("5", [5]), (" 3 , 1-1", [3, 1]), ("0-9", list(range(10)))]
)
def test_numbers(text: str, wanted: list[int]) -> None:
    assert numbers(text) == wanted


@pytest.mark.parametrize("text", ["", "a", "1,,2", "3-1", "1-", "-1", "1,0-2", "1.5"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--folds "):
        numbers(text, "folds")


def test_a_score_by_hand() -> None:
    found = score_runs([(42, 0.8), (42, 0.9), (43, 0.6), (43, 0.7), (44, 0.9), (44, 1.0)])
    assert found.mean == pytest.approx((0.85 + 0.65 + 0.95) / 3)
    assert found.deviation == pytest.approx(math.sqrt(0.10833333333 / 5))
    assert found.error == pytest.approx(found.deviation / math.sqrt(6))
    between = math.sqrt((0.0333333333**2 + 0.1666666667**2 + 0.1333333333**2) / 2 / 3)
    assert found.error_repeats == pytest.approx(between)
    assert (found.runs, found.repeats) == (6, 3)
    assert math.isnan(score_runs([(0, 0.5)]).error)


def test_lines_are_whole_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    assert read_lines(path) == []
    append_line(path, {"a": math.nan, "b": "é"})
    with path.open("a") as stream:
        stream.write('{"cut": ')
    append_line(path, {"a": 2})
    assert read_lines(path) == [{"a": None, "b": "é"}, {"a": 2}]
    assert "rows.jsonl, line 2 is cut short" in capsys.readouterr().err


# ---------------------------------------------------------------------- the command line


def test_the_command_line(tmp_path: Path, shared_data: Path) -> None:
    out = tmp_path / "mutag"
    words = ["--data", "MUTAG", "--root", shared_data, "--out", out, *SMALL, "--batch-size", 64]
    found = invoke(*words, "--folds", "0-1", "--seeds", "4,6")
    assert found.exit_code == 0, found.output
    names = [f"fold-{fold}_seed-{seed}" for seed in (4, 6) for fold in (0, 1)]
    done = re.findall(r"^\[(\d)/4\] (\S+): accuracy valid \S+ test \S+ \([^)]+\)$", found.stderr, re.MULTILINE)
    assert done == [(str(number), name) for number, name in enumerate(names, start=1)]
    rows = read_lines(out / "runs.jsonl")
    means = [sum(row["test"]["accuracy"] for row in rows if row["seed"] == seed) / 2 for seed in (4, 6)]
    deviation = torch.tensor([row["test"]["accuracy"] for row in rows], dtype=torch.float64).std()
    assert f"{sum(means) / 2:.4f} ± {float(deviation):.4f}" in found.stdout
    assert f"{abs(means[0] - means[1]) / 2:.4f}" in found.stdout  # standard error over two seeds
    assert f"{rows[0]['params']:,} parameters; " in found.stdout

    again = invoke("--resume", "--out", out, "--folds", "0-2")  # it remembers the rest
    assert again.exit_code == 0, again.output
    assert "4 of 6 runs are finished already" in again.stderr
    assert sorted(row["run"] for row in read_lines(out / "runs.jsonl"))[-2:] == ["fold-2_seed-4", "fold-2_seed-6"]


def test_failures_are_named_at_the_end(tmp_path: Path) -> None:
    data, out = write_csv(tmp_path / "small.csv"), tmp_path / "out"
    found = invoke("--data", data, "--targets", "y", "--out", out, *SMALL, "--folds", "0-1", "--split", "random")
    assert found.exit_code == 1
    assert "1 run, 1 failed" in found.stdout
    assert "±" not in found.stdout
    reason = "fold-1_seed-0: ConfigError: fold 1 was asked for, but the random split has no folds"
    assert f"failed: {reason}" in found.stderr
    assert f"plstm-graph train --resume --out {out}" in found.stdout
    assert list(json.loads((out / "summary.json").read_text())["failed"]) == ["fold-1_seed-0"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--seeds", "0-x"], "--seeds takes whole numbers and ranges"),
        (["--folds", "3-1"], "--folds must name each number once"),
        (["--seeds", "0-1", "--seed", "3"], "--seeds runs a series and --seed one run: give one of them"),
        (["--folds", "0-1", "--fold", "3"], "--folds runs a series and --fold one run"),
        (["--seeds", "0-1", "--devices", "2"], "have one device each"),
    ],
)
def test_wrong_options_are_one_line(words: list[str], text: str, tmp_path: Path) -> None:
    found = invoke(*words, "--out", tmp_path / "out")
    assert (found.exit_code, found.stderr.count("\n"), found.stdout) == (2, 1, "")
    assert text in found.stderr
    assert not (tmp_path / "out").exists()


def anyone(group: int) -> bool:
    """Whether a process of this group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_interrupted_it_stops_its_children_and_is_resumed(tmp_path: Path) -> None:
    data, out = write_csv(tmp_path / "small.csv"), tmp_path / "out"
    words = ["train", "--data", data, "--targets", "y", "--out", out, *SMALL, "--epochs", 12, "--seeds", "0-1"]
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from plstm_graph import cli; "
    command = [sys.executable, "-c", code + "cli.main()", *map(str, words), "--jobs", "2"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    begun = [out / f"seed-{seed}" / "checkpoints" / "last.ckpt" for seed in (0, 1)]
    until = time.monotonic() + 200
    while not any(path.exists() for path in begun) and run.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as Ctrl-C, it reaches all of them
    _, text = run.communicate(timeout=100)
    assert run.returncode == 130, text
    assert told(text).strip() == f"interrupted; resume with: plstm-graph train --resume --out {out}"
    while anyone(run.pid) and time.monotonic() < until:  # Python's own helper for semaphores goes last
        time.sleep(0.05)
    assert not anyone(run.pid)
    assert read_lines(out / "runs.jsonl") == []

    config, series = stored_series(out)
    train_series(config, **series | {"jobs": 1}, resume=True)  # without processes: they are tested above
    alone = tmp_path / "alone"
    train(replace(config, seed=1, devices="1", out=str(alone)))
    states = [read(folder)["state_dict"] for folder in (alone, out / "seed-1")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])

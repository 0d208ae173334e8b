"""A run goes on with the data and the split that it began with, or not at all; and it says how it is made anew."""

import gzip
import json
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from small_runs import contents, in_a_batch, invoke, small_config, write_csv
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.cli.options import command_of
from plstm_graph.data import load, ogbg, read_prepared, read_smiles, write_prepared
from plstm_graph.errors import CheckpointError, ConfigError, DataError, Diverged
from plstm_graph.io.json_csv import read_lines
from plstm_graph.train import TrainConfig, evaluate, predict, train, train_series
from plstm_graph.train.checkpoint import read
from plstm_graph.train.module import Learner
from plstm_graph.train.page import write_page

SMALL = ["--epochs", 3, "--batch-size", 8, "--accelerator", "cpu", "--width", 8, "--layers", 1, "--heads", 4]
SMALL += ["--rwse", 0, "--lr", 0.01, "--quiet"]


def interrupted(config: TrainConfig, batch: int = 8) -> None:
    """Train up to a batch of the second epoch."""
    with pytest.MonkeyPatch.context() as patch:
        in_a_batch(batch)(patch)
        with pytest.raises(KeyboardInterrupt):
            train(config)


# ---------------------------------------------------------------------- data that changed


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    return lambda text: "\n".join(change(text.splitlines())) + "\n"


CHANGES = {
    "rows appended": (lines(lambda rows: [*rows, *(f"{'C' * n}S,{n},0" for n in range(2, 12))]), "50 graphs, not 40"),
    "a row dropped": (lines(lambda rows: rows[:-1]), "39 graphs, not 40"),
    "a label changed": (
        lines(lambda rows: [*rows[:-1], rows[-1].replace(",", ",1", 1)]),
        "40 graphs with other content",
    ),
    "rows in another order": (lines(lambda rows: [rows[0], *rows[:0:-1]]), "40 graphs with other content"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("state", ["interrupted", "finished", "before the first epoch", "prepared", "forest"])
def test_changed_data_are_refused_before_anything_is_written(tmp_path: Path, state: str, change: str) -> None:
    data, out = write_csv(tmp_path / "my.csv"), tmp_path / "run"
    given: dict[str, Any] = {"data": data, "targets": "y"}
    if state == "prepared":
        write_prepared(tmp_path / "my.pt", load(str(data), targets=["y"]))
        given = {"data": tmp_path / "my.pt"}
    forest = {"model_model": "fingerprint", "model_trees": 3} if state == "forest" else {}
    config = small_config(**given, out=out, epochs=3, **forest)
    if state in ("finished", "forest"):
        train(config)
    else:
        interrupted(config, 2 if state == "before the first epoch" else 8)
    edit, told = CHANGES[change]
    data.write_text(edit(data.read_text()))
    if state == "prepared":
        write_prepared(tmp_path / "my.pt", load(str(data), targets=["y"]))
    before = contents(out)
    found = invoke("--resume", "--out", out)
    assert (found.exit_code, found.stdout) == (2, "")
    assert f"the run in {out} began with other data: {told} (data_hash " in found.stderr
    assert contents(out) == before


def test_a_split_that_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(data=write_csv(tmp_path / "my.csv"), targets="y", out=tmp_path / "run", epochs=3)
    interrupted(config)
    kept = json.loads((tmp_path / "run" / "start.json").read_text())
    whole = load(config.data, targets=["y"])
    assert kept["split"] == whole.split(seed=0)
    monkeypatch.setattr("plstm_graph.train.run.split_of", lambda config, dataset: dataset.split(seed=1))
    with pytest.raises(ConfigError, match=r"began with other data: \d+ of 40 graphs are in another part of the split"):
        train(config, resume=True)
    (tmp_path / "run" / "start.json").unlink()
    with pytest.raises(ConfigError, match=r"start.json does not tell with which data the run began"):
        train(config, resume=True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_series_is_of_one_data_set(tmp_path: Path, jobs: int) -> None:
    data, out = write_csv(tmp_path / "my.csv"), tmp_path / "series"
    config = small_config(data=data, targets="y", out=out, epochs=1)
    train_series(config, seeds=[0])
    before, old = contents(out), data.read_text()
    data.write_text(old + "CCCCCCCS,3,0\n")
    for how, seeds in (({"resume": True}, [0, 1]), ({}, [1])):
        with pytest.raises(ConfigError, match=r"series is of other data: 41 graphs with other content \(data_hash"):
            train_series(config, seeds=seeds, jobs=jobs, **how)
    assert contents(out) == before
    data.write_text(old)
    assert train_series(config, seeds=[1])["runs"] == 2
    assert len({row["data_hash"] for row in read_lines(out / "runs.jsonl")}) == 1


def test_data_that_change_while_a_series_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plstm_graph.train import series, shared

    data = write_csv(tmp_path / "my.csv")
    run = series._run

    def spy(job: Any, say: Any) -> Any:
        found = run(job, say)
        data.write_text(data.read_text() + "CCCCCCCS,3,0\n")
        shared.forget()  # as another process, which reads the file anew
        return found

    monkeypatch.setattr(series, "_run", spy)
    found = train_series(small_config(data=data, targets="y", out=tmp_path / "s", epochs=1), seeds=[0, 1])
    assert found["runs"] == 1
    assert "the data have changed since the series began" in found["failed"]["seed-1"]


# ---------------------------------------------------------------------- how it is made anew


def test_the_command_of_a_resumed_run_makes_it_from_nothing(tmp_path: Path) -> None:
    data, out = write_csv(tmp_path / "my data.csv"), tmp_path / "run"
    words = [
        "--data",
        data,
        "--targets",
        "y",
        "--out",
        out,
        *SMALL,
        "--no-edge-features",
        "--set",
        "model.head_layers=1",
    ]
    step, calls = Learner.training_step, [0]

    def stopped(self: Learner, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 8:
            raise KeyboardInterrupt
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "training_step", stopped)
        assert invoke(*words).exit_code == 130
    assert invoke("--resume", "--out", out).exit_code == 0
    first = json.loads((out / "metrics.json").read_text())
    assert "--resume" not in first["command"]
    program, verb, *again = shlex.split(first["command"])
    assert (program, verb) == ("plstm-graph", "train")
    assert again[-2:] == ["--out", str(out)]
    assert invoke(*again[:-1], tmp_path / "again", "--quiet").exit_code == 0
    second = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert second.pop("command") == first.pop("command").replace(str(out), str(tmp_path / "again"))
    assert {**first, "minutes": 0, "date": ""} == {**second, "minutes": 0, "date": ""}


def test_the_command_of_a_series_names_all_that_joined_it(tmp_path: Path) -> None:
    data, out = write_csv(tmp_path / "my.csv"), tmp_path / "series"
    words = ["--data", data, "--targets", "y", "--out", out, *SMALL, "--epochs", 1]
    for more in (["--seeds", "0-1"], ["--seeds", "3"], ["--resume"]):
        assert invoke(*(["--out", out, "--quiet"] if more == ["--resume"] else words), *more).exit_code == 0
        command = json.loads((out / "summary.json").read_text())["command"]
        assert "--resume" not in command
    assert command.endswith(f"--seeds 0,1,3 --folds 0 --out {out}")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"targets": ("a b", "c")},
        {"budget": "300k", "model_width": 72, "model_heads": 4},
        {"compile": True, "model_edge_features": False, "model_virtual_node": True, "split_seed": 3},
        {"model_virtual_node": False},
        {"model_model": "gine", "model_virtual_node": True, "model_heads": 8},
        {"model_model": "fingerprint", "model_trees": 7},
        {"data": "carry", "model_transition": "tanh", "weight_decay": 0.01},
        {"data": "digits", "model_model": "vit", "model_patch_size": 4},
        {"lr": 3e-4, "split": "scaffold", "metric": "mae", "model_order": "random", "root": "/a b"},
    ],
)
def test_a_command_says_all_that_differs_from_the_defaults(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TrainConfig] = []

    def caught(config: TrainConfig, **_: Any) -> None:
        asked.append(config)
        raise ConfigError("enough")

    monkeypatch.setattr("plstm_graph.train.run.train", caught)
    config = small_config(**values, out=tmp_path / "run")
    invoke(*shlex.split(command_of(config, {}))[2:])
    width = {"model_width": 64} if config.budget else {}
    assert asked == [small_config(**values | width, out=tmp_path / "run")]


def test_a_command_leaves_out_what_the_model_does_not_read(tmp_path: Path) -> None:
    """As a run has it that was made in Python, or by an earlier version: the command line would refuse it."""
    command = command_of(small_config(model_model="gine", model_modes="P", out=tmp_path / "run"), {})
    assert "--model gine" in command
    assert "--width 8" in command
    assert "--modes" not in command
    assert "--heads" not in command


# ---------------------------------------------------------------------- divergence


@pytest.mark.parametrize(("name", "place"), [("loss", "training_step"), ("valid_loss", "loss")])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_training_that_diverges_stops_there_and_keeps_what_was_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str, epoch: int
) -> None:
    data, out = write_csv(tmp_path / "my.csv"), tmp_path / "run"
    loss = Learner.loss

    def spoilt(self: Learner, *args: Any) -> Any:
        bad = self.training == (name == "loss") and self.trainer.current_epoch + 1 == epoch
        return loss(self, *args) * (float("nan") if bad else 1)

    monkeypatch.setattr(Learner, "loss", spoilt)
    found = invoke("--data", data, "--targets", "y", "--out", out, *SMALL)
    assert (found.exit_code, found.stdout) == (1, "")
    kept = "checkpoints are those of epoch 2" if epoch == 3 else "there is no checkpoint"
    assert found.stderr == f"error: the training diverged: {name} of epoch {epoch} is nan; {kept}; lower --lr\n"
    assert not (out / "metrics.json").exists()
    for checkpoint in ("best.ckpt", "last.ckpt"):
        path = out / "checkpoints" / checkpoint
        assert path.exists() == (epoch == 3)
        if path.exists():
            assert all(value.isfinite().all() for value in read(path)["state_dict"].values())


def test_a_learning_rate_that_is_far_too_high(tmp_path: Path) -> None:
    data, out = write_csv(tmp_path / "my.csv"), tmp_path / "run"
    words = ["--data", data, "--targets", "y", *SMALL, "--lr", "1e30", "--set", "model.norm=none"]
    found = invoke(*words, "--out", out)
    assert found.exit_code == 1
    assert found.stderr.startswith("error: the training diverged: ")
    with pytest.raises(Diverged):
        train(small_config(data=data, targets="y", lr=1e30, model_norm="none"))
    series = invoke(*words, "--seeds", "0-1", "--out", tmp_path / "series")
    assert series.exit_code == 1
    summary = json.loads((tmp_path / "series" / "summary.json").read_text())
    assert all("the training diverged" in reason for reason in summary["failed"].values())
    assert len(summary["failed"]) == 2


# ---------------------------------------------------------------------- paths, and checkpoints of later versions


def test_a_home_folder_is_found_in_every_path_of_a_python_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_csv(tmp_path / "my.csv")
    assert read_smiles("~/my.csv")[0] == "CNc1ccccc1"
    data = load("~/my.csv", targets=["y"])
    write_prepared("~/my.pt", data)
    assert len(read_prepared("~/my.pt").graphs) == 40
    train(small_config(data="~/my.pt", out="~/run", epochs=1))
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert evaluate("~/run", "~/my.csv", targets=("y",))["graphs"]
    predict("~/run", ["CCO"]).write("~/p.csv")
    assert write_page(["~/run"], "~/page.html")
    assert {"p.csv", "page.html", "my.pt"} <= {path.name for path in tmp_path.iterdir()}
    assert not any("~" in path.name for path in Path.cwd().iterdir())


@pytest.mark.parametrize("place", ["meta", "config", "model"])
def test_a_checkpoint_of_a_later_version_is_called_so(tmp_path: Path, place: str) -> None:
    train(small_config(data=write_csv(tmp_path / "my.csv"), targets="y", out=tmp_path / "run", epochs=1))
    content = read(tmp_path / "run")
    meta = content["plstm_graph"]
    {"meta": meta, "config": meta["config"], "model": meta["config"]["model"]}[place]["warp"] = 9
    torch.save(content, tmp_path / "new.ckpt")
    name = "model.warp" if place == "model" else "warp"
    with pytest.raises(CheckpointError, match=rf"written by a newer plstm-graph than this one .* it has {name}, which"):
        predict(tmp_path / "new.ckpt", ["CCO"])


def test_what_unfolds_beyond_memory_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my.csv.gz"
    path.write_bytes(gzip.compress(b"smiles,y\n" + b"C,1\n" * 300_000))
    monkeypatch.setattr("plstm_graph.data.source.free_memory", lambda: 8 * 10**6)
    with pytest.raises(DataError, match=r"my.csv.gz unfolds to more than 0.0 GB, for which this machine has no memory"):
        load(str(path), targets=["y"])
    (tmp_path / "edge.csv.gz").write_bytes(gzip.compress(b"0,1\n" * 300_000))
    with pytest.raises(DataError, match=r"edge.csv.gz unfolds to more than 0.0 GB"):
        ogbg._table(tmp_path / "edge.csv.gz", int)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("SET_A.txt", "1,1\n" * 300_000)
    with pytest.raises(DataError, match=r"SET_A.txt unfolds to more than 0.0 GB"):
        load(str(tmp_path / "set.zip"))
    table = pandas.DataFrame({"smiles": ["C"] * 100_000, "y": 1.0})
    table.to_parquet(tmp_path / "equal.parquet")
    table[:3000].to_excel(tmp_path / "book.xlsx")
    with pytest.raises(DataError, match=r"equal.parquet unfolds to more than 0.0 GB"):
        load(str(tmp_path / "equal.parquet"), targets=["y"])
    with monkeypatch.context() as narrow:
        narrow.setattr("plstm_graph.data.source.free_memory", lambda: 8 * 10**5)
        with pytest.raises(DataError, match=r"book.xlsx unfolds to more than 0.0 GB"):
            load(str(tmp_path / "book.xlsx"), targets=["y"])
    (tmp_path / "long.csv").write_bytes(b"smiles,y\n" + b"C,1\n" * 2_100_000)
    with pytest.raises(DataError, match=r"long.csv has 0.0 GB, more than this machine has free memory for; split it"):
        load(str(tmp_path / "long.csv"), targets=["y"])
    write_prepared(tmp_path / "my.pt", load(str(write_csv(tmp_path / "my.csv")), targets=["y"]))
    content = torch.load(tmp_path / "my.pt", weights_only=True)
    content["attributes"]["x"]["codes"] = torch.zeros(1, dtype=torch.uint8).expand(10**13)
    torch.save(content, tmp_path / "big.pt")
    assert (tmp_path / "big.pt").stat().st_size < 10**6
    with pytest.raises(DataError, match=r"big.pt unfolds to \d+\.\d GB, more than this machine has free memory for"):
        load(str(tmp_path / "big.pt"))
    with (
        zipfile.ZipFile(tmp_path / "my.pt") as plain,
        zipfile.ZipFile(tmp_path / "dense.pt", "w", zipfile.ZIP_DEFLATED) as dense,
    ):
        for name in plain.namelist():
            dense.writestr(name, plain.read(name))
    with pytest.raises(DataError, match="not data prepared by plstm-graph"):
        load(str(tmp_path / "dense.pt"))


def test_what_there_is_no_memory_for_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("plstm_graph.train.inference.molecules.read_rows", full)
    monkeypatch.setattr("plstm_graph.train.folders.check_checkpoint", lambda path: None)
    (tmp_path / "some.smi").write_text("C\n")
    words = ["predict", "--checkpoint", "r", "--input", str(tmp_path / "some.smi"), "--out", str(tmp_path / "out.csv")]
    found = CliRunner().invoke(app, words)
    assert (found.exit_code, found.stderr) == (
        1,
        "error: this machine has no memory for that; give less data, or a smaller --batch-size\n",
    )

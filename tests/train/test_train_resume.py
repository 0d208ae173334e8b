"""A run that was interrupted, wherever and however, ends as one that was not: bit for bit."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import in_a_batch, small_config, small_dataset, told, write_csv

from plstm_graph.data.dataset import GraphDataset
from plstm_graph.errors import CheckpointError, ConfigError, TimeUp
from plstm_graph.train import callbacks, train
from plstm_graph.train.callbacks import Keeper
from plstm_graph.train.checkpoint import read
from plstm_graph.train.module import Learner
from plstm_graph.train.results import stored_config

EPOCHS = 6


def artefacts(out: Path) -> dict[str, Any]:
    """Everything that must not depend on an interruption."""
    found = json.loads((out / "metrics.json").read_text())
    found.pop("minutes"), found.pop("date")
    found.pop("command")
    states = {name: read(out / "checkpoints" / name) for name in ("best.ckpt", "last.ckpt")}
    for state in states.values():
        state["plstm_graph"]["config"].pop("out")
        for callback in state.get("callbacks", {}).values():
            callback.pop("seconds", None)
    with (out / "metrics.csv").open() as stream:
        return {"metrics": found, "history": list(csv.DictReader(stream)), "states": states}


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["metrics"] == second["metrics"]
    assert first["history"] == second["history"]
    assert [row["epoch"] for row in first["history"]] == [str(epoch) for epoch in range(first["metrics"]["epochs"])]
    differing = list(differences(first["states"], second["states"]))
    assert not differing, differing


def differences(first: Any, second: Any, place: str = "") -> Iterator[str]:
    """Where two checkpoints differ, by a bit or more: weights, optimiser, schedule, loops, history."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        for key, value in first.items():
            yield from differences(value, second[key], f"{place}/{key}")
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from differences(one, other, f"{place}/{number}")
    elif torch.is_tensor(first) and torch.is_tensor(second):
        if first.dtype != second.dtype or not torch.equal(first, second):
            yield place
    elif first != second:
        yield f"{place}: {first!r} and {second!r}"


@pytest.fixture
def dataset(tmp_path: Path) -> GraphDataset:
    return small_dataset(tmp_path)


Interruption = Callable[[pytest.MonkeyPatch], None]


def between_best_and_last(number: int) -> Interruption:
    def arm(patch: pytest.MonkeyPatch) -> None:
        keep, calls = Keeper._keep, [0]

        def interrupted(self: Keeper, *args: Any) -> None:
            keep(self, *args)
            calls[0] += 1
            if calls[0] == number:
                raise KeyboardInterrupt

        patch.setattr(Keeper, "_keep", interrupted)

    return arm


def between_history_and_last(number: int) -> Interruption:
    def arm(patch: pytest.MonkeyPatch) -> None:
        write, calls = callbacks.write_rows, [0]

        def interrupted(*args: Any, **how: Any) -> None:
            write(*args, **how)
            calls[0] += 1
            if calls[0] == number:
                raise KeyboardInterrupt

        patch.setattr(callbacks, "write_rows", interrupted)

    return arm


def in_the_report(patch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    patch.setattr("plstm_graph.train.run.report", interrupted)


def averaged(patience: int) -> float | None:
    return 0.9 if patience else None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """By patience: what a run leaves; one has a moving average of the weights."""
    folder, found = tmp_path_factory.mktemp("undisturbed"), {}
    for patience in (0, 2):
        out = folder / f"{patience}"
        config = small_config(out=out, epochs=EPOCHS, patience=patience, ema=averaged(patience), model_norm="batch")
        train(config, small_dataset(folder))
        found[patience] = artefacts(out)
    return found


@pytest.mark.parametrize("patience", [0, 2])
@pytest.mark.parametrize(
    "interruption",
    [in_a_batch(2), in_a_batch(11), between_best_and_last(1), between_history_and_last(2), in_the_report],
    ids=["first epoch", "third epoch", "first best", "row without checkpoint", "after the last epoch"],
)
def test_interrupted_anywhere(
    tmp_path: Path, dataset: GraphDataset, undisturbed: Any, interruption: Interruption, patience: int
) -> None:
    cut = small_config(
        out=tmp_path / "cut", epochs=EPOCHS, patience=patience, ema=averaged(patience), model_norm="batch"
    )
    with pytest.MonkeyPatch.context() as patch:
        interruption(patch)
        with pytest.raises(KeyboardInterrupt):
            train(cut, dataset)
    assert not (tmp_path / "cut" / "metrics.json").exists()
    train(cut, dataset, resume=True)
    assert_same(undisturbed[patience], artefacts(tmp_path / "cut"))


def test_what_is_drawn_in_every_epoch_is_drawn_again(tmp_path: Path, dataset: GraphDataset) -> None:
    """Random orientations and signs of eigenvectors follow from seed and epoch; a budget gives the same width."""
    options = {"epochs": EPOCHS, "model_order": "random", "model_lap_pe": 2, "budget": "9k"}
    whole, cut = (small_config(out=tmp_path / name, **options) for name in ("whole", "cut"))
    train(whole, dataset)
    with pytest.MonkeyPatch.context() as patch:
        in_a_batch(11)(patch)
        with pytest.raises(KeyboardInterrupt):
            train(cut, dataset)
    train(cut, dataset, resume=True)
    assert_same(artefacts(tmp_path / "whole"), artefacts(tmp_path / "cut"))
    stored = stored_config(tmp_path / "cut").model
    assert (stored.width, stored.heads) == (18, 2)


def test_orientations_differ_from_epoch_to_epoch(dataset: GraphDataset) -> None:
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        step = Learner.training_step
        patch.setattr(Learner, "training_step", lambda self, *a: seen.append(self.model.orientation) or step(self, *a))
        train(small_config(epochs=3, model_order="random"), dataset)
    assert len(set(seen)) == 3


def test_minutes_end_a_run_after_an_epoch(tmp_path: Path, dataset: GraphDataset) -> None:
    """Too few for two epochs: each call trains one."""
    whole, cut = (small_config(out=tmp_path / name, epochs=3) for name in ("whole", "cut"))
    train(whole, dataset)
    for epoch in (1, 2):
        with pytest.raises(TimeUp, match=f"0.0001 minutes are over after epoch {epoch} of 3, which is stored"):
            train(cut, dataset, minutes=1e-4, resume=epoch > 1)
    train(cut, dataset, minutes=1e-4, resume=True)
    assert_same(artefacts(tmp_path / "whole"), artefacts(tmp_path / "cut"))
    for config in (small_config(), small_config(out=tmp_path / "more", ensemble=2)):
        with pytest.raises(ConfigError, match="minutes are for the run of one network with an output folder"):
            train(config, dataset, minutes=1.0)


def test_interrupted_twice(tmp_path: Path, dataset: GraphDataset) -> None:
    """In double precision, so that no bit of the weights may be lost."""
    options = {"epochs": EPOCHS, "precision": "64-true"}
    whole, cut = (small_config(out=tmp_path / name, **options) for name in ("whole", "cut"))
    train(whole, dataset)
    for number, resume in ((7, False), (6, True)):
        with pytest.MonkeyPatch.context() as patch:
            in_a_batch(number)(patch)
            with pytest.raises(KeyboardInterrupt):
                train(cut, dataset, resume=resume)
    train(cut, dataset, resume=True)
    assert_same(artefacts(tmp_path / "whole"), artefacts(tmp_path / "cut"))


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, dataset: GraphDataset) -> None:
    config = small_config(out=tmp_path / "run")
    train(config, dataset)
    before = artefacts(tmp_path / "run")
    train(config, dataset, resume=True)
    assert_same(before, artefacts(tmp_path / "run"))


SCRIPT = """
import os, signal, sys, threading, time
import torch
from plstm_graph.cli import main
from plstm_graph.train.module import Learner
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite run in the background hands down SIGINT ignored
step, calls = Learner.training_step, [0]
def strike():  # as a key that is held down
    for _ in range(20):
        os.kill(os.getpid(), int(os.environ["STRIKE"]))
        time.sleep(0.003)
def struck(self, *args):
    calls[0] += 1
    if calls[0] == 14:
        threading.Thread(target=strike).start()
        time.sleep(60)
    return step(self, *args)
Learner.training_step = struck
main()
"""


def test_a_process_that_is_struck_down(tmp_path: Path) -> None:
    """By SIGTERM. SIGINT meets a series in test_train_series.py, SIGKILL runs in tests/benchmarks/test_reliability.py,
    and both SIGINT and SIGTERM a command that does not train in tests/cli."""
    data, out = write_csv(tmp_path / "small.csv"), tmp_path / "cut"
    words = ["train", "--data", data, "--targets", "y", "--out", out, "--epochs", EPOCHS, "--batch-size", 8, "--quiet"]
    words += ["--width", 8, "--layers", 1, "--heads", 4, "--rwse", 0, "--accelerator", "cpu", "--lr", 0.01]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "STRIKE": str(int(signal.SIGTERM))}
    run = [sys.executable, "-c", SCRIPT, *map(str, words)]
    struck = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert struck.returncode == 130
    assert told(struck.stderr).strip() == f"interrupted; resume with: plstm-graph train --resume --out {out}"
    assert not (out / "metrics.json").exists()

    config = stored_config(out)
    train(replace(config, out=str(out)), resume=True)
    train(replace(config, out=str(tmp_path / "whole")))
    assert_same(artefacts(tmp_path / "whole"), artefacts(out))


def test_other_options_are_named(tmp_path: Path, dataset: GraphDataset) -> None:
    train(small_config(out=tmp_path / "run"), dataset)
    with pytest.raises(ConfigError, match=r"has other options: epochs is 4, not 9; model\.width is 8, not 16; "):
        train(small_config(out=tmp_path / "run", epochs=9, model_width=16), dataset, resume=True)


def test_nothing_to_resume(tmp_path: Path, dataset: GraphDataset) -> None:
    with pytest.raises(ConfigError, match=r"nothing to resume in .*leave out --resume"):
        train(small_config(out=tmp_path / "run"), dataset, resume=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="need an output folder"):
        train(small_config(), dataset, resume=True)


def test_a_truncated_checkpoint_is_not_trained_over(tmp_path: Path, dataset: GraphDataset) -> None:
    train(small_config(out=tmp_path / "run"), dataset)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"last.ckpt is truncated"):
        train(small_config(out=tmp_path / "run"), dataset, resume=True)
    assert last.stat().st_size == 1000


def test_weights_alone_are_not_gone_on_from(tmp_path: Path, dataset: GraphDataset) -> None:
    train(small_config(out=tmp_path / "run"), dataset)
    folder = tmp_path / "run" / "checkpoints"
    (folder / "last.ckpt").write_bytes((folder / "best.ckpt").read_bytes())
    with pytest.raises(CheckpointError, match=r"last.ckpt has no .*: training can only go on from a run's last.ckpt"):
        train(small_config(out=tmp_path / "run"), dataset, resume=True)

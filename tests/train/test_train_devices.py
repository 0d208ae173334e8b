"""Two devices train as one with batches twice as large, and every number is that of the whole data."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from plstm_graph.train.checkpoint import read

Found = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case of on_devices.py on one device and on two."""
    folder = tmp_path_factory.mktemp("devices")
    here = Path(__file__).parent
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(here.parent), environment.get("PYTHONPATH", "")])
    words = [sys.executable, str(here / "on_devices.py"), str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def both(folder: Path, case: str) -> Found:
    one, two = (json.loads((folder / f"{case}.{devices}.json").read_text()) for devices in (1, 2))
    return one, two


@pytest.mark.parametrize("case", ["gaps", "odd", "last", "recorded"])
def test_two_devices_train_as_one_with_twice_the_batch(folder: Path, case: str) -> None:
    """Also where labels are missing unevenly, and where the training split does not divide by the devices."""
    one, two = both(folder, case)
    assert len(one["losses"]) == len(two["losses"]) >= 6
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-6)
    states = [read(folder / f"{devices}" / case / "checkpoints" / "last.ckpt")["state_dict"] for devices in (1, 2)]
    for name, weights in states[0].items():
        assert torch.allclose(weights, states[1][name], atol=1e-5), name


@pytest.mark.parametrize("case", ["gaps", "odd", "last", "recorded"])
def test_metrics_count_every_graph_once(folder: Path, case: str) -> None:
    one, two = both(folder, case)
    assert one["found"]["graphs"] == two["found"]["graphs"]
    for part in ("train", "valid", "test", "test_last_epoch"):
        assert two["found"][part] == pytest.approx(one["found"][part], rel=1e-4, abs=1e-4, nan_ok=True), part
    history = [(folder / f"{devices}" / case / "metrics.csv").read_text().splitlines() for devices in (1, 2)]
    assert history[0][0] == history[1][0]
    for first, second in zip(history[0][1:], history[1][1:], strict=True):
        numbers = [[float(cell) for cell in line.split(",")] for line in (first, second)]
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-4, abs=1e-5)


def test_devices_with_statistics_of_their_own_agree_on_the_best_epoch(folder: Path) -> None:
    """BatchNorm sees only its device's graphs, so devices differ; the run ends all the same, on all of them."""
    _, two = both(folder, "batch")
    assert two["found"]["epochs"] >= 1
    assert (folder / "2" / "batch" / "metrics.json").exists()


def test_processes_stop_in_the_same_step_when_one_is_told_to(folder: Path) -> None:
    """The question goes round without a wait: asked before the fourth step, answered before the fifth."""
    assert [json.loads((folder / f"stopped.{rank}.json").read_text()) for rank in (0, 1)] == [3, 3]
    assert (folder / "stopped" / "checkpoints").is_dir()


def test_processes_stop_after_the_last_step_when_one_is_told_to_as_it_is_validated(folder: Path) -> None:
    """No later step answers: asked once more, all stop with every epoch stored and nothing scored."""
    steps = [json.loads((folder / f"late.{rank}.json").read_text()) for rank in (0, 1)]
    assert steps[0] == steps[1]
    assert read(folder / "late" / "checkpoints" / "last.ckpt")["epoch"] == 1
    assert not (folder / "late" / "metrics.json").exists()

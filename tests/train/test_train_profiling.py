"""Where the time of a run goes is said, and adds up."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_runs import small_config, write_csv
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.errors import ConfigError
from plstm_graph.train import train
from plstm_graph.train.module import Learner
from plstm_graph.train.profiling import Phases

SMALL = ["--epochs", 2, "--batch-size", 8, "--accelerator", "cpu", "--width", 8, "--layers", 1, "--heads", 4]


def test_time_counts_where_it_is_spent(tmp_path: Path, monkeypatch: Any) -> None:
    """Steps that sleep are the forward pass, a slow validation is validation; together they are the whole."""
    steps = {"training_step": 0.05, "validation_step": 0.02}
    for name, seconds in steps.items():
        slow = getattr(Learner, name)
        monkeypatch.setattr(
            Learner, name, lambda *words, _slow=slow, _s=seconds, **more: (time.sleep(_s), _slow(*words, **more))[1]
        )
    phases = Phases(age=2.0)
    train(small_config(data=write_csv(tmp_path / "a.csv"), targets="y", epochs=2), profiler=phases)
    found = phases.seconds()
    assert 8 * 0.05 <= found["forward, or a whole step"] < 8 * 0.05 + 1  # 32 molecules in batches of 8, twice
    assert found["validation"] >= 2 * 0.02
    assert found["start: interpreter, imports"] == 2.0
    phases_of_all = ("data: reading, molecules", "featurising: encodings, packing", "network, trainer", "backward")
    assert all(found[name] > 0 for name in phases_of_all)
    assert found["optimiser, clipping"] < found["forward, or a whole step"]
    assert sum(found.values()) == pytest.approx(phases.total, abs=0.05)


def test_the_command_says_it_last(tmp_path: Path) -> None:
    words = ["train", "--data", write_csv(tmp_path / "a.csv"), "--targets", "y", *SMALL, "--out", tmp_path / "run"]
    found = CliRunner().invoke(app, [*map(str, words), "--profile"])
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1].startswith("all ")
    text = (tmp_path / "run" / "profile.txt").read_text()
    assert "where the time went:" in text
    assert "[Strategy]SingleDeviceStrategy.backward" in text
    refused = CliRunner().invoke(app, [*map(str, words), "--overwrite", "--profile", "--seeds", "0,1"])
    assert refused.exit_code == 2
    assert "--profile is for one run" in refused.output
    with pytest.raises(ConfigError, match="of one network"):
        train(small_config(ensemble=2), profiler=Phases())


def test_a_process_knows_its_age() -> None:
    """Also of what came before its first line."""
    script = "import time; time.sleep(0.2); from plstm_graph.io.started import process_age; print(process_age())"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    whole = time.perf_counter() - began
    if Path("/proc/self/stat").exists():
        assert 0.2 < float(done.stdout) < whole + 0.02

"""The benchmark of several devices: its arithmetic, and a row of each kind in the table."""

import json
from pathlib import Path
from typing import Any

import devices
import pytest
import records
from tables import devices_table

from plstm_graph.train import TrainConfig


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Devices and batch size of every run; n devices take 1.25 / n seconds an epoch, and the first one longer."""
    seen: list[tuple[int, int]] = []

    def trained(config: TrainConfig, n: int, resume: bool = False) -> dict[str, Any]:
        seen.append((n, config.batch_size))
        alone = n == 1
        seconds = [9.0, *[1.0 if alone else 1.25 / n] * 3]
        return {"seconds": seconds, "losses": [[1.0, 2.0], [0.5, 1.0 if alone else 1.25]], "graphs": {"train": 100}}

    monkeypatch.setattr(devices, "trained", trained)
    return seen


def row(folder: Path, *words: str) -> dict[str, Any]:
    assert devices.main([*words, "--results", str(folder), "--commit", "abc"]) == 0
    return records.read(folder / devices.RESULTS)[-1]


def test_a_curve_has_the_same_batches_whatever_the_devices(tmp_path: Path, runs: list[tuple[int, int]]) -> None:
    found = row(tmp_path, "curve", "--devices", "2", "4", "--batch-size", "64")
    assert runs == [(1, 64), (2, 32), (4, 16)]
    assert found["apart"] == {"2": 0.25, "4": 0.25}
    table = devices_table([found | records.provenance()])
    assert table.count("losses of 2 epochs at most 2e-01 from those of one") == 2


def test_throughput_leaves_out_the_first_epoch(
    tmp_path: Path, runs: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "provenance", lambda *_: {"machine": {}, "versions": {}, "commit": "abc"})
    asked, right = list[Any](), devices.trained
    monkeypatch.setattr(devices, "trained", lambda config, n: asked.append(config.capture) or right(config, n))
    found = row(tmp_path, "throughput", "--devices", "2", "4", "--batch-size", "32")
    assert asked == [False] * 3, "several devices go kernel by kernel, so one has to"
    assert runs == [(1, 32), (2, 32), (4, 32)]
    assert [case["per_second"] for case in found["cases"]] == [100, 160, 320]
    assert [case["efficiency"] for case in found["cases"]] == [1, 0.8, 0.8]
    assert json.dumps(found)

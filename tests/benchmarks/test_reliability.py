"""The benchmarks of runs that are killed and that meet, on a few; and that they can find fault."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import records
import reliability
import torch

SCRIPT = """
import sys
import reliability
ended = [reliability.main(["--results", sys.argv[1], *words.split()]) for words in sys.argv[2:]]
sys.exit(any(ended))
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What two runs of the program leave, in a process that forks their trainings and trains nothing itself."""
    folder = tmp_path_factory.mktemp("rows")
    line = [sys.executable, "-c", SCRIPT, str(folder), "together --times 1", "kill --times 1 --seed 1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        line,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=Path(reliability.__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    return {row["what"]: row for row in records.read(folder / "reliability.jsonl")}


def test_two_runs_in_one_folder_do_not_mix(rows: dict[str, dict[str, Any]]) -> None:
    row = rows["together"]
    assert sum(row["wins"]) == row["pairs"] == 1


def test_kills_end_in_the_same_bits(rows: dict[str, dict[str, Any]]) -> None:
    row = rows["kill"]
    assert row["kills"] == row["runs"] == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", b'{"metric": '),
        ("config.toml", b"data = "),
        ("metrics.csv", b"epoch,loss\n0,1\n1"),
        ("metrics.csv", b"epoch,loss\n0,1\n0,1\n"),
        ("metrics.csv", b"epoch,loss\n0,1\n2,1\n"),
        ("curves.png", b"\x89PNG"),
        ("checkpoints/last.ckpt", b"PK"),
    ],
)
def test_half_a_file_is_found(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(reliability.Different, match=f"{Path(name).name} is half-written"):
        reliability.check_whole(tmp_path)


def test_one_bit_is_a_difference() -> None:
    first, second = ({"a": [1.0, torch.tensor([1.0, 2.0])], "b": b"x"} for _ in range(2))
    assert list(reliability.differences(first, second)) == []
    second["a"][1][0] += 1e-7
    assert list(reliability.differences(first, second)) == ["/a/1"]
    assert list(reliability.differences(first, {"a": [1.0]})) == [""]


def test_fuzz_adds_up_the_cases_of_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(words: list[str], env: dict[str, str], **options: object) -> subprocess.CompletedProcess[str]:
        lines = [json.dumps({"test_a": 3}), json.dumps({"test_a": 2, "test_b": int(env["FUZZ_CASES"])})]
        Path(env["FUZZ_COUNTS"]).write_text("\n".join(lines))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(reliability.subprocess, "run", ran)
    assert reliability.fuzz(7, 2, tmp_path) == {"cases": 12, "by_test": {"test_a": 5, "test_b": 7}}

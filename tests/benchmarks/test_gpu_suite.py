"""The run of the tests on a GPU: what is counted and recorded."""

import subprocess
import sys

import gpu_suite
import pytest
import records
import torch

TESTS = """
import pytest

def test_good(): pass
def test_bad(): assert False
@pytest.mark.skip
def test_skipped(): pass
@pytest.mark.xfail
def test_known(): assert False
@pytest.fixture
def broken():
    yield
    raise ValueError
def test_falls_over_at_the_end(broken): pass
"""


def test_counts_are_recorded(tmp_path):
    tests, out = tmp_path / "test_some.py", tmp_path / "suite.jsonl"
    tests.write_text(TESTS)
    words = [str(tests), "--no-gpu", "--out", str(out), "--commit", "abc", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, str(records.ROOT / "benchmarks" / "gpu_suite.py"), *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    (row,) = records.read(out)
    assert (row["passed"], row["failed"], row["skipped"], row["exit"]) == (1, 2, 2, 1)
    assert {"date", "machine", "versions", "commit", "seconds", "command"} <= set(row)
    assert "1 passed, 2 failed, 2 skipped" in done.stdout
    assert "FAILED test_some.py::test_bad: " in done.stdout


def test_what_was_run_until_it_was_stopped_is_recorded(tmp_path):
    tests, out = tmp_path / "test_some.py", tmp_path / "suite.jsonl"
    stop = "import os, signal, time\n\ndef test_slow():\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)\n"
    tests.write_text("def test_good(): pass\n" + stop)
    words = [str(tests), "--no-gpu", "--out", str(out), "--commit", "abc", "-p", "no:cacheprovider"]
    subprocess.run(
        [sys.executable, str(records.ROOT / "benchmarks" / "gpu_suite.py"), *words],
        cwd=tmp_path,
        timeout=50,
        check=False,
    )
    (row,) = records.read(out)
    assert (row["passed"], row["failed"], row["note"]) == (1, 0, "stopped before its end")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_run(tmp_path, capsys):
    assert gpu_suite.main(["--out", str(tmp_path / "rows.jsonl")]) == 1
    assert "no GPU" in capsys.readouterr().err
    assert not (tmp_path / "rows.jsonl").exists()

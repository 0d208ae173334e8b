"""Runs side by side: who takes which run, what is stored, and what a second call finds."""

import os
import signal
import time
from dataclasses import replace

import pytest
import records
import side_by_side
from plan import Job, read_plan, stored
from side_by_side import CPU, GPU, Staff, sized
from small_runs import small_config, write_csv

from plstm_graph.data import load, write_prepared

CONFIG = """
[data]
name = "small.pt"
seeds = [0]
[train]
epochs = 1
batch_size = 8
model.width = 8
model.layers = 1
model.heads = 4
model.rwse = 0
[[set]]
name = "first"
data = "small.pt"
[[set]]
name = "second"
data = "other.pt"
[[entry]]
name = "plain"
[[entry]]
name = "described"
descriptors = ["morgan"]
sets = ["second"]
"""


def job(name, seed, **values):
    return Job(name, small_config(seed=seed, **values))


def test_the_gpu_takes_the_largest_and_a_core_the_smallest_of_the_first_seed():
    jobs = [(job("a", 0), 10.0), (job("b", 0), 30.0), (job("c", 0, model_local="gcn"), 90.0), (job("d", 1), 1.0)]
    staff = Staff(list(jobs))
    assert staff.next(GPU, 1e9)[0].entry == "b"  # c cannot be captured
    assert staff.next(CPU, 1e9)[0].entry == "a"
    assert staff.next(CPU, 1e9)[0].entry == "c"
    assert staff.next(CPU, 1e9)[0].entry == "d"
    assert staff.next(CPU, 1e9) is None


def test_none_begins_that_would_not_end_in_time():
    staff = Staff([(job("a", 0), 100.0), (job("b", 0), 1000.0)])
    for seconds in (1.0, 1.0, 50.0):  # the last one had to compile
        staff.ended(CPU, job("a", 1), 10.0, seconds)
    assert staff.next(CPU, 10.0) is None
    assert staff.next(CPU, 13.0)[0].entry == "a"
    assert staff.next(CPU, 13.0) is None


def test_a_run_is_taken_to_need_what_others_of_its_model_have_needed():
    slow = job("slow", 0, model_model="dagnn")
    staff = Staff([(slow, 100.0), (job("quick", 0), 100.0), (job("new", 1, model_model="gcn"), 100.0)])
    staff.ended(CPU, slow, 10.0, 10.0)
    for _ in range(2):
        staff.ended(CPU, job("quick", 1), 10.0, 1.0)
    assert staff.next(CPU, 20.0)[0].entry == "quick"
    assert staff.next(CPU, 20.0)[0].entry == "new"  # as the median of all
    assert staff.next(CPU, 20.0) is None
    assert staff.next(CPU, 120.0)[0].entry == "slow"


def test_cores_leave_to_a_gpu_what_it_can_do():
    jobs = [(job("a", 0), 10.0), (job("c", 0, model_local="gcn"), 90.0), (job("d", 1), 1.0)]
    staff = Staff(list(jobs), gpu=True)
    assert [staff.next(CPU, 1e9)[0].entry for _ in jobs] == ["c", "a", "d"]


def test_a_run_is_as_large_as_what_it_trains_on(tmp_path):
    data = load(str(write_csv(tmp_path / "small.csv", count=24)), targets=["y"])
    write_prepared(tmp_path / "small.pt", data)
    config = small_config(data=str(tmp_path / "small.pt"), split="random", targets=(), epochs=3)
    assert sized([Job("a", config)])[0][1] == 3 * 20


def test_rows_are_those_of_a_leaderboard_and_a_second_call_has_nothing_to_do(tmp_path, capsys):
    data = load(str(write_csv(tmp_path / "small.csv", count=24)), targets=["y"])
    for name in ("small.pt", "other.pt"):
        write_prepared(tmp_path / name, replace(data, name=name), descriptors=["morgan"])
    (tmp_path / "few.toml").write_text(CONFIG)
    plan = read_plan(tmp_path / "few.toml")
    assert plan.entries == ["first: plain", "second: plain", "second: described"]
    arguments = [str(tmp_path / "few.toml"), "--root", str(tmp_path), "--results", str(tmp_path), "--commit", "abc"]
    assert side_by_side.main(arguments) == 0
    assert len(stored(plan, tmp_path / "few.jsonl")) == 3
    rows = records.read(tmp_path / "few.jsonl")
    assert all(row["config"]["accelerator"] == "auto" and "root" not in row["config"] for row in rows)
    assert {row["config"]["data"] for row in rows} == {"small.pt", "other.pt"}
    assert "3 new rows, 0 runs failed" in capsys.readouterr().out
    assert side_by_side.main([*arguments, "--only", "plain"]) == 0
    assert "2 runs, 2 done, 0 to do" in capsys.readouterr().out


def test_told_to_stop_it_stops_its_workers(tmp_path, monkeypatch):
    """As by Ctrl-C: what is under way is lost, and nobody is left behind."""
    (tmp_path / "few.toml").write_text(CONFIG)
    monkeypatch.setattr(side_by_side, "sized", lambda jobs: [])
    monkeypatch.setattr(side_by_side, "run_all", lambda *_: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(9)))
    with pytest.raises(KeyboardInterrupt):
        side_by_side.main([str(tmp_path / "few.toml"), "--root", str(tmp_path), "--results", str(tmp_path)])

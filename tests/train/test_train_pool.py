"""Child processes: they take jobs in turns, fail alone and stop together."""

import os
import signal

import pytest
import torch
from workers import Work, act

from plstm_graph.train.pool import Failure, Status, gpu_turn, outcomes, terminable


def test_children_take_jobs_in_turns_and_one_that_fails_or_dies_costs_its_run_alone() -> None:
    ends = ["row", "error", "killed", "bad option", "row", "row"]
    jobs = [Work(number, end) for number, end in enumerate(ends)]
    seen: list[tuple[int, Status]] = []
    found = dict(outcomes(jobs, act, workers=2, watch=lambda job, status: seen.append((job.number, status))))
    rows = [found[job] for job in jobs if job.end == "row"]
    assert [row["number"] for row in rows] == [0, 4, 5]
    assert all(row["process"] != os.getpid() for row in rows)
    threads = max(1, torch.get_num_threads() // 2)
    assert {row["threads"] for row in rows} == {(str(threads), threads)}
    failures = {job.end: found[job] for job in jobs if job.end != "row"}
    assert failures["error"].reason == "ValueError: number 1 is wrong"
    assert "in act" in failures["error"].trace
    assert not failures["error"].foreseen
    assert failures["bad option"].foreseen
    assert failures["killed"].reason.startswith("its process was ended by SIGKILL; is there enough memory")
    assert sorted(seen) == [(job.number, Status(1, 2, f"half of {job.number}")) for job in jobs]


def test_threads_are_shared_by_what_runs() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(16)
    try:
        found = list(outcomes([Work(0), Work(1)], act, workers=8))
    finally:
        torch.set_num_threads(before)
    assert [row["threads"] for _, row in found] == 2 * [("8", 8)]


def test_one_worker_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    found = list(outcomes([Work(0), Work(1, "error"), Work(2)], act))
    assert [found[number][1]["process"] for number in (0, 2)] == 2 * [os.getpid()]
    assert isinstance(found[1][1], Failure)


def test_several_gpus_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert [gpu_turn(number)["CUDA_VISIBLE_DEVICES"] for number in range(4)] == ["0", "1", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,GPU-ab")
    assert [gpu_turn(number)["CUDA_VISIBLE_DEVICES"] for number in range(4)] == ["5", "7", "GPU-ab", "5"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert gpu_turn(0) == {}


def test_sigterm_is_an_interruption() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before

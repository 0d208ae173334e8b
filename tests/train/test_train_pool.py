"""Child processes: they take jobs in turns, fail alone and stop together."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import told
from workers import Work, act, spoiled, unspoiled

from plstm_graph.train import forking
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


@pytest.mark.parametrize("work", ["holds", "in a callback"])
def test_children_that_are_stopped_at_work_end_in_order(work: str) -> None:
    """They leave no semaphore; and what interrupts a callback of C, where Python loses it, comes again."""
    script = (
        "from workers import Work, act\n"
        "from plstm_graph.train.pool import outcomes\n"
        "held = set()\n"
        "def watch(job, status):\n"
        "    if status.epoch == 2:\n"
        "        held.add(job.number)\n"
        "    if len(held) == 2:\n"
        "        raise KeyboardInterrupt\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        f"        list(outcomes([Work(0, '{work}'), Work(1, '{work}')], act, workers=2, watch=watch))\n"
        "    except KeyboardInterrupt:\n"
        "        print('stopped')\n"
    )
    tests = str(Path(__file__).parents[1])
    known = os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    how = {"capture_output": True, "text": True, "timeout": 100, "check": False, "env": known}
    found = subprocess.run([sys.executable, "-c", script], **how)
    assert (found.stdout, told(found.stderr)) == ("stopped\n", "")


def test_threads_are_shared_by_what_runs() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(16)
    try:
        found = list(outcomes([Work(0), Work(1)], act, workers=8))
    finally:
        torch.set_num_threads(before)
    assert [row["threads"] for _, row in found] == 2 * [("8", 8)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere children start anew")
def test_children_share_one_import_and_know_their_parents_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLSTM_GRAPH_TOLD", "since the server began")
    found = [row for _, row in outcomes([Work(0, "told"), Work(1, "told")], act, workers=2)]
    servers = {row["parent"] for row in found}
    assert len(servers) == 1
    assert os.getpid() not in servers
    assert {row["told"] for row in found} == {"since the server began"}
    again = [row["parent"] for _, row in outcomes([Work(0, "told"), Work(1, "told")], act, workers=2)]
    assert set(again) == servers


def test_the_server_imports_all_of_a_training_and_asks_for_no_gpu() -> None:
    """What once asked CUDA for anything could not be forked any more; nor could loops that once ran."""
    script = (
        "import sys, threading, torch\n"
        "def asked(*_, **__): raise AssertionError('asks for a GPU')\n"
        "for name in ('is_available', 'device_count', 'init', '_lazy_init', 'current_device'):\n"
        "    setattr(torch.cuda, name, asked)\n"
        "whole, torch._C._show_config = torch.__config__.show(), asked  # what CUDA is asked for versions\n"
        "import plstm_graph.train.preloaded\n"
        "from torch_geometric.typing import NO_MKL\n"
        "assert NO_MKL == ('USE_MKL=OFF' in whole)\n"
        "from plstm_graph.io.lazy import is_put_off\n"
        "assert is_put_off('scipy.signal') and not torch.cuda._initialized and threading.active_count() == 1\n"
        "assert {'pytorch_lightning', 'plstm_graph.train.run', 'numba', 'sklearn.metrics'} <= {*sys.modules}\n"
        "print('all of it', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "all of it", done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_children_can_use_cuda_though_they_share_an_import() -> None:
    found = [row for _, row in outcomes([Work(0, "cuda"), Work(1, "cuda")], act, workers=2)]
    assert [row["on_gpu"] for row in found] == [3.0, 3.0]
    assert {row["parent"] for row in found}.isdisjoint({os.getpid()}), "the server of forks is of no use"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere children start anew")
def test_children_start_anew_where_those_of_the_server_could_not_use_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    forking._is_of_use.cache_clear()
    monkeypatch.setattr(forking, "cuda_there", lambda: True)
    monkeypatch.setattr(forking, "_tell", spoiled)
    assert forking.context().get_start_method() == "spawn"
    forking._is_of_use.cache_clear()
    monkeypatch.setattr(forking, "_tell", unspoiled)
    assert forking.context().get_start_method() == "forkserver"
    forking._is_of_use.cache_clear()


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

"""One owner of a folder at a time, whatever becomes of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from small_runs import small_config, small_dataset

from plstm_graph.errors import ConfigError
from plstm_graph.train import owner as module
from plstm_graph.train import train, train_series
from plstm_graph.train.owner import HEIR, OWNER, Owner, Process, owned

ELSEWHERE = replace(Process.this(), host="elsewhere", machine="elsewhere", token="0" * 16)
DEAD = replace(Process.this(), born="1", token="1" * 16)


def leave(folder: Path, process: Process | None, age: float = 0, name: str = OWNER) -> None:
    """An owner file as a process leaves it, touched so many seconds ago."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(asdict(process)) if process else "")
    os.utime(folder / name, (time.time() - age,) * 2)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_second_is_told_who_is_the_first(tmp_path: Path) -> None:
    with owned(tmp_path / "a" / "run") as owner:
        assert names(tmp_path / "a" / "run") == [OWNER]
        with pytest.raises(ConfigError, match=rf"run is in use: process {os.getpid()} on .*; wait for it or stop it"):
            owned(tmp_path / "a" / "run").__enter__()
        owner.check()
        with owned(tmp_path / "other"):
            pass
    assert names(tmp_path) == []
    with owned(tmp_path / "run"):
        (tmp_path / "run" / "result").write_text("kept")
    assert names(tmp_path / "run") == ["result"]


@pytest.mark.parametrize(
    ("process", "age"),
    [
        (DEAD, 0),
        (replace(DEAD, pid=2**22 + 1), 0),
        (ELSEWHERE, module.DEAD_S + 5),
        (None, module.DEAD_S + 5),
    ],
    ids=["number used again", "no such process", "silent elsewhere", "killed before it wrote its name"],
)
def test_a_dead_owner_is_succeeded(tmp_path: Path, process: Process | None, age: float) -> None:
    leave(tmp_path, process, age)
    with owned(tmp_path) as owner:
        assert json.loads((tmp_path / OWNER).read_text()) == asdict(owner.process)
        assert names(tmp_path) == [OWNER]
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("process", "age", "message"),
    [
        (
            ELSEWHERE,
            20,
            r"process \d+ on elsewhere .* was seen 20 s ago \(if it is dead, the folder is free in 2[78]\d s",
        ),
        (replace(Process.this(), token="2" * 16), 10**6, "has had it since"),  # stopped for days, but alive
        (None, 0, "other processes come and go"),
    ],
)
def test_an_owner_that_may_live_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: Process | None, age: float, message: str
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    leave(tmp_path, process, age)
    before = (tmp_path / OWNER).read_text()
    with pytest.raises(ConfigError, match=message):
        owned(tmp_path).__enter__()
    assert (tmp_path / OWNER).read_text() == before
    assert names(tmp_path) == [OWNER]


def test_an_heir_that_died_has_an_heir_and_one_that_lives_is_told_of(tmp_path: Path) -> None:
    second = replace(DEAD, token="3" * 16)
    leave(tmp_path, DEAD)
    leave(tmp_path, second, name=HEIR + DEAD.token)
    with owned(tmp_path):
        assert names(tmp_path) == [OWNER]
    leave(tmp_path, DEAD)
    leave(tmp_path, replace(Process.this(), token="4" * 16), name=HEIR + DEAD.token)
    with pytest.raises(ConfigError, match="in use: process"):
        owned(tmp_path).__enter__()


def test_a_late_heir_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saw the dead owner, but by the time it has its heir's file another one is the owner."""
    leave(tmp_path, DEAD)
    seen, read = [], module._read

    def slow(path: Path) -> Process | None:
        found = read(path)
        if found == DEAD and not seen:
            seen.append(path)
            leave(tmp_path, ELSEWHERE)  # who has come and removed what it needed for it
        return found

    monkeypatch.setattr(module, "_read", slow)
    with pytest.raises(ConfigError, match="on elsewhere"):
        owned(tmp_path).__enter__()
    assert names(tmp_path) == [OWNER]
    assert read(tmp_path / OWNER) == ELSEWHERE


@pytest.mark.parametrize("process", [None, DEAD])
def test_of_many_that_start_together_one_wins(tmp_path: Path, process: Process | None) -> None:
    for turn in range(20):
        folder, wins, told = tmp_path / str(turn), [], []
        if process:
            leave(folder, process)
        start, end = threading.Barrier(8), threading.Barrier(8)

        def contend(folder: Path = folder, wins: list = wins, told: list = told, start=start, end=end) -> None:
            start.wait()
            try:
                with owned(folder) as owner:
                    wins.append(owner)
                    end.wait(30)
            except ConfigError as error:
                told.append(str(error))
                end.wait(30)

        threads = [threading.Thread(target=contend) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert (len(wins), len(told)) == (1, 7), told
        assert all("in use" in text for text in told)


def test_an_owner_is_heard_of_and_notices_a_successor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    with owned(tmp_path) as owner:
        os.utime(tmp_path / OWNER, (0, 0))
        until = time.monotonic() + 30
        while (tmp_path / OWNER).stat().st_mtime < 10 and time.monotonic() < until:
            time.sleep(0.01)
        assert (tmp_path / OWNER).stat().st_mtime > 10
        leave(tmp_path, ELSEWHERE)
        with pytest.raises(
            ConfigError, match=r"is no longer the folder of this run: process \d+ on elsewhere took it over"
        ):
            owner.check()
        (tmp_path / OWNER).unlink()
        with pytest.raises(ConfigError, match="was removed"):
            owner.check()
        leave(tmp_path, ELSEWHERE)
    assert names(tmp_path) == [OWNER]  # it is not its own to remove


def test_a_process_that_was_killed_leaves_the_folder_free(tmp_path: Path) -> None:
    program = "import sys, time; from plstm_graph.train.owner import owned\nwith owned(sys.argv[1]):\n"
    program += "    print(flush=True); time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        with pytest.raises(ConfigError, match=f"process {child.pid} on"):
            owned(tmp_path).__enter__()
        child.send_signal(signal.SIGKILL)
        while Process(**json.loads((tmp_path / OWNER).read_text())).lives():
            time.sleep(0.01)
        with owned(tmp_path):  # though nobody has waited for the dead one yet
            pass
    assert names(tmp_path) == []


def test_runs_and_series_own_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, config = small_dataset(tmp_path), small_config(out=tmp_path / "run", epochs=1)
    train(config, dataset)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with owned(tmp_path / "run"):
        for how in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(ConfigError, match="in use: process"):
                train(config, dataset, **how)
            with pytest.raises(ConfigError, match="in use: process"):
                train_series(config, **how)
        with pytest.raises(ConfigError, match="in use: process"):
            train(small_config(out=tmp_path / "run", epochs=1, model_model="fingerprint"), dataset, overwrite=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_run_that_lost_its_folder_writes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, config, check = small_dataset(tmp_path), small_config(out=tmp_path / "run"), Owner.check
    calls = []

    def lost(self: Owner) -> None:
        calls.append(self)
        if len(calls) == 3:
            leave(self.folder, ELSEWHERE)
        check(self)

    monkeypatch.setattr(Owner, "check", lost)
    with pytest.raises(ConfigError, match="took it over"):
        train(config, dataset)
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 1 + 2
    assert not (tmp_path / "run" / "metrics.json").exists()

"""Work that says how far it is."""

import sys
import time

import pytest

from plstm_graph.data.molecules import read_molecules
from plstm_graph.io import waiting
from plstm_graph.io.waiting import named, tracked, watched
from plstm_graph.train.progress import WaitingBar, lasted, left, shown


def test_nobody_watches_unless_asked() -> None:
    assert list(tracked([1, 2, 3], "counting")) == [1, 2, 3]


def test_work_has_a_name_and_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "EVERY_S", 0.0)
    seen: list[tuple[str, int, int]] = []
    with watched(lambda *said: seen.append(said)):
        read_molecules(["CCO", "C1CC", "CC"])
        work = tracked(range(5), "counting")
        next(work)
        work.close()
    read_molecules(["CCO", "CC"])  # nobody watches any more
    assert {what for what, *_ in seen} == {"reading 3 molecules", "counting"}
    assert [done for what, done, _ in seen if what.startswith("reading")] == [0, 1, 2, 3]
    assert seen[-1] == ("counting", 5, 5)  # no bar is left when work breaks off


def test_without_a_terminal_there_are_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("plstm_graph.train.progress.EVERY_S", 0.0)
    bar = WaitingBar()
    bar("scoring 9 graphs", 1, 9)
    time.sleep(0.01)
    bar("scoring 9 graphs", 4, 9)
    bar("scoring 9 graphs", 9, 9)
    assert capsys.readouterr().err == "scoring 9 graphs: 4 of 9\n"


@pytest.mark.parametrize(("done", "total"), [(1, 3), (0, 0)])
def test_on_a_terminal_there_is_a_bar_that_goes(done: int, total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plstm_graph.train.progress.PATIENCE_S", 0.01)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = WaitingBar()
    bar("reading", done, total)
    until = time.monotonic() + 10
    while not bar._progress and time.monotonic() < until:  # though nothing more is said
        time.sleep(0.01)
    assert bar._progress.tasks[0].description == "reading"
    if total:
        bar("reading", 2, 3)
        assert bar._progress.tasks[0].completed == 2
    bar("reading", max(1, total), max(1, total))
    assert bar._progress is bar._timer is None


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("plstm_graph.train.progress.EVERY_S", 0.05)
    with shown(), named("packing 3 graphs"):
        pass
    with shown(False), named("packing 5 graphs"):
        time.sleep(0.1)
    with shown(), named("packing 9 graphs"):
        time.sleep(0.2)
    assert capsys.readouterr().err == "packing 9 graphs\n"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((10, 0, 4), ""),
        ((10, 1, 4), "30 s left"),
        ((100, 1, 4), "5 min left"),
        ((9000, 1, 3), "5.0 h left"),
        ((9, 3, 3), ""),
    ],
)
def test_how_long_is_left(numbers: tuple[float, int, int], text: str) -> None:
    assert left(*numbers) == text


def test_how_long_it_took() -> None:
    assert [lasted(minutes) for minutes in (0.034, 0.5, 2.24)] == ["2 s", "30 s", "2.2 min"]

"""Bars for what is not training: reading, preparing, scoring; and how long is left."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from plstm_graph.io.waiting import watched

PATIENCE_S, EVERY_S = 1.0, 10.0
"""A bar appears after so long on a terminal; elsewhere there is a line so often."""


def progress_console() -> Any:
    """A rich console on stderr that leaves room at the end of a line for ``^C``.

    A terminal that breaks the line there would show the last state of a progress bar twice.
    """
    from rich.console import Console, ConsoleDimensions

    class Narrower(Console):
        @property  # type: ignore[misc]  # nobody sets it
        def size(self) -> ConsoleDimensions:
            width, height = super().size
            return ConsoleDimensions(max(1, width - 3), height)

    return Narrower(stderr=True)


class WaitingBar:
    """A watch for :func:`plstm_graph.io.waiting.watched`: a bar on stderr with what is done, gone once it is.

    A timer of its own shows the bar in time, as work of one piece says nothing between its ends.
    """

    def __init__(self) -> None:
        self._what, self._done, self._total, self._said = "", 0, 0, 0.0
        self._progress: Any = None
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()

    def __call__(self, what: str, done: int, total: int) -> None:
        with self._lock:
            if new := what != self._what:
                self._begin(what)
            self._done, self._total = done, total
            if done >= total > 0:
                self.close()
            elif self._progress:
                self._progress.update(self._task, completed=done, total=total or None)
            elif not new and not sys.stderr.isatty() and time.monotonic() - self._said > EVERY_S:
                self._say()

    def close(self) -> None:
        """No bar is left behind."""
        with self._lock:
            if self._timer:
                self._timer.cancel()
            if self._progress:
                self._progress.stop()
            self._what, self._progress, self._timer = "", None, None

    def _begin(self, what: str) -> None:
        self.close()
        self._what, self._said = what, time.monotonic()
        self._timer = threading.Timer(PATIENCE_S if sys.stderr.isatty() else EVERY_S, self._appear, [what])
        self._timer.daemon = True
        self._timer.start()

    def _appear(self, what: str) -> None:
        with self._lock:
            if what != self._what:  # it ended meanwhile
                return
            if sys.stderr.isatty():
                self._show()
            elif not self._total:
                self._say()

    def _show(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        clock = TimeRemainingColumn(compact=True) if self._total else TimeElapsedColumn()
        columns = (TextColumn("{task.description}"), BarColumn(20), clock)
        self._progress = Progress(*columns, console=progress_console(), transient=True)
        self._task = self._progress.add_task(self._what, total=self._total or None, completed=self._done)
        self._progress.start()

    def _say(self) -> None:
        self._said = time.monotonic()
        far = f": {self._done:,} of {self._total:,}" if self._total else ""
        print(f"{self._what}{far}", file=sys.stderr, flush=True)


@contextmanager
def shown(wanted: bool = True) -> Iterator[None]:
    """Waits of what runs meanwhile are shown on stderr, if ``wanted``."""
    bar = WaitingBar()
    try:
        with watched(bar) if wanted else nullcontext():
            yield
    finally:
        bar.close()


def left(elapsed: float, done: int, total: int) -> str:
    """How long the rest takes if it goes on so: ``40 s left``, ``12 min left``; nothing before the first is done."""
    if not 0 < done < total:
        return ""
    seconds = elapsed / done * (total - done)
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h left"


def lasted(minutes: float) -> str:
    """How long something took: ``40 s``, ``2.2 min``."""
    return f"{60 * minutes:.0f} s" if minutes < 1 else f"{minutes:.1f} min"

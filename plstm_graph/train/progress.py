"""Bars for what is not training: reading, preparing, scoring; and how long is left."""

import sys
import time
from typing import Any

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


class Waiting:
    """A watch for :func:`plstm_graph.io.waiting.watched`: a bar on stderr with what is done, gone once it is."""

    def __init__(self) -> None:
        self._what, self._since, self._said = "", 0.0, 0.0
        self._progress: Any = None

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self.close()
            self._what, self._since, self._said = what, now, now
        if done >= total:
            self.close()
        elif sys.stderr.isatty():
            self._show(done, total, now)
        elif now - self._said > EVERY_S:
            self._said = now
            print(f"{what}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """No bar is left behind."""
        if self._progress:
            self._progress.stop()
        self._what, self._progress = "", None

    def _show(self, done: int, total: int, now: float) -> None:
        if self._progress is None:
            if now - self._since < PATIENCE_S:
                return
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(20), TimeRemainingColumn(compact=True))
            self._progress = Progress(*columns, console=progress_console(), transient=True)
            self._task = self._progress.add_task(self._what, total=total, completed=done)
            self._progress.start()
        self._progress.update(self._task, completed=done)


def left(elapsed: float, done: int, total: int) -> str:
    """How long the rest takes if it goes on so: ``40 s left``, ``12 min left``; nothing before the first is done."""
    if not 0 < done < total:
        return ""
    seconds = elapsed / done * (total - done)
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h left"

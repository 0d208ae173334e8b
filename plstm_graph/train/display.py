"""A series on the screen: how far its runs are, and the table of what came of them."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from plstm_graph.errors import rounded
from plstm_graph.io.json_csv import nan_for_none
from plstm_graph.train.pool import Failure, Row, Status
from plstm_graph.train.progress import lasted, left, progress_console

EVERY_S = 30.0
"""Between two lines on a run where there is no terminal."""


class Named(Protocol):
    """A run."""

    @property
    def name(self) -> str: ...


def summary_table(summary: Mapping[str, Any]) -> Any:
    """A rich table: a metric a row, mean ± unbiased standard deviation over the runs."""
    from rich.table import Table

    runs, failed = summary["runs"], summary["failed"]
    heads = ("metric", "valid", "test", "s.e. over seeds")
    title = f"{runs} run{'' if runs == 1 else 's'}" + (f", {len(failed)} failed" if failed else "")
    table = Table(*heads, title=title, title_justify="left", box=None, pad_edge=False)
    if runs:
        for name, test in summary["test"].items():
            cells = (_plus_minus(part) for part in (summary["valid"][name], test))
            between = rounded(test["error_repeats"], beside=test["mean"]) if test["repeats"] > 1 else "-"
            table.add_row(name + (" (chosen by)" if name == summary["metric"] else ""), *cells, between)
        size = f"{summary['parameters']:,} parameters; " if summary["parameters"] else ""
        words = f"± is the unbiased standard deviation over {runs} runs, s.e. the standard error of the mean over seeds"
        trained = f"{size}{lasted(summary['minutes'] / runs)} of training a run"
        table.caption = f"{words}\n{trained}" if runs > 1 else trained
        table.caption_justify = "left"
    return table


def _plus_minus(part: Mapping[str, float]) -> str:
    mean, deviation = part["mean"], part["deviation"]
    return rounded(mean) + (f" ± {rounded(deviation, beside=mean)}" if deviation == deviation else "")


def ending(row: Row | Failure) -> str:
    """How a run of a series ended."""
    if isinstance(row, Failure):
        return failed_because(row)
    valid, test = (nan_for_none(row[part][row["metric"]]) for part in ("valid", "test"))
    return f"{row['metric']} valid {rounded(valid)} test {rounded(test)} ({lasted(row['minutes'])})"


def failed_because(failure: Failure) -> str:
    """Why there is no row; with the traceback, where nobody foresaw it."""
    return f"failed: {failure.reason}" + ("" if failure.foreseen else f"\n{failure.trace}".rstrip())


class Display:
    """On stderr: a bar for each run that is under way and one for all; without a terminal, lines now and then."""

    def __init__(self, total: int, done: int, what: str = "runs") -> None:
        self.total, self.done, self.what = total, done, what
        self._before, self._since = done, time.monotonic()
        self._begun: dict[str, float] = {}
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> "Display":
        if self.done:
            self._print(f"{self.done} of {self.total} {self.what} are finished already")
        if sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[text]}"))
            self._progress = Progress(*columns, console=progress_console())
            self._all = self._progress.add_task(f"all {self.what}", total=self.total, completed=self.done, text="")
            self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._progress:
            self._progress.stop()

    def watch(self, job: Named, status: Status) -> None:
        """How far a run is."""
        epoch, epochs, text = status
        if not epoch or job.name not in self._begun:  # what comes before the first epoch foretells none
            self._begun[job.name] = time.monotonic()
        if self._progress:
            if job.name not in self._tasks:
                self._tasks[job.name] = self._progress.add_task(job.name, total=epochs, text="")
            rest = left(time.monotonic() - self._begun[job.name], epoch, epochs)
            self._progress.update(self._tasks[job.name], completed=epoch, total=epochs, text=f"{rest}  {text}")
        elif time.monotonic() - self._said.setdefault(job.name, time.monotonic()) > EVERY_S:
            self._said[job.name] = time.monotonic()
            self._print(f"{job.name}: epoch {epoch}/{epochs}  {text}")

    def end(self, job: Named, text: str) -> None:
        """How a run ended, in words."""
        self.done += 1
        if self._progress:
            if job.name in self._tasks:
                self._progress.remove_task(self._tasks.pop(job.name))
            rest = left(time.monotonic() - self._since, self.done - self._before, self.total - self._before)
            self._progress.update(self._all, completed=self.done, text=rest)
        self._print(f"[{self.done}/{self.total}] {job.name}: {text}")

    def _print(self, text: str) -> None:
        if self._progress:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

"""What a page compares: trainings, each of one run or of many that differ in seed, split and fold alone."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np

from plstm_graph.errors import count
from plstm_graph.io.json_csv import read_json
from plstm_graph.train import results
from plstm_graph.train.analysis import Score, same_graphs, score_runs
from plstm_graph.train.folders import members_of
from plstm_graph.train.page.parts import ranges
from plstm_graph.train.record import UNLIKE, PartPredictions, Record, read_run


@dataclass(frozen=True)
class Entry:
    """A training with all its runs.

    Attributes:
        name: short.
        runs: finished or not, of one setting.
        path: of the series; None for runs that were given one by one.
        failed: reasons, by the name of the run.
        command: of the whole.
    """

    name: str
    runs: list[Record]
    path: Path | None = None
    failed: tuple[str, ...] = ()
    command: str = ""

    @property
    def finished(self) -> list[Record]:
        return [run for run in self.runs if run.metrics]

    @property
    def several(self) -> bool:
        return len(self.finished) > 1

    def metrics(self) -> list[dict[str, Any]]:
        """Of the runs that are finished."""
        return [run.metrics for run in self.runs if run.metrics]

    def score(self, part: str, metric: str) -> Score | None:
        """Over the runs in which it is defined; None where there is none."""
        found = ((int(each.get("seed") or 0), each[part].get(metric)) for each in self.metrics())
        known = [(seed, float(value)) for seed, value in found if value is not None]
        return score_runs(known) if known else None

    @property
    def repeats(self) -> str:
        """``10 folds``, ``3 seeds``, ``10 folds with 3 seeds each``."""
        runs = self.finished or self.runs
        folds, seeds = (sorted({int(run.options.get(key) or 0) for run in runs}) for key in ("fold", "seed"))
        if len(folds) > 1 and len(seeds) > 1:
            return f"{count(len(folds), 'fold')} with {count(len(seeds), 'seed')} each"
        if len(folds) > 1:
            return count(len(folds), "fold")
        return count(len(seeds), "seed") if len(seeds) == len(runs) else count(len(runs), "run")

    def options(self) -> dict[str, Any]:
        """Of all its runs; those in which they differ as a text such as ``0-9``."""
        found = {key: value for key, value in self.runs[0].options.items() if key != "out"}
        for key in UNLIKE:
            values = {run.options[key] for run in self.runs if key in run.options}
            if key in found and len(values) > 1:
                whole = all(isinstance(value, int) for value in values)
                found[key] = ranges(sorted(values)) if whole else ", ".join(sorted(map(str, values)))
        return found

    def tests(self) -> list[tuple[Record, PartPredictions]]:
        """Finished runs that left predictions for the test part."""
        return [(run, run.predictions["test"]) for run in self.finished if "test" in run.predictions]

    def notes(self) -> Iterator[str]:
        """What is missing, and how to go on."""
        missing = [run for run in self.runs if not run.metrics]
        if not self.path or not (missing or self.failed):
            return
        names = ", ".join([*(f"{run.name} is not finished" for run in missing), *self.failed])
        yield (
            f"Series {self.name}: {names}. Numbers are of the other {len(self.finished)}. Go on with: "
            f"plstm-graph train --resume --out {shlex.quote(str(self.path))}"
        )


def entries(folders: Sequence[Path]) -> list[Entry]:
    """The trainings in folders of runs and series. Runs given one by one that share a setting are one training.

    Raises:
        ConfigError: a folder holds no run.
        DataError: a file of a run is damaged.
    """
    found: list[Entry] = []
    single: dict[tuple[tuple[str, str], ...], list[Record]] = {}
    for folder in folders:
        if (folder / results.SERIES).is_file():
            found.append(_series(folder))
            continue
        record = read_run(folder)
        mates = single.setdefault(record.setting, [])
        mates.append(record)
        if len(mates) == 1:
            found.append(Entry("", mates))
    return _named(found)


def _series(folder: Path) -> Entry:
    asked = members_of(folder)
    there = map(read_run, sorted(place.parent for place in folder.glob(f"*/{results.CONFIG}")))
    runs = [run for run in there if asked is None or _fold_and_seed(run) in asked] or [read_run(folder)]
    records = sorted(runs, key=lambda run: _fold_and_seed(run)[::-1])
    path = folder / results.SUMMARY
    summary = read_json(path) if path.is_file() else {}
    finished = {run.name for run in records if run.metrics}
    failed = (f"{name} failed ({why})" for name, why in summary.get("failed", {}).items() if name not in finished)
    return Entry(folder.resolve().name, records, folder, tuple(failed), str(summary.get("command") or ""))


def _fold_and_seed(run: Record) -> tuple[int, int]:
    return int(run.options.get("fold") or 0), int(run.options.get("seed") or 0)


def _named(found: list[Entry]) -> list[Entry]:
    """Names that are short and tell the entries apart."""
    names = [_short(entry) for entry in found]
    parts = 2
    while len(set(names)) < len(names) and parts < 9:  # of the paths, as much as it takes
        paths = [(entry.path or entry.runs[0].path).resolve() for entry in found]
        names = ["/".join(path.parts[-parts:]) for path in paths]
        parts += 1
    return [Entry(name, e.runs, e.path, e.failed, e.command) for name, e in zip(names, found, strict=True)]


def _short(entry: Entry) -> str:
    names = [run.name for run in entry.runs]
    if entry.path or len(names) == 1:
        return entry.name or names[0]
    shared = commonprefix(names).rstrip("-_. ")  # noqa: RUF071
    return shared if len(shared) > 2 else f"{names[0]} and {len(names) - 1} more"


def matched(first: Entry, second: Entry) -> list[tuple[Record, Record]]:
    """Pairs of runs on the same test graphs, of the same seed where there is one; each run at most once."""
    left, pairs = second.tests(), []
    for run, test in first.tests():
        mates = [k for k, (_, other) in enumerate(left) if same_graphs([test, other])]
        seeds = [k for k in mates if left[k][0].options.get("seed") == run.options.get("seed")]
        if mates:
            pairs.append((run, left.pop((seeds or mates)[0])[0]))
    return pairs


def test_share(entry: Entry) -> float:
    """Test graphs over training graphs."""
    return float(np.mean([m["graphs"]["test"] / max(1, m["graphs"]["train"]) for m in entry.metrics()]))

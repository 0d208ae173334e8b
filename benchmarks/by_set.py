"""One table for several data sets: a network a row, a set a column."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from plan import Plan
from tables import table


class Score(NamedTuple):
    """What a network reached on a set with one seed; rivals that tell no validation have none."""

    who: str
    on: str
    metric: str
    valid: float | None
    test: float


def scores_of(plan: Plan, rows: dict[str, dict[str, Any]]) -> list[Score]:
    """Scores of the runs of a plan that are done, in its order."""
    found = []
    for job in plan.jobs:
        if row := rows.get(job.key):
            name, _, entry = job.entry.partition(": ")
            metric = row["metric"]
            found.append(Score(entry, name, metric, row["valid"][metric], row["test"][metric]))
    return found


def sets_table(title: str, sets: Iterable[str], scores: list[Score], seeds: int) -> str:
    """Markdown: mean of validation and, ± its unbiased deviation over seeds, of test; fewer seeds than ``seeds`` are
    counted in brackets."""
    found: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        found[score.who, score.on].append(score)
    metrics = {score.on: score.metric for score in scores}
    sets = [name for name in sets if name in metrics]
    heads = ["valid / test", *(f"{name}, {metrics[name]}" for name in sets)]
    lines = [heads, ["---", *["---:"] * len(sets)]]
    lines += [
        [who, *(_cell(found.get((who, name), []), seeds) for name in sets)]
        for who in dict.fromkeys(score.who for score in scores)
    ]
    return title + "\n\n" + table(lines)


def _cell(scores: list[Score], seeds: int) -> str:
    if not scores:
        return "-"
    known = [score.valid for score in scores if score.valid is not None]
    tests = [score.test for score in scores]
    text = f"{statistics.fmean(known):.3f}" if len(known) == len(tests) else "-"
    text += f" / {statistics.fmean(tests):.3f}"
    text += f" ± {statistics.stdev(tests):.3f}" if len(tests) > 1 else ""
    return text + (f" ({len(tests)})" if len(tests) < seeds else "")

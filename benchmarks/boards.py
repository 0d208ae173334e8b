"""Markdown tables of configs: leaderboards, several sets side by side, several sizes of image."""

import statistics
from collections.abc import Sequence
from typing import Any

from by_set import Score, scores_of, sets_table
from plan import Plan
from scipy import stats
from tables import Row, made_by, table

from plstm_graph.tasks.classes import Binary
from plstm_graph.train.analysis import score_runs


def board(plan: Plan, rows: dict[str, Row]) -> str:
    """The table of a config: of one whose sets have metrics of their own, a set a column; of one with neither sets nor
    several targets, whose runs are scored on further data, those side by side."""
    if plan.sets and len({row["metric"] for row in rows.values()}) > 1:
        return sets_board(plan, rows)
    sizes = not plan.sets and not any(map(_by_target, rows.values())) and any(job.config.also for job in plan.jobs)
    return (sizes_table if sizes else leaderboard_table)(plan, rows)


def sets_board(plan: Plan, rows: dict[str, Row], more: Sequence[Row] = ()) -> str:
    """Markdown: a set a column.

    Args:
        plan: of several sets.
        rows: of its runs, by key.
        more: rows of ``rivals.py``, which follow.
    """
    scores = scores_of(plan, rows)
    scores += [Score(row["rival"], row["set"], row["metric"], row.get("valid"), row["test"]) for row in more]
    seeds = len({job.config.seed for job in plan.jobs})
    note = "mean over seeds, ± the unbiased standard deviation; in brackets how many seeds, where they are fewer"
    table = sets_table(f"{plan.title} ({note})", plan.sets, scores, seeds)
    where = made_by([*rows.values(), *more]) if scores else "No runs yet."
    rivals = sorted({f"chemprop {row['versions']['chemprop']}" for row in more if "chemprop" in row["versions"]})
    return "\n\n".join([table, *rivals, where])


def leaderboard_table(plan: Plan, rows: dict[str, Row]) -> str:
    """Markdown: an entry a row, in the order of the config; runs that are missing are counted, not filled in, and
    entries without any are named below. What is scored on further data is so on one set more, of each set its own; of
    several targets each has a column for each of the data, where a mean over their units would say little."""
    metrics = sorted({row["metric"] for row in rows.values()})
    several = [scores for row in rows.values() for scores in _by_target(row).items()]
    scored = dict.fromkeys(part for _, scores in several for part in scores if part != "valid")
    targets = [(part, target) for part in scored for target in dict.fromkeys(target for target, _ in several)]
    columns = [f"{part}, {target}" for part, target in targets]
    columns += ["further test"] * any("also" in row and "by_target" not in row for row in rows.values())
    heads = ["model", "parameters", "valid", "test", *columns, "std", "s.e. over repeats", "runs", "min/run"]
    lines, missing = [heads, ["---"] + ["---:"] * (len(heads) - 1)], []
    for entry in plan.entries:
        jobs = [job for job in plan.jobs if job.entry == entry]
        found = [rows[job.key] for job in jobs if job.key in rows]
        if not found:
            missing.append(entry)
            continue
        metric = found[0]["metric"]
        valid, test = (score_runs((row["seed"], row[part][metric]) for row in found) for part in ("valid", "test"))
        params, repeats = found[0]["params"], test.repeats > 1 and test.runs > test.repeats
        lines.append(
            [
                f"{entry} ({metric})" if len(metrics) > 1 else entry,
                f"{params:,}" if params else "-",
                *map(_spread, (valid, test)),
                *(_of_target(found, target, part) for part, target in targets),
                *[_further(found)] * ("further test" in columns),
                f"{test.deviation:.4f}" if test.runs > 1 else "-",
                f"{test.error_repeats:.4f}" if repeats else "-",
                f"{test.runs}" if test.runs == len(jobs) else f"{test.runs}/{len(jobs)}",
                f"{statistics.median(row['minutes'] for row in found):.2f}",
            ]
        )
    what = f"{', '.join(metrics)}, mean ± standard error over runs" if metrics else "no runs yet"
    parts = [f"{plan.title} ({what})"]
    if metrics:
        parts.append(table(lines))
    if missing:
        parts.append(f"Not run yet: {'; '.join(missing)}.")
    if metrics:
        parts.append(made_by([rows[job.key] for job in plan.jobs if job.key in rows]))
    return "\n\n".join(parts)


def _by_target(row: Row) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of each of several targets, but those of classes, whose mean is what their benchmarks ask for."""
    return {} if row["metric"] in Binary.metrics else row.get("by_target", {})


def _of_target(found: list[Row], target: str, part: str) -> str:
    """Scores of an entry's runs on one target; a dash where their data lack it."""
    scored = [(row["seed"], _by_target(row)[target][part][row["metric"]]) for row in found if target in _by_target(row)]
    return _spread(score_runs(scored)) if scored else "-"


def _further(found: list[Row]) -> str:
    """Scores of an entry's runs on further data, the mean of each run's; a dash without."""
    scored = [row for row in found if "also" in row]
    runs = [(row["seed"], statistics.fmean(each[row["metric"]] for each in row["also"].values())) for row in scored]
    return _spread(score_runs(runs)) if runs else "-"


def _spread(score: Any) -> str:
    """Small numbers are errors, of which two digits count wherever they begin."""
    places = 4 if not 0 < abs(score.mean) < 0.01 else 5
    return f"{score.mean:.{places}f}" + (f" ± {score.error:.{places}f}" if score.runs > 1 else "")


def sizes_table(plan: Plan, rows: dict[str, Row]) -> str:
    """Markdown: means over seeds of the test metric and on further data, with 90 % intervals, beside published numbers.

    An entry appears with all its runs or not at all.
    """
    jobs = {entry: [job for job in plan.jobs if job.entry == entry] for entry in plan.entries}
    done = {entry: [rows[job.key] for job in own] for entry, own in jobs.items() if all(job.key in rows for job in own)}
    further = list(dict.fromkeys(name for job in plan.jobs for name in job.config.also))
    names = [plan.jobs[0].config.data, *further]
    heads = ["model", "parameters", *names, *(f"published, {name}" for name in names), "runs", "min/run"]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for entry, found in done.items():
        scores = [[row["test"][row["metric"]] for row in found]]
        scores += [[row["also"][name][row["metric"]] for row in found] for name in further]
        published = plan.published.get(entry, ["-"] * len(names))
        minutes = f"{statistics.median(row['minutes'] for row in found):.1f}"
        sized = [f"{found[0]['params']:,}", *map(_interval, scores), *published]
        lines.append([entry, *sized, str(len(found)), minutes])
    waiting = [entry for entry in jobs if entry not in done]
    parts = [f"{plan.title} (test accuracy, mean ± half of a 90 % interval over runs)"]
    parts += [table(lines)] if done else []
    parts += [f"Not all runs yet: {', '.join(waiting)}."] if waiting else []
    parts += [made_by([row for found in done.values() for row in found])] if done else []
    return "\n\n".join(parts)


def _interval(values: list[float]) -> str:
    """Mean and half of the 90 % interval of Student's t."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = float(stats.t.ppf(0.95, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} ± {half:.3f}"

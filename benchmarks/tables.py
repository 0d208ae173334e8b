"""Markdown tables from stored rows."""

import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from plan import Plan

Row = dict[str, Any]


class Score(NamedTuple):
    """A metric over repeats (seeds) of folds."""

    mean: float  # over repeats of the mean over folds
    error: float  # standard error over all runs
    error_repeats: float  # standard error over the means of the repeats
    deviation: float  # unbiased, over all runs
    runs: int
    repeats: int


def score(values: Iterable[tuple[int, float]]) -> Score:
    """Summary of (seed, value) pairs, one a run; NaN for a spread of fewer than two."""
    by_seed: dict[int, list[float]] = {}
    for seed, value in values:
        by_seed.setdefault(seed, []).append(value)
    every = [value for found in by_seed.values() for value in found]
    means = [statistics.fmean(found) for found in by_seed.values()]
    deviation = statistics.stdev(every) if len(every) > 1 else float("nan")
    between = statistics.stdev(means) if len(means) > 1 else float("nan")
    return Score(
        statistics.fmean(means),
        deviation / len(every) ** 0.5,
        between / len(means) ** 0.5,
        deviation,
        len(every),
        len(means),
    )


def leaderboard_table(plan: Plan, rows: dict[str, Row]) -> str:
    """Markdown: an entry a row, in the order of the config; runs that are missing are counted, not filled in."""
    heads = ["model", "parameters", "valid", "test", "std", "s.e. over repeats", "runs", "min/run"]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    metrics = set()
    for entry in plan.entries:
        jobs = [job for job in plan.jobs if job.entry == entry]
        found = [rows[job.key] for job in jobs if job.key in rows]
        if not found:
            lines.append([entry, *["-"] * 5, f"0/{len(jobs)}", "-"])
            continue
        metric = found[0]["metric"]
        metrics.add(metric)
        valid, test = (score((row["seed"], row[part][metric]) for row in found) for part in ("valid", "test"))
        params, repeats = found[0]["params"], test.repeats > 1 and test.runs > test.repeats
        lines.append(
            [
                entry,
                f"{params:,}" if params else "-",
                f"{valid.mean:.4f} ± {valid.error:.4f}",
                f"{test.mean:.4f} ± {test.error:.4f}",
                f"{test.deviation:.4f}",
                f"{test.error_repeats:.4f}" if repeats else "-",
                f"{test.runs}" if test.runs == len(jobs) else f"{test.runs}/{len(jobs)}",
                f"{statistics.median(row['minutes'] for row in found):.2f}",
            ]
        )
    what = f"{', '.join(sorted(metrics))}, mean ± standard error over runs" if metrics else "no runs yet"
    origin = [_where([rows[job.key] for job in plan.jobs if job.key in rows])] if metrics else []
    return "\n\n".join([f"{plan.title} ({what})", "\n".join(_line(line) for line in lines), *origin])


def speed_table(rows: list[Row], group: str) -> str:
    """The latest run of a group on each device. ``vs`` columns: how many times as fast as that, by medians."""
    found = [row for row in rows if row["group"] == group]
    latest = {row["machine"]["device"]: row["run"] for row in found}
    found = [row for row in found if row["run"] == latest[row["machine"]["device"]]]
    if not found:
        return "No rows yet."
    others = list(dict.fromkeys(other for row in found for other in row.get("ratios", {})))
    floors, goals = any("floor_ms" in row for row in found), any("target" in row for row in found)
    heads = ["what", "median", "quartiles", "min", *(f"vs {other}" for other in others)]
    heads += ["x byte floor"] * floors + ["target"] * goals
    parts, last = [], None
    for row in found:
        case = (row["case"], row["machine"]["device"])
        if case != last:
            parts.append(_case(row) + "\n\n" + _line(heads) + "\n" + _line(["---"] + ["---:"] * (len(heads) - 1)))
            last = case
        cells = [row["name"], _time(row["median_ms"]), f"{_time(row['q1_ms'])} to {_time(row['q3_ms'])}"]
        cells += [_time(row["min_ms"]), *(_ratio(row.get("ratios", {}).get(other)) for other in others)]
        cells += [_ratio(row["median_ms"] / row["floor_ms"] if "floor_ms" in row else None)] * floors
        cells += [f"{row['target']}: {'met' if row['met'] else 'missed'}" if "target" in row else ""] * goals
        parts[-1] += "\n" + _line(cells)
    return "\n\n".join([*parts, _where(found)])


def trials_table(rows: list[Row], data: str) -> str:
    """Settings tried while choosing, by their mean validation metric; only what differs between them is named."""
    groups: dict[str, list[Row]] = {}
    chosen = [row for row in rows if row["data"] == data]
    settings = [{**row["model"], "epochs": row["epochs"]} for row in chosen]
    varied = sorted(key for key in settings[0] if len({str(setting[key]) for setting in settings}) > 1)
    for row, setting in zip(chosen, settings, strict=True):
        name = ", ".join(f"{key} {setting[key]}" for key in varied if not _unused(setting, key))
        groups.setdefault(name, []).append(row)
    lines = [["setting", "parameters", "valid", "test", "runs"], ["---"] + ["---:"] * 4]
    for name, found in sorted(groups.items(), key=lambda item: -statistics.fmean(r["valid"] for r in item[1])):
        means = [f"{statistics.fmean(row[part] for row in found):.4f}" for part in ("valid", "test")]
        lines.append([name, f"{found[0]['params']:,}", *means, str(len(found))])
    return "\n".join(_line(line) for line in lines)


def _unused(setting: Row, key: str) -> bool:
    """Whether a model without pLSTM layers does not look at this setting."""
    return setting["model"] != "plstm" and key in ("local", "heads", "modes", "order")


def _case(row: Row) -> str:
    sizes = ", ".join(f"{name} = {value:,}" for name, value in row["sizes"].items())
    text = f"**{row['case']}**, {row['machine']['device']}; {sizes}"
    if "floor_bytes" in row:
        text += f"; byte floor {row['floor_bytes'] / 2**20:.2f} MiB: {row['floor_count']}"
    return text


def _where(rows: list[Row]) -> str:
    """Machine, versions and commit, once for each combination."""
    lines = set()
    for row in rows:
        commit = (row["commit"] or "unknown")[:10] + (" with local changes" if row["dirty"] else "")
        machine, versions = row["machine"], row["versions"]
        hardware = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
        packages = f"torch {versions.get('torch')}, torch-geometric {versions.get('torch_geometric')}"
        text = (
            f"{row['date'][:10]}, commit {commit}; {hardware}, {machine['cores']} cores, {machine['threads']} threads"
        )
        lines.add(f"- {text}; {packages}: `{row['command']}`")
    return "\n".join(sorted(lines))


def _time(ms: float) -> str:
    return f"{ms / 1e3:.2f} s" if ms >= 1e3 else f"{ms:.3g} ms" if ms < 100 else f"{ms:.0f} ms"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"

"""The page that compares runs: of one task, metric and set of targets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from plstm_graph import plots
from plstm_graph.errors import ConfigError
from plstm_graph.tasks import METRICS
from plstm_graph.train import analysis
from plstm_graph.train.page.parts import Page, Section, Table, bounds, count, figure, fixed, number, option
from plstm_graph.train.page.single import intervals_note, unfinished
from plstm_graph.train.record import Predictions, Record

Results = list[tuple[str, Record, dict[str, Any]]]  # of finished runs: name, run, metrics


def compare(records: Sequence[Record]) -> Page:
    """Results, spread over repeats, curves, paired differences and what the runs do not share.

    Raises:
        ConfigError: the runs do not judge the same thing; there is nothing to compare.
    """
    metric = _check(records)
    label, names = METRICS[metric].label, _names(records)
    finished = [(name, run, run.metrics) for name, run in zip(names, records, strict=True) if run.metrics]
    notes = [unfinished(run) for run in records if not run.metrics] + list(_warnings(finished))
    sections = [_results(finished, metric)] if finished else []
    if finished:
        sections += [_paired(finished, metric)] if len(finished) > 1 else []
    histories = {name: run.history for name, run in zip(names, records, strict=True) if run.history}
    if histories:
        alt = f"Line charts by epoch for {', '.join(histories)}: train loss, valid loss and {label} of valid"
        words = {"alt": alt, "metric": metric, "label": label}
        sections.append(Section("Training", figures=[figure(plots.curves_of_runs, histories, panels=True, **words)]))
    sections += [_differences(names, records), _provenance(finished)]
    data = {str((run.metrics or run.options).get("data", "–")) for run in records}
    title = f"{', '.join(sorted(data))}: {count(len(records), 'run')} compared"
    return Page(title, f"by {label} · {', '.join(names)}", _tiles(finished, metric), notes, sections)


def _check(records: Sequence[Record]) -> str:
    """The metric that all runs share."""
    kinds: dict[tuple[Any, ...], str] = {}
    for run in records:
        if run.metrics:
            kinds[run.metrics["task"], run.metrics["metric"], *run.metrics["targets"]] = run.name
    metrics = {run.metric for run in records if run.metric}
    if len(kinds) > 1 or len(metrics) > 1:
        (first, one), (second, other) = [*kinds.items(), *((("metric", m), m) for m in metrics)][:2]
        raise ConfigError(
            f"runs can be compared that share task, metric and targets; {one} has {', '.join(map(str, first))} and "
            f"{other} has {', '.join(map(str, second))}: report them one by one"
        )
    if not metrics:
        raise ConfigError("none of the runs has finished an epoch, so there is nothing to compare; let them go on")
    return metrics.pop() or ""


def _names(records: Sequence[Record]) -> list[str]:
    """Names of the folders; the whole paths where two have the same name."""
    names = [run.name for run in records]
    return names if len(set(names)) == len(names) else [str(run.path) for run in records]


def _warnings(finished: Results) -> list[str]:
    found = []
    if len({metrics.get("data_hash") for _, _, metrics in finished}) > 1:
        found.append("The runs did not read the same data: their hashes differ (see Provenance).")
    if len({str(metrics.get("versions")) for _, _, metrics in finished}) > 1:
        found.append("The runs were made with different versions of packages (see Provenance).")
    return found


def _tiles(finished: Results, metric: str) -> list[tuple[str, str, str]]:
    values = [(metrics["valid"][metric], name, metrics) for name, _, metrics in finished]
    values = [row for row in values if row[0] is not None]
    if not values:
        return []
    pick = max if METRICS[metric].higher_is_better else min
    valid, name, metrics = pick(values, key=lambda row: row[0])
    label = METRICS[metric].label
    return [
        ("best on validation", name, ""),
        (f"its valid {label}", fixed(valid, 3), ""),
        (f"its test {label}", fixed(metrics["test"][metric], 3), "chosen on validation, so no pick of the test"),
    ]


def _results(finished: Results, metric: str) -> Section:
    label, dots = METRICS[metric].label, []
    rows, note = [], ""
    for name, run, metrics in finished:
        test = run.predictions.get("test")
        interval = analysis.Interval(np.nan, np.nan, np.nan)
        if test is not None:
            samples = analysis.draws(len(test.index), test.prediction.shape[1])
            interval, note = analysis.bootstrap(test, [metric], samples)[metric], intervals_note(test, samples)
            dots.append((name, *interval))
        numbers = [fixed(metrics["valid"][metric]), fixed(metrics["test"][metric]), bounds(interval)]
        best = f"{metrics['best_epoch']} of {metrics['epochs']}"
        rows.append(
            [name, str(metrics["seed"]), *numbers, best, number(metrics["parameters"]), f"{metrics['minutes']:.2f}"]
        )
    head = ["run", "seed", f"valid {label}", f"test {label}", "95 % interval", "best epoch", "parameters", "minutes"]
    section = Section("Results", [note] if note else [], tables=[Table(head, rows), _repeats(finished, metric)])
    if dots:
        alt = f"Test {label} with 95 % intervals: " + ", ".join(f"{name} {value:.3f}" for name, value, *_ in dots)
        section.figures.append(figure(plots.intervals, dots, alt=alt, label=f"test {label}"))
    return section


def _repeats(finished: Results, metric: str) -> Table:
    groups: dict[tuple[tuple[str, str], ...], Results] = {}
    for row in finished:
        groups.setdefault(row[1].setting, []).append(row)
    rows = []
    for group in groups.values():
        cells = []
        for part in ("valid", "test"):
            mean, deviation = analysis.spread([metrics[part][metric] for *_, metrics in group])
            cells.append(f"{fixed(mean)} ± {fixed(deviation)}")
        rows.append([", ".join(name for name, *_ in group), str(len(group)), *cells])
    caption = "Mean ± unbiased standard deviation over runs that differ in nothing but seed, split and fold"
    return Table(["runs", "number", "valid", "test"], rows, caption)


def _paired(finished: Results, metric: str) -> Section:
    """Every run against the first, where both were tested on the same graphs."""
    section = Section("Paired differences")
    (first, run, _), label = finished[0], METRICS[metric].label
    base = run.predictions.get("test")
    if base is None:
        section.text.append(f"{first} has no stored predictions to compare with.")
        return section
    samples = analysis.draws(len(base.index), base.prediction.shape[1])
    rows = []
    for name, other, _ in finished[1:]:
        test: Predictions | None = other.predictions.get("test")
        if test is None or not analysis.same_graphs([base, test]):
            rows.append([name, "–", "other test graphs" if test else "no stored predictions", "–"])
            continue
        found = analysis.paired(base, test, metric, samples)
        rows.append([name, f"{found.difference.value:+.4f}", bounds(found.difference), f"{found.better:.1%}"])
    section.text.append(
        f"How much better (positive) or worse than {first} the others are in test {label}, on the same graphs in each "
        f"of {len(samples):,} bootstrap samples (seed 0). An interval that holds 0 tells of no difference."
    )
    head = ["run", f"better by ({label})", "95 % interval", f"samples in which it beats {first}"]
    section.tables.append(Table(head, rows))
    return section


def _differences(names: Sequence[str], records: Sequence[Record]) -> Section:
    keys = dict.fromkeys(key for run in records for key in run.options if key != "out")
    missing = object()
    differing = [k for k in keys if len({repr(run.options.get(k, missing)) for run in records}) > 1]
    section = Section("Configuration")
    if not differing:
        section.text.append("All options are the same.")
        return section
    section.text.append(f"Options that differ; the other {len(keys) - len(differing)} are the same in all runs.")
    rows = [[key, *(option(run.options[key]) if key in run.options else "–" for run in records)] for key in differing]
    section.tables.append(Table(["option", *names], rows, text=range(1, len(names) + 1)))
    return section


def _provenance(finished: Results) -> Section:
    rows = []
    for name, _, metrics in finished:
        versions = metrics.get("versions", {})
        used = ", ".join(
            f"{key} {versions[key]}" for key in ("plstm_graph", "torch", "torch_geometric") if key in versions
        )
        facts = [metrics.get(key) or "–" for key in ("command", "commit", "data_hash", "device")]
        rows.append([name, *map(str, facts), used])
    return Section(
        "Provenance", tables=[Table(["run", "command", "commit", "data", "device", "versions"], rows, text=range(1, 6))]
    )

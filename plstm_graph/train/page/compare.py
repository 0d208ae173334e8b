"""The page that compares trainings, or tells of one with many runs: of one task, metric and set of targets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plstm_graph.draw import answers, curves
from plstm_graph.errors import ConfigError, count, rounded
from plstm_graph.tasks import METRICS
from plstm_graph.train import analysis
from plstm_graph.train.page.entries import Entry, matched, test_share
from plstm_graph.train.page.leaderboard import leaderboard
from plstm_graph.train.page.parts import (
    Folded,
    Page,
    Section,
    Table,
    bounds,
    figure,
    fixed,
    number,
    option,
    plus_minus,
    signed,
)
from plstm_graph.train.page.searched import searched
from plstm_graph.train.page.single import MOST_TARGETS, intervals_note, unfinished
from plstm_graph.train.progress import lasted
from plstm_graph.train.record import Record

UNTOLD = "this test set cannot tell the two apart"


def compare(entries: Sequence[Entry]) -> Page:
    """Results, curves, paired differences and what the trainings do not share.

    Raises:
        ConfigError: the runs do not judge the same thing; there is nothing to compare.
    """
    metric = _check([run for entry in entries for run in entry.runs])
    label = METRICS[metric].label
    finished = [entry for entry in entries if entry.finished]
    sections = [_results(finished, metric)] if finished else []
    if len(finished) > 1:
        sections.append(_paired(finished, metric))
    sections += _training(entries, metric)
    sections += [section for entry in entries if len(entries) == 1 and entry.path if (section := searched(entry.path))]
    if finished:
        sections.append(leaderboard(finished, metric))
    sections += [_configuration(entries), *([_provenance(finished)] if finished else [])]
    data = sorted({str((run.metrics or run.options).get("data", "–")) for entry in entries for run in entry.runs})
    runs = count(sum(len(entry.runs) for entry in entries), "run")
    if len(entries) == 1:
        title, subtitle = f"{', '.join(data)}: {entries[0].repeats}", f"by {label} · {entries[0].name}, {runs}"
    else:
        title = f"{', '.join(data)}: {len(entries)} trainings compared"
        subtitle = f"by {label} · {', '.join(entry.name for entry in entries)} · {runs}"
    return Page(title, subtitle, _tiles(finished, metric), _notes(entries, finished), sections)


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


def _notes(entries: Sequence[Entry], finished: Sequence[Entry]) -> list[str]:
    found = [note for entry in entries for note in entry.notes()]
    found += [unfinished(run) for entry in entries if not entry.path for run in entry.runs if not run.metrics]
    metrics = [each for entry in finished for each in entry.metrics()]
    if len({each.get("data_hash") for each in metrics}) > 1:
        found.append("The runs did not read the same data: their hashes differ (see Provenance).")
    if len({str(each.get("versions")) for each in metrics}) > 1:
        found.append("The runs were made with different versions of packages (see Provenance).")
    return found


def _tiles(finished: Sequence[Entry], metric: str) -> list[tuple[str, str, str]]:
    scores = [(entry, entry.score("valid", metric), entry.score("test", metric)) for entry in finished]
    known = [(valid.mean, entry, valid, test) for entry, valid, test in scores if valid and test]
    if not known:
        return []
    pick = max if METRICS[metric].higher_is_better else min
    _, entry, valid, test = pick(known, key=lambda row: row[0])
    label, best, several = METRICS[metric].label, len(finished) > 1, entry.several
    words = f"mean ± unbiased standard deviation over {entry.repeats} ({count(test.runs, 'run')})" if several else ""
    chosen = "chosen on validation, so no pick of the test"
    its = "its " if best else ""
    parameters = _same(entry, "parameters")  # a forest has none
    return [
        *([("best on validation", entry.name, "")] if best else []),
        (f"{its}test {label}", plus_minus(test, 3), "; ".join(filter(None, [words, chosen if best else ""]))),
        (f"{its}valid {label}", plus_minus(valid, 3), "" if best else words),
        *([("parameters", number(parameters), "")] if parameters else []),
        ("training", lasted(_minutes(entry)), f"a run, {lasted(_total(entry))} in all" if several else ""),
    ]


def _same(entry: Entry, key: str) -> Any:
    """What the runs share; where they differ, of the first."""
    return entry.metrics()[0].get(key)


def _total(entry: Entry) -> float:
    return float(sum(each["minutes"] for each in entry.metrics()))


def _minutes(entry: Entry) -> float:
    return _total(entry) / len(entry.finished)


# ------------------------------------------------------------------ results


def _results(finished: Sequence[Entry], metric: str) -> Section:
    """A row a training, a dot a run."""
    label, rows, notes = METRICS[metric].label, [], []
    dots: list[tuple[str, float, float, float, list[float]]] = []
    alone = all(not entry.several for entry in finished)
    for entry in finished:
        valid, test = entry.score("valid", metric), entry.score("test", metric)
        if alone or not entry.several:
            interval, note = _bootstrap(entry, metric)
            notes += [note] if note and note not in notes else []
            spread = bounds(interval)
            dots.append((entry.name, *interval, []))
        else:
            spread = rounded(test.error, beside=test.mean) if test else "–"
            values = [float(m["test"][metric]) for m in entry.metrics() if m["test"][metric] is not None]
            if test:
                dots.append((entry.name, test.mean, test.mean - test.deviation, test.mean + test.deviation, values))
        parameters, minutes = number(_same(entry, "parameters") or None), f"{_minutes(entry):.2f}"
        scores = [plus_minus(valid), plus_minus(test)]
        rows.append([entry.name, str(len(entry.finished)), *scores, spread, parameters, minutes])
    if not alone:
        notes.insert(
            0,
            "± is the unbiased standard deviation over the runs of a training; the standard error is of their mean"
            + (", and a training of one run has an interval over its test graphs instead." if notes else "."),
        )
    spread_of = "95 % interval" if alone else "standard error"
    head = ["training", "runs", f"valid {label}", f"test {label}", spread_of, "parameters", "training, min a run"]
    section = Section("Results", notes, tables=[Table(head, rows)])
    dots = [row for row in dots if np.isfinite(row[1])]
    if dots:
        what = f"test {label}" + ("" if alone else ": runs, and mean ± standard deviation")
        alt = f"{what}: " + ", ".join(f"{name} {fixed(value, 3)}" for name, value, *_ in dots)
        caption = "" if alone else "A small dot is a run; the large one their mean, with one standard deviation."
        section.figures.append(
            figure(answers.intervals, dots, panels=True, alt=alt, caption=caption, label=f"test {label}")
        )
    section.tables += _targets(finished)
    several = [entry for entry in finished if entry.several]
    if several:
        section.folded.append(Folded("Single runs", tables=[_runs(entry, metric) for entry in several]))
    return section


def _bootstrap(entry: Entry, metric: str) -> tuple[analysis.Interval, str]:
    tests = entry.tests()
    if not tests:
        value = entry.score("test", metric)
        return analysis.Interval(value.mean if value else np.nan, np.nan, np.nan), ""
    (_, test), *_ = tests
    samples = analysis.draws(len(test.index), test.prediction.shape[1])
    return analysis.bootstrap(test, [metric], samples)[metric], intervals_note(test, samples)


def _targets(finished: Sequence[Entry]) -> list[Table]:
    """Each target's own scores, mean over the runs, where there are several targets."""
    tables = []
    for entry in finished:
        found = [
            {target: parts["test"] for target, parts in each["by_target"].items()}
            for each in entry.metrics()
            if each.get("by_target")
        ]
        if not found:
            continue
        names = list(next(iter(found[0].values())))
        rows = [
            [target, *(plus_minus(_over([each[target][name] for each in found])) for name in names)]
            for target in list(found[0])[:MOST_TARGETS]
        ]
        head = ["target", *(METRICS[name].label for name in names)]
        tables.append(Table(head, rows, f"Each target, test: {entry.name}"))
    return tables


def _over(values: Sequence[float | None]) -> analysis.Score | None:
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    return analysis.score_runs(known) if known else None


def _runs(entry: Entry, metric: str) -> Table:
    label, rows = METRICS[metric].label, []
    for run in entry.finished:
        metrics = run.metrics or {}
        best = f"{metrics['best_epoch']} of {metrics['epochs']}" if metrics["epochs"] else "–"
        scores = [fixed(metrics[part][metric]) for part in ("valid", "test")]
        numbers = [str(run.options.get(key, 0)) for key in ("seed", "fold")]
        rows.append([run.name, *numbers, *scores, best, f"{metrics['minutes']:.2f}"])
    head = ["run", "seed", "fold", f"valid {label}", f"test {label}", "best epoch", "training, min"]
    return Table(head, rows, entry.name)


# ------------------------------------------------------------------ differences


def _paired(finished: Sequence[Entry], metric: str) -> Section:
    """Every training against the first, run by run on the same test graphs."""
    base, label = finished[0], METRICS[metric].label
    section = Section(
        "Paired differences",
        [
            f"By how much test {label} is better (positive) or worse than that of {base.name}: the mean over pairs of "
            "runs on the same test graphs, fold by fold and seed by seed.",
            "Over runs: 95 % interval by Student's t, which counts the chance in training; folds and random splits, "
            "whose training graphs overlap, widen it (Nadeau and Bengio 2003). Over test graphs: bootstrap of the "
            f"graphs that these runs were tested on, which counts the chance in those. Where one of both holds 0, "
            f"{UNTOLD}.",
        ],
    )
    rows = []
    for entry in finished[1:]:
        pairs = [(one.predictions["test"], other.predictions["test"]) for one, other in matched(base, entry)]
        if not pairs:
            why = "other test graphs" if base.tests() and entry.tests() else "no stored predictions"
            rows.append([entry.name, f"none: {why}", *["–"] * 4, "give both the same seeds, folds and --split-seed"])
            continue
        found = analysis.paired(pairs, metric, share=test_share(base))
        verdict = {1: f"better than {base.name}", -1: f"worse than {base.name}", 0: UNTOLD}[found.sign]
        cells = [
            signed(found.over_runs.value),
            bounds(found.over_runs),
            bounds(found.over_graphs),
            f"{found.better} of {found.pairs}",
        ]
        rows.append([entry.name, str(found.pairs), *cells, verdict])
    head = ["training", "pairs", f"better by ({label})", "over runs", "over test graphs", "pairs won", "so"]
    section.tables.append(Table(head, rows, text=[6]))
    return section


def _training(entries: Sequence[Entry], metric: str) -> list[Section]:
    """One mean curve with its band a training; every run by itself where that is asked for."""
    label = METRICS[metric].label
    histories = {entry.name: [run.history for run in entry.runs if run.history] for entry in entries}
    histories = {name: found for name, found in histories.items() if found}
    if not histories:
        return []
    alt = f"Line charts by epoch for {', '.join(histories)}: train loss, valid loss and {label} of valid"
    words = {"metric": metric, "label": label}
    several = any(len(found) > 1 for found in histories.values())
    caption = "Mean over the runs that reached the epoch, and one standard deviation." if several else ""
    section = Section(
        "Training",
        figures=[figure(curves.curves_of_runs, histories, panels=True, alt=alt, caption=caption, **words)],
    )
    if several:
        every = figure(curves.curves_of_runs, histories, panels=True, alt=f"{alt}, each run", single=True, **words)
        section.folded.append(Folded("Every run", figures=[every]))
    return [section]


def _told(section: Section, found: Mapping[str, Mapping[str, str]], what: str) -> Section:
    """What the entries share once, what differs as a table."""
    keys = list(dict.fromkeys(key for values in found.values() for key in values))
    rows = {key: [values.get(key, "–") for values in found.values()] for key in keys}
    differing = [[key, *cells] for key, cells in rows.items() if len(set(cells)) > 1]
    shared = [(key, cells[0]) for key, cells in rows.items() if len(set(cells)) == 1]
    if differing:
        section.tables.append(Table([what, *found], differing, "What differs", text=range(1, len(found) + 1)))
    section.facts = shared
    return section


def _configuration(entries: Sequence[Entry]) -> Section:
    found = {entry.name: {key: option(value) for key, value in entry.options().items()} for entry in entries}
    return _told(Section("Configuration"), found, "option")


def _provenance(finished: Sequence[Entry]) -> Section:
    found = {}
    for entry in finished:
        facts: dict[str, str] = {"command": entry.command} if entry.command else {}
        for metrics in entry.metrics():
            values = {key: metrics.get(key) for key in ("command", "commit", "data_hash", "device")}
            for key, value in (values | metrics.get("versions", {})).items():
                known = facts.get(key)
                text = "–" if value is None else str(value)
                facts[key] = text if known is None or text in known else f"{known}; {text}"
        found[entry.name] = facts
    return _told(Section("Provenance"), found, "fact")

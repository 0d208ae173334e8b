"""The page of one run."""

import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from plstm_graph.data.column_splits import PARTS
from plstm_graph.data.splits import IN_FOLDS
from plstm_graph.draw import curves
from plstm_graph.errors import count
from plstm_graph.tasks import METRICS, TASKS
from plstm_graph.train import analysis
from plstm_graph.train.page.parts import (
    Figure,
    Page,
    Section,
    Table,
    bounds,
    figure,
    fixed,
    number,
    option,
    png,
)
from plstm_graph.train.page.searched import searched
from plstm_graph.train.page.tested import calibration, predictions, worst_graphs
from plstm_graph.train.progress import lasted
from plstm_graph.train.record import PartPredictions, Record
from plstm_graph.train.results import PATCHES

MOST_REJECTED, MOST_TARGETS = 20, 50


def single(record: Record) -> Page:
    """All there is to see of a run; what is missing is said, not hidden."""
    options, metrics, test = record.options, record.metrics, record.predictions.get("test")
    tiles: list[tuple[str, str, str]] = []
    sections = [_training(record)] if record.history else []
    sections += [section for section in [searched(record.path)] if section]
    if metrics is not None:
        samples = analysis.draws(len(test.index), test.prediction.shape[1]) if test else np.empty((0, 0), int)
        found = analysis.bootstrap(test, list(metrics["test"]), samples) if test else {}
        tiles = _tiles(metrics, found)
        sections.append(_metrics(metrics, found, test, samples))
        if test is not None:
            sections += [
                predictions(metrics, record.predictions),
                calibration(metrics, test),
                worst_graphs(metrics, test),
            ]
        sections += [section for section in (_further(metrics), _patches(record)) if section]
        sections.append(_data(record, metrics))
    sections.append(Section("Configuration", facts=[(key, option(value)) for key, value in options.items()]))
    sections.append(_provenance(metrics or {}))
    words = [f"run {record.name}", str(metrics["task"]) if metrics else "", f"model {options.get('model.model', '–')}"]
    subtitle = " · ".join(word for word in words if word)
    return Page(str((metrics or options).get("data", record.name)), subtitle, tiles, list(_notes(record)), sections)


def unfinished(record: Record) -> str:
    """What to say of a run without results."""
    return (
        f"Run {record.name} is not finished: {len(record.history)} of {record.options.get('epochs', '–')} epochs are "
        f"there and nothing was tested. Go on with: plstm-graph train --resume --out {shlex.quote(str(record.path))}"
    )


def _notes(record: Record) -> Iterator[str]:
    if record.metrics is None:
        yield unfinished(record)
    elif "test" not in record.predictions:
        yield (
            "There are no predictions for test graphs, so there are no intervals and no pictures of them: the test "
            "part is empty, they are words, or an earlier version made this run; then train again."
        )
    elif "train" not in record.predictions:
        yield "Predictions for the training part were too many to be stored; pictures are without them."
    if record.metrics and record.metrics.get("rejected"):
        yield f"{count(record.metrics['rejected'], 'row')} of the file could not be used; see Data."


def _tiles(metrics: dict[str, Any], found: dict[str, analysis.Interval]) -> list[tuple[str, str, str]]:
    name, label = metrics["metric"], METRICS[metrics["metric"]].label
    interval = f"95 % interval {bounds(found[name], 3)}" if name in found else ""
    best = f"epoch {metrics['best_epoch']} of {metrics['epochs']}, the best" if metrics["epochs"] else ""
    return [
        (f"test {label}", fixed(metrics["test"][name], 3), interval),
        (f"valid {label}", fixed(metrics["valid"][name], 3), best),
        *([("parameters", number(metrics["parameters"]), "")] if metrics["parameters"] else []),
        ("training", lasted(metrics["minutes"]), f"on {metrics['device']}"),
    ]


def _training(record: Record) -> Section:
    metric, last, best = str(record.metric), record.history[-1], record.best_epoch
    label = METRICS[metric].label
    alt = f"Line charts over {count(len(record.history), 'epoch')}: loss of train and valid; {label} of valid"
    if best >= 0:
        alt += f", best at epoch {best + 1} with {fixed(record.history[best][f'valid_{metric}'], 3)}"
    caption = f"Loss after the last epoch: train {last['loss']:.4g}, valid {last['valid_loss']:.4g}."
    marks = {"metric": metric, "label": label, "best_epoch": best}
    return Section(
        "Training", figures=[figure(curves.curves, record.history, alt=alt, caption=caption, panels=True, **marks)]
    )


def _metrics(
    metrics: dict[str, Any], found: dict[str, analysis.Interval], test: PartPredictions | None, samples: np.ndarray
) -> Section:
    head = ["metric", *PARTS, *(["test, 95 % interval"] if found else []), "test, last epoch"]
    rows = []
    for name in metrics["test"]:
        cells = [fixed(metrics[part].get(name)) for part in PARTS] + ([bounds(found[name])] if found else [])
        rows.append([METRICS[name].label, *cells, fixed(metrics["test_last_epoch"].get(name))])
    if not metrics["epochs"]:  # a model that is fitted at once
        head, rows = head[:-1], [row[:-1] for row in rows]
    section = Section("Metrics")
    if metrics["epochs"]:
        section.text.append("Of the weights of the best validation epoch, but for the last column.")
    section.tables.append(Table(head, rows))
    if metrics.get("thresholds"):
        section.tables.append(_thresholds(metrics))
    if test is None:
        return section
    section.text.append(intervals_note(test, samples))
    if test.target.ndim == 2 and test.target.shape[1] > 1:
        section.tables.append(_by_target(metrics, test, samples))
    return section


def _thresholds(metrics: dict[str, Any]) -> Table:
    """What is said yes to, and how well."""
    found = dict(list(metrics["thresholds"].items())[:MOST_TARGETS])
    part = "test" if all("test" in each for each in found.values()) else "valid"
    names = list(next(iter(found.values()))[part])
    rows = [
        [target, fixed(each["threshold"], 3), *(fixed(each[part].get(name), 3) for name in names)]
        for target, each in found.items()
    ]
    head = ["target", "yes above", *(_NAMES.get(name, name.replace("_", " ")) for name in names)]
    return Table(head, rows, f"Yes or no, {part}: the threshold is that of the best balanced accuracy on validation")


_NAMES = {"f1": "F1", "mcc": "Matthews' r"}


def _further(metrics: dict[str, Any]) -> Section | None:
    """Scores on further data sets."""
    found = metrics.get("also", {})
    if not found:
        return None
    names = list(metrics["test"])
    rows = [[data, *(fixed(scores.get(name)) for name in names)] for data, scores in found.items()]
    return Section("Further data", tables=[Table(["data", *(METRICS[name].label for name in names)], rows)])


def _patches(record: Record) -> Section | None:
    """What a network of images reads, as the run has drawn it."""
    path = record.path / PATCHES
    if not path.is_file():
        return None
    words = (
        "How much what each patch sends along each direction speaks for the decision, in all blocks together: blue "
        "for it, red against it. To first order, what the log-odds of the class would lose without it."
    )
    alt = "Test images, and for each a map of its patches for every direction"
    return Section("What the network reads", [words], [Figure(png(path.read_bytes()), alt)])


def intervals_note(test: PartPredictions, samples: np.ndarray) -> str:
    """How the intervals were made."""
    return (
        f"Intervals are 95 % percentiles of a bootstrap over {count(len(test.index), 'test graph')} "
        f"({len(samples):,} samples, seed 0): they tell of the chance in what was tested, not of that in training."
    )


def _by_target(metrics: dict[str, Any], test: PartPredictions, samples: np.ndarray) -> Table:
    name, targets, rows = metrics["metric"], metrics["targets"], []
    metric_names = TASKS[metrics["task"]].metrics
    for column, target in enumerate(targets[:MOST_TARGETS]):
        one = replace(test, target=test.target[:, [column]], prediction=test.prediction[:, [column]])
        interval = analysis.bootstrap(one, [name], samples)[name]
        labels = int((~np.isnan(one.target)).sum())
        scores = [fixed(analysis.scored(one, each)) for each in metric_names]
        rows.append([target, number(labels), *scores, bounds(interval)])
    rest = f"; the first {MOST_TARGETS} of {len(targets)}" if len(targets) > MOST_TARGETS else ""
    head = ["target", "labels", *(METRICS[each].label for each in metric_names)]
    return Table([*head, f"{METRICS[name].label}, 95 % interval"], rows, f"Each target, test{rest}")


def _data(record: Record, metrics: dict[str, Any]) -> Section:
    graphs, options, found = metrics["graphs"], record.options, metrics.get("censored")
    seed = options.get("split_seed", options.get("seed"))
    split = metrics.get("split") or options.get("split") or "the data set's own"
    facts = [
        ("data", str(metrics["data"])),
        ("task", str(metrics["task"])),
        ("targets", option(metrics["targets"][:MOST_TARGETS])),
        *((part, count(graphs[part], "graph")) for part in PARTS),
        *([("censored labels", option([f"{n} {part}" for part, n in found.items()]))] if found else []),
        ("split", f"{split}, seed {seed}" + (f", fold {options['fold']}" if split in IN_FOLDS else "")),
        ("hash", str(metrics.get("data_hash", "–"))),
    ]
    section = Section("Data", facts=facts)
    if record.rejected:
        shown = record.rejected[:MOST_REJECTED]
        caption = f"Rejected rows: {len(shown)} of {len(record.rejected)}"
        names = [name for name in ("row", "id", "text", "reason") if name in shown[0]]
        cells = [[row[name] for name in names] for row in shown]
        section.tables.append(Table(names, cells, caption, text=range(1, len(names))))
    return section


def _provenance(metrics: dict[str, Any]) -> Section:
    section = Section("Reproduce", code=str(metrics.get("command") or ""))
    if not section.code:
        section.text.append("No command was recorded: the run was started from Python. config.toml holds every option.")
    found = {key: metrics.get(key) for key in ("commit", "config_hash", "seed", "device")} | metrics.get("versions", {})
    section.facts = [(key.replace("_", "-"), str(value)) for key, value in found.items() if value is not None]
    return section

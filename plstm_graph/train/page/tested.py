"""Sections on what was predicted for the test part: against the truth, how well calibrated, and where worst."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from plstm_graph.data.depiction import depict
from plstm_graph.draw import answers
from plstm_graph.draw.molecule import ELEMENTS
from plstm_graph.errors import DataError, count
from plstm_graph.tasks import METRICS, TASKS, Task
from plstm_graph.train import analysis
from plstm_graph.train.page.parts import Card, Figure, Section, figure, fixed, signed, svg
from plstm_graph.train.record import PartPredictions

MOST_CARDS, MOST_LINES = 12, 4
PALETTE: dict[str, Any] = {
    name: tuple(int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)) for name, colour in ELEMENTS.items()
}
"""Colours of letters that can be read on white; rdkit's yellow and cyan cannot."""


def predictions(metrics: dict[str, Any], found: Mapping[str, PartPredictions]) -> Section:
    """Parity, or confusion, ROC and precision-recall curves."""
    names, test = metrics.get("classes", []), found["test"]
    targets = names or metrics["targets"]
    score = f"test {METRICS[metrics['metric']].label} {fixed(metrics['test'][metrics['metric']], 3)}"
    arrays = {part: (rows.prediction, rows.target) for part, rows in found.items()}
    section = Section("Predictions")
    task = TASKS[metrics["task"]]
    if not task.chances:
        shown = targets[: answers.MOST_PANELS]
        alt = f"Predicted against measured {', '.join(shown)} for {', '.join(arrays)}; {score}"
        caption = f"A point is a {_thing(test)}; on the line the prediction is perfect."
        panels = len(shown) > 1
        section.figures = [figure(answers.parity, arrays, alt=alt, caption=caption, panels=panels, targets=targets)]
        return section
    if task.exclusive:
        counts = np.zeros((test.prediction.shape[1],) * 2, int)
        np.add.at(counts, (test.target, test.prediction.argmax(1)), 1)
        caption = f"{int(np.trace(counts)):,} of {count(len(test.index), 'test graph')} are right."
        alt = f"Confusion matrix: {caption}"
        section.figures = [figure(answers.confusion, counts, alt=alt, caption=caption, names=names)]
    for draw, name in ((answers.roc, "ROC curve"), (answers.precision_recall, "Precision-recall curve")):
        caption = f"{name}, test part."
        section.figures.append(figure(draw, arrays, alt=f"{name}; {score}", caption=caption, targets=targets))
    return section


def _thing(test: PartPredictions) -> str:
    return "molecule" if all(test.smiles) else "graph"


def calibration(metrics: dict[str, Any], test: PartPredictions) -> Section:
    """Reliability diagram, or quantiles and errors."""
    section = Section("Calibration")
    task = TASKS[metrics["task"]]
    if not task.chances:
        error = test.prediction - test.target
        alt = (
            f"Quantiles of predicted against measured values, and a histogram of errors (mean {np.nanmean(error):.3g})"
        )
        caption = (
            "Quantiles on the line say that predictions are spread as the labels are; flatter than it, that they "
            "shrink towards the mean. Errors with a mean other than 0 say that there is a bias."
        )
        words = {"alt": alt, "caption": caption, "targets": metrics["targets"], "things": f"{_thing(test)}s"}
        section.figures = [figure(answers.residuals, test.prediction, test.target, panels=True, **words)]
        return section
    bins = analysis.reliability(test)
    section.text = [
        f"Expected calibration error (ECE): {fixed(bins.error, 3)}, the mean distance between probability and "
        f"frequency over {count(int(bins.counts.sum()), 'prediction')} in {analysis.BINS} bins of equal width."
    ]
    chosen = task.exclusive
    labels = (
        ("probability of the chosen class", "share that is right")
        if chosen
        else ("predicted probability", "share of positives")
    )
    alt = f"Reliability diagram, ECE {fixed(bins.error, 3)}: {labels[1]} against {labels[0]}"
    caption = (
        "Above the line the model is too careful, below it too sure." if chosen else "The line is a calibrated model."
    )
    arguments = bins.confidence, bins.frequency, bins.counts
    section.figures = [
        figure(answers.reliability, *arguments, alt=alt, caption=caption, labels=labels, bins=analysis.BINS)
    ]
    return section


def worst_graphs(metrics: dict[str, Any], test: PartPredictions) -> Section:
    """The graphs that were predicted worst, drawn where they are molecules."""
    errors = analysis.errors(test, TASKS[metrics["task"]])
    places = analysis.worst(errors, MOST_CARDS)
    section = Section("Worst predictions", [_worst(TASKS[metrics["task"]], f"{_thing(test)}s")])
    if not any(test.smiles[place] for place in places):
        section.text.append("The graphs carry no SMILES, so they are named by their place in the data set, not drawn.")
    section.cards = [_card(metrics, test, errors, place) for place in places]
    return section


def _worst(task: type[Task], what: str) -> str:
    if not task.chances:
        return f"Test {what} with the largest errors, over all targets in standard deviations of the target."
    return f"Test {what} whose true {'class' if task.exclusive else 'label'} got the least probability" + (
        "." if task.exclusive else ", over all targets."
    )


def _card(metrics: dict[str, Any], test: PartPredictions, errors: np.ndarray, place: int) -> Card:
    prediction, smiles = test.prediction[place], test.smiles[place]
    if TASKS[metrics["task"]].exclusive:
        true, chosen = int(test.target[place]), int(prediction.argmax())
        names = metrics.get("classes") or range(len(prediction))
        lines = [
            ("true class", f"{names[true]}, probability {fixed(prediction[true], 3)}"),
            ("predicted", f"{names[chosen]}, probability {fixed(prediction[chosen], 3)}"),
        ]
    else:
        target = test.target[place]
        order = [k for k in np.argsort(-errors[place], kind="stable")[:MOST_LINES] if errors[place, k] >= 0]
        lines = [
            (
                metrics["targets"][k],
                f"{fixed(target[k], 3)}, predicted {fixed(prediction[k], 3)}, "
                f"error {signed(prediction[k] - target[k], 3)}",
            )
            for k in order
        ]
    name = test.names[place] if test.names else f"graph {test.index[place]}"
    return Card(name, [*lines, *([("SMILES", smiles)] if smiles else [])], _drawing(smiles))


def _drawing(smiles: str) -> Figure | None:
    if not smiles:
        return None
    try:
        return Figure(svg(depict(smiles, colours=PALETTE)), f"Structure of {smiles}")
    except DataError:  # another rdkit than that of the training; the text is on the card all the same
        return None

"""Pictures of a run: curves, parity, ROC. Colours are Okabe and Ito's, which all readers can tell apart."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from plstm_graph.errors import PLSTMGraphError, missing_extra
from plstm_graph.files import atomic_write

COLOURS = {"train": "#999999", "valid": "#E69F00", "test": "#0072B2", "best": "#D55E00"}
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
MARKERS = {"train": ".", "valid": "^", "test": "o"}
MOST_PANELS = 9

Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]  # {"test": (prediction, target)}, target NaN where missing


def curves(
    history: Sequence[Mapping[str, float]],
    path: str | PathLike[str],
    *,
    metric: str,
    label: str = "",
    best_epoch: int = -1,
) -> None:
    """Losses (left) and validation metric (right) by epoch.

    Args:
        history: one row an epoch with ``epoch`` (from 0), ``loss``, ``valid_loss``, ``valid_<metric>``.
        path: image file; its suffix chooses the format.
        metric: name of the metric in the rows.
        label: the metric as a reader knows it.
        best_epoch: is marked, when it is not negative.
    """
    figure, (left, right) = _figure(1, 2, width=9.0, height=3.4)
    epochs = [row["epoch"] + 1 for row in history]
    left.plot(epochs, [row["loss"] for row in history], color=COLOURS["test"], label="train")
    left.plot(epochs, [row["valid_loss"] for row in history], "--", color=COLOURS["valid"], label="valid")
    left.set(xlabel="epoch", ylabel="loss")
    values = [row[f"valid_{metric}"] for row in history]
    right.plot(epochs, values, color=COLOURS["valid"], label="valid")
    if 0 <= best_epoch < len(values):
        right.plot(
            best_epoch + 1, values[best_epoch], "o", color=COLOURS["best"], label=f"best: epoch {best_epoch + 1}"
        )
    right.set(xlabel="epoch", ylabel=label or metric)
    for axes in (left, right):
        axes.legend(frameon=False)
    _save(figure, path)


def parity(
    parts: Arrays, path: str | PathLike[str], *, targets: Sequence[str], units: Sequence[str] = (), note: str = ""
) -> None:
    """Predicted against measured value, one panel a target (the first nine); the diagonal is a perfect prediction.

    Args:
        parts: by name of the split, prediction and target, both [graphs, targets].
        path: image file.
        targets: names of the targets.
        units: of the targets where known.
        note: title, for instance the test metric.
    """
    shown = list(targets)[:MOST_PANELS]
    columns = min(3, len(shown))
    figure, grid = _figure(
        -(-len(shown) // columns), columns, width=4.4 * columns, height=4.2 * -(-len(shown) // columns)
    )
    for column, name in enumerate(shown):
        axes = grid[column]
        known = {part: _known(prediction, target, column) for part, (prediction, target) in parts.items()}
        for part, (prediction, target) in known.items():
            axes.plot(target, prediction, MARKERS.get(part, "."), ms=4, alpha=0.7, label=part, color=COLOURS.get(part))
        everything = np.concatenate([values for pair in known.values() for values in pair])
        if len(everything):
            axes.axline((float(np.median(everything)),) * 2, slope=1, color="black", lw=0.8)
            margin = 0.04 * float(np.ptp(everything)) or 1.0
            limits = float(everything.min()) - margin, float(everything.max()) + margin
            axes.set(xlim=limits, ylim=limits)
        unit = f" ({units[column]})" if column < len(units) and units[column] else ""
        axes.set(xlabel=f"{name} measured{unit}", ylabel=f"{name} predicted{unit}", aspect="equal")
        axes.legend(frameon=False)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    if note:
        figure.suptitle(note)
    _save(figure, path)


def roc(parts: Arrays, path: str | PathLike[str], *, targets: Sequence[str], note: str = "") -> None:
    """Receiver operating characteristic of the test split (or the last part there is).

    Args:
        parts: prediction [graphs, targets] (probabilities) and target [graphs, targets]; or [graphs, classes] and
            class numbers [graphs], which gives one curve a class against the rest (one for two classes).
        path: image file.
        targets: names of the targets.
        note: title.
    """
    figure, (axes,) = _figure(1, 1, width=4.6, height=4.4)
    prediction, target = parts.get("test") or list(parts.values())[-1]
    for index, (name, scored, positive) in enumerate(_rankings(prediction, target, targets)):
        x, y, area = roc_points(scored, positive)
        if len(x):
            line = "-" if index < len(CYCLE) else "--"
            axes.plot(x, y, line, color=CYCLE[index % len(CYCLE)], label=f"{name}: {area:.3f}")
    axes.plot([0, 1], [0, 1], ":", color="black", lw=0.8, label="chance: 0.500")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.legend(frameon=False, title="area under curve", loc="lower right")
    if note:
        axes.set_title(note)
    _save(figure, path)


def roc_points(scored: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Corners of the ROC curve (false and true positive rates) and the area; empty and NaN with one class only."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return np.empty(0), np.empty(0), float("nan")
    order = np.argsort(-scored, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scored[order])), len(order) - 1)  # equal scores share a corner
    hits = np.cumsum(positive[order])[ends]
    y = np.concatenate([[0.0], hits / positives])
    x = np.concatenate([[0.0], (ends + 1 - hits) / negatives])
    return x, y, float(np.trapezoid(y, x))


def _rankings(
    prediction: np.ndarray, target: np.ndarray, targets: Sequence[str]
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    if target.ndim == 1:
        classes = range(prediction.shape[1])
        shown = list(classes)[1:] if len(classes) == 2 else list(classes)
        return [(f"class {number}", prediction[:, number], target == number) for number in shown]
    result = []
    for column, name in enumerate(targets):
        scored, positive = _known(prediction, target, column)
        result.append((name, scored, positive > 0.5))
    return result


def _known(prediction: np.ndarray, target: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(target[:, column]) & np.isfinite(prediction[:, column])  # training may have diverged
    return prediction[known, column], target[known, column]


def _figure(rows: int, columns: int, *, width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure of its own, without pyplot: no global state, no display, safe in any thread."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise PLSTMGraphError(missing_extra("matplotlib", "train")) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid.flat)


def _save(figure: Any, path: str | PathLike[str]) -> None:
    with atomic_write(path) as temp:
        figure.savefig(temp, dpi=150)

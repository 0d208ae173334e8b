"""Pictures of runs: curves, parity, ROC, calibration. Colours are Okabe and Ito's, which all readers can tell apart.

Every function draws into ``out``: the path of an image, whose suffix chooses the format, or a stream that gets SVG.
Those of several panels put as many side by side as ``columns`` says.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from os import PathLike
from typing import IO, Any, ParamSpec

import numpy as np

from plstm_graph.errors import PLSTMGraphError, missing_extra
from plstm_graph.files import atomic_write

COLOURS = {"train": "#8C8C8C", "valid": "#E69F00", "test": "#0072B2", "best": "#D55E00"}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = {"train": ".", "valid": "^", "test": "o"}
GREY = "#767676"
MOST_PANELS, MOST_POINTS, MOST_CELLS, MOST_NAMES = 9, 2000, 12, 24  # beyond: left out, or drawn more simply
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.7,
    "svg.hashsalt": "plstm_graph",  # the same picture is the same file
}

Out = str | PathLike[str] | IO[bytes]
History = Sequence[Mapping[str, float]]  # one row an epoch: ``epoch`` (from 0), ``loss``, ``valid_loss``, ``valid_...``
Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]  # {"test": (prediction, target)}, target NaN where missing
P = ParamSpec("P")


def _styled(draw: Callable[P, None]) -> Callable[P, None]:
    @wraps(draw)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            from matplotlib import rc_context
        except ModuleNotFoundError as error:
            raise PLSTMGraphError(missing_extra("matplotlib", "train")) from error
        with rc_context(STYLE):
            draw(*args, **kwargs)

    return run


@_styled
def curves(history: History, out: Out, *, metric: str, label: str = "", best_epoch: int = -1, columns: int = 2) -> None:
    """Losses (left) and validation metric (right) by epoch.

    Args:
        history: one row an epoch with ``epoch`` (from 0), ``loss``, ``valid_loss``, ``valid_<metric>``.
        out: image file or stream.
        metric: name of the metric in the rows.
        label: the metric as a reader knows it.
        best_epoch: from 0; is marked, when it is not negative.
    """
    figure, (left, right) = _panels(2, columns, width=4.5, height=3.4)
    epochs = [row["epoch"] + 1 for row in history]
    dot = "." if len(history) < 3 else ""  # a line of one point is no line
    left.plot(epochs, [row["loss"] for row in history], dot + "-", color=COLOURS["train"], label="train")
    left.plot(epochs, [row["valid_loss"] for row in history], dot + "-", color=COLOURS["valid"], label="valid")
    left.set(ylabel="loss")
    values = [row[f"valid_{metric}"] for row in history]
    right.plot(epochs, values, dot + "-", color=COLOURS["valid"], label="valid")
    if 0 <= best_epoch < len(values):
        label_best = f"best: {values[best_epoch]:.3f} at epoch {best_epoch + 1}"
        right.plot(best_epoch + 1, values[best_epoch], "o", color=COLOURS["best"], label=label_best)
    right.set(ylabel=label or metric)
    _by_epoch((left, right))
    _save(figure, out)


@_styled
def curves_of_runs(
    histories: Mapping[str, History], out: Out, *, metric: str, label: str = "", columns: int = 3
) -> None:
    """Training loss, validation loss and validation metric of several runs, by name; arguments as :func:`curves`."""
    figure, panels = _panels(3, columns, width=3.7, height=3.4)
    titles = {"loss": "train loss", "valid_loss": "valid loss", f"valid_{metric}": f"{label or metric} (valid)"}
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for (name, history), style in zip(histories.items(), _styles(), strict=False):
            axes.plot([row["epoch"] + 1 for row in history], [row[column] for row in history], label=name, **style)
        axes.set(ylabel=title)
    _by_epoch(panels, legend=False)
    if len(histories) <= MOST_NAMES:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    _save(figure, out)


@_styled
def parity(
    parts: Arrays, out: Out, *, targets: Sequence[str], units: Sequence[str] = (), note: str = "", columns: int = 3
) -> None:
    """Predicted against measured value, one panel a target (the first nine); the diagonal is a perfect prediction.

    Args:
        parts: by name of the split, prediction and target, both [graphs, targets].
        out: image file or stream.
        targets: names of the targets.
        units: of the targets where known.
        note: title, for instance the test metric.
    """
    shown = list(targets)[:MOST_PANELS]
    figure, grid = _panels(len(shown), columns, width=4.3, height=4.2)
    for column, (name, axes) in enumerate(zip(shown, grid, strict=True)):
        known = {part: _known(prediction, target, column) for part, (prediction, target) in parts.items()}
        for part, (prediction, target) in known.items():
            axes.plot(
                target,
                prediction,
                MARKERS.get(part, "."),
                ms={"train": 6, "valid": 4}.get(part, 4.5),
                mew=0,
                alpha=0.6 if part == "train" else 0.85,
                label=f"{part} ({len(target):,})",
                color=COLOURS.get(part),
                rasterized=len(target) > MOST_POINTS,
            )
        _diagonal(axes, np.concatenate([values for pair in known.values() for values in pair]))
        unit = f" ({units[column]})" if column < len(units) and units[column] else ""
        axes.set(xlabel=f"{name} measured{unit}", ylabel=f"{name} predicted{unit}")
        axes.legend(loc="upper left", handletextpad=0.2)
    _title(figure, note)
    _save(figure, out)


@_styled
def residuals(
    prediction: np.ndarray,
    target: np.ndarray,
    out: Out,
    *,
    targets: Sequence[str],
    units: Sequence[str] = (),
    columns: int = 2,
) -> None:
    """Whether a regression is calibrated: quantiles of predicted against measured values, and the errors.

    Args:
        prediction, target: [graphs, targets], NaN where there is no label.
        out: image file or stream.
        targets, units: as for :func:`parity`; a row of two panels a target (the first three).
    """
    shown = list(targets)[:3]
    figure, grid = _panels(2 * len(shown), columns, width=4.4, height=3.8)
    for column, name in enumerate(shown):
        left, right = grid[2 * column : 2 * column + 2]
        predicted, measured = _known(prediction, target, column)
        unit = f" ({units[column]})" if column < len(units) and units[column] else ""
        shares = np.linspace(0, 1, min(100, max(2, len(measured))))
        if len(measured):
            quantiles = np.quantile(measured, shares), np.quantile(predicted, shares)
            left.plot(*quantiles, "o", ms=3.5, mew=0, color=COLOURS["test"])
            _diagonal(left, np.concatenate(quantiles))
            error = predicted - measured
            right.hist(error, bins="auto" if len(error) < MOST_POINTS else 60, color=COLOURS["test"], alpha=0.85)
            right.axvline(0, color="black", lw=0.9)
            mean = float(error.mean())
            right.axvline(mean, color=COLOURS["best"], lw=1.7, ls="--", label=f"mean {mean:+.3g}")
            right.legend()
        left.set(xlabel=f"quantile of measured {name}{unit}", ylabel=f"quantile of predicted {name}{unit}")
        right.set(xlabel=f"error of {name}, predicted − measured{unit}", ylabel="graphs")
    _save(figure, out)


@_styled
def roc(parts: Arrays, out: Out, *, targets: Sequence[str], note: str = "") -> None:
    """Receiver operating characteristic of the test split (or the last part there is).

    Args:
        parts: prediction [graphs, targets] (probabilities) and target [graphs, targets]; or [graphs, classes] and
            class numbers [graphs], which gives one curve a class against the rest (one for two classes).
        out: image file or stream.
        targets: names of the targets.
        note: title.
    """
    from sklearn.metrics import auc, roc_curve

    figure, (axes,) = _figure(1, 1, width=4.8, height=4.6)
    lines = []
    for name, scored, positive in _rankings(parts, targets):
        x, y, _ = roc_curve(positive, scored)
        lines.append((name, x, y, float(auc(x, y))))
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls=(0, (2, 3)))
    _ranked(axes, lines, "area under curve", "lower right")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    _title(figure, note)
    _save(figure, out)


@_styled
def precision_recall(parts: Arrays, out: Out, *, targets: Sequence[str], note: str = "") -> None:
    """Precision against recall, with the average precision; arguments as for :func:`roc`."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, (axes,) = _figure(1, 1, width=4.8, height=4.6)
    lines = []
    for name, scored, positive in _rankings(parts, targets):
        y, x, _ = precision_recall_curve(positive, scored)
        area = float(average_precision_score(positive, scored))
        lines.append((f"{name} ({positive.mean():.0%} positive)", x, y, area))
    _ranked(axes, lines, "average precision", "lower left", drawstyle="steps-post")
    axes.set(xlabel="recall", ylabel="precision")
    _title(figure, note)
    _save(figure, out)


@_styled
def confusion(counts: np.ndarray, out: Out, *, note: str = "") -> None:
    """Table of classes: rows are the true class, columns the predicted one, colours shares of a row.

    Args:
        counts: graphs, [classes, classes].
        out: image file or stream.
        note: title.
    """
    classes = len(counts)
    size = min(7.5, 2.4 + 0.6 * classes)
    figure, (axes,) = _figure(1, 1, width=size + 0.8, height=size)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    if classes <= MOST_CELLS:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour)
        axes.set(xticks=range(classes), yticks=range(classes))
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(False)
    _title(figure, note)
    _save(figure, out)


@_styled
def reliability(
    confidence: np.ndarray, frequency: np.ndarray, counts: np.ndarray, out: Out, *, labels: tuple[str, str]
) -> None:
    """Reliability diagram: how often it happened against how sure the model was, above how often it was so sure.

    Args:
        confidence, frequency, counts: mean probability, share of hits and number of predictions of each bin.
        out: image file or stream.
        labels: of the two axes.
    """
    figure, (axes, below) = _figure(2, 1, width=4.8, height=5.0, height_ratios=[3, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls=(0, (2, 3)), label="perfectly calibrated")
    axes.plot(confidence, frequency, "o-", ms=5, color=COLOURS["test"], label="model")
    axes.set(ylabel=labels[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(loc="upper left")
    below.bar(confidence, counts, width=0.06, color=COLOURS["test"], alpha=0.85)
    below.set(xlabel=labels[0], ylabel="predictions")
    _save(figure, out)


@_styled
def intervals(rows: Sequence[tuple[str, float, float, float]], out: Out, *, label: str) -> None:
    """A dot with its interval for each name, one below the other.

    Args:
        rows: name, value, lower and upper end.
        out: image file or stream.
        label: of the values.
    """
    figure, (axes,) = _figure(1, 1, width=7.0, height=1.1 + 0.36 * len(rows))
    for place, ((_, value, low, high), style) in enumerate(zip(rows, _styles(), strict=False)):
        axes.plot([low, high], [place, place], color=style["color"], lw=2.4, solid_capstyle="round")
        axes.plot(value, place, "o", ms=6.5, color=style["color"])
    axes.set(xlabel=label, yticks=range(len(rows)), yticklabels=[name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    _save(figure, out)


def _ranked(axes: Any, lines: Sequence[tuple[str, Any, Any, float]], title: str, place: str, **style: Any) -> None:
    """Curves in the unit square, each named with its area; with more than there are colours only their mean is told."""
    many = len(lines) > len(CYCLE)
    for (name, x, y, area), own in zip(lines, _styles(), strict=False):
        look = {"color": COLOURS["test"], "alpha": 0.25, "lw": 0.9} if many else own
        axes.plot(x, y, label=None if many else f"{name}: {area:.3f}", **look, **style)
    if many:
        axes.plot([], [], color=COLOURS["test"], label=f"mean of {len(lines)}: {np.mean([a for *_, a in lines]):.3f}")
    if lines:
        axes.legend(title=title, loc=place)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")


def _rankings(parts: Arrays, targets: Sequence[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, scores and whether positive, for every target or class that has both kinds."""
    prediction, target = parts.get("test") or list(parts.values())[-1]
    if target.ndim == 1:
        classes = [1] if prediction.shape[1] == 2 else range(prediction.shape[1])
        found = [(f"class {number}", prediction[:, number], target == number) for number in classes]
    else:
        known = [_known(prediction, target, column) for column in range(len(targets))]
        found = [(name, scored, label > 0.5) for name, (scored, label) in zip(targets, known, strict=True)]
    return ((name, scored, positive) for name, scored, positive in found if 0 < positive.sum() < len(positive))


def _known(prediction: np.ndarray, target: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(target[:, column]) & np.isfinite(prediction[:, column])  # training may have diverged
    return prediction[known, column], target[known, column]


def _diagonal(axes: Any, values: np.ndarray) -> None:
    """Equal axes that hold all values, and where both are the same."""
    if not len(values):
        return
    margin = 0.04 * float(np.ptp(values)) or 1.0
    limits = float(values.min()) - margin, float(values.max()) + margin
    axes.plot(limits, limits, color="black", lw=0.9, zorder=1)
    axes.set(xlim=limits, ylim=limits, aspect="equal")


def _styles() -> Iterator[dict[str, str]]:
    """Colour and line of one curve after the other; no two alike among the first 28."""
    while True:
        yield from ({"color": colour, "ls": line} for line in LINES for colour in CYCLE)


def _by_epoch(panels: Iterable[Any], legend: bool = True) -> None:
    from matplotlib.ticker import MaxNLocator

    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if legend:
            axes.legend()


def _title(figure: Any, note: str) -> None:
    if note:
        figure.suptitle(note, fontsize=11)


def _panels(count: int, columns: int, *, width: float, height: float) -> tuple[Any, list[Any]]:
    """So many panels of a size, side by side and below each other."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = _figure(rows, columns, width=width * columns, height=height * rows)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid[:count]


def _figure(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Any, list[Any]]:
    """A figure of its own, without pyplot: no global state, no display, safe in any thread."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:  # also for the pictures of ``draw``
        raise PLSTMGraphError(missing_extra("matplotlib", "viz")) from error

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def _save(figure: Any, out: Out) -> None:
    if not isinstance(out, str | PathLike):
        figure.savefig(out, format="svg", dpi=150, metadata={"Date": None})
        return
    with atomic_write(out) as temp:
        figure.savefig(temp, dpi=150)

"""Pictures of runs: curves, parity, ROC, calibration.

Colours are Okabe and Ito's, some darkened, so that all readers can tell them apart and see each of them on white.

Every function draws into ``out``: the path of an image, whose suffix chooses the format, or a stream that gets SVG.
Those of several panels put as many side by side as ``columns`` says.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from os import PathLike
from textwrap import wrap
from typing import IO, Any, ParamSpec

import numpy as np

from plstm_graph.errors import PLSTMGraphError, missing_extra
from plstm_graph.io.files import atomic_write

COLOURS = {"train": "#8C8C8C", "valid": "#C48400", "test": "#0072B2", "best": "#A63D00"}
CYCLE = ("#005A8F", "#A63D00", "#009A70", "#C48400", "#CC79A7", "#3797D3", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = {"train": ".", "valid": "^", "test": "o"}
GREY = "#767676"
MOST_PANELS, MOST_POINTS, MOST_CELLS, MOST_NAMES = 9, 2000, 12, 24  # beyond: left out, or drawn more simply
LETTER, LONGEST_NAME = 0.083, 30  # inch of a letter; letters of a line of a legend
FEW_EPOCHS, MOST_TICKS = 12, 8
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
    dot = _dots(len(history))
    left.plot(epochs, [row["loss"] for row in history], dot + "-", color=COLOURS["train"], label="train")
    left.plot(epochs, [row["valid_loss"] for row in history], dot + "-", color=COLOURS["valid"], label="valid")
    left.set(ylabel="loss")
    values = [row[f"valid_{metric}"] for row in history]
    right.plot(epochs, values, dot + "-", color=COLOURS["valid"], label="valid")
    if 0 <= best_epoch < len(values):
        label_best = f"best: {values[best_epoch]:.3f} at epoch {best_epoch + 1}"
        right.plot(best_epoch + 1, values[best_epoch], "o", color=COLOURS["best"], label=label_best)
    right.set(ylabel=label or metric)
    _by_epoch((left, right), len(history))
    for axes in (left, right):
        _legend_above(axes)
    _save(figure, out)


@_styled
def curves_of_runs(
    histories: Mapping[str, Sequence[History]],
    out: Out,
    *,
    metric: str,
    label: str = "",
    columns: int = 3,
    single: bool = False,
) -> None:
    """Training loss, validation loss and validation metric of several trainings, by name.

    Args:
        histories: of each training the histories of its runs, as for :func:`curves`: drawn as their mean, with a band
            of one standard deviation, over the runs that reached the epoch.
        single: draw every run instead.
        out, metric, label, columns: as for :func:`curves`.
    """
    figure, panels = _panels(3, columns, width=3.7, height=3.4)
    titles = {"loss": "train loss", "valid_loss": "valid loss", f"valid_{metric}": f"{label or metric} (valid)"}
    longest = max((len(run) for runs in histories.values() for run in runs), default=0)
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for (name, runs), style in zip(histories.items(), _styles(), strict=False):
            values = _stacked(runs, column)
            epochs, look = np.arange(1, values.shape[1] + 1), dict(style, marker=_dots(longest), ms=4)
            if single:
                axes.plot(epochs, values.T, **look | {"lw": 0.9, "alpha": 0.7})
                axes.plot([], [], label=_lines(name, LONGEST_NAME), **look)
                continue
            mean, spread = _mean_and_spread(values)
            axes.plot(epochs, mean, label=_lines(name, LONGEST_NAME), **look)
            axes.fill_between(epochs, mean - spread, mean + spread, color=style["color"], alpha=0.15, lw=0)
        axes.set(ylabel=title)
    _by_epoch(panels, longest)
    if len(histories) <= MOST_NAMES:
        _legend_below(figure, panels[0], columns)
    _save(figure, out)


def _stacked(runs: Sequence[History], column: str) -> np.ndarray:
    """[runs, epochs], NaN behind the last epoch of a run."""
    found = np.full((len(runs), max(map(len, runs), default=0)), np.nan)
    for row, run in zip(found, runs, strict=True):
        row[: len(run)] = [epoch[column] for epoch in run]
    return found


def _mean_and_spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over the runs of [runs, epochs] that have a number; a spread of 0 where there is one."""
    known = np.isfinite(values)
    there, filled = known.sum(0), np.where(known, values, 0.0)
    mean = np.where(there > 0, filled.sum(0) / np.maximum(there, 1), np.nan)
    squares = np.where(known, (values - mean) ** 2, 0.0).sum(0)
    return mean, np.sqrt(squares / np.maximum(there - 1, 1))


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
        _named(axes, f"{name} measured{unit}", f"{name} predicted{unit}", width=3.2)
        _legend_above(axes, handletextpad=0.1, columnspacing=0.9)
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
    things: str = "graphs",
) -> None:
    """Whether a regression is calibrated: quantiles of predicted against measured values, and the errors.

    Args:
        prediction, target: [graphs, targets], NaN where there is no label.
        out: image file or stream.
        targets, units: as for :func:`parity`; a row of two panels a target (the first three).
        things: what is counted.
    """
    from matplotlib.ticker import MaxNLocator

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
            right.axvline(mean, color=COLOURS["best"], lw=1.7, ls="--", label=f"mean {_minus(f'{mean:+.3g}')}")
            _legend_above(right)
        _named(left, f"quantile of measured {name}{unit}", f"quantile of predicted {name}{unit}", width=2.8)
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
        _named(right, f"error of {name}, predicted − measured{unit}", things, width=3.4)
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

    figure, (axes,) = _figure(1, 1, width=4.8, height=5.2)
    lines = []
    for name, scored, positive in _rankings(parts, targets):
        x, y, _ = roc_curve(positive, scored)
        lines.append((name, x, y, float(auc(x, y))))
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls=(0, (2, 3)))
    _ranked(figure, axes, lines, "area under curve")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    _title(figure, note)
    _save(figure, out)


@_styled
def precision_recall(parts: Arrays, out: Out, *, targets: Sequence[str], note: str = "") -> None:
    """Precision against recall, with the average precision; arguments as for :func:`roc`."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, (axes,) = _figure(1, 1, width=4.8, height=5.2)
    lines = []
    for name, scored, positive in _rankings(parts, targets):
        y, x, _ = precision_recall_curve(positive, scored)
        area = float(average_precision_score(positive, scored))
        lines.append((f"{name} ({positive.mean():.0%} positive)", x, y, area))
    _ranked(figure, axes, lines, "average precision", drawstyle="steps-post")
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
    confidence: np.ndarray,
    frequency: np.ndarray,
    counts: np.ndarray,
    out: Out,
    *,
    labels: tuple[str, str],
    bins: int = 10,
) -> None:
    """Reliability diagram: how often it happened against how sure the model was, above how often it was so sure.

    Args:
        confidence, frequency, counts: mean probability, share of hits and number of predictions of each bin.
        out: image file or stream.
        labels: of the two axes.
        bins: of equal width, how many there are from 0 to 1.
    """
    figure, (axes, below) = _figure(2, 1, width=4.8, height=5.2, height_ratios=[3, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.1, ls=(0, (3, 2)), label="perfectly calibrated")
    axes.plot(confidence, frequency, "o-", ms=5, color=COLOURS["test"], label="model")
    axes.set(ylabel=labels[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _legend_above(axes)
    places = (np.minimum(np.floor(np.asarray(confidence) * bins), bins - 1) + 0.5) / bins
    below.bar(places, counts, width=0.9 / bins, color=COLOURS["test"], alpha=0.85)
    below.set(xlabel=labels[0], ylabel="predictions")
    _save(figure, out)


@_styled
def intervals(
    rows: Sequence[tuple[str, float, float, float, Sequence[float]]], out: Out, *, label: str, columns: int = 2
) -> None:
    """A dot with its interval for each name, one below the other, and small dots for what it is the mean of.

    Args:
        rows: name, value, lower and upper end (NaN for none), single values.
        out: image file or stream.
        label: of the values.
        columns: 1 for a narrow picture.
    """
    names = [_lines(name, 22) for name, *_ in rows]
    high = sum(0.24 + 0.18 * (1 + name.count("\n")) for name in names)
    figure, (axes,) = _figure(1, 1, width=6.4 if columns > 1 else 4.2, height=0.9 + high)
    for place, ((_, value, low, up, single), style) in enumerate(zip(rows, _styles(), strict=False)):
        axes.plot([low, up], [place, place], color=style["color"], lw=2.4, solid_capstyle="round")
        axes.plot(single, np.full(len(single), place), "o", ms=3.5, mew=0, color=GREY, alpha=0.8)
        axes.plot(value, place, "o", ms=7, mec="white", mew=0.8, color=style["color"])
    axes.set(xlabel=label, yticks=range(len(rows)), yticklabels=names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    _save(figure, out)


def _ranked(figure: Any, axes: Any, lines: Sequence[tuple[str, Any, Any, float]], title: str, **style: Any) -> None:
    """Curves in the unit square, each named with its area; those of more than there are colours also as their mean."""
    many = len(lines) > len(CYCLE)
    for (name, x, y, area), own in zip(lines, _styles(), strict=False):
        look = {"color": COLOURS["test"], "alpha": 0.25, "lw": 0.9} if many else own
        axes.plot(x, y, label=None if many else _lines(f"{name}: {area:.3f}", 2 * LONGEST_NAME), **look, **style)
    if many:
        axes.plot([], [], color=COLOURS["test"], alpha=0.5, lw=0.9, label="a target")
        grid = np.linspace(0, 1, 201)
        mean = np.mean([_at(grid, x, y) for _, x, y, _ in lines], axis=0)
        label = f"mean of {len(lines)}: {np.mean([area for *_, area in lines]):.3f}"
        axes.plot(grid, mean, color=COLOURS["best"], lw=2.2, label=label)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    if lines:
        short = all(len(name) <= 14 for name, *_ in lines) and not many
        _legend_below(figure, axes, 3 if short and len(lines) > 2 else 1, title=title)


def _at(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A curve at the places of a grid, from whichever end it runs."""
    order = np.argsort(x, kind="stable")
    return np.interp(grid, np.asarray(x)[order], np.asarray(y)[order])


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


def _by_epoch(panels: Iterable[Any], epochs: int) -> None:
    """Whole epochs as ticks, the first among them."""
    step = next(
        step * 10**power for power in range(9) for step in (1, 2, 5) if epochs / (step * 10**power) <= MOST_TICKS
    )
    ticks = [*([1] if step > 1 else []), *range(step, epochs + 1, step)]
    for axes in panels:
        axes.set(xlabel="epoch", xticks=ticks, xlim=(1 - 0.04 * epochs - 0.2, epochs + 0.04 * epochs + 0.2))


def _dots(epochs: int) -> str:
    """A line of few points shows them; one of a single point is nothing else."""
    return "o" if epochs <= FEW_EPOCHS else ""


def _lines(text: str, letters: int) -> str:
    """A text on as many lines as it takes."""
    return "\n".join(wrap(" ".join(text.split()), letters)) or text


def _named(axes: Any, x: str, y: str, *, width: float) -> None:
    """Labels of axes of so many inches."""
    axes.set_xlabel(_lines(x, int(width / LETTER)))
    axes.set_ylabel(_lines(y, int(width / LETTER)))


def _legend_above(axes: Any, **style: Any) -> None:
    """Over the panel, where it hides nothing."""
    names = axes.get_legend_handles_labels()[1]
    options = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderpad": 0.1, "handlelength": 1.6}
    axes.legend(ncols=max(1, len(names)), **options | style)


def _legend_below(figure: Any, axes: Any, columns: int, **style: Any) -> None:
    found = axes.get_legend_handles_labels()
    figure.legend(*found, loc="outside lower center", ncols=min(columns, len(found[0])), **style)


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _title(figure: Any, note: str) -> None:
    if note:
        figure.suptitle(_lines(note, int(figure.get_figwidth() / LETTER)), fontsize=11)


@_styled
def patches(
    images: np.ndarray, influence: np.ndarray, out: Out, *, titles: Sequence[str], directions: Sequence[str]
) -> None:
    """Images, a row each, and how much each patch speaks for the decision along each direction, blue, or against, red.

    Args:
        images: [n, height, width], from black (the least) to white.
        influence: [n, directions, Y, X].
        out: image file or stream.
        titles: of the images.
        directions: names of the maps.
    """
    count, maps = influence.shape[:2]
    figure, grid = _figure(count, 1 + maps, width=1.9 * (1 + maps), height=2.15 * count)
    for row, (image, scores, title) in enumerate(zip(images, influence, titles, strict=True)):
        axes = grid[row * (1 + maps) : (row + 1) * (1 + maps)]
        axes[0].imshow(image, cmap="gray")
        axes[0].set_title(title)
        most = float(np.abs(scores).max()) or 1.0
        for panel, score, name in zip(axes[1:], scores, directions, strict=True):
            panel.imshow(score, cmap="RdBu", vmin=-most, vmax=most)
            panel.set_title(name)
        for panel in axes:
            panel.set(xticks=[], yticks=[])
            panel.grid(visible=False)
    _save(figure, out)


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

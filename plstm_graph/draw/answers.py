"""Answers beside what was measured: parity, ranking, calibration, scores with their intervals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from plstm_graph.draw import style

MOST_PANELS, MOST_POINTS, MOST_CELLS, MOST_LETTERS = 9, 2000, 12, 14  # beyond: left out, or drawn more simply

Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]  # {"test": (prediction, target)}, target NaN where missing


@style.styled
def parity(
    parts: Arrays,
    out: style.Out,
    *,
    targets: Sequence[str],
    units: Sequence[str] = (),
    note: str = "",
    columns: int = 3,
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
    figure, grid = style.panels(len(shown), columns, width=4.3, height=4.2)
    for column, (name, axes) in enumerate(zip(shown, grid, strict=True)):
        known = {part: _known(prediction, target, column) for part, (prediction, target) in parts.items()}
        for part, (prediction, target) in known.items():
            axes.plot(
                target,
                prediction,
                style.MARKERS.get(part, "."),
                ms={"train": 6, "valid": 4}.get(part, 4.5),
                mew=0,
                alpha=0.6 if part == "train" else 0.85,
                label=f"{part} ({len(target):,})",
                color=style.COLOURS.get(part),
                rasterized=len(target) > MOST_POINTS,
            )
        _diagonal(axes, np.concatenate([values for pair in known.values() for values in pair]))
        unit = f" ({units[column]})" if column < len(units) and units[column] else ""
        style.name_axes(axes, f"{name} measured{unit}", f"{name} predicted{unit}", width=3.2)
        style.legend_above(axes, handletextpad=0.1, columnspacing=0.9)
    style.set_title(figure, note)
    style.save(figure, out)


@style.styled
def residuals(
    prediction: np.ndarray,
    target: np.ndarray,
    out: style.Out,
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
    figure, grid = style.panels(2 * len(shown), columns, width=4.4, height=3.8)
    for column, name in enumerate(shown):
        left, right = grid[2 * column : 2 * column + 2]
        predicted, measured = _known(prediction, target, column)
        unit = f" ({units[column]})" if column < len(units) and units[column] else ""
        shares = np.linspace(0, 1, min(100, max(2, len(measured))))
        if len(measured):
            quantiles = np.quantile(measured, shares), np.quantile(predicted, shares)
            left.plot(*quantiles, "o", ms=3.5, mew=0, color=style.COLOURS["test"])
            _diagonal(left, np.concatenate(quantiles))
            error = predicted - measured
            right.hist(error, bins="auto" if len(error) < MOST_POINTS else 60, color=style.COLOURS["test"], alpha=0.85)
            right.axvline(0, color="black", lw=0.9)
            mean = float(error.mean())
            label = f"mean {style.true_minus(f'{mean:+.3g}')}"
            right.axvline(mean, color=style.COLOURS["best"], lw=1.7, ls="--", label=label)
            style.legend_above(right)
        style.name_axes(left, f"quantile of measured {name}{unit}", f"quantile of predicted {name}{unit}", width=2.8)
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
        style.name_axes(right, f"error of {name}, predicted − measured{unit}", things, width=3.4)
    style.save(figure, out)


@style.styled
def roc(parts: Arrays, out: style.Out, *, targets: Sequence[str], note: str = "") -> None:
    """Receiver operating characteristic of the test split (or the last part there is).

    Args:
        parts: prediction [graphs, targets] (probabilities) and target [graphs, targets]; or [graphs, classes] and
            class numbers [graphs], which gives one curve a class against the rest (one for two classes).
        out: image file or stream.
        targets: names of the targets, or of the classes.
        note: title.
    """
    from sklearn.metrics import auc, roc_curve

    figure, (axes,) = style.new_figure(1, 1, width=4.8, height=5.2)
    lines = []
    for name, scored, positive in _rankings(parts, targets):
        x, y, _ = roc_curve(positive, scored)
        lines.append((name, x, y, float(auc(x, y))))
    axes.plot([0, 1], [0, 1], color=style.GREY, lw=0.9, ls=(0, (2, 3)))
    _ranked(figure, axes, lines, "area under curve")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    style.set_title(figure, note)
    style.save(figure, out)


@style.styled
def precision_recall(parts: Arrays, out: style.Out, *, targets: Sequence[str], note: str = "") -> None:
    """Precision against recall, with the average precision; arguments as for :func:`roc`."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, (axes,) = style.new_figure(1, 1, width=4.8, height=5.2)
    lines = []
    for name, scored, positive in _rankings(parts, targets):
        y, x, _ = precision_recall_curve(positive, scored)
        area = float(average_precision_score(positive, scored))
        lines.append((f"{name} ({positive.mean():.0%} positive)", x, y, area))
    _ranked(figure, axes, lines, "average precision", drawstyle="steps-post")
    axes.set(xlabel="recall", ylabel="precision")
    style.set_title(figure, note)
    style.save(figure, out)


@style.styled
def confusion(counts: np.ndarray, out: style.Out, *, names: Sequence[str] = (), note: str = "") -> None:
    """Table of classes: rows are the true class, columns the predicted one, colours shares of a row.

    Args:
        counts: graphs, [classes, classes].
        out: image file or stream.
        names: of the classes, which have numbers otherwise.
        note: title.
    """
    classes = len(counts)
    size = min(7.5, 2.4 + 0.6 * classes)
    figure, (axes,) = style.new_figure(1, 1, width=size + 0.8, height=size)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    if classes <= MOST_CELLS:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour)
        axes.set(xticks=range(classes), yticks=range(classes))
        if names:
            short = [name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…" for name in names]
            axes.set_xticklabels(short, rotation=90)
            axes.set_yticklabels(short)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(False)
    style.set_title(figure, note)
    style.save(figure, out)


@style.styled
def reliability(
    confidence: np.ndarray,
    frequency: np.ndarray,
    counts: np.ndarray,
    out: style.Out,
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
    figure, (axes, below) = style.new_figure(2, 1, width=4.8, height=5.2, height_ratios=[3, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color=style.GREY, lw=1.1, ls=(0, (3, 2)), label="perfectly calibrated")
    axes.plot(confidence, frequency, "o-", ms=5, color=style.COLOURS["test"], label="model")
    axes.set(ylabel=labels[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    style.legend_above(axes)
    places = (np.minimum(np.floor(np.asarray(confidence) * bins), bins - 1) + 0.5) / bins
    below.bar(places, counts, width=0.9 / bins, color=style.COLOURS["test"], alpha=0.85)
    below.set(xlabel=labels[0], ylabel="predictions")
    style.save(figure, out)


@style.styled
def intervals(
    rows: Sequence[tuple[str, float, float, float, Sequence[float]]], out: style.Out, *, label: str, columns: int = 2
) -> None:
    """A dot with its interval for each name, one below the other, and small dots for what it is the mean of.

    Args:
        rows: name, value, lower and upper end (NaN for none), single values.
        out: image file or stream.
        label: of the values.
        columns: 1 for a narrow picture.
    """
    names = [style.wrapped(name, 22) for name, *_ in rows]
    high = sum(0.24 + 0.18 * (1 + name.count("\n")) for name in names)
    figure, (axes,) = style.new_figure(1, 1, width=6.4 if columns > 1 else 4.2, height=0.9 + high)
    for place, ((_, value, low, up, single), own) in enumerate(zip(rows, style.looks(), strict=False)):
        axes.plot([low, up], [place, place], color=own["color"], lw=2.4, solid_capstyle="round")
        axes.plot(single, np.full(len(single), place), "o", ms=3.5, mew=0, color=style.GREY, alpha=0.8)
        axes.plot(value, place, "o", ms=7, mec="white", mew=0.8, color=own["color"])
    axes.set(xlabel=label, yticks=range(len(rows)), yticklabels=names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    style.save(figure, out)


@style.styled
def patches(
    images: np.ndarray, influence: np.ndarray, out: style.Out, *, titles: Sequence[str], directions: Sequence[str]
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
    figure, grid = style.new_figure(count, 1 + maps, width=1.9 * (1 + maps), height=2.15 * count)
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
    style.save(figure, out)


def _ranked(figure: Any, axes: Any, lines: Sequence[tuple[str, Any, Any, float]], title: str, **more: Any) -> None:
    """Curves in the unit square, each named with its area; those of more than there are colours also as their mean."""
    many = len(lines) > len(style.CYCLE)
    for (name, x, y, area), own in zip(lines, style.looks(), strict=False):
        look = {"color": style.COLOURS["test"], "alpha": 0.25, "lw": 0.9} if many else own
        axes.plot(
            x, y, label=None if many else style.wrapped(f"{name}: {area:.3f}", 2 * style.LONGEST_NAME), **look, **more
        )
    if many:
        axes.plot([], [], color=style.COLOURS["test"], alpha=0.5, lw=0.9, label=f"one of {len(lines)}")
        grid = np.linspace(0, 1, 201)
        mean = np.mean([_at(grid, x, y) for _, x, y, _ in lines], axis=0)
        label = f"their mean: {np.mean([area for *_, area in lines]):.3f}"
        axes.plot(grid, mean, color=style.COLOURS["best"], lw=2.2, label=label)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    if lines:
        short = all(len(name) <= 14 for name, *_ in lines) and not many
        style.legend_below(figure, axes, 3 if short and len(lines) > 2 else 1, title=title)


def _at(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A curve at the places of a grid, from whichever end it runs."""
    order = np.argsort(x, kind="stable")
    return np.interp(grid, np.asarray(x)[order], np.asarray(y)[order])


def _rankings(parts: Arrays, targets: Sequence[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, scores and whether positive, for every target or class that has both kinds."""
    prediction, target = parts.get("test") or list(parts.values())[-1]
    if target.ndim == 1:
        classes = [1] if prediction.shape[1] == 2 else range(prediction.shape[1])
        named = len(targets) == prediction.shape[1]
        names = targets if named else [f"class {number}" for number in range(prediction.shape[1])]
        found = [(names[number], prediction[:, number], target == number) for number in classes]
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

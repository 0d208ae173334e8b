"""How training went, epoch by epoch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from plstm_graph.draw import style
from plstm_graph.errors import rounded

FEW_EPOCHS, MOST_TICKS = 12, 8

History = Sequence[Mapping[str, float]]  # one row an epoch: ``epoch`` (from 0), ``loss``, ``valid_loss``, ``valid_...``


@style.styled
def curves(
    history: History, out: style.Out, *, metric: str, label: str = "", best_epoch: int = -1, columns: int = 2
) -> None:
    """Losses (left) and validation metric (right) by epoch.

    Args:
        history: one row an epoch with ``epoch`` (from 0), ``loss``, ``valid_loss``, ``valid_<metric>``.
        out: image file or stream.
        metric: name of the metric in the rows.
        label: the metric as a reader knows it.
        best_epoch: from 0; is marked, when it is not negative.
    """
    figure, (left, right) = style.panels(2, columns, width=4.5, height=3.4)
    epochs = [row["epoch"] + 1 for row in history]
    dot = _dots(len(history))
    left.plot(epochs, [row["loss"] for row in history], dot + "-", color=style.COLOURS["train"], label="train")
    left.plot(epochs, [row["valid_loss"] for row in history], dot + "-", color=style.COLOURS["valid"], label="valid")
    left.set(ylabel="loss")
    values = [row[f"valid_{metric}"] for row in history]
    right.plot(epochs, values, dot + "-", color=style.COLOURS["valid"], label="valid")
    if 0 <= best_epoch < len(values):
        label_best = f"best: {rounded(values[best_epoch], 3)} at epoch {best_epoch + 1}"
        right.plot(best_epoch + 1, values[best_epoch], "o", color=style.COLOURS["best"], label=label_best)
    right.set(ylabel=label or metric)
    _by_epoch((left, right), len(history))
    for axes in (left, right):
        style.legend_above(axes)
    style.save(figure, out)


@style.styled
def curves_of_runs(
    histories: Mapping[str, Sequence[History]],
    out: style.Out,
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
    figure, panels = style.panels(3, columns, width=3.7, height=3.4)
    titles = {"loss": "train loss", "valid_loss": "valid loss", f"valid_{metric}": f"{label or metric} (valid)"}
    longest = max((len(run) for runs in histories.values() for run in runs), default=0)
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for (name, runs), own in zip(histories.items(), style.looks(), strict=False):
            values = _stacked(runs, column)
            epochs, look = np.arange(1, values.shape[1] + 1), dict(own, marker=_dots(longest), ms=4)
            if single:
                axes.plot(epochs, values.T, **look | {"lw": 0.9, "alpha": 0.7})
                axes.plot([], [], label=style.wrapped(name, style.LONGEST_NAME), **look)
                continue
            mean, spread = _mean_and_spread(values)
            axes.plot(epochs, mean, label=style.wrapped(name, style.LONGEST_NAME), **look)
            axes.fill_between(epochs, mean - spread, mean + spread, color=own["color"], alpha=0.15, lw=0)
        axes.set(ylabel=title)
    _by_epoch(panels, longest)
    if len(histories) <= style.MOST_NAMES:
        style.legend_below(figure, panels[0], columns)
    style.save(figure, out)


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


@style.styled
def trials(rows: Sequence[Mapping[str, Any]], out: style.Out, *, label: str, higher: bool, columns: int = 2) -> None:
    """Scores of the trials of a search in their order, and the best of the complete ones so far.

    What is far behind is a triangle on the edge.

    Args:
        rows: one a trial with ``trial``, ``valid`` and ``state``.
        out: image file or stream.
        label: of the score.
        higher: whether more is better.
        columns: 1 for a narrow picture.
    """
    figure, (axes,) = style.new_figure(1, 1, width=7.5 if columns > 1 else 4.2, height=3.4)
    known = np.array([row["valid"] for row in rows if row["state"] == "complete"])
    best, worst = (known.max(), known.min()) if higher else (known.min(), known.max())
    middle = np.quantile(known, 0.25 if higher else 0.75)
    reach = 1.5 * abs(best - middle) or abs(best - worst) or 1.0
    edge = best - reach if higher else best + reach
    inside = np.maximum if higher else np.minimum  # what is far behind stands on the edge, as a triangle
    for state, name, fill in (("complete", "complete", style.COLOURS["valid"]), ("pruned", "stopped early", "white")):
        shown = np.array([(row["trial"], row["valid"]) for row in rows if row["state"] == state]).reshape(-1, 2)
        far = inside(shown[:, 1], edge) != shown[:, 1]
        look: dict[str, Any] = {"color": style.COLOURS["valid"], "ls": "", "ms": 6, "mfc": fill, "clip_on": False}
        axes.plot(*shown[~far].T, "o", label=name, zorder=3, **look)
        axes.plot(shown[far, 0], np.full(far.sum(), edge), "v" if higher else "^", zorder=3, **look)
    steps = [row["trial"] for row in rows if row["state"] == "complete"]
    so_far = inside((np.maximum if higher else np.minimum).accumulate(known), edge)
    ends = [*steps, max(row["trial"] for row in rows)]
    axes.step(ends, [*so_far, so_far[-1]], where="post", color=style.COLOURS["best"], label="best so far")
    axes.set(xlabel="trial", ylabel=f"valid {label}", ylim=sorted((edge, best + 0.08 * (best - edge))))
    axes.xaxis.get_major_locator().set_params(integer=True)
    style.legend_below(figure, axes, 3)
    style.save(figure, out)

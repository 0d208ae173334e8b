"""Metrics that rank, of many bootstrap samples at once: a sample is how often it holds each row.

One sort serves all samples. Values are those of scikit-learn for the rows themselves, to rounding.
"""

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["RANKING", "ranking"]

AT_ONCE = 4_000_000
"""Counts that are held in memory: samples by rows."""


def _rocauc(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """The share of pairs of a positive and a negative that are in the right order, ties half."""
    above = np.cumsum(hits, axis=1) - hits
    pairs = hits.sum(1) * misses.sum(1)
    return (misses * (above + hits / 2)).sum(1) / pairs


def _ap(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Precision at each threshold, weighted by the recall that it adds."""
    found = np.cumsum(hits, axis=1)
    precision = found / np.maximum(found + np.cumsum(misses, axis=1), 1)
    return (hits * precision).sum(1) / np.where(misses.any(1), hits.sum(1), np.nan)


RANKING: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"rocauc": _rocauc, "ap": _ap}
"""By metric: of positives and negatives [samples, thresholds], the highest first, its value [samples]."""


def ranking(name: str, prediction: np.ndarray, target: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """A metric of :data:`RANKING` for each sample, mean over the targets for which it is defined; NaN where none is.

    Args:
        name: of the metric.
        prediction: [rows, targets], finite.
        target: [rows, targets] of zeros and ones, NaN where there is no label.
        samples: rows of each sample, [samples, rows].
    """
    return np.concatenate([_mean(name, prediction, target, times) for times in _times(samples, len(target))])


def _times(samples: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """How often each sample holds each row, [some samples, rows]."""
    some = max(1, AT_ONCE // max(1, rows))
    for first in range(0, len(samples), some):
        yield np.stack([np.bincount(sample, minlength=rows) for sample in samples[first : first + some]])


def _mean(name: str, prediction: np.ndarray, target: np.ndarray, times: np.ndarray) -> np.ndarray:
    values = np.full((len(times), target.shape[1]), np.nan)
    for column, (found, wanted) in enumerate(zip(prediction.T, target.T, strict=True)):
        known = ~np.isnan(wanted)
        if known.any():
            with np.errstate(invalid="ignore", divide="ignore"):  # labels of one class only
                values[:, column] = RANKING[name](*_counted(found[known], wanted[known] > 0.5, times[:, known]))
    defined = ~np.isnan(values)
    return np.where(defined.any(1), np.where(defined, values, 0).sum(1) / np.maximum(defined.sum(1), 1), np.nan)


def _counted(prediction: np.ndarray, positive: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives at each predicted value, [samples, values], from the highest on."""
    order = np.argsort(-prediction, kind="stable")
    starts = np.flatnonzero(np.diff(prediction[order], prepend=np.nan) != 0)
    hits, every = (np.add.reduceat(kinds[:, order], starts, axis=1) for kinds in (times * positive, times))
    return hits, every - hits

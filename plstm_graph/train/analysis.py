"""What stored predictions say: intervals, paired differences, calibration, the worst graphs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from plstm_graph.tasks import METRICS, Task, score
from plstm_graph.train.record import Predictions

LEVEL = 0.95
RESAMPLES, FEWEST, WORK = 1000, 100, 200_000_000  # draws of the bootstrap, fewer where graphs and targets are many
BINS = 10


class Interval(NamedTuple):
    """A value and the ends of its confidence interval, NaN where it is not defined."""

    value: float
    low: float
    high: float


class Reliability(NamedTuple):
    """Bins [B] of a reliability diagram that have predictions in them, and the expected calibration error."""

    confidence: np.ndarray
    frequency: np.ndarray
    counts: np.ndarray
    error: float


class Difference(NamedTuple):
    """How much better (positive) or worse a run is than another on the same graphs."""

    difference: Interval
    better: float  # share of the draws in which it is better


def draws(graphs: int, targets: int, *, seed: int = 0) -> np.ndarray:
    """Which graphs each bootstrap sample holds, [samples, graphs], the same for equal arguments.

    1,000 samples, fewer (at least 100) where each of them would score so many labels that it takes minutes.
    """
    samples = int(np.clip(WORK // max(1, graphs * targets), FEWEST, RESAMPLES))
    return np.random.default_rng(seed).integers(0, graphs, (samples, graphs))


def bootstrap(found: Predictions, names: Sequence[str], samples: np.ndarray) -> dict[str, Interval]:
    """Percentile intervals of metrics over resampled graphs.

    Args:
        found: predictions and labels of a part.
        names: of the metrics.
        samples: see :func:`draws`.
    """
    return {name: _interval(scored(found, name), resampled(found, name, samples)) for name in names}


def paired(first: Predictions, second: Predictions, name: str, samples: np.ndarray) -> Difference:
    """Metric of ``second`` over that of ``first`` on the same graphs, signed so that positive is better."""
    sign = 1 if METRICS[name].higher_is_better else -1
    gains = sign * (resampled(second, name, samples) - resampled(first, name, samples))
    gain = sign * (scored(second, name) - scored(first, name))
    defined = gains[~np.isnan(gains)]
    return Difference(_interval(gain, gains), float((defined > 0).mean()) if len(defined) else np.nan)


def same_graphs(runs: Sequence[Predictions]) -> bool:
    """Whether runs were tested on the same graphs with the same labels, in the same order."""
    first = runs[0]
    return all(
        np.array_equal(first.index, run.index) and np.array_equal(first.target, run.target, equal_nan=True)
        for run in runs
    )


def scored(found: Predictions, name: str) -> float:
    """A metric of all graphs of a part."""
    return score(name, *_tensors(found))


def resampled(found: Predictions, name: str, samples: np.ndarray) -> np.ndarray:
    """A metric of every bootstrap sample, [samples]; NaN in one that has labels of one class only."""
    prediction, target = _tensors(found)
    with torch.inference_mode():
        return np.array([score(name, prediction[row], target[row]) for row in torch.from_numpy(samples)])


def reliability(found: Predictions) -> Reliability:
    """How often what was predicted with a certain probability was so, in ten bins of equal width.

    For classes of the class that was chosen, for yes or no of yes, all targets together. The expected calibration error
    is the mean distance between both, weighted by the number of predictions.
    """
    if found.target.ndim == 1:
        sure = found.prediction.max(1)
        true = found.prediction.argmax(1) == found.target
    else:
        known = ~np.isnan(found.target)
        sure, true = found.prediction[known], found.target[known] > 0.5
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    some = counts > 0
    confidence = np.bincount(place, sure, BINS)[some] / counts[some]
    frequency = np.bincount(place, true, BINS)[some] / counts[some]
    error = float(np.average(np.abs(confidence - frequency), weights=counts[some])) if some.any() else np.nan
    return Reliability(confidence, frequency, counts[some], error)


def errors(found: Predictions, task: type[Task]) -> np.ndarray:
    """How wrong each prediction is, [graphs, targets], -1 where there is no label.

    Of quantities in standard deviations of the target; for classes the probability that the true class did not get.
    """
    if task.exclusive:
        return 1 - found.prediction[np.arange(len(found.target)), found.target][:, None]
    error = np.abs(found.prediction - found.target)
    if not task.chances:
        spreads = np.array([np.std(column[~np.isnan(column)]) for column in found.target.T])
        error = error / np.where(spreads > 0, spreads, 1.0)
    return np.nan_to_num(error, nan=-1.0)


def worst(error: np.ndarray, count: int) -> list[int]:
    """Places of the graphs with the largest of :func:`errors` over their targets, the worst first."""
    largest = error.max(1)
    return [int(place) for place in np.argsort(-largest, kind="stable")[:count] if largest[place] >= 0]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and unbiased standard deviation; NaN for that of a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else np.nan


def _tensors(found: Predictions) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.from_numpy(found.target)
    return torch.from_numpy(found.prediction).float(), target if target.dim() == 1 else target.float()


def _interval(value: float, values: np.ndarray) -> Interval:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))

"""What stored predictions say: intervals, paired differences, calibration, the worst graphs."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from plstm_graph.tasks import METRICS, Task, score
from plstm_graph.tasks.calibration import BINS
from plstm_graph.tasks.resampled import RANKING, ranking
from plstm_graph.train.record import PartPredictions

LEVEL = 0.95
RESAMPLES, FEWEST, WORK = 1000, 100, 200_000_000  # draws of the bootstrap, fewer where graphs and targets are many
QUICK = 200
"""Draws for the interval of every run; the report takes more."""


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


class Score(NamedTuple):
    """A metric over repeats (seeds) of folds."""

    mean: float  # over repeats of the mean over folds
    error: float  # standard error over all runs
    error_repeats: float  # standard error over the means of the repeats
    deviation: float  # unbiased, over all runs
    runs: int
    repeats: int


class Difference(NamedTuple):
    """How much better (positive) or worse one training is than another, over pairs of runs on the same test graphs.

    Attributes:
        pairs: how many there are.
        better: in how many of them it is better.
        over_runs: mean difference and its interval over the pairs; no ends for fewer than two.
        over_graphs: the same, and its interval over resampled test graphs of these very runs.
    """

    pairs: int
    better: int
    over_runs: Interval
    over_graphs: Interval

    @property
    def sign(self) -> int:
        """1 better, -1 worse; 0 where an interval holds 0, or there is none."""
        ends = [(each.low, each.high) for each in (self.over_runs, self.over_graphs) if not np.isnan(each.low)]
        if not ends or self.pairs == 0:
            return 0
        return int(all(low > 0 for low, _ in ends)) - int(all(high < 0 for _, high in ends))


def draws(graphs: int, targets: int, *, seed: int = 0) -> np.ndarray:
    """Which graphs each bootstrap sample holds, [samples, graphs], the same for equal arguments.

    1,000 samples, fewer (at least 100) where each of them would score so many labels that it takes minutes.
    """
    samples = int(np.clip(WORK // max(1, graphs * targets), FEWEST, RESAMPLES))
    return np.random.default_rng(seed).integers(0, graphs, (samples, graphs))


def bootstrap(found: PartPredictions, names: Sequence[str], samples: np.ndarray) -> dict[str, Interval]:
    """Percentile intervals of metrics over resampled graphs.

    Args:
        found: predictions and labels of a part.
        names: of the metrics.
        samples: see :func:`draws`.
    """
    return {name: _interval(scored(found, name), resampled(found, name, samples)) for name in names}


def interval_of(task: Task, prediction: torch.Tensor, target: torch.Tensor) -> dict[str, Any]:
    """Bootstrap interval of the metric that a task is judged by, as plain values; empty where there is none.

    Args:
        task: what was asked.
        prediction, target: as for :meth:`Task.scores`.
    """
    if task.picture is None or not len(target):
        return {}
    stored = PartPredictions(np.arange(len(target)), [], target.numpy(), prediction.numpy(), [])
    samples = draws(len(target), len(task.targets))[:QUICK]
    ends = bootstrap(stored, [task.metric], samples)[task.metric]
    return {"metric": task.metric, "level": LEVEL, "low": ends.low, "high": ends.high}


def score_runs(values: Iterable[tuple[int, float]]) -> Score:
    """Summary of (seed, value) pairs, one a run; NaN for a spread of fewer than two."""
    by_seed: dict[int, list[float]] = {}
    for seed, value in values:
        by_seed.setdefault(seed, []).append(value)
    every = [value for found in by_seed.values() for value in found]
    means = [statistics.fmean(found) for found in by_seed.values()]
    deviation = statistics.stdev(every) if len(every) > 1 else float("nan")
    between = statistics.stdev(means) if len(means) > 1 else float("nan")
    return Score(
        statistics.fmean(means),
        deviation / len(every) ** 0.5,
        between / len(means) ** 0.5,
        deviation,
        len(every),
        len(means),
    )


def paired(pairs: Sequence[tuple[PartPredictions, PartPredictions]], name: str, *, share: float = 0.0) -> Difference:
    """How much better the second of each pair of runs is than the first, by a metric; positive is better.

    The interval over runs is Student's, widened where runs were trained on overlapping graphs and tested on others
    (Nadeau and Bengio 2003): ``t · deviation · √(1 / pairs + share)``.

    Args:
        pairs: of runs that were tested on the same graphs.
        name: of the metric.
        share: test graphs over training graphs, where the pairs have test graphs of their own (folds, splits).
    """
    sign, tests = 1 if METRICS[name].higher_is_better else -1, _numbered([first for first, _ in pairs])
    gains, drawn = [], []
    for (first, second), test in zip(pairs, tests, strict=True):
        gain = sign * (scored(second, name) - scored(first, name))
        if np.isnan(gain):
            continue
        samples = draws(len(first.index), first.prediction.shape[1] * len(pairs), seed=test)[: _fewer(len(pairs))]
        gains.append(gain)
        drawn.append(sign * (resampled(second, name, samples) - resampled(first, name, samples)))
    if not gains:
        nothing = Interval(np.nan, np.nan, np.nan)
        return Difference(0, 0, nothing, nothing)
    share = share if len(set(tests)) > 1 else 0.0
    with_all = np.mean([each[: min(map(len, drawn))] for each in drawn], axis=0)
    mean = float(np.mean(gains))
    better = sum(gain > 0 for gain in gains)
    return Difference(len(gains), better, _students(gains, share), _interval(mean, with_all))


def same_graphs(runs: Sequence[PartPredictions]) -> bool:
    """Whether runs were tested on the same graphs with the same labels, in the same order."""
    first = runs[0]
    return all(
        np.array_equal(first.index, run.index) and np.array_equal(first.target, run.target, equal_nan=True)
        for run in runs
    )


def scored(found: PartPredictions, name: str) -> float:
    """A metric of all graphs of a part."""
    return score(name, *_tensors(found))


def resampled(found: PartPredictions, name: str, samples: np.ndarray) -> np.ndarray:
    """A metric of every bootstrap sample, [samples]; NaN in one that has labels of one class only."""
    prediction, target = _tensors(found)
    if name in RANKING and target.is_floating_point() and bool(prediction.isfinite().all()):
        return ranking(name, prediction.numpy(), target.numpy(), samples)  # a thousand sorts in one
    with torch.inference_mode():
        return np.array([score(name, prediction[row], target[row]) for row in torch.from_numpy(samples)])


def reliability(found: PartPredictions) -> Reliability:
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


def errors(found: PartPredictions, task: type[Task]) -> np.ndarray:
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


def _numbered(tests: Sequence[PartPredictions]) -> list[int]:
    """A number for each set of test graphs, in order of appearance."""
    known: list[PartPredictions] = []
    found = []
    for test in tests:
        place = next((place for place, other in enumerate(known) if same_graphs([other, test])), len(known))
        known += [test] if place == len(known) else []
        found.append(place)
    return found


def _fewer(pairs: int) -> int:
    """Samples for each of so many pairs: their mean varies less, and so many take their time."""
    return max(FEWEST, int(RESAMPLES / max(1.0, pairs / 3)))


def _students(values: Sequence[float], share: float) -> Interval:
    """Mean with Student's interval; see :func:`paired`."""
    from scipy.stats import t

    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Interval(mean, np.nan, np.nan)
    reach = float(t.ppf((1 + LEVEL) / 2, count - 1)) * float(np.std(values, ddof=1)) * (1 / count + share) ** 0.5
    return Interval(mean, mean - reach, mean + reach)


def _tensors(found: PartPredictions) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.from_numpy(found.target)
    return torch.from_numpy(found.prediction).float(), target if target.dim() == 1 else target.float()


def _interval(value: float, values: np.ndarray) -> Interval:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))

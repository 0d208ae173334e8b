"""Metrics by name. Missing labels (NaN) are left out, each target is scored on its own, and the mean is reported."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from plstm_graph.errors import ConfigError, missing_extra

MISSING = -100
"""Number of a class where there is no label, as torch's cross-entropy has it."""
Score = Callable[[np.ndarray, np.ndarray], float]  # target first, as in scikit-learn


class Metric(NamedTuple):
    """How a metric is computed and read.

    ``function`` takes target and prediction: of one target [n] and [n]; of classes [n] and [n, classes]; of words
    [n, longest] and [n, places].
    """

    function: Score
    label: str
    higher_is_better: bool = True
    in_units: bool = False  # of the labels: no mean over targets that may differ in theirs


def _sklearn(name: str) -> Score:
    """A function of scikit-learn, whose results are those of OGB's evaluator to the last digit. Importing it takes a
    second, which trainings on quantities do not need."""

    def function(target: np.ndarray, prediction: np.ndarray) -> float:
        try:
            from sklearn import metrics
        except ModuleNotFoundError as error:
            raise ConfigError(missing_extra("scikit-learn", "train")) from error
        found: Any = getattr(metrics, name)(target, prediction)
        return float(found)

    return function


def _spread(function: Score) -> Score:
    """Where all labels are equal there is nothing to explain, or to rank."""
    return lambda target, prediction: function(target, prediction) if len(np.unique(target)) > 1 else math.nan


def _accuracy(target: np.ndarray, prediction: np.ndarray) -> float:
    chosen = prediction.argmax(-1) if prediction.ndim == 2 else prediction > 0.5
    return float((chosen == target).mean())


def _rmse(target: np.ndarray, prediction: np.ndarray) -> float:
    return float(np.sqrt(((target - prediction) ** 2).mean()))  # in the labels' precision, as OGB's evaluator


def _mae(target: np.ndarray, prediction: np.ndarray) -> float:
    return float(np.abs(target - prediction).mean(dtype=np.float64))


def _r2(target: np.ndarray, prediction: np.ndarray) -> float:
    labels = target.astype(np.float64)
    return float(1 - ((labels - prediction) ** 2).sum() / ((labels - labels.mean()) ** 2).sum())


def _pearson(target: np.ndarray, prediction: np.ndarray) -> float:
    if len(np.unique(prediction)) == 1:
        return math.nan
    return float(np.corrcoef(target.astype(np.float64), prediction.astype(np.float64))[0, 1])


def _kendall(target: np.ndarray, prediction: np.ndarray) -> float:
    """Kendall's tau-b: pairs in the right order less those in the wrong one, over all, ties apart."""
    try:
        from scipy.stats import kendalltau
    except ModuleNotFoundError as error:
        raise ConfigError(missing_extra("scipy", "train")) from error
    return float(kendalltau(target, prediction).statistic)


def _f1(target: np.ndarray, prediction: np.ndarray) -> float:
    """Mean over graphs of the F1 between two sets of words, as OGB's evaluator; -1 is no word."""
    values = []
    for wanted, found in zip(target.tolist(), prediction.tolist(), strict=True):
        words, guesses = set(wanted) - {-1}, set(found) - {-1}
        hits = len(words & guesses)
        precision, recall = (hits / len(part) if part else 0 for part in (guesses, words))
        values.append(2 * precision * recall / (precision + recall) if hits else 0)
    return float(np.average(values))


METRICS: dict[str, Metric] = {
    "r2": Metric(_spread(_r2), "R²"),
    "rmse": Metric(_rmse, "RMSE", higher_is_better=False, in_units=True),
    "mae": Metric(_mae, "MAE", higher_is_better=False, in_units=True),
    "pearson": Metric(_spread(_pearson), "Pearson r"),
    "kendall": Metric(_spread(_kendall), "Kendall's τ"),
    "rocauc": Metric(_spread(_sklearn("roc_auc_score")), "ROC-AUC"),
    "ap": Metric(_spread(_sklearn("average_precision_score")), "average precision"),
    "accuracy": Metric(_accuracy, "accuracy"),
    "f1": Metric(_f1, "F1"),
}
"""Which tasks a metric suits is said by the tasks."""


def score(name: str, prediction: Tensor, target: Tensor) -> float:
    """One metric.

    Args:
        name: key of :data:`METRICS`.
        prediction: [n, targets] values in original units, or probabilities; [n, classes] for classes; [n, places]
            numbers of words, -1 for none.
        target: [n, targets] floats with NaN where there is no label; [n] class numbers, :data:`MISSING` where there is
            none; [n, longest] numbers of words.

    Returns:
        Mean over the targets for which it is defined; NaN if there is none, or if a prediction is not finite.
    """
    function = METRICS[name].function
    predicted, wanted = prediction.detach().cpu().numpy(), target.detach().cpu().numpy()
    if wanted.ndim == 1:
        predicted, wanted = predicted[wanted != MISSING], wanted[wanted != MISSING]
    if not len(wanted) or not np.isfinite(predicted).all():
        return math.nan
    if not target.is_floating_point():
        return function(wanted, predicted)
    values = []
    for found, column in zip(predicted.T, wanted.T, strict=True):
        known = ~np.isnan(column)
        if known.any():
            values.append(function(column[known], found[known]))
    values = [value for value in values if not math.isnan(value)]
    return sum(values) / len(values) if values else math.nan

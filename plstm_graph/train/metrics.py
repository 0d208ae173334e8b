"""Metrics by task. Missing labels (NaN) are left out, each target is scored on its own, and the mean is reported."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from sklearn import metrics as sk
from torch import Tensor

from plstm_graph.errors import ConfigError, DataError, unknown

Score = Callable[[np.ndarray, np.ndarray], float]  # target first, as in scikit-learn


class Metric(NamedTuple):
    """How a metric is computed and read."""

    task: tuple[str, ...]
    higher_is_better: bool
    function: Score  # of one target: [n] and [n]; of classes: [n] and [n, classes]; of tokens: all at once
    label: str


def _accuracy(target: np.ndarray, prediction: np.ndarray) -> float:
    chosen = prediction.argmax(-1) if prediction.ndim == 2 else prediction > 0.5
    return float(sk.accuracy_score(target, chosen))


def _two_classes(function: Score) -> Score:
    """A ranking has nothing to tell apart where there is one class only."""
    return lambda target, prediction: function(target, prediction) if len(np.unique(target)) == 2 else math.nan


def _spread(function: Score) -> Score:
    """There is nothing to explain where all labels are equal."""
    return lambda target, prediction: function(target, prediction) if len(np.unique(target)) > 1 else math.nan


def _rmse(target: np.ndarray, prediction: np.ndarray) -> float:
    return float(np.sqrt(((target - prediction) ** 2).mean()))  # in the labels' precision, as OGB's evaluator


def _pearson(target: np.ndarray, prediction: np.ndarray) -> float:
    if len(np.unique(prediction)) == 1:
        return math.nan
    return float(np.corrcoef(target.astype(np.float64), prediction.astype(np.float64))[0, 1])


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
    "r2": Metric(("regression",), True, _spread(sk.r2_score), "R²"),
    "rmse": Metric(("regression",), False, _rmse, "RMSE"),
    "mae": Metric(("regression",), False, sk.mean_absolute_error, "MAE"),
    "pearson": Metric(("regression",), True, _spread(_pearson), "Pearson r"),
    "rocauc": Metric(("binary",), True, _two_classes(sk.roc_auc_score), "ROC-AUC"),
    "ap": Metric(("binary",), True, _two_classes(sk.average_precision_score), "average precision"),
    "accuracy": Metric(("binary", "multiclass"), True, _accuracy, "accuracy"),
    "f1": Metric(("tokens",), True, _f1, "F1"),
}


def metric_for(name: str, task: str) -> Metric:
    """The metric called ``name``.

    Raises:
        ConfigError: no such metric, or not one for this task.
    """
    choices = [key for key, metric in METRICS.items() if task in metric.task]
    if name not in choices:
        raise ConfigError(f"{unknown('metric', name, choices)} (task {task})")
    return METRICS[name]


def score(name: str, prediction: Tensor, target: Tensor) -> float:
    """One metric.

    Args:
        name: key of :data:`METRICS`.
        prediction: [n, targets] values in original units, or probabilities; [n, classes] for classes; [n, places]
            numbers of words, -1 for none.
        target: [n, targets] floats with NaN where there is no label; [n] class numbers; [n, longest] numbers of words.

    Returns:
        Mean over the targets for which it is defined; NaN if there is none, or if a prediction is not finite.
    """
    function = METRICS[name].function
    predicted, wanted = prediction.detach().cpu().numpy(), target.detach().cpu().numpy()
    if not len(wanted) or not np.isfinite(predicted).all():
        return math.nan
    if not target.is_floating_point():
        return float(function(wanted, predicted))
    values = []
    for found, column in zip(predicted.T, wanted.T, strict=True):
        known = ~np.isnan(column)
        if known.any():
            values.append(float(function(column[known], found[known])))
    values = [value for value in values if not math.isnan(value)]
    return sum(values) / len(values) if values else math.nan


def scores(task: str, prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Every metric of a task; arguments as for :func:`score`."""
    return {name: score(name, prediction, target) for name, metric in METRICS.items() if task in metric.task}


def check_defined(name: str, target: Tensor, part: str) -> None:
    """A metric that cannot be computed on a split would fail in every epoch: say so before the first.

    Raises:
        DataError: labels of one class only, or no spread, or none at all.
    """
    perfect = torch.nn.functional.one_hot(target).float() if target.dim() == 1 else target.nan_to_num()
    if math.isnan(score(name, perfect, target)):
        raise DataError(
            f"{METRICS[name].label} needs at least two different labels in the {part} split (got {len(target)} rows); "
            "use another --split, --seed or --metric, or more data if all labels are alike"
        )

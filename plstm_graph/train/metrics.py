"""Metrics by task. Missing labels (NaN) are left out, each target is scored on its own, and the mean is reported."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import functional as F

from plstm_graph.errors import ConfigError, DataError, unknown


class Metric(NamedTuple):
    """How a metric is computed and read."""

    task: tuple[str, ...]
    higher_is_better: bool
    function: Callable[[Tensor, Tensor], Tensor]  # one target: prediction [n] or [n, classes], target [n]
    label: str


def _accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    chosen = prediction.argmax(-1) if prediction.dim() == 2 else prediction > 0.5
    return (chosen == target.to(chosen.dtype)).float().mean()


def _ranked(function: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def score(prediction: Tensor, target: Tensor) -> Tensor:
        positive = target.sum()
        if positive == 0 or positive == len(target):  # one class only: a ranking has nothing to tell apart
            return prediction.new_tensor(math.nan)
        return function(prediction, target.long())

    return score


def _r2(prediction: Tensor, target: Tensor) -> Tensor:
    if len(target) < 2 or (target == target[0]).all():  # no spread to explain
        return prediction.new_tensor(math.nan)
    return F.r2_score(prediction, target)


METRICS: dict[str, Metric] = {
    "r2": Metric(("regression",), True, _r2, "R²"),
    "rmse": Metric(("regression",), False, lambda p, t: F.mean_squared_error(p, t, squared=False), "RMSE"),
    "mae": Metric(("regression",), False, F.mean_absolute_error, "MAE"),
    "rocauc": Metric(("binary",), True, _ranked(F.classification.binary_auroc), "ROC-AUC"),
    "ap": Metric(("binary",), True, _ranked(F.classification.binary_average_precision), "average precision"),
    "accuracy": Metric(("binary", "multiclass"), True, _accuracy, "accuracy"),
}
TASKS = ("regression", "binary", "multiclass")


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
        prediction: [n, targets] values in original units, or probabilities; [n, classes] for classes.
        target: [n, targets] with NaN where there is no label; [n] class numbers.

    Returns:
        Mean over the targets for which it is defined; NaN if there is none.
    """
    function = METRICS[name].function
    if target.dim() == 1:
        return float(function(prediction, target)) if len(target) else math.nan
    values = []
    for column in range(target.shape[1]):
        known = ~target[:, column].isnan()
        if known.any():
            values.append(float(function(prediction[known, column], target[known, column])))
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
    perfect = target.nan_to_num() if target.dim() == 2 else torch.nn.functional.one_hot(target).float()
    if math.isnan(score(name, perfect, target)):
        raise DataError(
            f"{METRICS[name].label} needs at least two different labels in the {part} split (got {len(target)} rows); "
            "use another --split, --seed or --metric"
        )

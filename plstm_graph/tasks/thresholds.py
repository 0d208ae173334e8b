"""From a probability to yes or no: the threshold that suits a validation part best, and what it does elsewhere."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from plstm_graph.tasks.base import Task


def best_threshold(chance: Tensor, label: Tensor) -> float:
    """The threshold with the highest balanced accuracy, half-way between two probabilities; NaN for labels of one kind.

    Args:
        chance, label: [n]; labels 0 or 1, NaN where there is none.

    Reference: Youden 1950, "Index for rating diagnostic tests".
    """
    known = ~label.isnan()
    chance, yes = chance[known].double(), label[known] > 0.5
    if not yes.any() or yes.all():
        return math.nan
    chance, order = chance.sort()
    yes = yes[order]
    # Of a cut behind place k all behind it are called yes.
    missed = torch.cat([torch.zeros(1), yes.cumsum(0)]) / yes.sum()
    spared = torch.cat([torch.zeros(1), (~yes).cumsum(0)]) / (~yes).sum()
    gain = spared - missed
    distinct = torch.cat([torch.ones(1, dtype=torch.bool), chance[1:] > chance[:-1], torch.ones(1, dtype=torch.bool)])
    place = int(torch.where(distinct, gain, -torch.inf).argmax())
    ends = torch.cat([torch.zeros(1), chance, torch.ones(1)])
    return float(ends[place] + ends[place + 1]) / 2


def at_threshold(chance: Tensor, label: Tensor, threshold: float) -> dict[str, float]:
    """Sensitivity, specificity, their mean, precision, F1 and Matthews' correlation; NaN where they are undefined.

    Args:
        chance, label: [n] as above.
        threshold: above it is yes.
    """
    known = ~label.isnan()
    said, yes = chance[known].double() > threshold, label[known] > 0.5
    hits, false, misses, spared = (
        float((said_so & is_so).sum()) for said_so, is_so in ((said, yes), (said, ~yes), (~said, yes), (~said, ~yes))
    )
    sensitivity, specificity = _ratio(hits, hits + misses), _ratio(spared, spared + false)
    margins = (hits + false) * (hits + misses) * (spared + false) * (spared + misses)
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "precision": _ratio(hits, hits + false),
        "f1": _ratio(2 * hits, 2 * hits + false + misses),
        "mcc": _ratio(hits * spared - false * misses, math.sqrt(margins)),
    }


def at_thresholds(
    task: "Task", chance: Tensor, label: Tensor, chosen: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """As :func:`at_threshold`, of each target that has a threshold.

    Args:
        task: with these targets.
        chance, label: [n, targets].
        chosen: thresholds by target.
    """
    columns = {name: column for column, name in enumerate(task.targets) if name in chosen}
    return {name: at_threshold(chance[:, k], label[:, k], chosen[name]) for name, k in columns.items()}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan

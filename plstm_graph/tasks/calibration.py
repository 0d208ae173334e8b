"""How far stated uncertainty is true: chances against how often they come true, spreads against errors."""

import math

import torch
from torch import Tensor

BINS = 10


def of_chances(chance: Tensor, came_true: Tensor) -> dict[str, float]:
    """Expected calibration error over ten bins of equal width, and Brier score.

    Args:
        chance: probabilities, [n] or [n, targets].
        came_true: whether it did, 0 or 1, NaN where that is not known; of the same shape.

    Reference: Guo et al. 2017, "On calibration of modern neural networks"; Brier 1950.
    """
    known = ~came_true.isnan()
    chance, came_true = chance[known].double(), came_true[known].double()
    if not len(chance):
        return {"ece": math.nan, "brier": math.nan}
    bin = (chance * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.double).index_add(0, bin, chance - came_true)
    return {"ece": float(gaps.abs().sum()) / len(chance), "brier": float((chance - came_true).square().mean())}


def of_spreads(value: Tensor, spread: Tensor, label: Tensor) -> dict[str, float]:
    """Of quantities with a standard deviation: share of labels within one and two of them (68 and 95 % of a normal
    distribution), negative log-likelihood of the labels, and Spearman's rank correlation of error and deviation.

    Args:
        value, spread, label: [n, targets]; NaN where there is no label.
    """
    known = ~label.isnan()
    error, spread = (value - label)[known].double().abs(), spread[known].double().clamp(min=1e-12)
    if not len(error):
        return dict.fromkeys(("within_1", "within_2", "nll", "spearman"), math.nan)
    score = error / spread
    nll = score.square() / 2 + spread.log() + math.log(2 * math.pi) / 2
    return {
        "within_1": float((score <= 1).double().mean()),
        "within_2": float((score <= 1.959964).double().mean()),
        "nll": float(nll.mean()),
        "spearman": _spearman(error, spread),
    }


def factor(value: Tensor, spread: Tensor, label: Tensor) -> Tensor:
    """By what spreads are to be multiplied so that errors are as large as they say, [targets]; 1 where nothing tells.

    The maximum-likelihood one for normal errors: the root mean square of error over spread.

    Args:
        value, spread, label: [n, targets]; NaN where there is no label.
    """
    known = ~label.isnan() & (spread > 0)
    score = torch.where(known, (value - label) / spread.clamp(min=1e-12), 0.0).double()
    found = (score.square().sum(0) / known.sum(0).clamp(min=1)).sqrt()
    return torch.where(known.any(0) & (found > 0), found, 1.0).float()


def _spearman(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation of ranks, ties with their mean rank; NaN where one of them is constant."""
    ranks = torch.stack([mean_ranks(first), mean_ranks(second)])
    return float(torch.corrcoef(ranks)[0, 1]) if len(first) > 1 and bool((ranks.std(1) > 0).all()) else math.nan


def mean_ranks(values: Tensor) -> Tensor:
    """From 1, equal values at their mean: [n], float64."""
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2).double()[place]

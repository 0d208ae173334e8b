"""Tasks whose answers are quantities, or ranks by them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from plstm_graph.errors import ConfigError, DataError, unknown
from plstm_graph.tasks import calibration
from plstm_graph.tasks.base import LATER, Task, share_known

LOSSES: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}
"""Of quantities in standard deviations: Huber's is quadratic up to one of them, and linear beyond."""
LARGEST = 1e15
"""Largest label: training and metrics add up squares in 32-bit numbers."""


@dataclass(frozen=True)
class Regression(Task):
    """Quantities. Labels: float [n, targets], NaN where there is none.

    They are learnt in standard deviations from their mean. Where labels may be ``bounded``, as ``>10`` or ``<0.1``,
    they are [n, 2 · targets]: behind the numbers their sides, 1 for a quantity above the number, -1 for one below it,
    0 for the number itself. An answer on the side that a bound allows has no error, and scores are over exact labels.

    Args:
        mean, deviation: of each target, in the labels' units; empty until :meth:`fitted`.
        bounded: whether labels may be bounds.
        error: by what they are learnt, a key of :data:`LOSSES`; when not given the mean square error, or the mean
            absolute error if that is the metric.
    """

    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    error: str = field(default="", metadata=LATER)
    bounded: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.error and self.error not in LOSSES:
            raise ConfigError(unknown("loss", self.error, LOSSES))
        lengths = {len(self.mean), len(self.deviation)}
        if lengths not in ({0}, {len(self.targets)}) or not all(map(math.isfinite, (*self.mean, *self.deviation))):
            raise ConfigError(
                f"mean and deviation must hold a finite number for each of {len(self.targets)} targets, or nothing "
                f"(got {self.mean} and {self.deviation})"
            )

    name = "regression"
    metrics = ("r2", "rmse", "mae", "pearson")
    tabular = True
    picture = "parity"

    @classmethod
    def from_table(cls, targets: Sequence[str], rows: Sequence[Sequence[float]], where: str) -> Self:
        """Rows of twice as many numbers have the sides of bounds."""
        return cls(tuple(targets), bounded=bool(rows) and len(rows[0]) == 2 * len(targets))

    @property
    def scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """``mean`` and ``deviation``."""
        return self.mean, self.deviation

    @property
    def recorded(self) -> bool:
        """Yes."""
        return True

    def values(self, target: Tensor) -> Tensor:
        """[n, targets]"""
        return target.chunk(2, -1)[0] if self._sides(target) is not None else target

    def _sides(self, target: Tensor) -> Tensor | None:
        """Of bounds, [n, targets]; None where labels are not bounded, as those of other data may not be."""
        has_sides = self.bounded and target.size(-1) == 2 * len(self.targets)
        return target.chunk(2, -1)[1] if has_sides else None

    def exact(self, target: Tensor) -> Tensor:
        """[n, targets]"""
        sides = self._sides(target)
        return target if sides is None else torch.where(sides == 0, self.values(target), torch.nan)

    def count(self, target: Tensor) -> Tensor:
        """Bounds among them."""
        return super().count(self.values(target))

    @property
    def no_labels(self) -> Tensor:
        """Labels of no example at all."""
        return torch.empty(0, len(self.targets) * (1 + self.bounded))

    def standardised(self, target: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """Sides stay as they are."""
        values, sides = super().standardised(self.values(target), mean, deviation), self._sides(target)
        return values if sides is None else torch.cat([values, sides], -1)

    def fitted(self, target: Tensor) -> Self:
        """With mean and standard deviation of each target over its known labels, bounds counted as their numbers.

        Raises:
            DataError: a target without any label in the training split, or with one beyond ±``LARGEST``.
        """
        means, deviations = [], []
        for name, column in zip(self.targets, self.values(target).double().T, strict=True):
            known = column[~column.isnan()]
            if not len(known):
                raise DataError(
                    f"target {name!r} has no label in the training split; drop it, or use another split or seed"
                )
            if not (size := float(known.abs().max())) <= LARGEST:
                raise DataError(
                    f"labels of target {name!r} must lie within ±{LARGEST:g} (got {size:g}); use other units, "
                    "or logarithms"
                )
            spread = float(known.std(unbiased=False))
            means.append(float(known.mean()))
            deviations.append(spread if spread > 1e-12 * max(1.0, abs(means[-1])) else 1.0)
        return replace(self, mean=tuple(means), deviation=tuple(deviations))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Of those in :data:`LOSSES` the chosen one."""
        # No choosing by mask, whose result has as many rows as the data say: a GPU would have to be waited for.
        values = self.values(target)
        known = wrong = ~values.isnan()
        if (sides := self._sides(target)) is not None:
            wrong = known & ~((sides > 0) & (output >= values)) & ~((sides < 0) & (output <= values))
        filled = torch.where(wrong, values, output.detach())  # no loss, and a gradient of 0
        mean = LOSSES[self.error or ("mae" if self.metric == "mae" else "mse")](output, filled)
        return mean * share_known(known)

    def trained_with(self, loss: str | None, class_weights: bool) -> Self:
        """With a loss of one's own."""
        super().trained_with(None, class_weights)
        return replace(self, error=loss) if loss else self

    def readable(self, output: Tensor) -> Tensor:
        """The values themselves."""
        return output

    def raw(self, answer: Tensor) -> Tensor:
        """The values themselves."""
        return answer

    def calibration(self, prediction: Tensor, target: Tensor, spread: Tensor | None = None) -> dict[str, float]:
        """Of spreads, where there are some; see :func:`plstm_graph.tasks.calibration.of_spreads`."""
        return {} if spread is None else calibration.of_spreads(prediction, spread, target)

    def _explained(self, column: int) -> tuple[Callable[[Tensor], Tensor], str]:
        mean, deviation = self.mean[column], self.deviation[column]
        return (lambda out: out[:, column] * deviation + mean), self.targets[column]


@dataclass(frozen=True)
class Ranking(Task):
    """Which of two is higher. Labels: float [n, targets], NaN where there is none; answers have no unit.

    Learnt from every pair of a batch, so batches of one teach nothing.

    Args:
        margin: by which answers of a pair have to differ.
    """

    margin: float = 0.5

    name = "ranking"
    metrics = ("kendall", "pearson")
    tabular = True

    @property
    def recorded(self) -> bool:
        """Yes."""
        return True

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean hinge over the pairs of different labels (Hwang et al. 2024): ``max(0, margin - (higher - lower))``."""
        higher = target.unsqueeze(1) > target.unsqueeze(0)  # false where one is NaN
        lead = output.unsqueeze(1) - output.unsqueeze(0)
        return torch.where(higher, F.relu(self.margin - lead), 0.0).sum() / higher.sum().clamp(min=1)

    def readable(self, output: Tensor) -> Tensor:
        """The scores by which answers are ranked."""
        return output

    def raw(self, answer: Tensor) -> Tensor:
        """The scores themselves."""
        return answer

    def _explained(self, column: int) -> tuple[Callable[[Tensor], Tensor], str]:
        return (lambda out: out[:, column]), f"rank of {self.targets[column]}"

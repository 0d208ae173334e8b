"""The kinds of tasks that come with the package."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from plstm_graph.errors import ConfigError, DataError, unknown
from plstm_graph.tasks import calibration
from plstm_graph.tasks.base import LATER, Task
from plstm_graph.tasks.thresholds import best_threshold

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
        return mean * _share(known)

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


@dataclass(frozen=True)
class Binary(Task):
    """One yes or no a target. Labels: float [n, targets], 0 or 1, NaN where there is none.

    Args:
        weights: of no and yes of each target, side by side, in the loss; empty for 1, and until :meth:`fitted`.
        balanced: weights are such that both weigh the same.
    """

    weights: tuple[float, ...] = field(default=(), metadata=LATER)
    balanced: bool = field(default=False, metadata=LATER)

    name = "binary"
    metrics = ("rocauc", "ap", "accuracy")
    tabular = chances = True
    picture = "roc"

    @classmethod
    def required(cls, value: float) -> str:
        """0 or 1."""
        return "" if value in (0, 1) else "a binary label must be 0 or 1"

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of the targets with a label."""
        known, label = ~target.isnan(), target.nan_to_num()
        weight = known.float()
        if self.weights:
            no, yes = target.new_tensor(self.weights).view(-1, 2).T
            weight = weight * (no + label * (yes - no))
        return F.binary_cross_entropy_with_logits(output, label, weight) * _share(known)

    def trained_with(self, loss: str | None, class_weights: bool) -> Self:
        """With classes of one weight, if asked for."""
        super().trained_with(loss, False)
        return replace(self, balanced=True) if class_weights else self

    def fitted(self, target: Tensor) -> Self:
        """With weights that are inverse to how often no and yes occur, ``labels / (2 · labels of the class)``."""
        if not self.balanced:
            return self
        yes, known = target.nansum(0), (~target.isnan()).sum(0)
        counts = torch.stack([known - yes, yes], 1)
        weights = torch.where(counts > 0, known[:, None] / (2 * counts.clamp(min=1)), 1.0)
        return replace(self, weights=tuple(weights.double().flatten().tolist()))

    def thresholds(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Those of the highest balanced accuracy."""
        found = {name: best_threshold(prediction[:, k], target[:, k]) for k, name in enumerate(self.targets)}
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def readable(self, output: Tensor) -> Tensor:
        """Probabilities of yes."""
        return output.sigmoid()

    def raw(self, answer: Tensor) -> Tensor:
        """Log-odds."""
        return answer.logit()

    def calibration(self, prediction: Tensor, target: Tensor, spread: Tensor | None = None) -> dict[str, float]:
        """Of the chances of all targets; see :func:`plstm_graph.tasks.calibration.of_chances`."""
        return calibration.of_chances(prediction, target)

    def _explained(self, column: int) -> tuple[Callable[[Tensor], Tensor], str]:
        return (lambda out: out[:, column]), f"log-odds of {self.targets[column]}"


@dataclass(frozen=True)
class Multiclass(Task):
    """One of several classes. Labels: int64 [n], numbers of classes from 0.

    Args:
        classes: how many there are.
        weights: of each in the loss; empty for 1, and until :meth:`fitted`.
        balanced: weights are such that all classes weigh the same.
    """

    classes: int = 2
    weights: tuple[float, ...] = field(default=(), metadata=LATER)
    balanced: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes < 2 or len(self.targets) > 1:
            raise ConfigError(
                f"task multiclass has one target of two or more classes (got {self.classes} classes and targets "
                f"{', '.join(self.targets)})"
            )

    name = "multiclass"
    metrics = ("accuracy",)
    tabular = chances = exclusive = True
    picture = "roc"

    @property
    def num_outputs(self) -> int:
        """One a class."""
        return self.classes

    @property
    def no_labels(self) -> Tensor:
        """Labels of no example at all."""
        return torch.empty(0, dtype=torch.long)

    @classmethod
    def required(cls, value: float) -> str:
        """A number of a class."""
        return "" if value >= 0 and value.is_integer() else "the label of a class must be 0, 1, ..."

    @classmethod
    def from_table(cls, targets: Sequence[str], rows: Sequence[Sequence[float]], where: str) -> Self:
        """Labels of the one column must be 0, 1, ... without gaps."""
        if len(targets) != 1:
            raise DataError(f"multiclass needs exactly one target column of {where}, got {', '.join(targets)}")
        present = {row[0] for row in rows if not math.isnan(row[0])}
        if present != set(range(len(present))) or len(present) < 2:
            some = ", ".join(f"{value:g}" for value in sorted(present)[:5])
            raise DataError(f"{where}: multiclass labels must be 0, 1, ... without gaps, got {some}, ...")
        return cls(tuple(targets), classes=len(present))

    def of_rows(self, rows: Sequence[Sequence[float]], where: str) -> Self:
        """They need not have all classes."""
        for row, (value,) in enumerate(rows, start=1):
            if not math.isnan(value) and value not in range(self.classes):
                raise DataError(f"{where}, row {row}: classes are 0 to {self.classes - 1}, got {value:g}")
        return self

    def label(self, row: Sequence[float]) -> Tensor:
        """int64 [1]"""
        return torch.tensor([int(row[0])])

    def count(self, target: Tensor) -> Tensor:
        """All of them."""
        return target.new_full((), len(target), dtype=torch.long)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(output, target, output.new_tensor(self.weights) if self.weights else None)

    def trained_with(self, loss: str | None, class_weights: bool) -> Self:
        """With classes of one weight, if asked for."""
        super().trained_with(loss, False)
        return replace(self, balanced=True) if class_weights else self

    def fitted(self, target: Tensor) -> Self:
        """With weights that are inverse to how often classes occur."""
        if not self.balanced:
            return self
        counts = target.bincount(minlength=self.classes).double()
        weights = len(target) / (self.classes * counts.clamp(min=1))
        return replace(self, weights=tuple(weights.tolist()))

    def readable(self, output: Tensor) -> Tensor:
        """Probabilities of the classes."""
        return output.softmax(-1)

    def raw(self, answer: Tensor) -> Tensor:
        """Logarithms."""
        return answer.log()

    @property
    def outputs(self) -> list[str]:
        """One a class."""
        return [f"p_{number}" for number in range(self.classes)]

    @property
    def columns(self) -> list[str]:
        """The class that is chosen, and the probability of each."""
        return ["class", *self.outputs]

    def table(self, answer: Tensor) -> Tensor:
        """[n, 1 + classes]"""
        return torch.cat([answer.argmax(-1, keepdim=True).float(), answer], dim=1)

    @property
    def choices(self) -> list[str]:
        """Numbers of the classes."""
        return [str(number) for number in range(self.classes)]

    def chosen(self, name: str | None) -> tuple[Callable[[Tensor], Tensor], str]:
        """By the number of a class, or the column of its probability."""
        return super().chosen(name and name.removeprefix("p_"))

    def calibration(self, prediction: Tensor, target: Tensor, spread: Tensor | None = None) -> dict[str, float]:
        """Of the chance of the likeliest class; see :func:`plstm_graph.tasks.calibration.of_chances`."""
        return calibration.of_chances(prediction.amax(-1), (prediction.argmax(-1) == target).float())

    def _explained(self, column: int) -> tuple[Callable[[Tensor], Tensor], str]:
        others = [number for number in range(self.classes) if number != column]
        return (lambda out: out[:, column] - out[:, others].logsumexp(-1)), f"log-odds of class {column}"


@dataclass(frozen=True)
class Tokens(Task):
    """A few words in a row. Labels: int64 [n, longest], numbers of words with -1 after the last one.

    ``targets`` are the places of words that are predicted. At each of them the model chooses among the known words,
    "unknown" and "end", in this order; numbers of labels beyond those are words that are not known.

    Args:
        words: the known words.
    """

    words: tuple[str, ...] = ()

    name = "tokens"
    metrics = ("f1",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "words", tuple(self.words))

    @property
    def num_outputs(self) -> int:
        """At each place the words, unknown and end."""
        return len(self.targets) * (len(self.words) + 2)

    @property
    def no_labels(self) -> Tensor:
        """Labels of no example at all."""
        return torch.empty(0, len(self.targets), dtype=torch.long)

    def count(self, target: Tensor) -> Tensor:
        """The words of an example are one label."""
        return target.new_full((), len(target), dtype=torch.long)

    def _by_place(self, output: Tensor) -> Tensor:
        """[n, places · choices] -> [n, places, choices]"""
        return output.view(len(output), len(self.targets), -1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy over all places; after the last word the end is wanted."""
        words = self._by_place(output)
        places, end = words.size(1), words.size(2) - 1
        wanted = F.pad(target[:, :places], (0, max(0, places - target.size(1))), value=-1)
        wanted = torch.where(wanted < 0, end, wanted.clamp(max=end - 1))  # all words not known are one
        return F.cross_entropy(words.flatten(0, 1), wanted.flatten())

    def readable(self, output: Tensor) -> Tensor:
        """Numbers of words [n, places], -1 from the end on."""
        words = self._by_place(output)
        chosen = words.argmax(-1)
        return chosen.masked_fill((chosen == words.size(-1) - 1).cumsum(1) > 0, -1)


@dataclass(frozen=True)
class Unlabelled(Task):
    """No labels: graphs that are there for depth and speed."""

    name = "none"


def yes_or_no(labels: Sequence[float]) -> bool:
    """Whether all labels that are there are 0 or 1."""
    return all(math.isnan(value) or value in (0, 1) for value in labels)


def _share(known: Tensor) -> Tensor:
    """By this a mean over all labels is one over those that are there; 1 where none is missing."""
    return known.numel() / known.sum().clamp(min=1)

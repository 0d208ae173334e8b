"""Tasks whose answers are yes or no, or one of several classes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from plstm_graph.errors import ConfigError, DataError, listed
from plstm_graph.tasks import calibration
from plstm_graph.tasks.base import LATER, Task, share_known
from plstm_graph.tasks.metrics import MISSING
from plstm_graph.tasks.thresholds import best_threshold

SMALL = 1e-30
"""Of a sum of weights."""


@dataclass(frozen=True)
class Classes(Task):
    """Yes or no, or one of several classes: answers are probabilities, and classes may weigh the same.

    Args:
        weights: of the classes in the loss; empty for 1, and until :meth:`fitted`.
        balanced: weights are such that all classes weigh the same.
    """

    weights: tuple[float, ...] = field(default=(), metadata=LATER)
    balanced: bool = field(default=False, metadata=LATER)

    tabular = chances = True
    picture = "roc"

    def trained_with(self, loss: str | None, class_weights: bool) -> Self:
        """With classes of one weight, if asked for."""
        super().trained_with(loss, False)
        return replace(self, balanced=True) if class_weights else self

    def fitted(self, target: Tensor) -> Self:
        """With weights that are inverse to how often classes occur, ``labels / (classes · labels of the class)``."""
        if not self.balanced:
            return self
        return replace(self, weights=tuple(self._balance(target).double().flatten().tolist()))

    @property
    def recorded(self) -> bool:
        """Weights would be sent."""
        return not self.weights

    def _balance(self, target: Tensor) -> Tensor:
        """These weights."""
        raise NotImplementedError


@dataclass(frozen=True)
class Binary(Classes):
    """One yes or no a target. Labels: float [n, targets], 0 or 1, NaN where there is none.

    ``weights`` are of no and yes of each target, side by side.
    """

    name = "binary"
    metrics = ("rocauc", "ap", "accuracy")

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
        return F.binary_cross_entropy_with_logits(output, label, weight) * share_known(known)

    def _balance(self, target: Tensor) -> Tensor:
        yes, known = target.nansum(0), (~target.isnan()).sum(0)
        counts = torch.stack([known - yes, yes], 1)
        return torch.where(counts > 0, known[:, None] / (2 * counts.clamp(min=1)), 1.0)

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
class Multiclass(Classes):
    """One of several classes. Labels: int64 [n], numbers of classes from 0, -100 where there is none.

    Args:
        classes: how many there are; those that have names may be one, to be scored as one of more.
        names: of the classes, by their numbers, where they have some: by them classes of other data are the same.
    """

    classes: int = 2
    names: tuple[str, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "names", tuple(self.names))
        if self.classes < (1 if self.names else 2) or len(self.targets) > 1:
            raise ConfigError(
                f"task multiclass has one target of two or more classes (got {self.classes} classes and targets "
                f"{', '.join(self.targets)})"
            )
        if self.names and len({*self.names}) != self.classes:
            raise ConfigError(f"{self.classes} classes have a name each, all different (got {listed(self.names)})")

    name = "multiclass"
    metrics = ("accuracy",)
    missing = str(MISSING)
    exclusive = True

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

    def check_labels(self, target: Tensor) -> None:
        """They must be numbers of classes."""
        super().check_labels(target)
        if target.dtype != torch.long:
            raise DataError(f"numbers of classes must be torch.int64, got {target.dtype}; call y.long()")
        odd = target[self.known(target) & ((target < 0) | (target >= self.classes))]
        if len(odd):
            raise DataError(
                f"classes are 0 to {self.classes - 1}, got {int(odd[0])}; number them from 0, give the task all its "
                f"classes, and {MISSING} to what has none"
            )

    def known(self, target: Tensor) -> Tensor:
        """[n]"""
        return target != MISSING

    def fitted(self, target: Tensor) -> Self:
        """Also raises DataError where no label is there."""
        if not bool(self.known(target).any()):
            raise DataError("no example of the training split has a label; use another split or seed")
        return super().fitted(target)

    def without(self, target: Tensor, there: Tensor) -> Tensor:
        """With :data:`MISSING` for a class."""
        return target.where(there, MISSING)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        known = self.known(target)
        weights = output.new_tensor(self.weights) if self.weights else None
        total = known.float() if weights is None else weights[target.clamp(min=0)] * known
        summed = F.cross_entropy(output, target, weights, ignore_index=MISSING, reduction="sum")
        return summed / total.sum().clamp(min=SMALL)  # a batch may have no label at all

    def _balance(self, target: Tensor) -> Tensor:
        counts = target[self.known(target)].bincount(minlength=self.classes).double()
        return counts.sum() / (self.classes * counts.clamp(min=1))

    def readable(self, output: Tensor) -> Tensor:
        """Probabilities of the classes."""
        return output.softmax(-1)

    def raw(self, answer: Tensor) -> Tensor:
        """Logarithms."""
        return answer.log()

    @property
    def outputs(self) -> list[str]:
        """One a class, called by its name or else its number."""
        return [f"p_{name}" for name in self.choices]

    @property
    def columns(self) -> list[str]:
        """The class that is chosen, and the probability of each."""
        return ["class", *self.outputs]

    def table(self, answer: Tensor) -> Tensor:
        """[n, 1 + classes]"""
        return torch.cat([answer.argmax(-1, keepdim=True).float(), answer], dim=1)

    @property
    def class_names(self) -> tuple[str, ...]:
        """``names``."""
        return self.names

    @property
    def choices(self) -> list[str]:
        """Names of the classes, or else their numbers."""
        return list(self.names) or [str(number) for number in range(self.classes)]

    def chosen(self, name: str | None) -> tuple[Callable[[Tensor], Tensor], str]:
        """By the name or number of a class, or the column of its probability."""
        return super().chosen(name if name in self.choices else name and name.removeprefix("p_"))

    def check_defined(self, target: Tensor, part: str) -> None:
        """Raise DataError where there is one class alone."""
        if self.classes < 2:
            raise DataError(f"there is one class alone, {listed(self.names)}, so nothing to tell apart; add others")
        super().check_defined(target, part)

    def calibration(self, prediction: Tensor, target: Tensor, spread: Tensor | None = None) -> dict[str, float]:
        """Of the chance of the likeliest class; see :func:`plstm_graph.tasks.calibration.of_chances`."""
        right = (prediction.argmax(-1) == target).float().where(self.known(target), torch.nan)
        return calibration.of_chances(prediction.amax(-1), right)

    def _explained(self, column: int) -> tuple[Callable[[Tensor], Tensor], str]:
        others = [number for number in range(self.classes) if number != column]
        return (lambda out: out[:, column] - out[:, others].logsumexp(-1)), f"log-odds of class {self.choices[column]}"


def yes_or_no(labels: Sequence[float]) -> bool:
    """Whether all labels that are there are 0 or 1."""
    return all(math.isnan(value) or value in (0, 1) for value in labels)

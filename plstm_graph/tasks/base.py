"""What every kind of task has to say."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from plstm_graph.errors import ConfigError, DataError, unknown
from plstm_graph.tasks.metrics import METRICS, Metric, score

LATER = {"later": True}
"""Of a field with a default that tasks stored by earlier versions lack."""
LEVELS = ("graph", "node")
"""What an answer is for: a whole example, or each node of it."""


@dataclass(frozen=True)
class Task:
    """A question asked of every example: what its labels are, how an answer is learnt, read and scored. A plain value.

    A kind of task is a subclass with a ``name``, its ``metrics`` and the methods that raise NotImplementedError here.

    Args:
        targets: names of what is predicted.
        metric: what validation is judged by, one of ``metrics``; the first of them when not given.
        level: ``"graph"``, one answer an example, or ``"node"``, one a node: labels then have a row a node.

    Attributes:
        name: of the kind, as in config files and tables.
        metrics: keys of ``METRICS`` that suit it, the usual one first.
        tabular: whether labels can be columns of a table of examples.
        chances: whether answers are probabilities, of one yes or no a target unless ``exclusive``.
        exclusive: whether an answer is one of several classes; labels are then int64 class numbers, [n].
        missing: the label of what has none.
        picture: the plot of its predictions, ``"parity"`` or ``"roc"``, if there is one.

    Raises:
        ConfigError: a metric or level that it does not know.
    """

    targets: tuple[str, ...] = ()
    metric: str = ""
    level: str = "graph"

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ()
    tabular: ClassVar[bool] = False
    chances: ClassVar[bool] = False
    exclusive: ClassVar[bool] = False
    picture: ClassVar[str | None] = None
    missing: ClassVar[str] = "NaN"

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "metric", self.metric or next(iter(self.metrics), ""))
        if self.metrics and self.metric not in self.metrics:
            raise ConfigError(f"{unknown('metric', self.metric, self.metrics)} (task {self.name})")
        if self.level not in LEVELS:
            raise ConfigError(unknown("level", self.level, LEVELS))

    # ------------------------------------------------------------------ labels

    @property
    def num_outputs(self) -> int:
        """Numbers a model gives for one answer."""
        return len(self.targets)

    @property
    def labelled(self) -> bool:
        """Whether there is anything to learn."""
        return bool(self.metrics)

    @classmethod
    def required(cls, value: float) -> str:
        """What a label in a table must be, where ``value`` is not that; empty where it may stand there."""
        return ""

    @classmethod
    def from_table(cls, targets: Sequence[str], rows: Sequence[Sequence[float]], where: str) -> Self:
        """The task that columns of a table ask, after a check that their labels suit it.

        Args:
            targets: names of the columns.
            rows: their numbers, NaN where there is no label.
            where: the file, for errors.

        Raises:
            DataError: a label that does not suit.
        """
        return cls(tuple(targets))

    def of_rows(self, rows: Sequence[Sequence[float]], where: str) -> Self:
        """This task, after a check that the labels of further rows suit it; arguments as for :meth:`from_table`."""
        type(self).from_table(self.targets, rows, where)
        return self

    def label(self, row: Sequence[float]) -> Tensor:
        """``y`` of an example from a row of a table: float [1, targets]."""
        return torch.tensor([row], dtype=torch.float)

    def fitted(self, target: Tensor) -> Self:
        """This task with what it takes from the labels of the training split."""
        return self

    def strata(self, labels: Sequence[Tensor]) -> list[int]:
        """A class number for each example, by which folds are stratified.

        Raises:
            DataError: these labels are no classes.
        """
        if not self.chances or self.level != "graph" or any(y.numel() != 1 or not self.known(y).all() for y in labels):
            raise DataError("stratified folds need one class label a graph; use the random or scaffold split")
        return [int(y) for y in labels]

    def count(self, target: Tensor) -> Tensor:
        """How many labels a loss is the mean of."""
        return self.known(target).sum()

    def known(self, target: Tensor) -> Tensor:
        """Which labels are there: bool, of the shape of the labels."""
        return ~target.isnan()

    @property
    def recorded(self) -> bool:
        """Whether the loss can be part of a CUDA graph: it asks a GPU for nothing, sends it nothing, and leaves out
        labels that :meth:`without` takes away."""
        return False

    def without(self, target: Tensor, there: Tensor) -> Tensor:
        """Labels of which those of some answers are missing.

        Args:
            target: labels of n answers.
            there: which stay, bool [n].
        """
        return target.where(there.view(-1, *[1] * (target.dim() - 1)), torch.nan)

    def values(self, target: Tensor) -> Tensor:
        """The numbers that labels are, or that they bound: [n, targets]."""
        return target

    def exact(self, target: Tensor) -> Tensor:
        """What answers are scored by: labels, but NaN for those that are bounds."""
        return target

    def check_labels(self, target: Tensor) -> None:
        """Raise DataError unless these are labels of this task, a row an answer."""
        none = self.no_labels
        if target.shape[1:] != none.shape[1:] or target.is_floating_point() != none.is_floating_point():
            kind = "floating point" if none.is_floating_point() else "whole numbers"
            raise DataError(
                f"y must be {[1, *none.shape[1:]]} for each answer, {kind} (task {self.name}, "
                f"{len(self.targets)} targets), but all together they are {list(target.shape)}, {target.dtype}"
            )
        if target.dtype == torch.bfloat16:
            raise DataError("y must not be bfloat16, which numpy lacks; call y.float()")
        if bool(target.isinf().any()):
            raise DataError("a label must be a finite number, or NaN where there is none; some are infinite")
        if self.chances and not self.exclusive:
            for value in target[~target.isnan()].unique().tolist():
                if reason := self.required(value):
                    raise DataError(f"{reason}, or NaN where there is none, got {value:g}")

    @property
    def no_labels(self) -> Tensor:
        """Labels of no example at all."""
        return torch.empty(0, len(self.targets))

    # ------------------------------------------------------------------ answers

    @property
    def scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each target, by which labels are learnt; empty where they are as they are."""
        return (), ()

    def standardised(self, target: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """Labels by ``scale``."""
        return (target - mean) / deviation

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss over the labels that are there.

        Args:
            output: [n, num_outputs] as the model gives it, float32.
            target: labels of n > 0 answers, standardised by ``scale`` where there is one.
        """
        raise NotImplementedError

    def readable(self, output: Tensor) -> Tensor:
        """The model's output as a user reads it, but for ``scale``: values, probabilities, numbers of words."""
        raise NotImplementedError

    def raw(self, answer: Tensor) -> Tensor:
        """The inverse of :meth:`readable`, for models that give answers, not outputs."""
        raise ConfigError(f"answers to task {self.name!r} have no mean; choose a network, and no ensemble")

    @property
    def outputs(self) -> list[str]:
        """Names of the columns of :meth:`readable`."""
        return list(self.targets)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of :meth:`table`."""
        return self.outputs

    def table(self, answer: Tensor) -> Tensor:
        """Readable answers as rows of a table of predictions, [n, columns]."""
        return answer

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes, by number; empty where they have none, and for other answers."""
        return ()

    @property
    def choices(self) -> list[str]:
        """Names by which one number of an answer is chosen, in the order of the model's outputs."""
        return list(self.targets)

    def chosen(self, name: str | None) -> tuple[Callable[[Tensor], Tensor], str]:
        """The number [n] that an output [n, num_outputs] means for one of ``choices`` (the first without a name), and
        its unit.

        Raises:
            ConfigError: no such name.
        """
        name = self.choices[0] if name is None else name
        if name not in self.choices:
            raise ConfigError(unknown("class" if self.exclusive else "target", name, self.choices))
        return self._explained(self.choices.index(name))

    def _explained(self, column: int) -> tuple[Callable[[Tensor], Tensor], str]:
        """As :meth:`chosen`, by number."""
        raise ConfigError(f"answers of task {self.name!r} cannot be explained")

    # ------------------------------------------------------------------ scores

    @property
    def rule(self) -> Metric:
        """How validation is judged."""
        return METRICS[self.metric]

    def with_metric(self, metric: str | None) -> Self:
        """This task judged by another metric, if one is given.

        Raises:
            ConfigError: it does not suit.
        """
        return replace(self, metric=metric) if metric else self

    def trained_with(self, loss: str | None, class_weights: bool) -> Self:
        """This task learnt by another loss, or with rare classes weighing as much as common ones.

        Args:
            loss: key of :data:`plstm_graph.tasks.LOSSES`, for quantities.
            class_weights: for classes.

        Raises:
            ConfigError: one of them does not apply.
        """
        wrong = [name for name, given in (("loss", loss), ("class_weights", class_weights)) if given]
        if wrong:
            raise ConfigError(f"{' and '.join(wrong)} cannot be chosen for task {self.name!r}; leave it out")
        return self

    def thresholds(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """By target, the probability above which yes is best said; nothing where there are none.

        Args:
            prediction, target: of a validation part, as for :meth:`scores`.
        """
        return {}

    def unlabelled(self, target: Tensor) -> list[str]:
        """Targets without any label among these, whose scores are not defined."""
        if target.dim() != 2 or not target.is_floating_point():
            return []
        return [name for name, none in zip(self.targets, target.isnan().all(0).tolist(), strict=True) if none]

    def scores(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Every metric; arguments as for :func:`plstm_graph.tasks.metrics.score`.

        Of several targets one in their units is there only if it is the one that validation is judged by: a mean over
        different units means nothing. See :meth:`by_target`.
        """
        mixed = len(self.targets) > 1
        names = [name for name in self.metrics if not (mixed and METRICS[name].in_units) or name == self.metric]
        return {name: score(name, prediction, target) for name in names}

    def by_target(self, prediction: Tensor, target: Tensor) -> dict[str, dict[str, float]]:
        """Every metric of each of several targets; nothing where there is one, or labels are no numbers a target."""
        if len(self.targets) < 2 or target.dim() != 2 or not target.is_floating_point():
            return {}
        return {
            name: {metric: score(metric, prediction[:, [k]], target[:, [k]]) for metric in self.metrics}
            for k, name in enumerate(self.targets)
        }

    def calibration(self, prediction: Tensor, target: Tensor, spread: Tensor | None = None) -> dict[str, float]:
        """How far what is said of uncertainty is true; nothing where nothing is said.

        Args:
            prediction, target: as for :meth:`scores`.
            spread: standard deviation of each number of ``prediction``, where there is one.
        """
        return {}

    def is_defined(self, metric: str, target: Tensor) -> bool:
        """Whether a metric says something of these labels: answers without an error have a score."""
        perfect = one_hot(target.clamp(min=0)).float() if self.exclusive else target.nan_to_num()
        return not math.isnan(score(metric, perfect, target))

    def check_defined(self, target: Tensor, part: str) -> None:
        """A metric that cannot be computed on a split would fail in every epoch: say so before the first.

        Raises:
            DataError: labels of one class only, or no spread, or none at all.
        """
        if not bool(self.known(target).any()):
            raise DataError(f"no example of the {part} split has a label; use another --split or --seed")
        if not self.is_defined(self.metric, target):
            raise DataError(
                f"{self.rule.label} needs at least two different labels in the {part} split (got {len(target)} rows); "
                "use another --split, --seed or --metric, or more data if all labels are alike"
            )

    # ------------------------------------------------------------------ stored

    def plain(self) -> dict[str, Any]:
        """As plain values; :func:`plstm_graph.tasks.restore` reads them."""
        stored = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {"name": self.name, **stored}


@dataclass(frozen=True)
class Unlabelled(Task):
    """No labels: graphs that are there for depth and speed."""

    name = "none"


def share_known(known: Tensor) -> Tensor:
    """By this a mean over all labels is one over those that are there; 1 where none is missing."""
    return known.numel() / known.sum().clamp(min=1)

"""What a search chooses among: the usual space of each model, or one's own as a TOML file."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plstm_graph.config.architectures import architecture, check_read, unread
from plstm_graph.config.models import ModelConfig, VisionConfig
from plstm_graph.config.names import check_options
from plstm_graph.errors import ConfigError
from plstm_graph.train.config import TrainConfig, flat, override, read_toml
from plstm_graph.train.defaults import DEFAULTS

FILE_EXAMPLE = "lr = { low = 1e-4, high = 1e-2, log = true }, or below [model] width = [32, 64]"


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones if both are.

    Args:
        low, high: the ends.
        log: drawn evenly by their logarithm.
        step: between numbers that are drawn; 1 for whole ones.

    Raises:
        ConfigError: the ends are no numbers in this order, or a logarithm of 0 would be needed.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        numbers = [self.low, self.high, *([] if self.step is None else [self.step])]
        if any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers):
            raise ConfigError(f"a range takes numbers (got {self})")
        if not self.low < self.high or (self.log and not self.low > 0):
            raise ConfigError(f"a range goes from low to a higher number, with log from above 0 (got {self})")
        if self.step is not None and (self.log or not self.step > 0):
            raise ConfigError(f"the step of a range is above 0, and there is none with log (got {self})")

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None)


Choices = tuple[Any, ...]
Space = dict[str, Range | Choices]
"""By flat name of an option (``lr``, ``model.width``): the range or the values that a search draws from."""


def default_space(config: TrainConfig, fixed: Collection[str] = ()) -> Space:
    """What is searched unless a file says otherwise.

    Learning rate, width, layers, dropout and pooling of every network of graphs; heads of those that have some; modes,
    local layer and orientation of pLSTM. What the data set brings of its own
    (:data:`~plstm_graph.train.defaults.DEFAULTS`) is left as it is, and so is the width where a budget sets it.

    Args:
        config: the run.
        fixed: options to leave as they are.

    Raises:
        ConfigError: the model is no network; nothing is left to search.
    """
    name = config.model.model
    kind = architecture(name)
    if kind.fitted:
        raise ConfigError(f"model {name!r} is fitted at once, without epochs to search by; GridSearchCV searches those")
    space: Space = {"lr": Range(2e-4, 5e-3, log=True)}
    if isinstance(config.model, VisionConfig):
        space |= {"weight_decay": Range(1e-3, 0.2, log=True), "model.layers": Range(4, 12, step=2)}
    if isinstance(config.model, ModelConfig):
        space |= {
            "model.width": (32, 64, 96, 128),
            "model.layers": Range(2, 6),
            "model.dropout": (0.0, 0.1, 0.2, 0.3, 0.5),
            "model.pooling": ("mean", "sum", "max", "attention"),
        }
        if kind.heads:
            space |= {"model.heads": (4, 8)}
    if name == "plstm":
        local = ("gine", "gatedgcn", "none") if config.capture else ("gine", "gatedgcn", "dmpnn", "none")
        orders = ("canonical", "canonical-bfs", "canonical-dfs", "canonical-center")
        space |= {"model.local": local, "model.modes": ("P", "D", "PD"), "model.order": orders}
    left = {*fixed, *DEFAULTS.get(config.data.casefold(), {}), *(["model.width"] if config.budget else [])}
    left |= {key for key in space if key.startswith("model.") and unread(name, key.removeprefix("model."))}
    space = {key: choice for key, choice in space.items() if key not in left}
    if kind.heads:
        _divide(space, flat(config))
    if not space:
        raise ConfigError("nothing is left to search, since every option was given; leave some out")
    return space


def _divide(space: Space, given: Mapping[str, Any]) -> None:
    """Leaves only widths that all heads divide, or heads that divide the one width."""
    width, heads = (space.get(key, (given[key],)) for key in ("model.width", "model.heads"))
    assert isinstance(width, tuple)
    assert isinstance(heads, tuple)
    if len(width) == 1:
        heads = tuple(each for each in heads if not width[0] % each)
    width = tuple(each for each in width if not any(each % count for count in heads))
    for key, found in (("model.width", width), ("model.heads", heads)):
        if key in space:
            space[key] = found
            if len(found) < 2:
                del space[key]


def read_space(path: str | Path, config: TrainConfig) -> Space:
    """The space of a file, in place of the usual one: a list of values, or a table with low and high, an option.

    Args:
        path: of a TOML file; options of the model stand below ``[model]``.
        config: the run, which has to take every value.

    Raises:
        ConfigError: the file cannot be read; an option that is not known; a value that it cannot have.
    """
    content = read_toml(path)
    nested = content.pop("model", {})
    if not isinstance(nested, dict) or {"low", "high"} & nested.keys():
        raise ConfigError(f"{path}: options of the model stand below [model], also its name: model = [...]")
    try:
        space = from_plain(content | {f"model.{key}": value for key, value in nested.items()})
        check_space(space, config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return space


def from_plain(values: Mapping[str, Any]) -> Space:
    """The inverse of :func:`plain`.

    Raises:
        ConfigError: an entry that is neither a list of values nor a range; none at all.
    """
    if not values:
        raise ConfigError(f"a space names what is searched, as {FILE_EXAMPLE}")
    space: Space = {}
    for key, value in values.items():
        if isinstance(value, list) and value and not any(isinstance(each, list | dict) for each in value):
            space[key] = tuple(value)
        elif isinstance(value, dict) and {"low", "high"} <= value.keys() <= {"low", "high", "log", "step"}:
            space[key] = Range(**value)
        else:
            raise ConfigError(f"{key} must be a list of values or a range, as {FILE_EXAMPLE} (got {value!r})")
    return space


def plain(space: Space) -> dict[str, Any]:
    """As plain values that a TOML file holds."""
    return {
        key: list(choice)
        if isinstance(choice, tuple)
        else {name: value for name, value in vars(choice).items() if value is not None}
        for key, choice in space.items()
    }


def holds(choice: Range | Choices, value: Any) -> bool:
    """Whether a value is among those that are drawn from; between the steps of a range it counts as one."""
    if isinstance(choice, Range):
        return isinstance(value, int if choice.whole else int | float) and choice.low <= value <= choice.high
    return value in choice


def check_space(space: Space, config: TrainConfig) -> None:
    """Raise ConfigError unless a run takes every value of every option by itself."""
    for key, value in _values(space):
        # A value of another architecture's option is for that architecture to refuse, in its trials.
        known = key in flat(config) or "model.model" not in space
        if known:
            check_options(flat(found := override(config, {key: value})))
            if key.startswith("model."):
                check_read(found.model, [key.removeprefix("model.")], config.model)


def _values(space: Space) -> Iterator[tuple[str, Any]]:
    for key, choice in space.items():
        for value in (choice.low, choice.high) if isinstance(choice, Range) else choice:
            yield key, value

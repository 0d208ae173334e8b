"""Models of equal size: the width whose number of parameters comes closest to a budget."""

from dataclasses import replace
from math import lcm
from typing import Any

import torch

from plstm_graph.config.architectures import architecture
from plstm_graph.config.models import ModelConfig
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import ConfigError
from plstm_graph.models.graph import GraphModel
from plstm_graph.nn.block import DIRECTIONS

TOLERANCE = 0.1
"""How far from its budget a model may be."""

_SUFFIX = {"": 1, "k": 1_000, "m": 1_000_000}


def parse_budget(text: str) -> int:
    """``"300k"``, ``"500000"`` or ``"1.2M"`` as a number of parameters.

    Raises:
        ConfigError: anything else, or less than one parameter.
    """
    plain = text.strip().lower().replace(",", "").replace("_", "")
    suffix = plain[-1:] if plain[-1:] in ("k", "m") else ""
    try:
        budget = round(float(plain.removesuffix(suffix)) * _SUFFIX[suffix])
    except (ValueError, OverflowError):  # infinity, NaN and words
        budget = 0
    if budget < 1:
        raise ConfigError(f"budget must be a number of parameters such as 300k, 500000 or 1.2M (got {text!r})")
    return budget


def count_parameters(features: FeatureSpec, num_outputs: int, config: ModelConfig) -> int:
    """Parameters of the model, without allocating or drawing any."""
    with torch.device("meta"):
        model = GraphModel(features, num_outputs, config)
    return sum(weights.numel() for weights in model.parameters())


def fit_width(features: FeatureSpec, num_outputs: int, config: Any, budget: str) -> ModelConfig:
    """``config`` with the width whose parameters come closest to ``budget``.

    Widths are multiples of ``heads`` where the model has heads, and even where degrees are encoded. Where the steps
    between such widths are too coarse, heads are halved.

    Args:
        features, num_outputs: as for :class:`GraphModel`.
        config: all but the width.
        budget: as for :func:`parse_budget`.

    Raises:
        ConfigError: the closest is off by more than :data:`TOLERANCE`; the message names its neighbours. Or the model
            is none of graphs.
    """
    wanted = parse_budget(budget)
    if not isinstance(config, ModelConfig):
        raise ConfigError(f"a budget sets the width of networks of graphs; of {config.model!r} choose it by --width")
    sizes = _around(features, num_outputs, config, wanted)
    width = min(sizes, key=lambda width: abs(sizes[width] - wanted))
    if abs(sizes[width] - wanted) <= TOLERANCE * wanted:
        return replace(config, width=width)
    coarsest = 2 * len(DIRECTIONS[config.directions]) if config.directions in DIRECTIONS else 2
    if architecture(config.model).heads and config.heads % coarsest == 0:
        return fit_width(features, num_outputs, replace(config, heads=config.heads // 2), budget)
    near = " and ".join(f"{count:,} (width {width})" for width, count in sizes.items())
    raise ConfigError(
        f"no width gives model {config.model!r} {wanted:,} parameters within {TOLERANCE:.0%}: the closest have {near}; "
        "take another budget or another number of layers"
    )


def _around(features: FeatureSpec, num_outputs: int, config: ModelConfig, wanted: int) -> dict[int, int]:
    """Parameters of the two neighbouring widths between which ``wanted`` lies, by width."""
    if config.heads < 1:
        raise ConfigError(f"heads must be at least 1 (got {config.heads})")
    step = lcm(config.heads if architecture(config.model).heads else 1, 2 if config.degrees else 1)

    def size(multiple: int) -> int:
        return count_parameters(features, num_outputs, replace(config, width=step * multiple))

    low, high = 1, 2
    while size(high) < wanted:  # parameters grow with the width: bracket, then halve
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < wanted else (low, middle)
    return {step * multiple: size(multiple) for multiple in (low, high)}

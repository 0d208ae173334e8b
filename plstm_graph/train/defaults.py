"""What a run is where nothing else is asked for, by data set and network."""

from typing import Any

from plstm_graph.config.models import ModelConfig
from plstm_graph.config.names import DATA_SETS, SIDE, asked_side, of_molecules, of_pictures
from plstm_graph.train.config import TrainConfig, override

_PATHS = {
    "epochs": 32,
    "batch_size": 32,
    "weight_decay": 0.0,
    "model.layers": 2,
    "model.heads": 4,
    "model.local": "none",
}
_PATHS |= {
    "model.transition": "saturating",
    "model.output_norm": "soft",
    "model.norm": "layer",
    "model.dropout": 0.0,
    "model.rwse": 0,
}
_CLOSED = {"model.source_bias": -2.0, "source_decay": 3.0}
_PLAIN = {"model.local": "none", "model.dropout": 0.0, "model.rwse": 0}
_IMAGES = {"model.model": "plstm-vision", "weight_decay": 0.05, "clip": 1.0}
DEFAULTS: dict[str, dict[str, Any]] = {name: _PATHS for name in DATA_SETS if name.startswith("carry")}
DEFAULTS |= {name: _PATHS | _CLOSED for name in DATA_SETS if name.startswith("transfer-")}
DEFAULTS |= {name: _PATHS | {"epochs": 64} for name in DATA_SETS if name.startswith("swap-")}
DEFAULTS |= {name: _PLAIN | {"model.pooling": "sinks"} for name in DATA_SETS if name.startswith("neighborsmatch-")}
DEFAULTS |= {name: _PLAIN | {"model.order": "canonical-bfs"} for name in DATA_SETS if name.startswith("echo-")}
# Means over 150 atoms hardly differ, and networks learn slowly there: dropout only hinders them (peptides_trials.toml).
DEFAULTS["peptides-func"] = {
    "model.head_layers": 3,
    "model.head_norm": "batch",
    "model.dropout": 0.0,
    "model.rwse": 32,
}
DEFAULTS["arrow"] = _IMAGES | {
    "epochs": 50,
    "batch_size": 128,
    "lr": 1e-4,
    "warmup_epochs": 1,
    "also": ("arrow-384",),
    "model.heads": 6,
}
DEFAULTS["digits"] = _IMAGES | {
    "epochs": 30,
    "model.width": 64,
    "model.heads": 4,
    "model.layers": 4,
    "model.patch_size": 2,
}
_PICTURES = _IMAGES | {"epochs": 50, "lr": 3e-4}
LARGEST, FEWEST, MOST = 16, 8, 64
"""Pixels of a patch's side at most; patches of an image's side at least, and at most."""


def _pictures(side: int) -> dict[str, Any]:
    """For images of so many pixels a side, which were pictures: the largest patches that fit."""
    fit = (patch for patch in range(LARGEST, 1, -1) if side % patch == 0 and side // patch >= FEWEST)
    patch = next(fit, 1 if side <= MOST else LARGEST)  # the model says what is wrong with 227 pixels
    return _PICTURES | {"model.patch_size": patch}


DEFAULTS["cifar10"] = _pictures(32)
"""By data set: values, by flat name, that suit it better than the defaults of :class:`TrainConfig`, which are for
molecules."""
FOR_MOLECULES: dict[str, dict[str, Any]] = {"plstm": {"model.virtual_node": True}}
"""By network: values that suit molecules better than its own defaults (``benchmarks/configs/ablation_small.toml``)."""


def default_config(data: str, model: str | None = None) -> TrainConfig:
    """What a run on a data set is where nothing else is asked for, as on the command line.

    ``TrainConfig(data=...)`` itself does not look at the data: see :data:`DEFAULTS` and :data:`FOR_MOLECULES`.

    Args:
        data: name of a data set, or path of a file.
        model: name of the model that the config is for, if it is not the one that is usual for the data. It is still to
            be set.
    """
    values = _pictures(asked_side(data) or SIDE) if of_pictures(data) else DEFAULTS.get(data.casefold(), {})
    if of_molecules(data):
        values = FOR_MOLECULES.get(model or ModelConfig.model, {}) | values
    return override(TrainConfig(), values | {"data": data})

"""Options that other options make void: a value that changes nothing misleads, so it is refused before a run."""

from collections.abc import Iterator

from plstm_graph.config.architectures import architecture
from plstm_graph.config.models import ForestConfig, VisionConfig
from plstm_graph.errors import ConfigError
from plstm_graph.orient import RANDOM
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.defaults import default_config

OF_NETWORKS = ("descriptors", "init_from", "ema", "compile", "capture")
"""Fields that decide what a network learns from, or how; a forest reads none of them."""


def check_unused(config: TrainConfig) -> None:
    """Raise ConfigError for an option that has no effect because of another; a default is no choice."""
    for option, why in _unused(config):
        raise ConfigError(f"{option} has no effect {why}; leave it out")


def _unused(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """An option, and why it has none."""
    model = config.model
    kind, usual = architecture(model.model), type(model)()
    if kind.fitted:
        for name in OF_NETWORKS:
            if getattr(config, name):
                yield name, f"with model {model.model!r}, which is no network"
    sources = kind.reads is None or "source_bias" in kind.reads
    if config.source_decay not in (0, default_config(config.data).source_decay) and not sources:
        yield "source_decay", f"with model {model.model!r}, which has no sources"
    given = vars(model)
    orientations = given.get("test_orientations")
    if orientations != vars(usual).get("test_orientations") and given["order"] != RANDOM:
        yield "model.test_orientations", f"with order {given['order']!r}: only order 'random' has several"
    if isinstance(model, VisionConfig):
        yield from _of_images(model)
    if isinstance(model, ForestConfig):
        if not model.fingerprint.startswith("morgan") and model.radius != ForestConfig.radius:
            yield "model.radius", f"with fingerprint {model.fingerprint!r}: only those of Morgan have one"
        if model.fingerprint == "maccs" and model.bits != ForestConfig.bits:
            yield "model.bits", "with fingerprint 'maccs', whose keys are 167"


def _of_images(model: VisionConfig) -> Iterator[tuple[str, str]]:
    usual = VisionConfig()
    if model.size != usual.size and model.width and model.heads:
        yield "model.size", f"beside model.width={model.width} and model.heads={model.heads}, which it stands for"
    used = {model.modes[block % len(model.modes)] for block in range(model.layers)} if model.modes else set()
    if model.p_mode != usual.p_mode and "P" not in used:
        yield "model.p_mode", f"with modes {model.modes!r} in {model.layers} layers: none is of P mode"
    if model.chirality != usual.chirality and "D" not in used:
        yield "model.chirality", f"with modes {model.modes!r} in {model.layers} layers: none is of D mode"

"""The registry of models: how each is called, configured and built, and what it can. It imports no torch.

A network that reads a graph's nodes and edges is an entry with a ``stack``; any other model brings a ``build`` and a
config of its own. A new one, also from outside the package: ``MODELS["mine"] = Architecture(...)``. For the command
line an installed package has an entry point ``mine`` in the group ``plstm_graph.models`` that leads to it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from plstm_graph.config.models import AnyConfig, ForestConfig, ModelConfig, VisionConfig
from plstm_graph.errors import ConfigError, unknown

Place = str | Callable[..., Any]
"""A function or class, or where it is: ``"module:name"``."""


@dataclass(frozen=True)
class Architecture:
    """A kind of model.

    Args:
        stack: of a graph model, (config, edge_dim) -> module called like PyG's ``BasicGNN``, [N, width] -> [N, width].
        build: (config, features, task) -> module that maps a batch to [answers, task.num_outputs]; a
            :class:`~plstm_graph.models.graph.GraphModel` around ``stack`` by default.
        config: class of its config.
        reads: fields of it that the model reads, where networks share a config; all when not given.
        oriented: it reads line graphs, and ``config.order`` says of what orientation.
        heads: its width must be a multiple of ``config.heads``.
        fitted: it is no network: ``fit(graphs, seed)`` makes it what it is, in one go and without epochs.
        padded: it runs on padded tensors, and so can be exported.
        fixed: its batches have one shape, so that they can be captured, compiled or not, without being filled up.
        uncaptured: config -> what keeps its passes from being CUDA graphs, None if nothing does: a look at the data.
    """

    stack: Place | None = None
    build: Place = "plstm_graph.models.graph:build"
    config: type[AnyConfig] = ModelConfig
    reads: frozenset[str] | None = None
    oriented: bool = False
    heads: bool = False
    fitted: bool = False
    padded: bool = True
    fixed: bool = False
    uncaptured: Callable[[Any], str | None] = lambda config: f"model {config.model!r}"

    def made(self, config: AnyConfig, features: Any, task: Any) -> Any:
        """The model with fresh weights, a ``torch.nn.Module``."""
        return _found(self.build)(config, features, task)

    def stacked(self, config: AnyConfig, edge_dim: int | None) -> Any:
        """The stack of a graph model."""
        if self.stack is None:
            raise ConfigError(f"model {config.model!r} is no network of graphs: it has no layers to stack")
        return _found(self.stack)(config, edge_dim)


def _free(config: Any) -> None:
    return None


_RECORDED = ("none", "gine", "dir-gine", "gatedgcn", "gatedgcn-edges")


def _local(config: Any) -> str | None:
    return None if config.local in _RECORDED else f"local {config.local!r}"


_ALL = frozenset(field.name for field in fields(ModelConfig)) - {"model", "both_ways"}
_GRAPHS = frozenset(
    ("width", "layers", "norm", "dropout", "pooling", "edge_readout", "rwse", "lap_pe", "degrees", "rings")
) | {"edge_features", "head_layers", "head_norm"}
_ONE_HOP = _GRAPHS | {"both_ways"}
_BLOCKS = _ONE_HOP | {"expansion", "virtual_node", "jk"}
_LEVELS = _GRAPHS | {"directions", "order", "test_orientations", "jk"}
_REACH = _LEVELS - {"directions"} | {"heads", "expansion"}
_VIT = frozenset(("size", "width", "heads", "layers", "patch_size", "position", "read_out"))


def _image(*fields: str) -> Architecture:
    return Architecture(
        build="plstm_graph.models.vision:build",
        config=VisionConfig,
        reads=frozenset(fields),
        padded=False,
        uncaptured=_free,
        fixed=True,
    )


FINGERPRINT = "fingerprint"
_BASELINES = "plstm_graph.models.baselines"
_PLSTM = "plstm_graph.models.graph:plstm"
_REACHABLE = "plstm_graph.models.reachable"
MODELS: dict[str, Architecture] = {
    "plstm": Architecture(_PLSTM, reads=_ALL, oriented=True, heads=True, uncaptured=_local),
    "gine": Architecture(f"{_BASELINES}:gine_stack", reads=_BLOCKS, uncaptured=_free),
    "gcn": Architecture(f"{_BASELINES}:gcn_stack", reads=_BLOCKS),
    "gin": Architecture(f"{_BASELINES}:gin", reads=_ONE_HOP, uncaptured=_free),
    "gin-virtual": Architecture(f"{_BASELINES}:gin_virtual", reads=_BLOCKS),
    "gat": Architecture(f"{_BASELINES}:gat_stack", reads=_BLOCKS | {"heads"}, heads=True),
    "gatedgcn": Architecture(f"{_BASELINES}:gatedgcn_stack", reads=_BLOCKS, uncaptured=_free),
    "gatedgcn-edges": Architecture(f"{_BASELINES}:gatedgcn_edges_stack", reads=_BLOCKS, uncaptured=_free),
    "gps": Architecture(f"{_BASELINES}:gps", reads=_BLOCKS - {"expansion"} | {"heads"}, heads=True, padded=False),
    "dmpnn": Architecture(f"{_BASELINES}:DMPNN", reads=_ONE_HOP),
    "lstm-gnn": Architecture(f"{_BASELINES}:LSTMGNN", reads=_ONE_HOP),
    "adgn": Architecture(f"{_BASELINES}:ADGN", reads=_ONE_HOP),
    "dagnn": Architecture("plstm_graph.models.levels:dagnn", reads=_LEVELS, oriented=True, padded=False),
    "dvae": Architecture("plstm_graph.models.levels:dvae", reads=_LEVELS, oriented=True, padded=False),
    "dag-transformer": Architecture(
        f"{_REACHABLE}:dag_transformer", reads=_REACH, oriented=True, heads=True, padded=False
    ),
    "flowerformer": Architecture(f"{_REACHABLE}:flowerformer", reads=_REACH, oriented=True, heads=True, padded=False),
    "plstm-vision": _image(*_VIT, "modes", "chirality", "p_mode", "gate_inputs", "transition"),
    "vit": _image(*_VIT),
    "cnn": _image("width", "layers"),
    "efficientnet": _image(),
    FINGERPRINT: Architecture(build="plstm_graph.models.forest:Forest", config=ForestConfig, fitted=True),
}
"""Architectures by name, as ``--model`` takes them."""

NETWORKS = tuple(name for name, kind in MODELS.items() if kind.config is ModelConfig)
"""Networks of graphs of the package."""


def architecture(name: str) -> Architecture:
    """The entry of :data:`MODELS`, also of another package that brings it.

    Raises:
        ConfigError: there is none.
    """
    if name not in MODELS:
        MODELS.update({point.name: point.load() for point in entry_points(group="plstm_graph.models", name=name)})
    if name not in MODELS:
        raise ConfigError(unknown("model", name, MODELS))
    return MODELS[name]


def unread(model: str, field: str) -> str:
    """What is wrong with asking a model for a field of its config that it does not read; empty where it reads it."""
    kind = architecture(model)
    if kind.reads is None or field in kind.reads | {"model"}:
        return ""
    others = [name for name, other in MODELS.items() if other.config is kind.config and field in (other.reads or ())]
    choose = f", or choose a model that does: {', '.join(others)}" if others else ""
    return f"model {model!r} does not read model.{field}; leave it out{choose}"


def check_read(config: AnyConfig, asked: Iterable[str], usual: AnyConfig) -> None:
    """Raise ConfigError where a field is asked for that the model does not read; a default is no choice.

    Args:
        config: of the model.
        asked: names of fields that somebody wrote down.
        usual: the config of the same model without them: what suits the data, or what a run began with.
    """
    for name in asked:
        value = getattr(config, name)
        defaults = (getattr(usual, name), getattr(type(config)(), name))
        if value not in defaults and (message := unread(config.model, name)):
            raise ConfigError(message)


def _found(place: Place) -> Any:
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)

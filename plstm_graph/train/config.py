"""Every choice of a training run, as plain values that a TOML file and a ``weights_only`` checkpoint can hold."""

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from plstm_graph.config.architectures import architecture
from plstm_graph.config.models import RENAMED, AnyConfig, ModelConfig
from plstm_graph.config.names import DESCRIPTORS, folder_prefix, placed
from plstm_graph.config.typed import convert
from plstm_graph.errors import ConfigError, missing_extra, unknown
from plstm_graph.io.files import expanded, write_text

MAX_SEED = 2**32 - 1  # numpy's


@dataclass(frozen=True)
class TrainConfig:
    """A training run. The defaults are the main job: activity of 1,017 molecules that ship with RDKit.

    They do not depend on ``data``; :func:`~plstm_graph.train.defaults.default_config` begins with what suits a data
    set, as the command line does.

    Args:
        data: name of a data set, or path of a CSV file with SMILES and targets.
        root: folder with public benchmark files; only read.
        also: names or paths of further data sets, on whose test part the best weights are scored, too.
        targets: label columns (CSV).
        smiles_column: column with the molecules (CSV); guessed when not given.
        task: "regression", "binary" or "multiclass"; the data set's own when not given.
        featuriser: how SMILES become graphs, "cip-molecule" or "ogb-molecule"; the data set's own when not given.
        descriptors: of whole molecules, for networks to read beside the graph: names in
            ``plstm_graph.config.names.DESCRIPTORS`` or a CSV file with SMILES and numbers.
        censored: labels (CSV) may be bounds, as ">10" or "<0.1": answers on the side they allow have no error.
        metric: what validation is judged by; the data set's own when not given.
        loss: of quantities: "mse", "mae" or "huber"; when not given "mse", or "mae" if that is the metric.
        class_weights: rare classes weigh as much as common ones in the loss.
        split: kind of split, one of ``plstm_graph.data.splits.SPLITS``; the data set's own when not given.
        split_column: column (CSV) with the names of parts; for "group" and "time" with what they go by.
        test_data: file of molecules that is tested on in place of a part of ``data``.
        split_seed: seed of the split; ``seed`` when not given.
        fold: which fold, for a split in folds.
        group_repeats: keep all rows of a molecule, however spelled, in one part of a random split or of folds.
        seed: initial weights, order of the data, dropout.
        ensemble: networks that are trained from different seeds and answer together.
        init_from: checkpoint whose weights training begins with, where names and shapes are the same.
        epochs: passes over the training split.
        batch_size: graphs a step and device.
        lr: highest learning rate, reached after the warm-up, then a cosine down to 0.
        weight_decay: of AdamW.
        source_decay: in the first half of a training, every step lowers the biases of sources, in layers of pLSTM on
            graphs, by so many times the learning rate: sources that the answer does not need close; saturating ones to
            the digit.
        warmup_epochs: epochs of linear warm-up.
        clip: largest norm of the gradient; 0 turns clipping off.
        ema: decay of an exponential moving average of the weights, updated after every step; it is what is validated,
            stored and tested. When not given, the weights themselves are.
        patience: stop after so many epochs without a better validation metric; 0 never stops early.
        compile: run training steps through torch.compile, which takes a C compiler and about a minute.
        capture: record training steps as CUDA graphs, which takes a GPU for each device and seconds at first, and
            spares most of the time where the host is slower than the GPU, as with molecules; when not given, where
            that is possible, usual and pays (``plstm_graph.train.capture``).
        accelerator, devices, num_nodes, precision: as pytorch-lightning's Trainer takes them.
        out: folder for results; nothing is written without one.
        budget: parameters of the network ("300k", "1.2M"); sets ``model.width`` (and halves ``model.heads`` where the
            steps between widths would be too coarse).
        model: the network.

    Raises:
        ConfigError: a value out of range.
    """

    data: str = "nav17"
    root: str | None = None
    also: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    smiles_column: str | None = None
    task: str | None = None
    featuriser: str | None = None
    descriptors: tuple[str, ...] = ()
    censored: bool = False
    metric: str | None = None
    loss: str | None = None
    class_weights: bool = False
    split: str | None = None
    split_column: str | None = None
    test_data: str | None = None
    split_seed: int | None = None
    fold: int = 0
    group_repeats: bool = True
    seed: int = 0
    ensemble: int = 1
    init_from: str | None = None
    epochs: int = 60
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2
    source_decay: float = 0.0
    warmup_epochs: int = 5
    clip: float = 1.0
    ema: float | None = None
    patience: int = 0
    compile: bool = False
    capture: bool | None = None
    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    out: str | None = None
    budget: str | None = None
    model: AnyConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        for name in ("data", "root", "out"):  # a Path is welcome, and kept as text
            if isinstance(getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(getattr(self, name)))
            if str(getattr(self, name)).startswith("~"):
                object.__setattr__(self, name, os.path.expanduser(getattr(self, name)))
        lowest = {"ensemble": 1, "epochs": 1, "batch_size": 1, "num_nodes": 1}
        lowest |= dict.fromkeys(("seed", "fold", "warmup_epochs", "patience", "clip"), 0)
        lowest |= dict.fromkeys(("weight_decay", "source_decay"), 0)
        lowest |= {"split_seed": 0} if self.split_seed is not None else {}
        for name, low in lowest.items():
            if not getattr(self, name) >= low:  # nor NaN
                raise ConfigError(f"{name} must be at least {low} (got {getattr(self, name)})")
        if not self.lr > 0:
            raise ConfigError(f"lr must be above 0 (got {self.lr})")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"ema must be between 0 and 1, as 0.99 (got {self.ema}); leave it out to average nothing")
        if self.seed > MAX_SEED:
            raise ConfigError(f"seed must be at most {MAX_SEED} (got {self.seed})")


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict; unset (None) values are left out, since TOML has no word for them."""
    result: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if value is None:
            continue
        result[item.name] = (
            to_dict(value) if is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        )
    return result


def flat(config: TrainConfig) -> dict[str, Any]:
    """``{"lr": ..., "model.width": ...}``, unset values included."""
    own = {item.name: getattr(config, item.name) for item in fields(config) if item.name != "model"}
    return own | {f"model.{item.name}": getattr(config.model, item.name) for item in fields(config.model)}


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def override(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Copy of ``config`` with values set by flat name (``lr``, ``model.width``), typed by the field they go to.

    Raises:
        ConfigError: no such field (the message names the closest), or a value that does not fit its type.
    """
    if "model.model" in values:
        config = replace(config, model=_as(config.model, str(values["model.model"])))
    own: dict[str, Any] = {}
    model: dict[str, Any] = {}
    names = flat(config)
    kind: Any = type(config.model)
    hints = _hints(TrainConfig), _hints(kind)
    for key, value in values.items():
        nested = key.startswith("model.")
        if nested and key.removeprefix("model.") in RENAMED:
            raise ConfigError(f"{key} is called model.{RENAMED[key.removeprefix('model.')]} now: write that")
        if key not in names:
            alike = [name for name in names if name.startswith("model.") == nested]
            message = unknown("option", key, alike)
            if f"model.{key}" in names:
                message = f"unknown option {key!r}; did you mean 'model.{key}'?"
            raise ConfigError(f"model {config.model.model!r}: {message}" if nested else message)
        name = key.removeprefix("model.")
        (model if nested else own)[name] = convert(key, value, hints[nested][name])
    return replace(config, **own, model=replace(config.model, **model))


def _as(config: AnyConfig, model: str) -> AnyConfig:
    """The config of another architecture, with what was chosen of those of its fields that ``config`` has as well."""
    kind = architecture(model).config
    if kind is type(config):
        return config
    usual = type(config)()
    chosen = {item.name: getattr(config, item.name) for item in fields(kind) if hasattr(config, item.name)}
    return kind(**{name: value for name, value in chosen.items() if value != getattr(usual, name)} | {"model": model})


def from_dict(values: Mapping[str, Any], base: TrainConfig | None = None) -> TrainConfig:
    """The inverse of :func:`to_dict`; what is left out keeps the value it has in ``base``, or its default.

    Raises:
        ConfigError: as :func:`override`.
    """
    nested = values.get("model", {})
    if not isinstance(nested, Mapping):  # model = "gin" at top level: a likely slip
        raise ConfigError(f"model must be a table (got {nested!r}); write [model] and below it model = {nested!r}")
    own = {key: value for key, value in values.items() if key != "model"}
    return override(base or TrainConfig(), own | {f"model.{key}": value for key, value in nested.items()})


def read_toml(path: str | Path) -> dict[str, Any]:
    """Content of a config file.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is not valid TOML: {error}") from error


def write_toml(config: TrainConfig, path: str | Path) -> None:
    """Writes the config where ``--config`` and ``--resume`` read it."""
    write_text(path, toml(to_dict(config)))


def toml(values: Mapping[str, Any]) -> str:
    """Plain values as a TOML file has them.

    Raises:
        ConfigError: what writes TOML is not installed.
    """
    try:
        import tomli_w
    except ModuleNotFoundError as error:
        raise ConfigError(f"the folder of a run holds its config: {missing_extra('tomli_w', 'train')}") from error
    return tomli_w.dumps(values)


def anywhere(config: TrainConfig) -> TrainConfig:
    """With absolute paths: what is stored of a run means the same wherever it is read."""
    paths = (config.root, config.out, config.init_from, config.test_data)
    root, out, init, test = (None if path is None else os.path.abspath(expanded(path)) for path in paths)
    kinds = (kind if kind in DESCRIPTORS else os.path.abspath(expanded(kind)) for kind in config.descriptors)
    also = tuple(placed(name) for name in config.also)
    return replace(
        config,
        data=placed(config.data),
        also=also,
        root=root,
        out=out,
        init_from=init,
        test_data=test,
        descriptors=tuple(kinds),
    )


def differences(asked: TrainConfig, stored: TrainConfig) -> list[str]:
    """What differs, one phrase a field, but for where things are, since folders move, and what a budget decides.

    Whether data at another place are the same is for their content to say.
    """
    old, new = flat(anywhere(stored)), flat(anywhere(asked))
    free = {"out", "root"} | ({"model.width", "model.heads"} if asked.budget else set())
    kinds = [folder_prefix(each["data"]) for each in (old, new)]
    places = [each["data"].removeprefix(kind) for each, kind in zip((old, new), kinds, strict=True)]
    if kinds[0] == kinds[1] and all(map(os.path.isabs, places)):
        free.add("data")
    keys = [key for key in old | new if key not in free and old.get(key) != new.get(key)]
    return [f"{key} is {old.get(key)!r}, not {new.get(key)!r}" for key in keys]


def config_hash(config: TrainConfig) -> str:
    """Twelve hex digits that name the run, wherever its data and its results are."""
    kind = folder_prefix(config.data)
    place = config.data.removeprefix(kind)
    data = kind + os.path.basename(place) if os.path.isabs(place) else config.data
    text = json.dumps(to_dict(replace(config, data=data, root=None, out=None)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""Checkpoints: read without running code, and enough on their own to predict. Nothing here needs a trainer."""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from plstm_graph import __version__
from plstm_graph.config.architectures import MODELS, architecture
from plstm_graph.config.models import RENAMED, AnyConfig
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import CheckpointError, ConfigError, PLSTMGraphError, first_line
from plstm_graph.models.ensemble import Ensemble
from plstm_graph.models.patches import resized
from plstm_graph.tasks import Task, restore
from plstm_graph.train.config import TrainConfig, from_dict
from plstm_graph.train.domain import Domain
from plstm_graph.train.folders import locate, missing
from plstm_graph.train.optimizer_state import unpacked

FORMAT, META = 4, "plstm_graph"  # 1: a layer's nodes had two linear maps; 2: the task in several fields
RENAMED_FORMAT = 3  # as today, but for names
WEIGHTS = {".encoder.walk.": ".encoder.rwse.", ".encoder.eigenvectors.": ".encoder.lap_pe."}
"""Parts of the names of weights then and now."""
HEADS = ("head.", "network.head.", "network.classifier.")
"""How names of weights begin that give the answer, of networks of graphs and of images."""


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says about itself, stored as plain values under the key ``plstm_graph``.

    Args:
        config: the TrainConfig as a dict.
        features: the FeatureSpec as a dict.
        task: the Task as a dict, fitted to the training split.
        featuriser: how SMILES become graphs, one of ``data.molecules.FEATURISERS``; None if the data are no molecules.
        versions: of the packages that trained it.
        content: hash of the graphs and labels it was trained, validated and tested on; None where it was not stored.
        seen: the :class:`~plstm_graph.train.domain.Domain` of the training part as a dict; None where it was not
            stored, and for data that are no molecules.
    """

    config: dict[str, Any]
    features: dict[str, Any]
    task: dict[str, Any]
    featuriser: str | None
    versions: dict[str, str]
    content: str | None = None
    seen: dict[str, Any] | None = None
    format: int = FORMAT

    @property
    def train_config(self) -> TrainConfig:
        return from_dict({"group_repeats": False} | self.config)  # checkpoints without the word split row by row

    @property
    def model_config(self) -> AnyConfig:
        return self.train_config.model

    @property
    def asked(self) -> Task:
        """What the model was trained to answer."""
        return restore(self.task)

    @property
    def domain(self) -> Domain | None:
        """What molecules the training has seen."""
        return None if self.seen is None else Domain.restored(self.seen)

    @property
    def spec(self) -> FeatureSpec:
        """What the graphs of the training looked like."""
        return FeatureSpec.restored(self.features)

    def build(self) -> nn.Module:
        """The model before its training."""
        config, task = self.train_config, self.asked
        kind = architecture(config.model.model)
        if config.ensemble > 1:
            return Ensemble((kind.made(config.model, self.spec, task) for _ in range(config.ensemble)), task)
        found: nn.Module = kind.made(config.model, self.spec, task)
        return found

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Content of a checkpoint of ours, on the CPU; no code stored in it is run.

    Raises:
        CheckpointError: missing, truncated, or written by something else; the folder of a series.
    """
    where = locate(path)
    try:
        # torch stores tensors as they are. What inflates on reading is not ours, nor are torch's older formats.
        with zipfile.ZipFile(where) as archive:
            inflates = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
            damaged = None if inflates else archive.testzip()
        if damaged:  # torch would take a flipped bit for a weight
            raise zipfile.BadZipFile(damaged)
        content = None if inflates else _unpacked(torch.load(where, map_location="cpu", weights_only=True))
    except FileNotFoundError as error:
        raise CheckpointError(missing(path)) from error
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {where}: {error.strerror or error}") from error
    except Exception as error:  # torch raises whatever its unpickler met: EOFError, RuntimeError, UnpicklingError, ...
        kind = type(error).__name__
        raise CheckpointError(f"{where} is truncated, or not a checkpoint of plstm-graph ({kind})") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in (META, "state_dict")):
        raise CheckpointError(f"{where} was not written by plstm-graph; give best.ckpt or last.ckpt of a run")
    number = content[META].get("format")
    return _renamed(content) if isinstance(number, int) and number == RENAMED_FORMAT else content


def _unpacked(content: Any) -> Any:
    """With the states of optimizers as these have them."""
    states = content.get("optimizer_states") if isinstance(content, dict) else None
    if not isinstance(states, list):
        return content
    return content | {"optimizer_states": [each | {"state": unpacked(each["state"])} for each in states]}


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    """With the names of today for options and weights."""
    meta, state = content[META], content["state_dict"]
    config = meta.get("config")
    if isinstance(config, dict) and isinstance(config.get("model"), dict):
        model = {RENAMED.get(name, name): value for name, value in config["model"].items()}
        meta = meta | {"config": config | {"model": model}}
    for then, now in WEIGHTS.items():
        state = {str(name).replace(then, now): value for name, value in state.items()}
    return content | {META: meta | {"format": FORMAT}, "state_dict": state}


def read_training(path: str | os.PathLike[str]) -> dict[str, Any]:
    """As :func:`read`, for a checkpoint that training can go on from.

    Raises:
        CheckpointError: also where it holds weights only, as ``best.ckpt`` does.
    """
    content = read(path)
    lacking = [key for key in ("callbacks", "loops", "lr_schedulers", "optimizer_states") if not content.get(key)]
    if lacking:
        raise CheckpointError(f"{path} has no {', '.join(lacking)}: training can only go on from a run's last.ckpt")
    return content


def _in_a_line(value: object) -> str:
    """What stands in a file, for a message: whatever it is, and not much of it."""
    return " ".join(str(value).split())[:40]


def read_meta(content: Mapping[str, Any], path: object) -> Meta:
    """The description inside a checkpoint.

    Raises:
        CheckpointError: of a format this version does not know, or incomplete.
    """
    stored = {"content": None, "seen": None} | content[META]
    number = stored.get("format")
    if not isinstance(number, int) or number != FORMAT:
        versions = stored.get("versions")
        writer = versions.get("plstm_graph", "unknown") if isinstance(versions, dict) else "unknown"
        raise CheckpointError(
            f"{path} has checkpoint format {_in_a_line(number)}, this version reads {FORMAT}; it was written by "
            f"plstm-graph {_in_a_line(writer)}: install that version"
        )
    hints = get_type_hints(Meta)
    wrong = sorted(str(name) for name in hints.keys() ^ stored.keys())
    wrong += [name for name, hint in hints.items() if name in stored and not _is(stored[name], hint)]
    more = sorted(str(name) for name in stored.keys() - hints.keys())
    newer = more or _unknown_options(stored.get("config"))
    if newer and wrong == more:  # and all that this version knows is as it must be
        raise CheckpointError(
            f"{path} was written by a newer plstm-graph than this one ({__version__}): it has {', '.join(newer)}, "
            "which is unknown here; install that version"
        )
    if not wrong:
        try:
            meta = Meta(**stored)
            _ = meta.asked, meta.domain
            return meta
        except ConfigError as error:
            wrong = [str(error)]
    raise CheckpointError(f"{path} describes itself wrongly ({', '.join(wrong)}); it was changed or damaged")


def _unknown_options(config: Any) -> list[str]:
    if not isinstance(config, dict):
        return []
    names = {str(name) for name in config} - {field.name for field in fields(TrainConfig)}
    model: Any = config.get("model")
    kind = MODELS.get(str(model.get("model"))) if isinstance(model, dict) else None
    if kind is not None:
        names |= {f"model.{name}" for name in model.keys() - {field.name for field in fields(kind.config)}}
    return sorted(names)


def _is(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type of a field of :class:`Meta`."""
    kind = get_origin(hint) or hint
    if kind is UnionType:
        return any(_is(value, argument) for argument in get_args(hint))
    return isinstance(value, kind)


class _Undrawn(TorchFunctionMode):
    """Leaves weights as they are where they would be drawn: others are put in their place."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (Tensor.uniform_, Tensor.normal_) or getattr(function, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def restore_model(content: Mapping[str, Any], meta: Meta, path: object) -> nn.Module:
    """The trained model of a checkpoint, on the CPU.

    Raises:
        CheckpointError: its config does not make a model, or the weights do not fit it or are not finite.
    """
    try:
        config, most = meta.model_config, len(content["state_dict"])
        layers = max(getattr(config, name, 0) for name in ("layers", "head_layers"))
        if layers > most:  # each has weights; building a million takes for ever
            raise CheckpointError(f"weights in {path} do not fit its model config: {most} tensors for more layers")
        with _Undrawn():  # memory that nobody writes to costs nothing, so a wrong size is no harm
            model = meta.build()
    except CheckpointError:
        raise
    except (PLSTMGraphError, TypeError, ValueError, RuntimeError) as error:
        if "DefaultCPUAllocator" in str(error):
            problem = "it describes a model larger than this machine can hold"
            raise CheckpointError(f"weights in {path} do not fit its model config: {problem}") from error
        problem = f"{type(error).__name__}: {first_line(error)[:120]}"
        raise CheckpointError(f"the config in {path} makes no model ({problem}); it was changed or damaged") from error
    load_weights(model, content["state_dict"], path)
    broken = next((name for name, value in weights_of(model).items() if not value.isfinite().all()), None)
    if broken:
        raise CheckpointError(f"weights in {path} are not finite ({broken}): its training diverged; lower --lr there")
    return model


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of ``model.state_dict()``, for which PyG's linear layers would load all that exports to ONNX."""
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    for path, module in model.named_modules(remove_duplicate=False):
        stored = (
            item for item in module.named_buffers(recurse=False) if item[0] not in module._non_persistent_buffers_set
        )
        found |= {f"{path}.{name}".lstrip("."): value for name, value in stored}
    return found


def check_weights(model: nn.Module, state: Mapping[str, Any], path: object) -> dict[str, Tensor]:
    """Those of the keys ``model.*``, without that prefix.

    Raises:
        CheckpointError: one is missing, left over, no tensor, or of another shape or kind of number.
    """
    own = {str(key).removeprefix("model."): value for key, value in state.items() if str(key).startswith("model.")}
    wanted = weights_of(model)
    for name in (*wanted, *own):
        if name not in own or name not in wanted:
            problem = f"{name} is {'missing' if name in wanted else 'unknown'}"
        elif not isinstance(own[name], Tensor):
            problem = f"{name} is a {type(own[name]).__name__}, not a tensor"
        elif getattr(model, "sized_by_weights", False):  # its tables have sizes of their own
            continue
        elif own[name].shape != wanted[name].shape:
            problem = f"{name} is {list(own[name].shape)}, not {list(wanted[name].shape)}"
        elif own[name].is_floating_point() != wanted[name].is_floating_point() or own[name].is_complex():
            problem = f"{name} is {own[name].dtype}, not {wanted[name].dtype}"
        else:
            continue
        raise CheckpointError(f"weights in {path} do not fit its model config: {problem}")
    return own


def load_weights(model: nn.Module, state: Mapping[str, Any], path: object) -> None:
    """Puts the weights of a checkpoint into ``model``; raises as :func:`check_weights`."""
    model.load_state_dict(check_weights(model, state, path))


def begin_from(
    model: nn.Module, task: Task, path: str | os.PathLike[str], features: FeatureSpec | None = None
) -> tuple[int, int]:
    """Take over the weights of another training that have the same name and shape; returns how many numbers they are,
    and of how many.

    Positions of patches are resized where images have another number of them, as for images of another size.
    Those of the last layers come along if that training answered the same (of classes with names: the same classes),
    those of descriptors if it read columns of the same names in the same order.

    Args:
        model, task: of the training to come.
        path: of the checkpoint, or folder of its run.
        features: what the model reads; without them descriptors are taken to be the same.

    Raises:
        CheckpointError: the file cannot be used, or less than half of it fits.
    """
    content = read(path)
    meta, own = read_meta(content, locate(path)), model.state_dict()
    asked = meta.asked
    if meta.train_config.ensemble > 1:
        raise CheckpointError(f"{path} holds several networks; give one of them, in the folder members")
    described = features is None or meta.spec.descriptor_names in ((), features.descriptor_names)
    same = len({(each.name, each.targets, each.class_names) for each in (asked, task)}) == 1
    stored = {str(key).removeprefix("model."): value for key, value in content["state_dict"].items()}
    if not described:
        stored = {name: value for name, value in stored.items() if not name.startswith("descriptors.")}
    stored = {name: _on_grid(name, value, own) for name, value in stored.items()}
    found = {
        name: value
        for name, value in stored.items()
        if name in own and value.shape == own[name].shape and (same or not name.startswith(HEADS))
    }
    count, whole = (sum(value.numel() for value in some.values()) for some in (found, stored))
    if 2 * count < whole:
        raise CheckpointError(
            f"only {count} of {whole} numbers in {path} have the name and shape of one of this model; give the options "
            "(--width, --layers, ...) of that training"
        )
    model.load_state_dict(own | found)
    return count, whole


def _on_grid(name: str, value: Any, own: Mapping[str, Tensor]) -> Any:
    """Positions of patches, [1, width, Y, X], for the grid of a model; whatever else as it is."""
    if not name.endswith("patches.position") or name not in own or value.shape[:2] != own[name].shape[:2]:
        return value
    return value if value.shape == own[name].shape else resized(value, (own[name].size(2), own[name].size(3)))

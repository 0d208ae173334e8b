"""Checkpoints: written whole, read without running code, and enough on their own to predict."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from plstm_graph.errors import CheckpointError
from plstm_graph.files import atomic_write
from plstm_graph.nn.encoders import FeatureSpec
from plstm_graph.nn.model import FINGERPRINT, GraphModel, ModelConfig
from plstm_graph.train.config import TrainConfig, from_dict
from plstm_graph.train.forest import Forest

FORMAT = 1
MOLECULES = "ogb-molecule"


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says about itself, stored as plain values under the key ``plstm_graph``.

    Args:
        config: the TrainConfig as a dict.
        features: the FeatureSpec as a dict.
        task, metric, targets: of the data set.
        num_outputs: width of the model's output.
        mean, deviation: scaling of the labels, one each per target (empty unless regression), in the labels' units.
        featuriser: how inputs become graphs: "ogb-molecule" for SMILES, None if the data set came as graphs.
        versions: of the packages that trained it.
    """

    config: dict[str, Any]
    features: dict[str, Any]
    task: str
    metric: str
    targets: list[str]
    num_outputs: int
    mean: list[float]
    deviation: list[float]
    featuriser: str | None
    versions: dict[str, str]
    format: int = FORMAT

    @property
    def train_config(self) -> TrainConfig:
        return from_dict(self.config)

    @property
    def model_config(self) -> ModelConfig:
        return self.train_config.model

    def build(self) -> torch.nn.Module:
        """The model with fresh weights, or a forest without trees."""
        if self.model_config.model == FINGERPRINT:
            return Forest(self.model_config, self.task)
        stored: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in self.features.items()}
        spec = FeatureSpec(**stored)
        return GraphModel(spec, self.num_outputs, self.model_config)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's file format, written whole or not at all, read with ``weights_only=True``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with atomic_write(path) as temp:
                torch.save(checkpoint, temp)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise CheckpointError(f"cannot write checkpoint {path}: {reason}; an earlier one is untouched") from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return read(path)


def locate(path: str | os.PathLike[str]) -> Path:
    """The checkpoint file; for the folder of a run, its best one."""
    where = Path(path)
    return where / "checkpoints" / "best.ckpt" if where.is_dir() else where


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Content of a checkpoint of ours, on the CPU; no code stored in it is run.

    Raises:
        CheckpointError: missing, truncated, or written by something else.
    """
    where = locate(path)
    try:
        content = torch.load(where, map_location="cpu", weights_only=True)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise CheckpointError(f"cannot read checkpoint {where}: {error.strerror or error}") from error
    except Exception as error:  # torch raises whatever its unpickler met: EOFError, RuntimeError, UnpicklingError, ...
        kind = type(error).__name__
        raise CheckpointError(f"{where} is truncated, or not a checkpoint of plstm-graph ({kind})") from error
    if not isinstance(content, dict) or not {"plstm_graph", "state_dict"} <= content.keys():
        raise CheckpointError(f"{where} was not written by plstm-graph; give best.ckpt or last.ckpt of a run")
    return content


def read_meta(content: Mapping[str, Any], path: object) -> Meta:
    """The description inside a checkpoint.

    Raises:
        CheckpointError: of a format this version does not know.
    """
    stored = content["plstm_graph"]
    known = {item.name for item in fields(Meta)}
    if stored.get("format") != FORMAT or set(stored) != known:
        raise CheckpointError(
            f"{path} has checkpoint format {stored.get('format')!r}, this version reads {FORMAT}; "
            f"it was written by plstm-graph {stored.get('versions', {}).get('plstm_graph', 'unknown')}"
        )
    return Meta(**stored)


def load_weights(model: torch.nn.Module, state: Mapping[str, Any], path: object) -> None:
    """Puts the weights of a checkpoint (keys ``model.*``) into ``model``.

    Raises:
        CheckpointError: they are of another shape.
    """
    own = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        raise CheckpointError(f"weights in {path} do not fit its model config: {_first(error)}") from error


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__

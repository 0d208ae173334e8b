"""A checkpoint as a model that is ready to answer."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from plstm_graph.data.molecules import FEATURISERS
from plstm_graph.errors import CheckpointError, ConfigError, first_line
from plstm_graph.models.ensemble import Ensemble
from plstm_graph.models.graph import GraphModel
from plstm_graph.models.vision import ImageModel
from plstm_graph.nn import PLSTMConv
from plstm_graph.train.answering import Answering
from plstm_graph.train.checkpoint import Meta, read, read_meta, restore_model
from plstm_graph.train.folders import locate


def restore(checkpoint: str | PathLike[str], device: str = "auto") -> tuple[Answering, Meta]:
    """The trained model of a checkpoint file (or the best one of a run's folder), ready to predict.

    Raises:
        CheckpointError: missing, truncated or foreign file.
        ConfigError: there is no such device here.
    """
    return restored(read(checkpoint), locate(checkpoint), device)


def restored(content: Mapping[str, Any], where: object, device: str = "auto") -> tuple[Answering, Meta]:
    """As :func:`restore`, of what a checkpoint holds; ``where`` is for errors."""
    meta = read_meta(content, where)
    learner = Answering(restore_model(content, meta, where), meta.asked, meta.plain())
    return learner.to(pick_device(device)).eval(), meta


def restore_for_molecules(checkpoint: str | PathLike[str], device: str = "auto") -> tuple[Answering, Meta]:
    """As :func:`restore`, for a model that reads SMILES.

    Raises:
        CheckpointError: also where it was trained on graphs of another kind, or answers for each node.
    """
    learner, meta = restore(checkpoint, device)
    check_reads_molecules(meta, checkpoint)
    return learner, meta


def check_reads_molecules(meta: Meta, checkpoint: object) -> None:
    """Raise CheckpointError for a model of graphs of another kind, or one that answers for each node."""
    if meta.spec.pictures:
        raise CheckpointError(f"{checkpoint} reads pictures: predict takes one, or a folder of them, as --input")
    if meta.featuriser not in FEATURISERS:
        raise CheckpointError(
            f"{checkpoint} was trained on {meta.train_config.data!r}, not on molecules given as SMILES; use evaluate"
        )
    if meta.asked.level != "graph":
        raise CheckpointError(f"{checkpoint} answers for each {meta.asked.level}, not for a molecule; use evaluate")


def network(learner: Answering, checkpoint: str | PathLike[str]) -> GraphModel:
    """The model of a restored learner, where what follows needs a network.

    Raises:
        CheckpointError: it is an ensemble, a network of images, or a forest of fingerprints.
    """
    if isinstance(learner.model, Ensemble):
        raise CheckpointError(f"{checkpoint} holds several networks; give one of them, in the folder members")
    if isinstance(learner.model, ImageModel):
        raise CheckpointError(f"{checkpoint} holds a network of images, not of graphs; use evaluate")
    if not isinstance(learner.model, GraphModel):
        raise CheckpointError(f"{checkpoint} holds a forest of fingerprints, no network; use predict or evaluate")
    return learner.model


def without_loops(learner: Answering) -> None:
    """On a CPU, layers free to choose take torch's own operations: nothing is compiled, or loaded to run compiled."""
    if learner.device.type == "cpu":
        for module in learner.modules():
            if isinstance(module, PLSTMConv) and module.backend == "auto":
                module.backend = "scatter"


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = first_line(error)
        raise ConfigError(f"device {name!r} cannot be used here: {reason}; auto takes what is there") from error

"""How Lightning writes checkpoints here: whole, or not at all."""

import os
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from plstm_graph.errors import CheckpointError
from plstm_graph.io.files import atomic_write
from plstm_graph.train.checkpoint import read


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's file format, written whole or not at all, read with ``weights_only=True``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with atomic_write(path) as temp, temp.open("wb") as stream:
                torch.save(checkpoint, stream)
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoint {path}: {error.strerror or error}; an earlier one is untouched"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return read(path)

"""How Lightning writes checkpoints here: whole, or not at all."""

from collections.abc import Iterator
from copy import copy
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from plstm_graph.errors import CheckpointError
from plstm_graph.io.files import atomic_write, expanded
from plstm_graph.train.checkpoint import read
from plstm_graph.train.optimizer_state import packed


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's file format, written whole or not at all, read with ``weights_only=True``.

    ``storage_options`` are keywords of :func:`~plstm_graph.io.files.atomic_write`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        try:
            expanded(path).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, **(storage_options or {})) as temp, temp.open("wb") as stream:
                torch.save(on_host(_packed(checkpoint)), stream)
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoint {path}: {error.strerror or error}; an earlier one is untouched"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return read(path)


def _packed(content: dict[str, Any]) -> dict[str, Any]:
    """With optimizers whose state is packed; :func:`plstm_graph.train.checkpoint.read` unpacks it."""
    states = content.get("optimizer_states")
    if not states:
        return content
    return content | {"optimizer_states": [each | {"state": packed(each["state"])} for each in states]}


def on_host(content: Any, stays: str = "cpu") -> Any:
    """A checkpoint with its tensors on the host, brought there together: one by one, each would be waited for. Each has
    memory of its own, so that one of them can be stored without the others.

    Args:
        content: dicts and lists of anything.
        stays: tensors on a device of this type are left where they are.
    """
    groups: dict[tuple[torch.device, torch.dtype], dict[int, Tensor]] = {}
    for tensor in _tensors(content):
        if tensor.device.type != stays:
            groups.setdefault((tensor.device, tensor.dtype), {})[id(tensor)] = tensor
    found: dict[int, Tensor] = {}
    for group in groups.values():
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in group.values()]).cpu()
        parts = flat.split([tensor.numel() for tensor in group.values()])
        found |= {key: part.view(group[key].shape).clone() for key, part in zip(group, parts, strict=True)}
    return _changed(content, found) if found else content


def _tensors(content: Any) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, dict | list | tuple):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _tensors(value)


def _changed(content: Any, found: dict[int, Tensor]) -> Any:
    """A copy with other tensors; one of a state dict keeps its metadata."""
    if isinstance(content, Tensor):
        return found.get(id(content), content)
    if isinstance(content, dict):
        other = copy(content)
        other.update({key: _changed(value, found) for key, value in content.items()})
        return other
    if isinstance(content, list | tuple):
        return type(content)(_changed(value, found) for value in content)
    return content

"""The state of an optimizer as a few tensors: torch.save takes as long for a number as for a matrix."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

TENSORS = "tensors"
"""Key of a packed state, in which that of an optimizer has numbers of weights."""


def packed(state: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A state with one tensor for each of its names; as it is, if weights do not have the same names, or not tensors.

    Args:
        state: by number of the weight and by name, tensors; of a name all of one dtype, on one device.

    Returns:
        ``TENSORS``: by name, all numbers one after the other and sizes [weights, dimensions], filled up with -1;
        ``weights``: their numbers.
    """
    each = list(state.values())
    names = list(each[0]) if each and isinstance(each[0], Mapping) else []
    columns = {name: [of.get(name) for of in each] for name in names}
    alike = all(list(of) == names for of in each) and all(map(_alike, columns.values()))
    if not names or not alike:
        return state
    return {TENSORS: {name: _joined(column) for name, column in columns.items()}, "weights": list(state)}


def unpacked(state: Any) -> Any:
    """The inverse of :func:`packed`; what is not packed as it is."""
    if not isinstance(state, Mapping) or TENSORS not in state:
        return state
    columns = {name: _parted(*parts) for name, parts in state[TENSORS].items()}
    rows = zip(*columns.values(), strict=True)
    return {number: dict(zip(columns, row, strict=True)) for number, row in zip(state["weights"], rows, strict=True)}


def _alike(column: list[Any]) -> bool:
    return all(isinstance(x, Tensor) for x in column) and len({(x.dtype, x.device) for x in column}) == 1


def _joined(column: list[Tensor]) -> list[Tensor]:
    most = max(x.dim() for x in column)
    sizes = torch.tensor([[*x.shape, *[-1] * (most - x.dim())] for x in column], dtype=torch.long)
    return [torch.cat([x.detach().reshape(-1) for x in column]), sizes.view(len(column), most)]


def _parted(numbers: Tensor, sizes: Tensor) -> list[Tensor]:
    """Each in memory of its own."""
    shapes = [[size for size in row if size >= 0] for row in sizes.tolist()]
    parts = numbers.split([torch.Size(shape).numel() for shape in shapes])
    return [part.clone().view(shape) for part, shape in zip(parts, shapes, strict=True)]

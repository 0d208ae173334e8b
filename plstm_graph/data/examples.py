"""What a trainer reads examples from: packed graphs, lists of graphs, images and sequences all meet one protocol."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from plstm_graph.errors import DataError
from plstm_graph.io.waiting import tracked

Indices = Sequence[int] | np.ndarray | Tensor
HASHED = ("x", "edge_index", "edge_attr", "y", "descriptors")
"""Attributes that name a graph."""


@runtime_checkable
class Examples(Protocol):
    """Examples of a data set, numbered from 0."""

    def __len__(self) -> int: ...

    @property
    def y(self) -> Tensor:
        """Labels of all examples, one after the other, as their task has them."""
        ...

    @property
    def digest(self) -> str:
        """Twelve hex digits that name the content, wherever it lies."""
        ...

    def batch(self, indices: Indices) -> Any:
        """What a model takes: these examples, with their labels as ``y`` and a method ``to(device)``."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """The same examples on a device, where batches then come to be."""
        ...


class Graphs(list[Data]):
    """A list of graphs."""

    @property
    def y(self) -> Tensor:
        """[graphs, targets], [graphs], or with a row for each node."""
        return torch.cat([graph.y for graph in self])

    @property
    def digest(self) -> str:
        """Twelve hex digits of the graphs in order, with features, descriptors, labels and SMILES."""
        return self.digests.whole

    @property
    def digests(self) -> "Digests":
        """This one, and that of the same without SMILES."""
        return digests_of(self)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(value.nbytes for graph in self for value in graph.to_dict().values() if isinstance(value, Tensor))

    def batch(self, indices: Indices) -> Batch:
        """One disjoint union."""
        return Batch.from_data_list(self.take(indices))

    def take(self, chosen: Indices) -> "Graphs":
        """Some of them by number."""
        return Graphs(self[int(number)] for number in chosen)

    def to(self, device: torch.device | str) -> "Graphs":
        """All graphs there."""
        return Graphs(graph.to(device) for graph in self)


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images, sequences, or whatever else is one tensor: a row an example. A batch is made of the same.

    Args:
        x: [n, ...], for instance images [n, channels, height, width] or sequences [n, length, channels].
        y: labels, with n rows.

    Raises:
        DataError: they are no tensors, or of different length.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        for name, value in (("x", self.x), ("y", self.y)):
            if not isinstance(value, Tensor):
                raise DataError(f"{name} must be a tensor, got {type(value).__name__}; call torch.as_tensor({name})")
        if len(self.x) != len(self.y):
            raise DataError(f"x and y must have a row for each example, got {len(self.x)} and {len(self.y)}")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def digest(self) -> str:
        """Twelve hex digits of both tensors."""
        return digests_of([Data(x=self.x.cpu(), y=self.y.cpu())]).whole

    @property
    def nbytes(self) -> int:
        """Room that they take."""
        return self.x.nbytes + self.y.nbytes

    def batch(self, indices: Indices) -> "Arrays":
        """The rows of these examples."""
        rows = rows_of(indices, self.x.device)
        return Arrays(self.x.index_select(0, rows), self.y.index_select(0, rows))

    def to(self, device: torch.device | str) -> "Arrays":
        """Both tensors there."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))


@dataclass(frozen=True, eq=False)
class Part:
    """Some of the examples, for instance those of the training split.

    Args:
        examples: all.
        chosen: numbers of those that are meant, in order.
    """

    examples: Examples
    chosen: Sequence[int]

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def nbytes(self) -> int:
        """Room that all examples take, as far as they say."""
        return int(getattr(self.examples, "nbytes", 0))

    @property
    def y(self) -> Tensor:
        """Their labels."""
        return self.examples.y[torch.as_tensor(self.chosen, dtype=torch.long)]

    @property
    def digest(self) -> str:
        """Twelve hex digits of all examples and of which are meant."""
        return hashlib.sha256(f"{self.examples.digest} {list(self.chosen)}".encode()).hexdigest()[:12]

    def batch(self, indices: Indices) -> Any:
        """By their place in the part."""
        return self.examples.batch(self.meant(indices))

    def meant(self, indices: Indices) -> list[int]:
        """Numbers among all examples of those at some places in the part."""
        return [self.chosen[int(index)] for index in indices]

    def to(self, device: torch.device | str) -> "Part":
        """All examples there."""
        return Part(self.examples.to(device), self.chosen)


def rows_of(indices: Indices, device: torch.device) -> Tensor:
    """Numbers of examples on a device, by a copy for which the host does not wait: it goes ahead of a GPU."""
    rows = torch.as_tensor(list(indices) if isinstance(indices, range) else indices)
    return (rows.pin_memory() if (rows.device, device.type) == (torch.device("cpu"), "cuda") else rows).to(
        device, non_blocking=True
    )


def examples_of(graphs: Any) -> Any:
    """Examples as they are; a list of graphs as examples."""
    # Not isinstance(graphs, Examples): before Python 3.12 that works out every property, the digest among them.
    return graphs if hasattr(graphs, "batch") else Graphs(graphs)


def take(examples: Any, chosen: Sequence[int]) -> Any:
    """Some of the examples by number: graphs for graphs, else a :class:`Part`."""
    graphs = Graphs(examples) if isinstance(examples, list) else examples
    return graphs.take(chosen) if hasattr(graphs, "take") else Part(examples, chosen)


def batches(examples: "Examples | Iterable[Data]", batch_size: int) -> Iterator[Any]:
    """Batches in order, the last one smaller where it has to be."""
    whole = examples_of(examples)
    starts = range(0, len(whole), batch_size)
    yield from in_turn(whole, (range(start, min(start + batch_size, len(whole))) for start in starts))


def in_turn(examples: Any, groups: Iterable[Indices]) -> Iterator[Any]:
    """A batch for each group of numbers. What lies in files is read ahead of the batch at hand: such examples have a
    method ``ahead`` that does what this function does."""
    while isinstance(examples, Part):
        groups = map(examples.meant, groups)
        examples = examples.examples
    ahead = getattr(examples, "ahead", None)
    yield from ahead(groups) if ahead else map(examples.batch, groups)


def lie_in_files(examples: Any) -> bool:
    """Whether batches are read from files each time, since memory may not hold all of them."""
    while isinstance(examples, Part):
        examples = examples.examples
    return hasattr(examples, "ahead")


class Digests(NamedTuple):
    """Names of graphs in order, twelve hex digits each: of all that is read, and of the same without SMILES."""

    whole: str
    content: str


def digests_of(graphs: Sequence[Data]) -> Digests:
    """Both digests of graphs with their features, descriptors, labels and SMILES, by one pass."""
    whole, content = hashlib.sha256(), hashlib.sha256()
    for graph in tracked(graphs, f"hashing {len(graphs):,} graphs"):
        stored = graph.to_dict()
        for name in HASHED:
            value = stored.get(name)
            if value is not None:
                part = (
                    f"{name}{tuple(value.shape)}{value.dtype}".encode() + value.detach().contiguous().numpy().tobytes()
                )
                whole.update(part)
                content.update(part)
        whole.update(str(stored.get("smiles", "")).encode())
    return Digests(whole.hexdigest()[:12], content.hexdigest()[:12])

"""All graphs of a data set one after the other: as they stand in files, and as they are until one is asked for."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from plstm_graph.data.examples import HASHED, Digests, Graphs, Indices

NODES = "x"
"""The attribute that tells how many nodes each graph has."""


class Joined(NamedTuple):
    """An attribute of G graphs, one after the other along ``dim``; ``counts`` [G] is how much of it each graph has.

    A list of text has one for each graph.
    """

    value: Tensor | list[str]
    counts: Tensor
    dim: int = 0

    def split(self) -> Sequence[Any]:
        """The values graph by graph: views of the tensor."""
        return self.value if isinstance(self.value, list) else self.value.split(self.counts.tolist(), self.dim)

    def taken(self, chosen: Tensor) -> "Joined":
        """Those of some graphs, [B]."""
        if isinstance(self.value, list):
            return Joined([self.value[number] for number in chosen.tolist()], chosen.new_ones(len(chosen)))
        counts = self.counts[chosen]
        moves = (self.counts.cumsum(0) - self.counts)[chosen] - (counts.cumsum(0) - counts)
        rows = torch.arange(int(counts.sum())).add_(moves.repeat_interleave(counts))
        return Joined(self.value.index_select(self.dim, rows), counts, self.dim)


class StackedGraphs(Sequence[Data]):
    """A list of graphs that are cut out of a stack as soon as one is asked for, and all of them: from then on it is an
    ordinary list, whose graphs may be changed. What takes the stack as it is spares cutting and joining.

    It is :class:`~plstm_graph.data.examples.Examples`, too.

    Args:
        parts: attributes by name, in the order of a graph's; ``x`` is among them.
    """

    def __init__(self, parts: Mapping[str, Joined]) -> None:
        self._parts: dict[str, Joined] | None = dict(parts)
        self._size = len(parts[NODES].counts)
        self._graphs = Graphs()

    @property
    def parts(self) -> dict[str, Joined] | None:
        """Attributes by name; None once the graphs have been cut out, as they may have been changed since."""
        return self._parts

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> Data: ...
    @overload
    def __getitem__(self, place: slice) -> list[Data]: ...
    def __getitem__(self, place: Any) -> Any:
        return self.cut()[place]

    def __iter__(self) -> Iterator[Data]:
        return iter(self.cut())

    def cut(self) -> Graphs:
        """The graphs as PyG's data. Their tensors are views of the stack's, as those of an ``InMemoryDataset`` are."""
        if self._parts is not None:
            self._graphs = Graphs(_cut(self._parts, self._size))
            self._parts = None
        return self._graphs

    def first(self) -> Data:
        """The first graph, to look at."""
        return self._graphs[0] if self._parts is None else self._taken([0]).cut()[0]

    def take(self, chosen: Indices) -> Sequence[Data]:
        """Some of the graphs by number, as a stack if this is one."""
        return self._graphs.take(chosen) if self._parts is None else self._taken(chosen)

    def _taken(self, chosen: Indices) -> "StackedGraphs":
        assert self._parts is not None
        numbers = torch.as_tensor(list(chosen), dtype=torch.long)
        return StackedGraphs({key: part.taken(numbers) for key, part in self._parts.items()})

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        if self._parts is None:
            return self._graphs.nbytes
        return sum(part.value.nbytes for part in self._parts.values() if isinstance(part.value, Tensor))

    @property
    def y(self) -> Tensor:
        """Labels, [graphs, targets], [graphs], or with a row for each node."""
        return joined(self, "y")

    @property
    def digest(self) -> str:
        """As that of a list of these graphs."""
        return self.digests.whole

    @property
    def digests(self) -> Digests:
        """As those of a list of these graphs."""
        return self._graphs.digests if self._parts is None else _digests(self._parts, self._size)

    def batch(self, indices: Indices) -> Batch:
        """One disjoint union, as ``Batch.from_data_list`` makes it."""
        return self._graphs.batch(indices) if self._parts is None else self._taken(indices).union()

    def union(self) -> Batch:
        """All of them in one."""
        if self._parts is None:
            return Batch.from_data_list(self._graphs)
        batch = Batch(_base_cls=Data)
        batch._num_graphs = size = self._size
        batch._slice_dict, batch._inc_dict = {}, {}
        ptr = _ends(self._parts[NODES].counts)
        for key, (value, counts, _) in self._parts.items():
            grows = isinstance(value, Tensor) and counts_nodes(key)
            batch[key] = value + ptr[:-1].repeat_interleave(counts) if grows else value  # type: ignore[operator]
            batch._slice_dict[key] = _ends(counts)
            batch._inc_dict[key] = ptr[:-1] if grows else torch.zeros(size, dtype=torch.long)
            if isinstance(value, list):
                batch._inc_dict[key] = None
        batch.batch, batch.ptr = torch.arange(size).repeat_interleave(ptr.diff()), ptr
        return batch

    def to(self, device: torch.device | str) -> Any:
        """All graphs there, one by one."""
        return self.cut().to(device)


@dataclass(frozen=True, eq=False)
class Stacked:
    """G graphs with N nodes and M columns of ``edge_index`` in all, as a file holds them.

    Attributes:
        nodes, columns: how many each graph has, [G].
        x: node features, [N, features].
        edge_index: by the numbers of nodes inside their graph, [2, M].
        edge_attr: edge features, [M, features].
        y: labels, [G, ...], or [N, ...] where each node has some.
        rank: rank of each node in its graph, [N].
        smiles: of each graph.
    """

    nodes: Tensor
    columns: Tensor
    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor | None = None
    y: Tensor | None = None
    rank: Tensor | None = None
    smiles: list[str] | None = None

    @classmethod
    def of(cls, graphs: Sequence[Data]) -> "Stacked":
        """Stack graphs that have the same attributes; there must be one."""
        first = graphs[0]
        more: dict[str, Any] = {key: joined(graphs, key) for key in ("edge_attr", "y", "rank") if key in first}
        return cls(
            torch.tensor([graph.num_nodes for graph in graphs]),
            torch.tensor([graph.num_edges for graph in graphs]),
            joined(graphs, "x"),
            torch.cat([graph.edge_index for graph in graphs], 1),
            smiles=[graph.smiles for graph in graphs] if "smiles" in first else None,
            **more,
        )

    def graphs(self) -> StackedGraphs:
        """The graphs."""
        nodes, columns, ones = self.nodes, self.columns, torch.ones_like(self.nodes)
        labels = nodes if self.y is not None and len(self.y) == len(self.x) else ones
        found: dict[str, Any] = {
            "x": (self.x, nodes),
            "edge_index": (self.edge_index, columns, 1),
            "edge_attr": (self.edge_attr, columns),
            "y": (self.y, labels),
            "rank": (self.rank, nodes),
            "smiles": (self.smiles, ones),
        }
        return StackedGraphs({key: Joined(*part) for key, part in found.items() if part[0] is not None})

    def plain(self) -> dict[str, Any]:
        """As a dict of tensors and lists; ``Stacked(**content)`` is the way back."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


# ---------------------------------------------------------------------- of any graphs, a stack or not


def values(graphs: Sequence[Data], key: str) -> Sequence[Any]:
    """One attribute graph by graph; None for a graph that has none."""
    parts = graphs.parts if isinstance(graphs, StackedGraphs) else None
    if parts is None:
        return [graph.get(key) for graph in graphs]
    return parts[key].split() if key in parts else [None] * len(graphs)


def joined(graphs: Sequence[Data], key: str) -> Tensor:
    """One attribute of all graphs, one after the other."""
    parts = graphs.parts if isinstance(graphs, StackedGraphs) else None
    found: Any = torch.cat([graph[key] for graph in graphs]) if parts is None else parts[key].value
    return found


def sizes(graphs: Sequence[Data]) -> list[int]:
    """How many nodes each graph has."""
    parts = graphs.parts if isinstance(graphs, StackedGraphs) else None
    if parts is not None:
        return parts[NODES].counts.tolist()
    return [int(graph.num_nodes or 0) for graph in graphs]


def first(graphs: Sequence[Data]) -> Data:
    """The first graph, to look at: a stack is not cut for that."""
    return graphs.first() if isinstance(graphs, StackedGraphs) else graphs[0]


def with_attributes(graphs: Sequence[Data], more: Mapping[str, Sequence[Tensor]]) -> Sequence[Data]:
    """The graphs with further attributes, each a tensor for every graph with rows; given ones are left as they are."""
    parts = graphs.parts if isinstance(graphs, StackedGraphs) else None
    if parts is not None and len(graphs):
        counts = {key: torch.tensor([len(row) for row in rows]) for key, rows in more.items()}
        return StackedGraphs(parts | {key: Joined(torch.cat([*rows]), counts[key]) for key, rows in more.items()})
    found = [copy(graph) for graph in graphs]
    for key, rows in more.items():
        for graph, row in zip(found, rows, strict=True):
            graph[key] = row
    return found


def counts_nodes(key: str) -> bool:
    """Whether an attribute of this name holds numbers of nodes, as PyG has it."""
    return "index" in key or key == "face"


def _ends(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _cut(parts: Mapping[str, Joined], size: int) -> list[Data]:
    graphs = [Data() for _ in range(size)]
    stores = [graph.stores[0] for graph in graphs]  # by which an attribute takes a third of the time
    for name, part in parts.items():
        for store, value in zip(stores, part.split(), strict=True):
            store[name] = value
    return graphs


def _digests(parts: Mapping[str, Joined], size: int) -> Digests:
    """See :func:`plstm_graph.data.examples.digests_of`."""
    pieces = [_pieces(name, parts[name]) for name in HASHED if name in parts]
    texts = parts["smiles"].value if "smiles" in parts else [""] * size
    whole, bare = hashlib.sha256(), hashlib.sha256()
    for number, text in enumerate(texts):
        content = b"".join([piece(number) for piece in pieces])
        bare.update(content)
        whole.update(content)
        whole.update(str(text).encode())
    return Digests(whole.hexdigest()[:12], bare.hexdigest()[:12])


def _pieces(name: str, part: Joined) -> Callable[[int], bytes]:
    """Bytes of one attribute by the number of a graph, behind its name, shape and type."""
    assert isinstance(part.value, Tensor)
    array, ends, dtype = part.value.movedim(part.dim, 0).numpy(), _ends(part.counts).tolist(), part.value.dtype
    shape, heads = list(part.value.shape), {}
    for count in part.counts.unique().tolist():
        shape[part.dim] = count
        heads[count] = f"{name}{tuple(shape)}{dtype}".encode()

    def piece(number: int) -> bytes:
        start, end = ends[number], ends[number + 1]
        rows = array[start:end]
        return heads[end - start] + np.moveaxis(rows, 0, part.dim).tobytes()

    return piece

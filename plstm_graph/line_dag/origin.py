"""Check that a line graph is still that of its graph, column by column, so that none passes that went stale.

A line graph tells the columns of ``edge_index`` that it was built from, all but the node of a self-loop, which it does
not read either. So what it is compared with is exact, and needs no room of its own.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plstm_graph.errors import ShapeError
from plstm_graph.line_dag.pairs import owners
from plstm_graph.line_dag.topology import Topology
from plstm_graph.orient import bare, positions

STALE = (
    "the dag was built from another edge_index: its columns were changed, dropped, added or put into another order "
    "since; build the dag from this edge_index"
)


class Origin:
    """Tensors that a line graph was found to be that of, so that no other layer need ask. A copy begins without."""

    def __init__(self) -> None:
        self._columns: Tensor | None = None  # on the host comparing is cheaper than any doubt
        self._seen: list[tuple[Any, ...]] = []

    def __reduce__(self) -> tuple[type["Origin"], tuple[()]]:
        return Origin, ()

    def holds(self, edge_index: Tensor) -> bool:
        """Tell whether these columns are known to be the right ones; asks no GPU for anything."""
        if edge_index.device.type != "cpu":
            return self.saw(edge_index)
        known = self._columns
        return known is not None and known.dtype == edge_index.dtype and torch.equal(known, edge_index)

    def saw(self, tensor: Tensor) -> bool:
        """Tell whether this very tensor was noted, and not written to since."""
        return any(entry[0]() is tensor and entry[1:] == _mark(tensor) for entry in self._seen)

    def note(self, tensor: Tensor) -> None:
        """Remember a tensor until it is written to."""
        if not tensor.is_inference():  # those do not tell
            self._seen = [entry for entry in self._seen if entry[0]() is not None][-3:]
            self._seen.append((weakref.ref(tensor), *_mark(tensor)))

    def note_columns(self, edge_index: Tensor) -> None:
        """Remember ``edge_index`` in the same way."""
        if edge_index.device.type == "cpu":
            self._columns = edge_index.detach().clone()
        else:
            self.note(edge_index)


def _mark(tensor: Tensor) -> tuple[int, int]:
    """Marks that change when a tensor is written to, or gets other memory."""
    return (-1, -1) if tensor.is_inference() else (tensor._version, tensor.data_ptr())


def columns_of(lines: Topology) -> Tensor:
    """The columns of ``edge_index`` that a line graph was built from, [2, M]; -1 for a self-loop."""
    ends = torch.stack([lines.src, lines.dst])
    ends = torch.cat([ends, ends.new_full((2, 1), -1)], 1).index_select(1, lines.column.remainder(ends.size(1) + 1))
    return torch.where(lines.column_along, ends, ends.flip(0))


def same_columns(lines: Topology, edge_index: Tensor) -> Tensor:
    """Tell which columns are those that a line graph was built from, [M]."""
    built = columns_of(lines)
    loops = edge_index[0] == edge_index[1]
    return torch.where(built[0] == built[1], loops, (built == edge_index).all(0))


def same_edges(lines: Topology, edge_index: Tensor) -> Tensor:
    """Tell whether these are the same edges, in whatever order and however often, [1]. Self-loops do not count."""

    def sorted_keys(columns: Tensor) -> Tensor:
        keys = columns[0] * lines.num_nodes + columns[1]
        keys = torch.where(columns[0] == columns[1], -1, keys)
        return torch.cat([keys, keys.new_full((1,), -1)]).sort().values

    one, other = sorted_keys(columns_of(lines)), sorted_keys(edge_index)

    def within(some: Tensor, all: Tensor) -> Tensor:
        place = torch.searchsorted(all, some).clamp(max=all.numel() - 1)
        return (all.index_select(0, place) == some).all()

    return within(one, other) & within(other, one)


def same_order(lines: Topology, position: Tensor) -> Tensor:
    """Tell which edges run, and stand, as nodes at these positions in the order would have it, [E]."""
    low, high = position[lines.src], position[lines.dst]
    place = low * lines.num_nodes + high
    return (low < high) & torch.cat([place.new_ones(1, dtype=torch.bool), place[1:] > place[:-1]])[: place.numel()]


def check_columns(lines: Topology, origin: Origin, edge_index: Tensor) -> None:
    """Raise ShapeError unless a line graph is that of ``edge_index`` [2, M], column by column.

    On the host it is compared each time. On a GPU it is compared once for each tensor, and nothing waits for the
    result: there what is stale ends the program with a device-side assertion.
    """
    edge_index = bare(edge_index)
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ShapeError(f"edge_index must be [2, M], got {list(edge_index.shape)}")
    if edge_index.size(1) != lines.column.numel():
        raise ShapeError(
            f"the dag was built from {lines.column.numel()} columns, but edge_index has {edge_index.size(1)}; "
            "build it from this edge_index"
        )
    traced = torch.compiler.is_compiling()
    if not traced and origin.holds(edge_index):
        return
    here = edge_index.to(lines.src.device)
    _require(same_columns(lines, here).all(), lambda: f"{STALE} ({_first_difference(lines, here)})")
    if not traced:
        origin.note_columns(edge_index)


def check_edges(lines: Topology, edge_index: Tensor) -> None:
    """Raise ShapeError unless a line graph has the edges of a sparse adjacency, given as columns [2, M]."""
    _require(same_edges(lines, edge_index.to(lines.src.device)), lambda: STALE)


def check_rank(lines: Topology, origin: Origin, rank: Tensor) -> None:
    """Raise ShapeError unless the edges of a line graph run from lower to higher rank; like :func:`check_columns`."""
    if origin.saw(rank):
        return
    if rank.shape != (lines.num_nodes,):
        raise ShapeError(f"a rank must have one entry per node, [{lines.num_nodes}], got {list(rank.shape)}")
    holds = same_order(lines, positions(rank.to(lines.src.device), owners(lines.graph_ptr, lines.num_nodes)))
    _require(holds.all(), lambda: "the dag was built from another rank: build it from this one")
    origin.note(rank)


def _require(holds: Tensor, message: Callable[[], str]) -> None:
    if holds.is_cuda or torch.compiler.is_compiling():
        torch._assert_async(holds, STALE)
    elif not holds.is_meta and not bool(holds):
        raise ShapeError(message())


def _first_difference(lines: Topology, edge_index: Tensor) -> str:
    column = int(torch.nonzero(~same_columns(lines, edge_index))[0])
    built, given = (columns[:, column].tolist() for columns in (columns_of(lines), edge_index))
    was = "a self-loop" if built[0] == built[1] else f"{built[0]} -> {built[1]}"
    return f"column {column} was {was} and is {given[0]} -> {given[1]}"

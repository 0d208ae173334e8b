"""A data set as one packed disjoint union on a device: a batch is a ragged gather of slices that waits for no GPU."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import Batch, Data

from plstm_graph.data.examples import Indices, in_turn
from plstm_graph.data.filling import Capacity, with_filler
from plstm_graph.data.packing import (
    LOOP,
    NODES,
    Attribute,
    Lines,
    Table,
    attribute,
    growth,
    pack_lines,
    row_of,
    unite,
)
from plstm_graph.data.taking import Chosen, Picked, Slices, in_rows, line_dag_of
from plstm_graph.errors import DataError
from plstm_graph.line_dag.plan import Sized, class_table, work_of


@dataclass(frozen=True, eq=False)
class PackedGraphs:
    """All graphs of a data set with their line graphs, as a few tensors on one device. Immutable.

    Build one with :meth:`from_data_list`, take batches with :meth:`batch`: some fifty tensor operations however many
    graphs, none of which waits for a GPU, since all sizes are known on the host. A molecule of ogbg-molhiv (25.5 atoms,
    55 columns) takes 9.5 kB: 5.9 kB for its attributes with 16 random-walk steps, 2.2 kB for its line graph and 1.5 kB
    more for the pruned one.

    Example:
        >>> graph = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> packed = PackedGraphs.from_data_list([graph, graph])
        >>> packed.batch([1, 0, 1]).line_dag.num_edges
        6
    """

    base: type[Data]
    sizes: np.ndarray  # [rows, G] nodes, columns, edges, ... of each graph
    first: np.ndarray  # [rows, G] their sums over the graphs before; with room for fillers also over all of them
    kinds: int  # so many rows count things; the rows after them only say how attributes grow
    attributes: dict[str, Attribute]
    objects: dict[str, list[Any]]  # text and whatever else PyG keeps as a list, one a graph
    states_nodes: bool  # whether num_nodes is an attribute
    lines: Lines | None
    capacity: Capacity | None = None  # of filled batches

    # ------------------------------------------------------------------ build

    @classmethod
    @torch.inference_mode(False)  # graphs packed while evaluating must serve training, too
    def from_data_list(
        cls,
        graphs: Sequence[Data],
        *,
        order: str | None = "index",
        prune: bool = True,
        exclude_keys: Iterable[str] = (),
    ) -> "PackedGraphs":
        """Pack graphs on the host; see :meth:`to`.

        Args:
            graphs: PyG ``Data`` with the same attributes; ``rank`` [N] gives the orientation.
            order: where there is no ``rank``, as for :meth:`LineDAG.from_edge_index`; None packs no line graphs.
            prune: pack what D mode needs, too.
            exclude_keys: attributes that batches do without.

        Raises:
            DataError: no graphs, not all alike, or an attribute that only PyG's own loader can batch.
            ShapeError, ConfigError: the line graphs cannot be built.
        """
        union, last = unite(graphs)
        sizes = [union.ptr.diff().numpy()]
        skip = {*exclude_keys, "line_dag", "line_graph"}
        keys = [key for key in union._slice_dict if key not in skip]
        found = {key: attribute(union, key, sizes) for key in keys if not _listed(union, key)}
        lines = None if order is None else pack_lines(union, order, prune, sizes)
        kinds = len(sizes)
        for key in found:
            grown = growth(union, last, key)
            if grown.any():
                found[key] = found[key]._replace(growth=row_of(sizes, grown))
        table = np.stack(sizes)
        ends = table.cumsum(1)
        if (ends[:kinds, -1] >= -LOOP).any():
            raise DataError(f"packed graphs must have fewer than {-LOOP} nodes, edges and pairs; pack fewer at a time")
        objects = {key: union[key] for key in keys if key not in found}
        states_nodes = hasattr(union._store, "_num_nodes")
        return cls(type(last), table, ends - table, kinds, found, objects, states_nodes, lines)

    def to(self, device: torch.device | str) -> "PackedGraphs":
        """These graphs on another device."""

        def move(part: Any) -> Any:
            if isinstance(part, Tensor):
                return part.to(device)
            if isinstance(part, dict):
                return {key: move(value) for key, value in part.items()}
            return part._replace(value=part.value.to(device)) if isinstance(part, Attribute | Table) else part

        lines = None if self.lines is None else Lines(*map(move, self.lines))
        return replace(self, attributes=move(self.attributes), lines=lines)

    def __len__(self) -> int:
        return int(self.sizes.shape[1])

    @property
    def y(self) -> Tensor:
        """Labels of all graphs, or of all their nodes."""
        return self.attributes["y"].value

    @property
    def digest(self) -> str:
        """Twelve hex digits that name the graphs with all their attributes."""
        found = hashlib.sha256(self.sizes.tobytes())
        for key, part in sorted(self.attributes.items()):
            found.update(f"{key}{tuple(part.value.shape)}{part.value.dtype}".encode())
            found.update(part.value.cpu().numpy().tobytes())
        return found.hexdigest()[:12]

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        return self._tensors()[0].device

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(tensor.nbytes for tensor in self._tensors())

    def _tensors(self) -> list[Tensor]:
        parts = [*self.attributes.values(), *(self.lines.tables.values() if self.lines else ())]
        return [part.value for part in parts] + ([self.lines.along] if self.lines else [])

    def with_filler(self, graphs: int) -> "PackedGraphs":
        """These graphs, without text and other objects, with room for fillers of batches of so many graphs, see
        :meth:`batch`.

        Raises:
            DataError: there are fewer, or one has duplicate columns.
        """
        return with_filler(self, graphs)

    # ------------------------------------------------------------------ batch

    def batch(self, indices: Indices, *, filled: bool = False) -> Batch:
        """Make what ``Batch.from_data_list`` makes of these graphs, on the device, with a planned ``line_dag``.

        Args:
            indices: numbers of the graphs in any order, repeated or not, on the host, [B].
            filled: after :meth:`with_filler`, with one more graph behind them that fills the batch up, so that all
                filled batches have tensors of the same shapes; ``batch.filled`` says whether it is there. Graphs
                without nodes take the places of those that a smaller batch lacks; ``batch.examples`` says how many
                are none of these, ``batch.own`` the same on the device, []. A batch of more graphs, and one that is
                larger than nearly all or holds a graph beyond all tiles (256 nodes), comes as it is.

        Raises:
            DataError: no indices, or one that is out of range; ``filled`` without :meth:`with_filler`.
        """
        return self.pick(indices, filled=filled).batch()

    @torch.inference_mode(False)
    def pick(self, indices: Indices, *, filled: bool = False) -> Picked:
        """What the host says of a batch, and all that it takes from there; arguments as for :meth:`batch`."""
        plain = self._choose(indices)
        chosen = (self._filled(plain) if filled else None) or plain
        return Picked(self, chosen, self._rows(chosen), chosen is not plain if filled else None)

    def made(self, chosen: Chosen, sent: Tensor, filled: bool | None = None) -> Batch:
        """A batch from what was sent to the device. Filled batches have tensors of the same shapes, so that what makes
        one of them there makes any other from what is sent in its place."""
        slices = self._slices(chosen, sent)
        batch = Batch(_base_cls=self.base)
        batch._num_graphs = len(chosen.graphs)
        if filled is not None:
            batch.filled = filled
        if filled:
            batch.examples, batch.own = chosen.own, sent[-1, 0]
        self._fill(batch, chosen, slices)
        batch.batch, batch.ptr = slices.owners[NODES], slices.ends_sizes[NODES, : len(chosen.graphs) + 1]
        if self.lines is not None:
            batch.line_dag = line_dag_of(self.lines, chosen, slices).made_for(batch.edge_index, batch.get("rank"))
        return batch

    def _choose(self, indices: Indices) -> Chosen:
        graphs = np.asarray(indices)
        if graphs.ndim != 1 or not graphs.size or graphs.dtype.kind not in "iu":
            raise DataError(
                f"a batch needs a list of graph numbers, [B], got {list(graphs.shape)} of {graphs.dtype}; "
                "for a mask take its nonzero places"
            )
        if graphs.min() < 0 or graphs.max() >= len(self):
            raise DataError(
                f"graph numbers must be 0 to {len(self) - 1}, got {graphs.min()} to {graphs.max()}; "
                "were these indices made for another data set?"
            )
        sizes = self.sizes[:, graphs]
        ends = np.zeros((sizes.shape[0], sizes.shape[1] + 1), dtype=np.int64)
        np.cumsum(sizes, axis=1, out=ends[:, 1:])
        live = int(np.flatnonzero(sizes[NODES]).max(initial=-1)) + 1
        sized = Sized(*torch.from_numpy(self._sized[:, graphs[:live]]))
        return Chosen(graphs, sizes, ends, work_of(sized), class_table(sized), live, len(graphs))

    @cached_property
    def _sized(self) -> np.ndarray:
        """:class:`Sized` of all graphs, [4, G]."""
        edges = self.lines.tables["edges"].kind if self.lines else NODES
        found: np.ndarray = torch.stack(Sized.of(*torch.from_numpy(self.sizes[[NODES, edges]]))).numpy()
        return found

    def fits(self, indices: Indices) -> bool:
        """Tell whether a batch of these graphs can be filled up."""
        return self._filled(self._choose(indices)) is not None

    def _filled(self, chosen: Chosen) -> Chosen | None:
        """Add the filler as the last graph, if there is one that fits, and before it empty ones up to the number."""
        if self.capacity is None:
            raise DataError("there is no room for a filler; call with_filler() first")
        work, classes = chosen.work, chosen.classes
        lacking = self.capacity.graphs - len(chosen.graphs)
        if lacking < 0:
            return None
        rest = self.capacity.rest(chosen.ends[: self.kinds, -1])
        if rest is None:
            return None
        if self.lines is not None:
            if not self.capacity.holds(classes):
                return None
            work, classes = self.capacity.work(work, classes)
        more = np.zeros((len(self.sizes), lacking + 1), dtype=np.int64)
        more[: self.kinds, -1] = rest
        ends = np.hstack([chosen.ends, chosen.ends[:, -1:] + more])
        graphs = np.append(chosen.graphs, np.full(lacking + 1, len(self)))
        sizes = np.hstack([chosen.sizes, more])
        return Chosen(graphs, sizes, ends, work, classes, self.capacity.graphs, chosen.own)

    def _rows(self, chosen: Chosen) -> np.ndarray:
        """All that the device has to be told: of things ends and sizes; the plan's work; how far numbers move, and
        places; how many graphs are none of a filler's, and how many of these count. [rows, columns]"""
        kinds, columns = self.kinds, max(len(chosen.graphs) + 1, chosen.work.size(1))
        ends, total = chosen.ends[:kinds], chosen.ends[:kinds, -1]
        moves = chosen.ends[:, :-1] - self.first[:, chosen.graphs]
        # The things of all kinds are numbered through; ways lead from that number to the place in the union.
        ways = (total - total.cumsum())[:, None] - moves[:kinds]
        parts = [ends, chosen.sizes[:kinds], chosen.work.numpy(), np.zeros_like(moves[:1]), moves, ways]
        return in_rows([*parts, np.array([[chosen.own, chosen.own]])], columns)

    def _slices(self, chosen: Chosen, sent: Tensor) -> Slices:
        kinds, total = self.kinds, chosen.ends[: self.kinds, -1]
        parts = [2 * kinds, len(chosen.work), 1 + len(chosen.ends), kinds, 1]
        ends_sizes, work, shifts, distances, _ = sent.split(parts)
        repeats = ends_sizes[kinds:].view(-1)
        owner = torch.repeat_interleave(repeats, output_size=int(total.sum()))
        place = torch.arange(len(owner), device=sent.device).add_(distances.view(-1).index_select(0, owner))
        owner.remainder_(sent.size(1))
        return Slices(place.split(total.tolist()), owner.split(total.tolist()), shifts, ends_sizes, work)

    def _fill(self, batch: Batch, chosen: Chosen, slices: Slices) -> None:
        """Write the attributes, and what PyG needs to take the batch apart again."""
        size, ends = len(chosen.graphs), torch.from_numpy(chosen.ends)
        batch._slice_dict, batch._inc_dict = {}, {}
        for key, (value, dim, kind, grows) in self.attributes.items():
            taken = value.index_select(0, slices.places[kind])
            batch._inc_dict[key] = torch.zeros(size, dtype=torch.long, device="cpu")
            if grows is not None:
                taken.movedim(0, -1).add_(slices.moves[1 + grows].index_select(0, slices.owners[kind]))
                batch._inc_dict[key] = ends[grows, :-1]
            batch[key] = taken.movedim(0, dim).contiguous() if dim else taken
            batch._slice_dict[key] = ends[kind]
        for key, values in self.objects.items():
            batch[key] = [values[number] for number in chosen.graphs]
            batch._slice_dict[key], batch._inc_dict[key] = torch.arange(size + 1, device="cpu"), None
        if self.states_nodes:
            batch._store._num_nodes = chosen.sizes[NODES].tolist()
            batch.num_nodes = int(chosen.ends[NODES, -1])


class PackedLoader:
    """Batches of examples in the order of a sampler, for a trainer; Lightning tells the sampler each epoch.

    Args:
        packed: the examples, packed graphs or others.
        batch_size: graphs a batch; the last one may have fewer.
        sampler: their order; it must have a length.
        filled: batches that can be are filled up, see :meth:`PackedGraphs.batch`; they come as the host knows them
            (:meth:`PackedGraphs.pick`), for a step that makes them on the device.
    """

    def __init__(self, packed: Any, batch_size: int, sampler: Sampler[int], *, filled: bool = False) -> None:
        self.packed, self.batch_size, self.sampler, self.filled = packed, batch_size, sampler, filled

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        order = list(self.sampler)
        groups = (order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size))
        if self.filled:
            yield from (self.packed.pick(chosen, filled=True) for chosen in groups)
        else:
            yield from in_turn(self.packed, groups)


def _listed(union: Batch, key: str) -> bool:
    """Tell whether PyG keeps a list with one object a graph (and not one of tensors that are collated one by one)."""
    return isinstance(union[key], list) and isinstance(union._slice_dict[key], Tensor)

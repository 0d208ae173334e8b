"""PyG transforms: write an orientation, or a whole line graph, into the data; the tools of :mod:`plstm_graph.dag`."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from plstm_graph.adjacency import sparse_columns
from plstm_graph.canonical import canonical_rank
from plstm_graph.dag import line_graph, to_multitree, topological_levels
from plstm_graph.errors import DataError, ShapeError
from plstm_graph.line_dag import LineDAG
from plstm_graph.line_dag.derived import Known
from plstm_graph.line_dag.pairs import owners
from plstm_graph.line_dag.topology import Levels, Topology
from plstm_graph.orient import (
    CANONICAL,
    RANDOM,
    SEARCHES,
    check_batch,
    check_order,
    positions,
    rank_nodes,
    search_rank,
    span_of,
)

_KEY = "line_graph"
"""Where the tensors of a line graph are, in a dict: PyG batches what is in it, and takes none of it for attributes of
nodes or edges, to be permuted or cut along with them, whatever their sizes happen to be."""
_STORED = ("src", "dst", "prev", "next", "column", "column_along")
_BY_NODES = ("dag_src", "dag_dst")
_BY_EDGES = ("dag_prev", "dag_next")
_BY_PAIRS = ("dag_kept",)


class LineDAGData(Data):
    """Data that carries its line graph in ``line_graph``, a dict of tensors, and knows how a batch must shift each.

    PyG increments by name (a key with ``index`` in it by num_nodes, any other not at all), hence an ``__inc__`` of
    its own: end points move by nodes, pairs by DAG edges, kept pairs by pairs, columns by DAG edges. ``dag_nodes`` [G]
    says how large the graphs were, since other transforms know nothing of line graphs.
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key in _BY_NODES:
            return self.num_nodes
        if key in _BY_EDGES:
            return self[_KEY]["dag_src"].numel()
        if key in _BY_PAIRS:
            return self[_KEY]["dag_prev"].numel()
        return 0 if key.startswith("dag_") else super().__inc__(key, value, *args, **kwargs)

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 0 if key.startswith("dag_") else super().__cat_dim__(key, value, *args, **kwargs)

    @property
    def line_dag(self) -> LineDAG:
        """The :class:`LineDAG` of this graph or batch.

        Raises:
            ShapeError: the nodes, the columns of ``edge_index`` or the ``rank`` are not those that it was built from.
        """
        try:
            return self._line_dag()
        except AttributeError as error:  # PyG would say that there is no attribute 'line_dag'
            raise DataError(f"the line graph cannot be read ({error}); apply AddLineDAG again") from error

    def _line_dag(self) -> LineDAG:
        stored = self._store.get("line_dag")  # of packed graphs
        if stored is not None:
            return _checked(stored, self)
        if _KEY not in self:
            raise DataError("there is no line graph here that this version reads; apply AddLineDAG again")
        found = self[_KEY]
        nodes, edges, columns = self._pointers()
        if not torch.equal(found["dag_nodes"].cpu(), nodes.diff().cpu()) or int(nodes[-1]) != self.num_nodes:
            raise _stale(self, "it has other nodes")
        # Columns keep their own graph's edge numbers in a batch (-1 marks self-loops), so they are shifted here.
        column = found["dag_column"]
        shift = edges.index_select(0, owners(columns, column.numel()))
        column = torch.where(column < 0, column, column + shift)
        topology = Topology.of(
            **{name: found[f"dag_{name}"] for name in _STORED} | {"column": column}, graph_ptr=nodes, edge_ptr=edges
        )
        known: Known = {"levels": Levels.of(found["dag_level"])}
        if "dag_kept" in found:
            known["kept"] = found["dag_kept"]
        return _checked(LineDAG.of(topology, **known), self)

    def _pointers(self) -> tuple[Tensor, ...]:
        """First node, edge and column of each graph, and their numbers at the end, [G+1] each."""
        found, slices = self[_KEY], getattr(self, "_slice_dict", None) or {}
        device = found["dag_src"].device
        if _KEY in slices:
            ends = self.ptr, slices[_KEY]["dag_src"], slices[_KEY]["dag_column"]
            return tuple(ptr.to(device) for ptr in ends)
        sizes = self.num_nodes, found["dag_src"].numel(), found["dag_column"].numel()
        return tuple(torch.tensor([0, size], device=device) for size in sizes)


torch.serialization.add_safe_globals([LineDAGData])  # as PyG does for its own classes, whose loaders ask for it


def line_dag(data: Data, order: str = "index") -> LineDAG:
    """The line graph of a graph or batch: the one it carries, else built from its ``rank`` or by ``order``.

    Raises:
        ShapeError: it carries one that is not, or no longer, that of its nodes, columns and ``rank``.
    """
    if isinstance(data, LineDAGData):
        return data.line_dag
    stored = data.get("line_dag")
    if isinstance(stored, list):  # what a Batch makes of one object per graph
        stored = LineDAG.collate(stored)
    if isinstance(stored, LineDAG):
        return _checked(stored, data)
    rank, batch = data.get("rank"), data.get("batch")
    batch = torch.zeros(data.num_nodes, dtype=torch.long, device="cpu") if batch is None else batch
    return LineDAG.from_edge_index(data.edge_index, data.num_nodes, order=order if rank is None else rank, batch=batch)


def _checked(dag: LineDAG, data: Data) -> LineDAG:
    """The line graph that data carries, if it is that of their graph."""
    if dag.num_nodes != data.num_nodes:
        raise _stale(data, "it has other nodes")
    rank, adjacency = data.get("rank"), data.get("adj_t")
    try:
        if "edge_index" in data:
            dag.check_edge_index(data.edge_index)
        elif adjacency is not None:
            dag.check_edges(sparse_columns(adjacency)[0])
        if isinstance(rank, Tensor):
            dag.check_rank(rank)
    except ShapeError as error:
        raise _stale(data, str(error)) from error
    if adjacency is not None and "edge_index" not in data and "edge_attr" in data:
        raise _stale(data, "ToSparseTensor put edge_attr into an order of its own")
    return dag


def _stale(data: Data, reason: str) -> ShapeError:
    return ShapeError(
        f"the line graph does not fit {data.num_nodes} nodes and {data.num_edges} columns of edge_index ({reason}): "
        "the graph was changed after AddLineDAG; apply it last"
    )


class GraphTransform(BaseTransform):
    """A transform of one graph; a batch is taken apart and put together again, so that its slices stay true."""

    def forward(self, data: Data) -> Any:
        """Apply it to a graph, or to each of a batch. Raises DataError for nodes of several types and no edge_index."""
        if isinstance(data, HeteroData):
            raise DataError(
                f"{type(self).__name__} takes graphs of one type of nodes; call data.to_homogeneous() first"
            )
        if isinstance(data, Batch):
            return Batch.from_data_list([self(graph) for graph in data.to_data_list()])
        if data.edge_index is None:
            raise DataError(
                f"{type(self).__name__} needs edge_index, which this graph lacks; apply ToSparseTensor after it"
            )
        return self.change(data)

    def change(self, data: Data) -> Data:
        """Change one graph, which is a copy already."""
        raise NotImplementedError


@functional_transform("orient_dag")
class OrientDAG(GraphTransform):
    """Write ``data.rank`` [N]: edges will run from lower to higher rank.

    Args:
        order: ``"canonical"`` ranks atoms by RDKit's canonical ranks where the data has ``smiles`` (so that a
            prediction does not depend on how the molecule was written), else by Weisfeiler-Lehman colours, then
            degree, then node. Names in :data:`plstm_graph.orient.SEARCHES` are searches that start and turn by the
            ``rank`` that the data has, or that one. Any order of :meth:`LineDAG.from_edge_index` will do as well.
        seed: for ``"random"``, which draws each graph's ranks from the seed and the graph's edges.
    """

    def __init__(self, order: str = CANONICAL, seed: int = 0) -> None:
        check_order(order)
        self.order, self.seed = order, seed

    def change(self, data: Data) -> Data:
        """Return ``data`` with ``rank``."""
        data = _plain(data)
        if self.order == CANONICAL:
            data.rank = canonical_rank(data).to(data.edge_index.device)
            return data
        columns = data.edge_index.cpu()
        if self.order in SEARCHES:
            known = canonical_rank(data) if data.get("rank") is None else data.rank.cpu()
            columns = columns[:, columns[0] != columns[1]]
            data.rank = search_rank(columns, known, self.order).to(data.edge_index.device)
            return data
        graph = columns.new_zeros(data.num_nodes)
        if data.get("batch") is not None:
            graph = data.batch.cpu()
            check_batch(graph, columns, span_of(columns), data.num_nodes)
        data.rank = positions(rank_nodes(columns, graph, self.order, self.seed), graph).to(data.edge_index.device)
        return data

    def __repr__(self) -> str:
        return f"OrientDAG({self.order!r}, seed={self.seed})" if self.order == RANDOM else f"OrientDAG({self.order!r})"


@functional_transform("add_line_dag")
class AddLineDAG(GraphTransform):
    """Store the line graph in the data, as :class:`LineDAGData`, so that loaders batch it like any other tensor.

    Apply it last: other transforms change the graph and leave the line graph as it is, which ``line_dag`` then refuses,
    and so does a layer that is given it with the ``edge_index`` of now. Of a batch all graphs need it, or the first has
    none: else PyG has a ``KeyError: 'line_graph'``.

    Of many small graphs it takes a loader longer to batch stored line graphs than to build that of a batch anew: there
    it pays where the loader has workers.

    Args:
        order: as for :meth:`LineDAG.from_edge_index`; a ``data.rank`` written by :class:`OrientDAG` goes first.
        prune: store the pairs that D mode keeps, too.
    """

    def __init__(self, order: str = "index", prune: bool = False) -> None:
        check_order(order)
        self.order, self.prune = order, prune

    def change(self, data: Data) -> LineDAGData:
        """Return a :class:`LineDAGData` with the attributes of ``data`` and the line graph."""
        data = _plain(data)
        dag = line_dag(data, self.order)
        tensors = {name: getattr(dag, name) for name in (*_STORED, "level")}
        if self.prune:
            tensors["kept"] = dag.kept_pairs
        tensors["nodes"] = dag.src.new_tensor([dag.num_nodes])
        result = LineDAGData(**data.to_dict())
        result[_KEY] = {f"dag_{name}": tensor for name, tensor in tensors.items()}
        return result

    def __repr__(self) -> str:
        return f"AddLineDAG({self.order!r}, prune={self.prune})"


@functional_transform("topological_levels")
class TopologicalLevels(GraphTransform):
    """Write ``data.level`` [N], the length of the longest path that ends in each node of a DAG.

    See :func:`plstm_graph.dag.topological_levels`.

    Example:
        >>> data = TopologicalLevels()(Data(edge_index=torch.tensor([[0, 0, 1], [1, 2, 2]]), num_nodes=3))
        >>> data.level
        tensor([0, 1, 2])
    """

    def change(self, data: Data) -> Data:
        """Return ``data`` with ``level``."""
        data.level = topological_levels(data.edge_index, data.num_nodes)
        return data


@functional_transform("directed_line_graph")
class DirectedLineGraph(GraphTransform):
    """The directed line graph: nodes are the columns of ``edge_index`` in their order, with their features.

    ``x`` becomes the edge features (None without), ``edge_attr`` the features of the node where two edges meet; ``y``
    and what is no tensor stay, other attributes go. See :func:`plstm_graph.dag.line_graph`.

    Example:
        >>> data = Data(torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]]), edge_attr=torch.randn(2, 5))
        >>> DirectedLineGraph()(data)
        Data(x=[2, 5], edge_index=[2, 1], edge_attr=[1, 4], num_nodes=2)
    """

    def change(self, data: Data) -> Data:
        """Return the line graph as new data."""
        data = _plain(data)
        pairs, joint = line_graph(data.edge_index, data.num_nodes)
        # Other tensors may belong to nodes or edges, and a size does not tell which.
        kept = {k: value for k, value in data if k == "y" or not (k == "num_nodes" or isinstance(value, Tensor))}
        x, edge_attr = data.get("x"), data.get("edge_attr")
        meeting = None if x is None else x[joint]
        return Data(edge_attr, pairs, meeting, num_nodes=data.num_edges, **kept)


@functional_transform("to_multitree")
class ToMultitree(GraphTransform):
    """Drop edges of a DAG until at most one directed path joins any two nodes; edge features go with their edges.

    See :func:`plstm_graph.dag.to_multitree`.

    Example:
        >>> diamond = Data(edge_index=torch.tensor([[0, 0, 1, 2], [1, 2, 3, 3]]), num_nodes=4)
        >>> ToMultitree()(diamond).edge_index
        tensor([[0, 0, 1],
                [1, 2, 3]])
    """

    def change(self, data: Data) -> Data:
        """Return ``data`` with fewer columns."""
        data = _plain(data)
        return data.edge_subgraph(to_multitree(data.edge_index, data.num_nodes))


def _plain(data: Data) -> Data:
    """Drop the line graph, which belongs to the orientation and the columns of before."""
    kept = {key: value for key, value in data.to_dict().items() if key not in (_KEY, "line_dag")}
    if isinstance(data, LineDAGData):
        return Data(**kept)
    for key in set(data.keys()) - set(kept):
        del data[key]
    return data

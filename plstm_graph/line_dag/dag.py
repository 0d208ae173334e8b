"""LineDAG: a batch of DAGs with its line graph, the pairs of edges that meet at a node."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor

from plstm_graph.errors import BackendUnavailable, ShapeError, check_kind, missing_extra
from plstm_graph.line_dag.building import build
from plstm_graph.line_dag.derived import Derived, Known, to_keep
from plstm_graph.line_dag.origin import check_columns, check_edges, check_rank
from plstm_graph.line_dag.pairs import on_the_host
from plstm_graph.line_dag.plan import EVERY, TILES
from plstm_graph.line_dag.reading import Reading
from plstm_graph.line_dag.topology import Levels, Topology, broken, join, shifted
from plstm_graph.orient import GIVEN

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, eq=False)
class LineDAG(Reading):
    """A disjoint union of G directed acyclic graphs with its line graph. Immutable.

    Build one with :meth:`from_edge_index`. Edges are sorted by (graph, rank of src, rank of dst), which is a
    topological order; pairs by (next, prev). Letters as everywhere: N nodes, E edges, P line pairs.

    Attributes:
        src, dst: end points of each edge, [E].
        prev, next: the pairs of edges that meet at a node, ``dst[prev] == src[next]``, [P].
        level: topological level of each edge, [E]; every pair climbs. After ``reverse`` not always the lowest.
        column: the edge that each column of the caller's ``edge_index`` became, [M]; -1 for a self-loop.
        column_along: whether that column runs from src to dst, [M].
        graph_ptr, edge_ptr: first node and first edge of each graph, and N and E at the end, [G+1].
        num_nodes, num_levels, max_nodes, max_edges: sizes known on the host (the latter two of the largest graph).
        merged: whether several columns became one edge (their attributes are averaged).
        reversed, pruned: which view it is.
        lines: all of these at once.
        derived: the topology and what has been worked out from it, which the four views share.
    """

    def __repr__(self) -> str:
        names = [f"num_{what}" for what in ("graphs", "nodes", "edges", "pairs")]
        names += [name for name in ("reversed", "pruned") if getattr(self, name)]
        return f"LineDAG({', '.join(f'{name}={getattr(self, name)}' for name in names)})"

    # ------------------------------------------------------------------ build

    @classmethod
    @on_the_host
    @to_keep()
    def from_edge_index(
        cls,
        edge_index: Tensor,
        num_nodes: int | None = None,
        *,
        order: str | Tensor = "index",
        batch: Tensor | None = None,
        seed: int = 0,
    ) -> "LineDAG":
        """Orient a graph (or PyG's disjoint union of graphs) and take its line graph.

        Each adjacent pair {u, v}, stored once or in both directions, gives one edge from lower to higher rank.
        Self-loops are dropped (the direct term is that path), duplicate columns merged.

        Args:
            edge_index: [2, M] int64.
            num_nodes: N; by default the highest node number plus one.
            order: ``"index"``, ``"bfs"``, ``"dfs"``, ``"degree"``, ``"random"``, a rank tensor [N], or ``"given"``
                (edges already form a DAG and keep their direction).
            batch: graph of each node, sorted, [N]. Without it every piece of the node numbering that no edge
                crosses counts as a graph.
            seed: for ``order="random"``, which draws for each graph by itself: of one that falls into pieces other
                ranks with ``batch`` (zeros for a single graph), as ``OrientDAG`` draws them, than without.

        Returns:
            The line graph, built on the device of ``edge_index``; searches and ``"given"`` rank nodes on the host.

        Raises:
            CycleError: ``order="given"`` with a directed cycle.
            ShapeError: indices out of range, an unsorted batch, or more than ``64 * E`` line pairs.
            BackendUnavailable: under ``torch.jit.trace``.
        """
        if torch.jit.is_tracing():  # what is built from data would be recorded as constants, of this graph alone
            raise BackendUnavailable(
                "torch.jit.trace cannot record how a line graph is built; trace with dag=..., for that graph alone, or "
                "use torch.export (plstm-graph export, see docs/recipes.md)"
            )
        topology, known = build(edge_index, num_nodes, order, batch, seed)
        return cls.of(topology, **known).made_for(edge_index)

    @classmethod
    def of(cls, topology: Topology, **known: Unpack[Known]) -> "LineDAG":
        """Take arrays as they are, see :meth:`validate`, with what is known of them already."""
        return cls.view(Derived(topology, **known))

    @classmethod
    @to_keep()
    def collate(cls, dags: Sequence["LineDAG"]) -> "LineDAG":
        """Disjoint union of several line graphs, as PyG's ``Batch`` unites their graphs."""
        if not dags:
            raise ShapeError("collate needs at least one LineDAG")
        views = {(dag.reversed, dag.pruned) for dag in dags}
        if len(views) > 1:
            raise ShapeError("collate needs LineDAGs of one view; collate the plain ones, then reverse() or prune()")
        parts = [dag.derived for dag in dags]
        known: Known = {}
        if all(part.knows("kept") for part in parts):  # pruning walks pair by pair
            pairs = accumulate((part.topology.prev.numel() for part in parts), initial=0)
            known["kept"] = shifted([part.kept for part in parts], list(pairs))
        if all(part.knows("levels") for part in parts):
            levels = [part.levels for part in parts]
            known["levels"] = Levels(torch.cat([one.level for one in levels]), max(one.total for one in levels))
        derived = Derived(join([part.topology for part in parts]), **known)
        for view in set.intersection(*(part.views for part in parts)):  # compiled code must find them made
            derived.lines(view)
        return cls.view(derived, *views.pop())

    # ------------------------------------------------------------------ views

    def reverse(self) -> "LineDAG":
        """The same edges read against their direction. Edge and pair numbers stay, so gates keep their rows."""
        return LineDAG.view(self.derived, not self.reversed, self.pruned)

    def prune(self) -> "LineDAG":
        """The line graph reduced to a multitree, for D mode: pairs go, edges and their order stay.

        At most one path is left between any two edges, so that |transition| ≤ 1 bounds the state. Maximal, and
        independent of the column order, but reachability can shrink; see :mod:`plstm_graph.line_dag.prune`.
        The reversed reading is pruned to the same pairs: ``dag.prune().reverse()`` equals ``dag.reverse().prune()``.
        """
        return LineDAG.view(self.derived, self.reversed, True)

    # ------------------------------------------------------------------ copies

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> "LineDAG":
        """This line graph on another device, with all that has been worked out. PyG's ``Batch.to`` calls it."""
        device = torch.empty(0, device=device).device  # "cuda" to "cuda:0"
        if device == self.src.device:
            return self
        return self.apply(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def cpu(self) -> "LineDAG":
        """This line graph on the host. PyG's ``Data.cpu`` calls it."""
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int | None = None, non_blocking: bool = False) -> "LineDAG":
        """This line graph on a GPU, by default the current one. PyG's ``Data.cuda`` calls it."""
        return self.to("cuda" if device is None else device, non_blocking)

    def pin_memory(self) -> "LineDAG":
        """This line graph, with all that has been worked out, in page-locked memory of the host.

        PyG's ``Data.pin_memory`` calls it, and so do loaders with ``pin_memory=True``.
        """
        return self.apply(Tensor.pin_memory)

    @to_keep()
    def apply(self, change: Callable[[Tensor], Tensor]) -> "LineDAG":
        """This line graph with other tensors in place of all that it holds, like PyG's ``Data.apply``."""
        return LineDAG.view(self.derived.changed(change), self.reversed, self.pruned)

    def bare(self) -> "LineDAG":
        """This line graph with its tables for kernels, and without whatever else has been worked out."""
        return LineDAG.view(self.derived.bare(), self.reversed, self.pruned)

    # ------------------------------------------------------------------ make ahead

    def prepare(self, modes: str = "PD") -> "LineDAG":
        """Work out now what layers of these modes and of the compiled backends would on first use; returns itself.

        Compiled code (``torch.compile(fullgraph=True)``) needs a prepared line graph, and loaders may prepare theirs
        on the host before they send it to a GPU.
        """
        for view in (self, self.prune()) if "D" in modes else (self,):
            for reading in (view, view.reverse()):
                reading.prepare_reading(0, len(TILES), EVERY)  # what backends may ask for
        return self

    def prepare_reading(self, *classes: int) -> None:
        """Prepare this view alone, with plans for so many size classes."""
        _ = self.degree, self.derived.edge_ids, self.merged and self.derived.averages
        for count in classes:
            self.plan(count)

    # ------------------------------------------------------------------ the caller's columns

    def made_for(self, edge_index: Tensor | None, rank: Tensor | None = None) -> "LineDAG":
        """Take it from the caller that these are what this line graph was built from, until they are written to."""
        if edge_index is not None:
            self.derived.origin.note_columns(edge_index)
        if rank is not None:
            self.derived.origin.note(rank)
        return self

    def check_edge_index(self, edge_index: Tensor) -> None:
        """Raise ShapeError unless this is the line graph of ``edge_index`` [2, M], column by column.

        Exact, but for the nodes of self-loops, which a line graph does not read. On the host the columns are compared
        each time; on a GPU once for each tensor, without waiting: there a line graph that is stale is a device-side
        assertion.
        """
        check_columns(self.derived.topology, self.derived.origin, edge_index)

    def check_edges(self, edge_index: Tensor) -> None:
        """Raise ShapeError unless these are the same edges in any order, as of a sparse adjacency, [2, M]."""
        check_edges(self.derived.topology, edge_index)

    def check_rank(self, rank: Tensor) -> None:
        """Raise ShapeError unless edges run from lower to higher rank [N], and stand in that order."""
        check_rank(self.derived.topology, self.derived.origin, rank)

    def check_columns(self, columns: Tensor) -> None:
        """Raise ShapeError unless there is one row for each of the caller's columns, [M, ...]."""
        if columns.size(0) != self.column.numel():
            raise ShapeError(
                f"one row per column of edge_index is needed, {self.column.numel()}, got {columns.size(0)}; "
                "was the dag built from another edge_index?"
            )

    def gather_edges(self, columns: Tensor) -> Tensor:
        """Rows of the caller's columns for each edge, [M, ...] -> [E, ...]; duplicates are averaged."""
        self.check_columns(columns)
        if not self.merged:
            return columns.index_select(0, self.edge_id)
        along, against = self.derived.averages
        column, edge, count = against if self.reversed else along
        rows = columns.index_select(0, column)
        total = rows.new_zeros(self.num_edges, *rows.shape[1:]).index_add(0, edge, rows)
        return total / count.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1))

    # ------------------------------------------------------------------ check and convert

    def validate(self) -> "LineDAG":
        """Check every invariant (tests, hand-made line graphs); returns itself, raises ShapeError."""
        wrong = broken(self.lines, lambda: self.derived.levels_of(self.reversed), self.reversed)
        if wrong:
            raise ShapeError("not a line graph of a DAG; broken: " + "; ".join(wrong))
        return self

    @classmethod
    def from_networkx(cls, graph: "networkx.Graph", *, order: str | Tensor | None = None) -> "LineDAG":
        """Convert a networkx graph, nodes numbered in its own order; a DiGraph keeps its directions by default."""
        numbers = {node: i for i, node in enumerate(graph)}
        ends = [(numbers[u], numbers[v]) for u, v in graph.edges()]
        edge_index = torch.tensor(ends, dtype=torch.long, device="cpu").view(-1, 2).t().contiguous()
        order = order if order is not None else (GIVEN if graph.is_directed() else "index")
        return cls.from_edge_index(edge_index, len(numbers), order=order)

    def to_networkx(self, line: bool = False) -> "networkx.DiGraph":
        """Convert the DAG to a networkx DiGraph; with ``line=True`` its line graph, with nodes (src, dst)."""
        try:
            import networkx as nx
        except ImportError as error:
            raise ImportError(missing_extra("networkx", "viz")) from error
        ends = list(zip(self.src.tolist(), self.dst.tolist(), strict=True))
        graph: networkx.DiGraph = nx.DiGraph()
        if line:
            graph.add_nodes_from((e, {"level": lv}) for e, lv in zip(ends, self.level.tolist(), strict=True))
            pairs = zip(self.prev.tolist(), self.next.tolist(), strict=True)
            graph.add_edges_from((ends[a], ends[b]) for a, b in pairs)
        else:
            graph.add_nodes_from(range(self.num_nodes))
            graph.add_edges_from(ends)
        return graph


def check_line_dag(dag: object) -> None:
    """Raise ShapeError unless this is a line graph."""
    several = isinstance(dag, list | tuple)  # what a Batch makes of one object per graph
    advice = (
        "join them with LineDAG.collate(dags)"
        if several
        else "make one with LineDAG.from_edge_index(edge_index, num_nodes)"
    )
    check_kind("dag", dag, LineDAG, advice)

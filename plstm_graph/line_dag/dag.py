"""Line graph: a batch of DAGs, the pairs of edges that meet at a node, and their topological levels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plstm_graph.errors import BackendUnavailable, ShapeError, missing_extra
from plstm_graph.line_dag.origin import Origin, check_columns
from plstm_graph.line_dag.pairs import (
    LevelPlan,
    each,
    grouped,
    level_plan,
    line_pairs,
    move,
    on_the_host,
    owners,
    within,
)
from plstm_graph.line_dag.plan import TILES, Edge, Node, Plan, make_plan, with_large
from plstm_graph.line_dag.prune import multitree_pairs
from plstm_graph.orient import (
    GIVEN,
    check_edge_index,
    graph_pointer,
    positions,
    rank_nodes,
    topological_levels,
)

if TYPE_CHECKING:
    import networkx


@contextmanager
def to_keep() -> Iterator[None]:
    """Around the making of what outlives a call: no tensors of inference mode, which could not serve training, nor
    such as torch.func wraps, which no loop over edges could read."""
    with torch.inference_mode(False), torch._C._DisableFuncTorch():
        yield


@dataclass(frozen=True, eq=False)
class LineDAG:
    """A disjoint union of G directed acyclic graphs with its line graph. Immutable.

    Build one with :meth:`from_edge_index`. Edges are sorted by (graph, rank of src, rank of dst), which is a
    topological order; pairs by (next, prev). Letters as everywhere: N nodes, E edges, P line pairs.

    Attributes:
        src, dst: end points of each edge, [E].
        prev, next: the pairs of edges that meet at a node, ``dst[prev] == src[next]``, [P].
        level: topological level of each edge, [E]; every pair climbs. After ``reverse`` not always the lowest.
        column: the edge that each column of the caller's ``edge_index`` became, [M]; -1 for a self-loop.
        column_along: whether that column runs from src to dst, [M].
        graph_ptr: first node of each graph and N at the end, [G+1].
        num_nodes, num_levels, max_nodes, max_edges: sizes known on the host (the latter two of the largest graph).
        edge_ptr: first edge of each graph and E at the end, [G+1].
        merged: whether several columns became one edge (their attributes are averaged).
    """

    src: Tensor
    dst: Tensor
    prev: Tensor
    next: Tensor
    level: Tensor
    column: Tensor
    column_along: Tensor
    graph_ptr: Tensor
    edge_ptr: Tensor
    num_nodes: int
    num_levels: int
    max_nodes: int
    max_edges: int
    merged: bool
    reversed: bool = False
    pruned: bool = False
    # What the four views (read along or against, pruned or not) compute once and share. It holds tensors, never a
    # LineDAG: a reference cycle would keep device memory alive until the garbage collector runs.
    _shared: dict[Any, Any] = field(default_factory=dict, repr=False)
    # Views made from this one, which never point back.
    _made: dict[str, "LineDAG"] = field(default_factory=dict, repr=False)
    # What the views have been found to be the line graph of.
    _origin: Origin = field(default_factory=Origin, repr=False)

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
            seed: for ``order="random"``.

        Returns:
            The line graph on the device of ``edge_index`` (built on the host: levels are data-dependent).

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
        columns, num_nodes = check_edge_index(edge_index, num_nodes)
        device = edge_index.device
        plain = columns[0] != columns[1]
        proper = columns[:, plain]
        graph_ptr = graph_pointer(proper, num_nodes, None if batch is None else batch.detach().cpu())
        rank = rank_nodes(proper, graph_ptr, order, seed)
        node_at = None
        ends = proper
        if not (isinstance(order, str) and order == "index"):  # by index, nodes stand in order already
            position = positions(rank, graph_ptr)
            node_at = torch.argsort(position)
            ends = position[proper]
        low, high = ends.min(0).values, ends.max(0).values
        edges, edge_of = torch.unique(low * num_nodes + high, return_inverse=True)
        src, dst = edges // max(num_nodes, 1), edges % max(num_nodes, 1)
        level = topological_levels(src, dst, num_nodes)[src]
        graph_start = torch.searchsorted(src, graph_ptr)
        if node_at is not None:
            src, dst = node_at[src], node_at[dst]
        column = torch.full_like(columns[0], -1)
        column[plain] = edge_of
        along = columns[0] == torch.cat([src, src.new_zeros(1)])[column]
        prev, next = line_pairs(src, dst, num_nodes)
        dag = cls._from_host(src, dst, prev, next, level, column, along, graph_ptr, graph_start)
        return dag.to(device).made_for(edge_index)

    @classmethod
    def _from_host(
        cls,
        src: Tensor,
        dst: Tensor,
        prev: Tensor,
        next: Tensor,
        level: Tensor,
        column: Tensor,
        column_along: Tensor,
        graph_ptr: Tensor,
        edge_ptr: Tensor,
    ) -> "LineDAG":
        """Add the sizes that callers need on the host."""
        readings = torch.bincount((2 * column + column_along)[column >= 0])
        return cls(
            *(src, dst, prev, next, level, column, column_along, graph_ptr, edge_ptr),
            num_nodes=int(graph_ptr[-1]),
            num_levels=int(level.max()) + 1 if level.numel() else 0,
            max_nodes=int(graph_ptr.diff().max()) if graph_ptr.numel() > 1 else 0,
            max_edges=int(edge_ptr.diff().max()) if edge_ptr.numel() > 1 else 0,
            merged=bool((readings > 1).any()),
        )

    @classmethod
    @to_keep()
    def collate(cls, dags: Sequence["LineDAG"]) -> "LineDAG":
        """Disjoint union of several line graphs, as PyG's ``Batch`` unites their graphs."""
        if not dags:
            raise ShapeError("collate needs at least one LineDAG")
        if len({(d.reversed, d.pruned) for d in dags}) > 1:
            raise ShapeError("collate needs LineDAGs of one view; collate the plain ones, then reverse() or prune()")

        nodes, edges = (
            list(accumulate((getattr(dag, size) for dag in dags), initial=0)) for size in ("num_nodes", "num_edges")
        )

        def join(name: str, offsets: Sequence[int]) -> Tensor:
            return torch.cat([getattr(dag, name) + offset for dag, offset in zip(dags, offsets, strict=False)])

        def pointers(name: str, offsets: Sequence[int]) -> Tensor:
            starts = [getattr(dag, name)[:-1] + offset for dag, offset in zip(dags, offsets, strict=False)]
            return torch.cat([*starts, dags[0].src.new_tensor(offsets[-1:])])

        num_levels = max(dag.num_levels for dag in dags)
        # A reversed part counts its levels down to zero; lifting the shallow ones keeps them aligned with the deep.
        lift = [num_levels - dag.num_levels if dag.reversed else 0 for dag in dags]
        columns = zip((dag.column for dag in dags), edges, strict=False)
        union = cls(
            *(join("src", nodes), join("dst", nodes), join("prev", edges), join("next", edges), join("level", lift)),
            torch.cat([torch.where(column < 0, column, column + offset) for column, offset in columns]),
            torch.cat([dag.column_along for dag in dags]),
            *(pointers("graph_ptr", nodes), pointers("edge_ptr", edges)),
            num_nodes=nodes[-1],
            num_levels=num_levels,
            max_nodes=max(dag.max_nodes for dag in dags),
            max_edges=max(dag.max_edges for dag in dags),
            merged=any(dag.merged for dag in dags),
            reversed=dags[0].reversed,
            pruned=dags[0].pruned,
        )
        if not union.pruned and all("kept" in dag._shared for dag in dags):  # pruning walks pair by pair
            pairs = list(accumulate((dag.num_pairs for dag in dags), initial=0))
            union.with_kept_pairs(join("kept_pairs", pairs))
        union._make_common_views(dags)
        return union

    # ------------------------------------------------------------------ views

    def reverse(self) -> "LineDAG":
        """The same edges read against their direction. Edge and pair numbers stay, so gates keep their rows."""
        if "reverse" not in self._made:
            self._made["reverse"] = self._reversed()
        return self._made["reverse"]

    def _reversed(self) -> "LineDAG":
        level = self._once(("level", not self.reversed), lambda: self.num_levels - 1 - self.level)
        along = self._once(("along", not self.reversed), lambda: ~self.column_along)
        self._once(("level", self.reversed), lambda: self.level)
        self._once(("along", self.reversed), lambda: self.column_along)
        return self._view(
            src=self.dst,
            dst=self.src,
            prev=self.next,
            next=self.prev,
            level=level,
            column_along=along,
            reversed=not self.reversed,
        )

    def prune(self) -> "LineDAG":
        """The line graph reduced to a multitree, for D mode: pairs go, edges and their order stay.

        At most one path is left between any two edges, so that |transition| ≤ 1 bounds the state. Maximal, and
        independent of the column order, but reachability can shrink; see :mod:`plstm_graph.line_dag.prune`.
        The reversed reading is pruned to the same pairs: ``dag.prune().reverse()`` equals ``dag.reverse().prune()``.
        """
        if self.pruned:
            return self
        if "prune" not in self._made:
            kept = self.kept_pairs
            self._made["prune"] = self._view(prev=self.prev[kept], next=self.next[kept], pruned=True)
        return self._made["prune"]

    @property
    def kept_pairs(self) -> Tensor:
        """Numbers of the pairs that :meth:`prune` keeps, [P']."""
        return self._once("kept", self._kept_pairs)

    def _kept_pairs(self) -> Tensor:
        prev, next = (self.next, self.prev) if self.reversed else (self.prev, self.next)
        kept = multitree_pairs(prev.tolist(), next.tolist(), self.edge_ptr.tolist())
        return torch.nonzero(torch.tensor(kept, dtype=torch.bool, device="cpu")).view(-1).to(self.src.device)

    def with_kept_pairs(self, kept: Tensor) -> "LineDAG":
        """Remember the result of pruning, computed earlier: numbers of the kept pairs, [P']."""
        self._shared["kept"] = kept
        return self

    def with_plan(self, plan: Plan, *, pruned: bool = False) -> "LineDAG":
        """Remember the tables of :func:`plan.make_plan`, of this line graph or of its pruned view, computed earlier."""
        self._shared["tables", pruned] = plan
        if not pruned:  # which columns an edge has is the same in both
            along, against = plan.edges[Edge.ALONG : Edge.AGAINST + 1].long()
            self._shared["edge_id", False], self._shared["edge_id", True] = along, against
        return self

    @to_keep()
    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> "LineDAG":
        """This line graph on another device, with all that has been computed for it. PyG's ``Batch.to`` calls it."""
        device = torch.empty(0, device=device).device  # "cuda" to "cuda:0"
        if device == self.src.device:
            return self
        return self._map(lambda value: move(value, device, non_blocking))

    def cpu(self) -> "LineDAG":
        """This line graph on the host. PyG's ``Data.cpu`` calls it."""
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int | None = None, non_blocking: bool = False) -> "LineDAG":
        """This line graph on a GPU, by default the current one. PyG's ``Data.cuda`` calls it."""
        return self.to("cuda" if device is None else device, non_blocking)

    @to_keep()
    def pin_memory(self) -> "LineDAG":
        """This line graph, with all that has been computed for it, in page-locked memory of the host.

        PyG's ``Data.pin_memory`` calls it, and so do loaders with ``pin_memory=True``.
        """
        return self.apply(Tensor.pin_memory)

    def bare(self) -> "LineDAG":
        """This line graph with its plans, and without whatever else has been computed for it."""
        given = "kept", *((name, flag) for name in ("tables", "edge_id") for flag in (False, True))
        shared = {key: self._shared[key] for key in given if key in self._shared}
        return LineDAG(**{name: value for name, value in vars(self).items() if name[0] != "_"}, _shared=shared)

    def apply(self, change: Callable[[Tensor], Tensor]) -> "LineDAG":
        """This line graph with other tensors in place of all that it holds, like PyG's ``Data.apply``."""
        return self._map(lambda value: each(value, change))

    def _map(self, change: Callable[[Any], Any]) -> "LineDAG":
        """The same line graph with ``change`` applied to all that it holds, and the views that this one has."""
        changed = {name: change(value) for name, value in vars(self).items() if name[0] != "_"}
        dag = LineDAG(**changed, _shared={key: change(value) for key, value in self._shared.items()})
        self._make_views_of(dag)
        return dag

    def _make_views_of(self, other: "LineDAG") -> None:
        """The same views as of this one, from what ``other`` has been given: compiled code must find them made."""
        for name, made in self._made.items():
            made._make_views_of(getattr(other, name)())

    def _make_common_views(self, parts: Sequence["LineDAG"]) -> None:
        """The views that all parts of this union have."""
        for name in set(parts[0]._made).intersection(*(part._made for part in parts)):
            getattr(self, name)()._make_common_views([part._made[name] for part in parts])

    @to_keep()
    def _view(self, **changes: Any) -> "LineDAG":
        names = [name for name in self.__dataclass_fields__ if name not in changes and name != "_made"]
        return LineDAG(**{name: getattr(self, name) for name in names}, **changes)

    def _once(self, key: Any, compute: Any) -> Any:
        if key not in self._shared:
            with to_keep():
                self._shared[key] = compute()
        return self._shared[key]

    # ------------------------------------------------------------------ sizes and derived tensors

    @property
    def num_edges(self) -> int:
        """E."""
        return self.src.numel()

    @property
    def num_pairs(self) -> int:
        """P."""
        return self.prev.numel()

    @property
    def num_graphs(self) -> int:
        """G."""
        return self.graph_ptr.numel() - 1

    @property
    def edge_id(self) -> Tensor:
        """Column of the caller's ``edge_index`` that runs along each edge (or the only one there is), [E]."""
        return self._once(("edge_id", self.reversed), lambda: self._columns(self.column_along))

    @property
    def edge_id_reverse(self) -> Tensor:
        """Column that runs against each edge (or the only one there is), [E]."""
        return self._once(("edge_id", not self.reversed), lambda: self._columns(~self.column_along))

    def _columns(self, wanted: Tensor) -> Tensor:
        """First column of each edge among the wanted ones, else first column of all."""
        size = self.column.numel()
        number = torch.arange(size, device=self.column.device)
        proper = self.column >= 0
        score = torch.where(wanted, number, number + size)[proper]
        best = score.new_full((self.num_edges,), 2 * size)
        return best.scatter_reduce_(0, self.column[proper], score, "amin") % max(size, 1)

    def check_edge_index(self, edge_index: Tensor) -> None:
        """Raise ShapeError unless this is the line graph of ``edge_index`` [2, M], column by column.

        Exact, but for the nodes of self-loops, which a line graph does not read. On the host the columns are compared
        each time; on a GPU once for each tensor, without waiting: there a line graph that is stale is a device-side
        assertion.
        """
        check_columns(self, edge_index)

    def made_for(self, edge_index: Tensor | None, rank: Tensor | None = None) -> "LineDAG":
        """Take it from the caller that these are what this line graph was built from, until they are written to."""
        if edge_index is not None:
            self._origin.note_columns(edge_index)
        if rank is not None:
            self._origin.note(rank)
        return self

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
        chosen, edge, count = self._merged()
        rows = columns.index_select(0, chosen)
        total = rows.new_zeros(self.num_edges, *rows.shape[1:]).index_add(0, edge, rows)
        return total / count.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1))

    def _merged(self) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = self._once(("merge", self.reversed), self._merge)
        return found

    def _merge(self) -> tuple[Tensor, Tensor, Tensor]:
        """Columns to average for each edge: those that run along it, or all where none does."""
        proper = self.column >= 0
        has_along = torch.zeros(self.num_edges + 1, dtype=torch.bool, device=self.column.device)
        has_along[self.column[proper & self.column_along]] = True
        chosen = torch.nonzero(proper & (self.column_along | ~has_along[self.column])).view(-1)
        edge = self.column[chosen]
        return chosen, edge, torch.bincount(edge, minlength=self.num_edges)

    @property
    def degree(self) -> Tensor:
        """Edges that touch each node, [N]."""
        return self._once("degree", self._degree)

    def _degree(self) -> Tensor:
        tables = self._shared.get(("tables", self.pruned))
        if tables is not None:  # counting waits for a GPU, adding does not
            return (tables.nodes[Node.ARRIVE] + tables.nodes[Node.LEAVE]).long()
        return torch.bincount(torch.cat([self.src, self.dst]), minlength=self.num_nodes)

    @property
    def edge_graph(self) -> Tensor:
        """Graph of each edge, [E]."""
        return self._once("edge_graph", lambda: owners(self.edge_ptr, self.num_edges))

    @property
    def node_graph(self) -> Tensor:
        """Graph of each node, [N]."""
        return self._once("node_graph", lambda: owners(self.graph_ptr, self.num_nodes))

    @property
    def level_plan(self) -> LevelPlan:
        """Pairs by the level of their next edge; computed once (with one synchronisation on a GPU)."""
        return self._once(
            ("plan", self.reversed, self.pruned),
            lambda: level_plan(self.level, self.prev, self.next, self.num_levels),
        )

    def prepare(self, modes: str = "PD") -> "LineDAG":
        """Compute now what layers of these modes and of the compiled backends would on first use; returns itself.

        Compiled code (``torch.compile(fullgraph=True)``) needs a prepared line graph, and loaders may prepare theirs
        on the host before they send it to a GPU.
        """
        for view in (self, self.prune()) if "D" in modes else (self,):
            for reading in (view, view.reverse()):
                _ = reading.degree, reading.edge_id, reading.edge_id_reverse
                if self.merged:
                    reading._merged()
                for classes in (0, len(TILES)):  # see served_classes
                    reading.plan(classes)
        return self

    def plan(self, classes: int) -> Plan:
        """Tables for kernels, as the edges point; both reading directions share them. See :class:`Plan`.

        Args:
            classes: graphs beyond this many size classes count as large.
        """
        found = self._shared.get(("tables", self.pruned, classes))
        if found is not None:
            return found
        plain = self.reverse() if self.reversed else self
        base = self._once(("tables", self.pruned), lambda: make_plan(plain))
        return self._once(
            ("tables", self.pruned, classes), lambda: with_large(base, plain.level, self.num_levels, classes)
        )

    @property
    def pairs_by_next(self) -> tuple[Tensor, Tensor]:
        """Pairs that enter each edge: pointers [E+1] into a list of pair numbers [P]."""
        return self._once(("by next", self.reversed, self.pruned), lambda: grouped(self.next, self.num_edges))

    @property
    def pairs_by_prev(self) -> tuple[Tensor, Tensor]:
        """Pairs that leave each edge: pointers [E+1] into a list of pair numbers [P]."""
        return self._once(("by next", not self.reversed, self.pruned), lambda: grouped(self.prev, self.num_edges))

    # ------------------------------------------------------------------ check and convert

    def validate(self) -> "LineDAG":
        """Check every invariant (tests, hand-made line graphs); returns itself, raises ShapeError."""
        edges, pairs = self.num_edges, self.num_pairs
        must = {
            "src, dst, level have one entry per edge": self.dst.numel() == self.level.numel() == edges,
            "prev and next have one entry per pair": self.next.numel() == pairs,
            "end points lie in 0..N-1": within(torch.cat([self.src, self.dst]), self.num_nodes),
            "pairs lie in 0..E-1": within(torch.cat([self.prev, self.next]), edges),
            "columns lie in -1..E-1": within(self.column + 1, edges + 1),
            "graph_ptr ends with N": int(self.graph_ptr[-1]) == self.num_nodes,
            "edge_ptr ends with E": int(self.edge_ptr[-1]) == edges,
        }
        if all(must.values()):
            low, high = (self.next, self.prev) if self.reversed else (self.prev, self.next)
            place = high * edges + low
            must |= {
                "edges stand in topological order": bool((low < high).all()),
                "pairs are sorted by (next, prev), before any reversal": bool((place[1:] > place[:-1]).all()),
                "edges stand graph by graph": bool((self.node_graph[self.src] == self.edge_graph).all()),
                "pairs meet at a node": bool((self.dst[self.prev] == self.src[self.next]).all()),
                "every pair climbs a level": bool((self.level[self.prev] < self.level[self.next]).all()),
                "levels lie in 0..num_levels-1": within(self.level, self.num_levels),
                "no edge joins two graphs": bool((self.node_graph[self.src] == self.node_graph[self.dst]).all()),
            }
        broken = [text for text, holds in must.items() if not holds]
        if broken:
            raise ShapeError("not a line graph of a DAG; broken: " + "; ".join(broken))
        return self

    @classmethod
    def from_networkx(cls, graph: "networkx.Graph", *, order: str | Tensor | None = None) -> "LineDAG":
        """From a networkx graph, nodes numbered in its own order; a DiGraph keeps its directions by default."""
        numbers = {node: i for i, node in enumerate(graph)}
        ends = [(numbers[u], numbers[v]) for u, v in graph.edges()]
        edge_index = torch.tensor(ends, dtype=torch.long, device="cpu").view(-1, 2).t().contiguous()
        order = order if order is not None else (GIVEN if graph.is_directed() else "index")
        return cls.from_edge_index(edge_index, len(numbers), order=order)

    def to_networkx(self, line: bool = False) -> "networkx.DiGraph":
        """The DAG as a networkx DiGraph; with ``line=True`` its line graph, whose nodes are (src, dst) tuples."""
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

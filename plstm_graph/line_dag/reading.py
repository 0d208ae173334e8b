"""Reading: a line graph as it is read, its arrays, sizes and tables by name."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from plstm_graph.line_dag.chunks import ChunkPlan
from plstm_graph.line_dag.derived import Derived
from plstm_graph.line_dag.pairs import LevelPlan
from plstm_graph.line_dag.plan import EVERY, Plan
from plstm_graph.line_dag.topology import Topology


@dataclass(frozen=True, eq=False)
class Reading:
    """View, one of four, of a line graph: along the edges or against them, whole or pruned to a multitree.

    Attributes:
        derived: the topology, and what has been worked out from it; the views share it.
        lines: all arrays and sizes, as they are read.
        reversed: whether edges are read against their direction.
        pruned: whether pairs are left out so that it is a multitree.
    """

    derived: Derived
    lines: Topology
    reversed: bool
    pruned: bool

    @classmethod
    def view(cls, derived: Derived, reversed: bool = False, pruned: bool = False) -> Self:
        """Read it so."""
        return cls(derived, derived.lines((reversed, pruned)), reversed, pruned)

    @property
    def src(self) -> Tensor:
        """Node that each edge leaves, [E]."""
        return self.lines.src

    @property
    def dst(self) -> Tensor:
        """Node at which each edge arrives, [E]."""
        return self.lines.dst

    @property
    def prev(self) -> Tensor:
        """First edge of each pair, [P]: ``dst[prev] == src[next]``."""
        return self.lines.prev

    @property
    def next(self) -> Tensor:
        """Second edge of each pair, [P]."""
        return self.lines.next

    @property
    def level(self) -> Tensor:
        """Topological level of each edge, [E]; every pair climbs. After ``reverse`` not always the lowest."""
        return self.derived.levels_of(self.reversed).level

    @property
    def column(self) -> Tensor:
        """Edge that each column of the caller's ``edge_index`` became, [M]; -1 for a self-loop."""
        return self.lines.column

    @property
    def column_along(self) -> Tensor:
        """Direction of that column: whether it runs from src to dst, [M]."""
        return self.lines.column_along

    @property
    def graph_ptr(self) -> Tensor:
        """First node of each graph, and N, [G+1]."""
        return self.lines.graph_ptr

    @property
    def edge_ptr(self) -> Tensor:
        """First edge of each graph, and E, [G+1]."""
        return self.lines.edge_ptr

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.lines.num_nodes

    @property
    def num_edges(self) -> int:
        """E."""
        return self.lines.src.numel()

    @property
    def num_pairs(self) -> int:
        """P."""
        return self.lines.prev.numel()

    @property
    def num_graphs(self) -> int:
        """G."""
        return self.graph_ptr.numel() - 1

    @property
    def num_levels(self) -> int:
        """Levels of the deepest graph."""
        return self.derived.levels.total

    @property
    def max_nodes(self) -> int:
        """Nodes of the largest graph."""
        return self.lines.max_nodes

    @property
    def max_edges(self) -> int:
        """Edges of the graph that has most."""
        return self.lines.max_edges

    @property
    def merged(self) -> bool:
        """Tell whether several columns became one edge (their attributes are averaged)."""
        return self.lines.merged

    # ------------------------------------------------------------------ derived

    @property
    def edge_id(self) -> Tensor:
        """Column of the caller's ``edge_index`` that runs along each edge (or the only one there is), [E]."""
        along, against = self.derived.edge_ids  # older dynamos cannot index a tuple by a bool
        return against if self.reversed else along

    @property
    def edge_id_reverse(self) -> Tensor:
        """Column that runs against each edge (or the only one there is), [E]."""
        along, against = self.derived.edge_ids
        return along if self.reversed else against

    @property
    def degree(self) -> Tensor:
        """Edges that touch each node, [N]."""
        return self.derived.degree

    @property
    def edge_graph(self) -> Tensor:
        """Graph of each edge, [E]."""
        return self.derived.edge_graph

    @property
    def node_graph(self) -> Tensor:
        """Graph of each node, [N]."""
        return self.derived.node_graph

    @property
    def kept_pairs(self) -> Tensor:
        """Numbers of the pairs that :meth:`prune` keeps, [P']."""
        return self.derived.kept

    @property
    def level_plan(self) -> LevelPlan:
        """Pairs by the level of their next edge; worked out once (with one synchronisation on a GPU)."""
        return self.derived.level_plan((self.reversed, self.pruned))

    def chunk_plan(self, size: int) -> ChunkPlan:
        """Division into chunks of at most ``size`` edges; once (with a few synchronisations on a GPU)."""
        return self.derived.chunk_plan((self.reversed, self.pruned), size)

    def plan(self, classes: int = EVERY) -> Plan:
        """Tables for kernels, as the edges point; both reading directions share them. See :class:`Plan`.

        Args:
            classes: graphs beyond this many size classes count as large; by default none does.
        """
        return self.derived.plan(self.pruned, classes)

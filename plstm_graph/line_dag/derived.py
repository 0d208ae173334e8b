"""Derived: tables worked out from the topology of a line graph, on request and once, for all who read it."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, wraps
from typing import Any, NamedTuple, TypedDict, TypeVar, Unpack

import torch
from torch import Tensor

from plstm_graph.line_dag.chunks import ChunkPlan, make_chunk_plan
from plstm_graph.line_dag.origin import Origin
from plstm_graph.line_dag.pairs import LevelPlan, level_plan, owners, untraced
from plstm_graph.line_dag.plan import Node, Plan, make_plan, with_large
from plstm_graph.line_dag.prune import multitree_pairs
from plstm_graph.line_dag.topology import Levels, Topology, first_columns, meetings

Value = TypeVar("Value")
Key = TypeVar("Key", bound=Hashable)


View = tuple[bool, bool]
"""Name of one of the four readings of a line graph: reversed, pruned."""


class Average(NamedTuple):
    """Columns to average for each edge: ``column`` adds to ``edge``, [any]; ``total`` of them, [E]."""

    column: Tensor
    edge: Tensor
    total: Tensor


class Known(TypedDict, total=False):
    """Parts of :class:`Derived` that may be known from elsewhere, by their names there."""

    levels: Levels
    classes: tuple[int, ...]
    kept: Tensor
    pruned_pairs: tuple[Tensor, Tensor]
    edge_ids: tuple[Tensor, Tensor]
    averages: tuple[Average, Average]
    degree: Tensor
    node_graph: Tensor
    edge_graph: Tensor
    tables: dict[bool, Plan]


@contextmanager
def to_keep() -> Iterator[None]:
    """Guard the making of what outlives a call: no tensors of inference mode, which could not serve training, nor
    such as torch.func wraps, which no loop over edges could read."""
    with torch.inference_mode(False), torch._C._DisableFuncTorch():
        yield


def _with_numbers(like: Tensor) -> AbstractContextManager[Any]:
    """Guard what outlives a call of torch.export, too, whose tensors hold nothing: lift its tracing, unless ``like`` is
    such a tensor itself and what is made of it a part of the program. What lifts it is slow to import."""
    if not torch._C._len_torch_dispatch_stack():
        return nullcontext()
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.utils._python_dispatch import _disable_current_modes

    return nullcontext() if isinstance(like, FakeTensor) else _disable_current_modes()


@contextmanager
def _unrecorded() -> Iterator[None]:
    """Lift torch.jit.trace: it records what is read of a line graph, not how that was made."""
    trace = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(trace)  # type: ignore[attr-defined]


@untraced
@to_keep()
@_unrecorded()
def _made(like: Tensor, compute: Callable[..., Value], *of: Any) -> Value:
    with _with_numbers(like):
        return compute(*of)


def once(compute: Callable[[Any], Value]) -> "cached_property[Value]":
    """A property of :class:`Derived` that is worked out when it is first asked for, and kept."""
    return cached_property(wraps(compute)(lambda self: _made(self.topology.src, compute, self)))


class Derived:
    """Parts that follow from a topology. They are added, never changed, and hold tensors, never a LineDAG: a reference
    cycle would keep a GPU's memory alive until the garbage collector runs.

    Where a part differs from reading to reading, it is kept by :data:`View` or by ``pruned``. In twos, along
    comes first, then against: ``reversed`` is the place.

    Attributes:
        topology: as the edges point, not pruned.
        origin: what that has been found to be the line graph of.
        tables: plans in which no graph counts as large, by ``pruned``.
    """

    def __init__(self, topology: Topology, **known: Unpack[Known]) -> None:
        self.topology, self.origin = topology, Origin()
        self.tables: dict[bool, Plan] = {}
        self._lines: dict[View, Topology] = {}
        self._plans: dict[tuple[bool, int], Plan] = {}
        self._level_plans: dict[View, LevelPlan] = {}
        self._chunk_plans: dict[tuple[View, int], ChunkPlan] = {}
        vars(self).update(known)

    # ------------------------------------------------------------------ readings

    def lines(self, view: View) -> Topology:
        """The topology as it is read."""
        found = self._lines.get(view)  # at once, for layers ask often
        return self._read(view) if found is None else found

    def _read(self, view: View) -> Topology:
        return self._kept_by(self._lines, view, lambda: self._turned(*view))

    def _kept_by(self, memo: dict[Key, Value], key: Key, compute: Callable[[], Value]) -> Value:
        """Look an entry up that is worked out when it is first asked for, and kept."""
        if key not in memo:
            memo[key] = _made(self.topology.src, compute)
        return memo[key]

    def _turned(self, reversed: bool, pruned: bool) -> Topology:
        plain = self.topology
        prev, next = self.pruned_pairs if pruned else (plain.prev, plain.next)
        if not reversed:
            return plain._replace(prev=prev, next=next)
        return plain._replace(src=plain.dst, dst=plain.src, prev=next, next=prev, column_along=self._against)

    @property
    def views(self) -> set[View]:
        """Readings that are there already."""
        return set(self._lines)

    def knows(self, part: str) -> bool:
        """Tell whether a part has been worked out."""
        return part in vars(self)

    @once
    def _against(self) -> Tensor:
        return ~self.topology.column_along

    @once
    def levels(self) -> Levels:
        """Levels as the edges point; found on the host, where they are not known: most kernels need none."""
        return Levels.find(self.topology)

    @once
    def levels_against(self) -> Levels:
        """The same levels from the other end."""
        return self.levels._replace(level=self.levels.total - 1 - self.levels.level)

    def levels_of(self, reversed: bool) -> Levels:
        """Levels as they are read."""
        return self.levels_against if reversed else self.levels

    @once
    def kept(self) -> Tensor:
        """Numbers of the pairs that pruning keeps, [P']."""
        prev, next, edge_ptr = (x.tolist() for x in (self.topology.prev, self.topology.next, self.topology.edge_ptr))
        kept = torch.tensor(multitree_pairs(prev, next, edge_ptr), dtype=torch.bool, device="cpu")
        return torch.nonzero(kept).view(-1).to(self.topology.src.device)

    @once
    def pruned_pairs(self) -> tuple[Tensor, Tensor]:
        """Prev and next of these."""
        return self.topology.prev[self.kept], self.topology.next[self.kept]

    # ------------------------------------------------------------------ columns of the caller

    @once
    def edge_ids(self) -> tuple[Tensor, Tensor]:
        """First column that runs along (against) each edge, else the first of all, [E] each."""
        return first_columns(self.topology)

    @once
    def averages(self) -> tuple[Average, Average]:
        """Columns to average for each edge: those that run along (against) it, or all where none does."""
        return self._average(self.topology.column_along), self._average(~self.topology.column_along)

    def _average(self, wanted: Tensor) -> Average:
        column, edges = self.topology.column, self.topology.src.numel()
        proper = column >= 0
        served = torch.zeros(edges + 1, dtype=torch.bool, device=column.device)
        served[column[proper & wanted]] = True
        chosen = torch.nonzero(proper & (wanted | ~served[column])).view(-1)
        return Average(chosen, column[chosen], torch.bincount(column[chosen], minlength=edges))

    # ------------------------------------------------------------------ nodes and graphs

    @once
    def degree(self) -> Tensor:
        """Edges that touch each node, [N]."""
        for plan in self.tables.values():  # counting waits for a GPU, adding does not
            return (plan.nodes[Node.ARRIVE] + plan.nodes[Node.LEAVE]).long()
        return torch.bincount(torch.cat([self.topology.src, self.topology.dst]), minlength=self.topology.num_nodes)

    @once
    def node_graph(self) -> Tensor:
        """Graph of each node, [N]."""
        return owners(self.topology.graph_ptr, self.topology.num_nodes)

    @once
    def edge_graph(self) -> Tensor:
        """Graph of each edge, [E]."""
        return owners(self.topology.edge_ptr, self.topology.src.numel())

    # ------------------------------------------------------------------ plans

    def level_plan(self, view: View) -> LevelPlan:
        """Pairs by the level of their next edge (with one synchronisation on a GPU)."""
        lines, levels = self.lines(view), self.levels_of(view[0])
        return self._kept_by(
            self._level_plans, view, lambda: level_plan(levels.level, lines.prev, lines.next, levels.total)
        )

    def chunk_plan(self, view: View, size: int) -> ChunkPlan:
        """Division of the line graph into chunks of at most ``size`` edges (with a few synchronisations on a GPU)."""
        lines, levels = self.lines(view), self.levels_of(view[0])
        return self._kept_by(
            self._chunk_plans, (view, size), lambda: make_chunk_plan(lines, levels, self.edge_graph, size)
        )

    def table(self, pruned: bool) -> Plan:
        """Tables for kernels, no graph counted as large."""
        return self._kept_by(self.tables, pruned, lambda: self._table(pruned))

    def _table(self, pruned: bool) -> Plan:
        lines = self.lines((False, pruned))
        return make_plan(lines, meetings(lines), self.edge_ids, vars(self).get("classes"))

    def plan(self, pruned: bool, classes: int) -> Plan:
        """Tables for kernels; graphs beyond so many size classes count as large."""
        found = self._plans.get((pruned, classes))
        if found is None:
            table = self.table(pruned)
            found = self._kept_by(
                self._plans, (pruned, classes), lambda: with_large(table, lambda: self.levels, classes)
            )
        return found

    # ------------------------------------------------------------------ copies

    def bare(self) -> "Derived":
        """Copy the topology with its tables, and without whatever else has been worked out."""
        given = {name: value for name, value in vars(self).items() if name in ("kept", "edge_ids", "tables")}
        return Derived(self.topology, **given)

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Derived":
        """Copy with other tensors in place of all that are here, each changed once however often it is here."""
        done: dict[int, Tensor] = {}

        def each(value: Any) -> Any:
            if isinstance(value, Tensor):
                if id(value) not in done:
                    done[id(value)] = change(value)
                return done[id(value)]
            if isinstance(value, dict):
                return {key: each(part) for key, part in value.items()}
            if isinstance(value, Plan):  # the host keeps what it knows
                return Plan(*map(each, value))._replace(host=value.host)
            if isinstance(value, tuple):
                parts = map(each, value)
                return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
            return value

        rest = {name: part for name, part in vars(self).items() if name not in ("topology", "origin")}
        other = Derived(each(self.topology))
        vars(other).update(each(rest))
        return other

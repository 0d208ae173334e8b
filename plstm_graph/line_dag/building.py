"""Build a line graph by sorts, sums and look-ups, on whatever device its edges are, and ask that for sizes once.

Sizes depend on the data. So until the host knows them, arrays are as long as they may get: a place for each column of
``edge_index`` and one more for edges, one for each node for graphs. What lies beyond the true size is cut off.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from plstm_graph.errors import BackendUnavailable
from plstm_graph.line_dag import by_kernels
from plstm_graph.line_dag.derived import Known
from plstm_graph.line_dag.pairs import Groups, Meetings, check_pairs, grouped, owners
from plstm_graph.line_dag.plan import Host, Sized, class_table, make_plan
from plstm_graph.line_dag.topology import Topology, first_columns, meetings
from plstm_graph.orient import (
    ON_THE_HOST,
    check_batch,
    check_range,
    in_order,
    inverse,
    pieces,
    rank_nodes,
    span_of,
    whole_columns,
)


class _Edges(NamedTuple):
    """Edges in order. Nodes are told by their places, 0 to N-1; a place N stands for what is no edge.

    Attributes:
        ends: the nodes that each edge leaves and arrives at, [2, M + 1].
        before, last: edges that leave and that arrive at the nodes before each, and up to it, [2, N + 1].
        pairs, pairs_before: pairs that enter each edge, and the edges before it, [M + 1].
        column: edge of each column of ``edge_index``, but of self-loops, [M].
        loop, along: whether a column is a self-loop, and whether it runs along its edge, [M].
        repeated: columns that say the same as another before them, [1].
    """

    ends: Tensor
    before: Tensor
    last: Tensor
    pairs: Tensor
    pairs_before: Tensor
    column: Tensor
    loop: Tensor
    along: Tensor
    repeated: Tensor


class _Sizes(NamedTuple):
    """What the host has to know: lowest and highest node number, columns that are repeated and self-loops; nodes, edges
    and pairs in all and of the graphs that have most, graphs; for tables sizes by class, row by row of ``Plan.host``.
    """

    low: int
    high: int
    repeated: int
    loops: int
    nodes: int
    edges: int
    pairs: int
    max_nodes: int
    max_edges: int
    max_pairs: int
    graphs: int
    classes: tuple[int, ...]


def build(
    edge_index: Tensor,
    num_nodes: int | None,
    order: str | Tensor = "index",
    batch: Tensor | None = None,
    seed: int = 0,
    *,
    tables: bool | None = None,
) -> tuple[Topology, Known]:
    """Orient a graph and take its line graph; arguments as for :meth:`LineDAG.from_edge_index`.

    Waits for a GPU once, and a few times more with ``batch``, without ``num_nodes`` or for orders found on the host.
    There the order of the numbers takes kernels of its own, see :mod:`plstm_graph.line_dag.by_kernels`.

    Args:
        tables: make those for kernels as well, for which much is there already; by default on a GPU.

    Returns:
        The topology on the device of ``edge_index``, and what else is known by then.
    """
    columns = whole_columns(edge_index)
    check_range(0, -1, num_nodes or 0)
    if columns.is_cuda and torch.cuda.is_current_stream_capturing():
        raise BackendUnavailable(
            "a line graph cannot be built while a CUDA graph is captured, since its sizes depend on the edges; build "
            "it before, dag = LineDAG.from_edge_index(...).prepare(), and pass dag=dag"
        )
    if columns.is_cuda and isinstance(order, str) and order == "index" and num_nodes is not None and tables is None:
        graph = None if batch is None else batch.detach().to(columns.device)
        found = by_kernels.build(columns, num_nodes, graph, _with_tables)
        if found is not None:
            return found
    return by_operations(columns, num_nodes, order, batch, seed, columns.is_cuda if tables is None else tables)


def _with_tables(columns: Tensor, num_nodes: int, batch: Tensor | None) -> tuple[Topology, Known]:
    return by_operations(columns, num_nodes, "index", batch, 0, True)


def by_operations(
    columns: Tensor, num_nodes: int | None, order: str | Tensor, batch: Tensor | None, seed: int, tables: bool
) -> tuple[Topology, Known]:
    """The same by torch's operations, on any device. ``columns``: int64, [2, M]."""
    span = span_of(columns)
    by_host = isinstance(order, str) and order in ON_THE_HOST
    if num_nodes is None or by_host or not columns.is_cuda:  # else it is asked for with the rest
        low, high = span.tolist()
        num_nodes = high + 1 if num_nodes is None else num_nodes
        check_range(low, high, num_nodes)
    ends = columns.clamp(0, max(num_nodes - 1, 0))  # lest anything be written elsewhere before the host can tell
    graph = node_at = None
    # Without a batch no graph is empty, so that there are no more of them than nodes.
    places = num_nodes
    if batch is not None:
        graph = batch.detach().to(columns.device)
        places = check_batch(graph, ends, span, num_nodes)
    if not (isinstance(order, str) and order == "index"):  # by index, nodes stand in order already
        graph = pieces(ends, num_nodes) if graph is None else graph
        node_at = in_order(rank_nodes(ends, graph, order, seed), graph)
        ends = inverse(node_at)[ends]
    edges = _in_order(ends, num_nodes)
    if graph is None:
        closed = edges.last[0, :num_nodes] == edges.last[1, :num_nodes]
        graph = closed.cumsum(0) - closed.long()
    node_ptr = torch.searchsorted(graph, torch.arange(places + 1, device=graph.device))
    edge_ptr = edges.before[0].index_select(0, node_ptr)
    ptr = torch.stack([node_ptr, edge_ptr, edges.pairs_before.index_select(0, edge_ptr)])
    sizes = _ask(span, edges, ptr, graph, tables)
    check_range(sizes.low, sizes.high, num_nodes)
    return _cut(edges, ptr, sizes, num_nodes, node_at, tables)


def _cut(
    edges: _Edges, ptr: Tensor, sizes: _Sizes, num_nodes: int, node_at: Tensor | None, tables: bool
) -> tuple[Topology, Known]:
    """All in its true size, with the pairs, and nodes by their numbers."""
    count = sizes.edges
    src, dst = (end[:count].clone() for end in edges.ends)  # each in memory of its own, see data/packed.py
    check_pairs(sizes.pairs, src, dst, node_at)
    arriving = Groups(edges.before[1], torch.sort(dst, stable=True).indices)
    entering = Groups(edges.pairs_before[: count + 1], torch.arange(sizes.pairs, device=src.device))
    next = owners(edges.pairs_before[: count + 1], sizes.pairs)
    shift = arriving.ptr.index_select(0, src) - entering.ptr[:-1]
    prev = arriving.members.index_select(0, entering.members + shift.index_select(0, next))
    if node_at is not None:
        src, dst = node_at[src], node_at[dst]
    topology = Topology(
        *(src, dst, prev, next),
        column=edges.column.masked_fill_(edges.loop, -1) if sizes.loops else edges.column,
        column_along=edges.along,
        graph_ptr=ptr[0, : sizes.graphs + 1].clone(),
        edge_ptr=ptr[1, : sizes.graphs + 1].clone(),
        num_nodes=num_nodes,
        max_nodes=sizes.max_nodes,
        max_edges=sizes.max_edges,
        merged=sizes.repeated > max(sizes.loops - 1, 0),
    )
    known: Known = {}
    if tables:
        known["classes"] = sizes.classes
        if node_at is None:
            leaving = Groups(edges.before[0], torch.arange(count, device=src.device))
            met = Meetings(leaving, arriving, entering, grouped(prev, count))
        else:
            met = meetings(topology)
        known["tables"] = {False: make_plan(topology, met, first_columns(topology), sizes.classes)}
    return topology, known


def _in_order(ends: Tensor, num_nodes: int) -> _Edges:
    """Edges from the columns of ``edge_index``, by the places of their nodes [2, M]."""
    size, none = ends.size(1), (num_nodes + 1) ** 2 - 1
    low, high = torch.minimum(*ends), torch.maximum(*ends)  # not torch.aminmax: see pairs.owners
    along, loop = ends[0] < ends[1], low == high
    place = torch.add(high, low, alpha=num_nodes + 1).masked_fill_(loop, none)
    # Columns along an edge, then those against it; the last run are self-loops.
    place, by_place = torch.sort(torch.sub(2 * place + 1, along.long()), stable=True)
    repeated = (place[1:] == place[:-1]).sum(0, keepdim=True)
    place >>= 1
    starts = torch.zeros_like(place, dtype=torch.bool)
    torch.ne(place[1:], place[:-1], out=starts[1:])
    number = starts.cumsum(0)
    of_edge = place.new_full((size + 1,), none).scatter_(0, number, place)
    edge = torch.stack([of_edge // (num_nodes + 1), of_edge % (num_nodes + 1)])
    count = edge.new_zeros(2, num_nodes + 1).scatter_add_(1, edge, torch.ones_like(edge))
    last, pairs = count.cumsum(1), count[1].index_select(0, edge[0])
    return _Edges(
        ends=edge,
        before=last - count,
        last=last,
        pairs=pairs,
        pairs_before=pairs.cumsum(0) - pairs,
        column=torch.empty_like(number).scatter_(0, by_place, number),
        loop=loop,
        along=along,
        repeated=repeated,
    )


def _ask(span: Tensor, edges: _Edges, ptr: Tensor, graph: Tensor, tables: bool) -> _Sizes:
    """All sizes at once, by class for ``tables`` alone. ``ptr``: first node, edge and pair of each graph, and at the
    end how many there are."""
    within = ptr.diff(dim=1)
    most = within.amax(1) if within.size(1) else ptr[:, 0]
    known = [span, edges.repeated, edges.loop.sum(0, keepdim=True), ptr[:, -1], most, graph[-1:] + 1]
    table = class_table(Sized.of(within[0], within[1])).view(-1) if tables else span[:0]
    found = torch.cat([*known, table]).tolist()
    split = len(found) - table.numel()
    few, classes = found[:split], found[split:]
    if not graph.numel():
        few.append(0)
    if tables:
        classes[Host.GRAPHS] -= within.size(1) - few[-1]  # places of no graph count as graphs of the first class
    return _Sizes._make([*few, tuple(classes)])

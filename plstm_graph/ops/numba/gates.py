"""The four gates from their linear terms, and back: blocks of rows in parallel. No atomics.

Every sum runs over one node's or one edge's own list, in the order of the list: gates and the gradients of the terms
do not change with the batch around a graph. The gradient of the bias is summed block by block, in order. Nothing
changes with the number of threads.
"""

import numpy as np
import torch
from numba import prange
from torch import Tensor

from plstm_graph.gates import LEAK, SATURATED, SOURCE_SLOPE, EdgeTerm, Gate, NodeTerm
from plstm_graph.line_dag.plan import Edge, Node, Pair, Plan
from plstm_graph.ops.flat import GATES, GRADIENTS, Setting, places, unfold
from plstm_graph.ops.numba.activations import sigmoid, tanh
from plstm_graph.ops.numba.lanes import LANES, add_row, get, load, plus, put, store
from plstm_graph.ops.numba.runtime import arrays, flat, parallel, part, torch_threads

ROWS = 64
"""Nodes, or edges, of a block."""
FULL = 64
"""Numbers are activated so many at a time, none left over: all of them take the same instructions."""
NODE_TERMS, EDGE_TERMS, BIASES = len(NodeTerm), len(EdgeTerm), len(Gate)

# Terms are chunks of H columns, in the orders of NodeTerm and EdgeTerm; rows of the bias and of its gradient have that
# of Gate. ``terms`` are node terms, edge terms and bias, flat, with ``strides`` from row to row; ``tables`` as in
# ``_tables``; a ``block`` is its first row and how many there are. Arrays that come with a place begin there.


@part
def _sum_terms(raw, at, terms, src, dst, bias, heads):  # type: ignore[no-untyped-def]
    """``raw = src + dst + bias``, each H numbers: of node terms and of the bias from these places on."""
    node_terms, _, biases = terms
    full = heads - heads % LANES
    for h in range(0, full, LANES):
        both = plus(load(node_terms, src + h), load(node_terms, dst + h))
        store(raw, at + h, plus(both, load(biases, bias + h)))
    for h in range(full, heads):
        put(raw, at + h, get(node_terms, src + h) + get(node_terms, dst + h) + get(biases, bias + h))


@part
def _cut(x, low, high):  # type: ignore[no-untyped-def]
    """``x`` from ``low`` to ``high``; a NaN stays one."""
    return high if x > high else (low if x < low else x)


@part
def _room(numbers, like):  # type: ignore[no-untyped-def]
    """Zeros for so many numbers, rounded up to whole groups of ``FULL``."""
    return np.zeros(-(-numbers // FULL) * FULL, like.dtype)


@part
def _direct_gates(block, terms, strides, direct, heads):  # type: ignore[no-untyped-def]
    """Direct gates of some nodes."""
    first, count = block
    node_terms, _, biases = terms
    raw = _room(count * heads, direct)
    for row in range(count):
        at, bias = (first + row) * strides[0] + NodeTerm.DIRECT * heads, Gate.DIRECT * heads
        for h in range(heads):
            put(raw, row * heads + h, get(node_terms, at + h) + get(biases, bias + h))
    for i in range(raw.shape[0]):
        raw[i] = sigmoid(raw[i])
    for i in range(count * heads):
        put(direct, first * heads + i, raw[i])


@part
def _edge_gates(block, terms, strides, tables, gates, as_prev, saturating, heads):  # type: ignore[no-untyped-def]
    """Source and mark of some edges, and their part ``as_prev`` in the transitions that leave them."""
    first, count = block
    edge_terms, (stride, edge_stride) = terms[1], strides
    (tail, joint), column, _ = tables
    source, _, mark, _ = gates
    room = count * heads
    raw = _room(2 * room, source)  # sources, then marks
    one = source.dtype.type(1)
    for row in range(count):
        at, edge = row * heads, first + row
        src, dst = tail[edge] * stride, joint[edge] * stride
        ends = src + NodeTerm.SOURCE_SRC * heads, dst + NodeTerm.SOURCE_DST * heads
        _sum_terms(raw, at, terms, *ends, Gate.SOURCE * heads, heads)
        ends = src + NodeTerm.MARK_SRC * heads, dst + NodeTerm.MARK_DST * heads
        _sum_terms(raw, room + at, terms, *ends, Gate.MARK * heads, heads)
        ends = src + NodeTerm.TAIL * heads, dst + NodeTerm.JOINT * heads
        _sum_terms(as_prev, at, terms, *ends, Gate.TRANSITION * heads, heads)
        if edge_stride > 0:
            place = column[edge] * edge_stride
            add_row(raw, at, one, edge_terms, place + EdgeTerm.SOURCE * heads, heads)
            add_row(raw, room + at, one, edge_terms, place + EdgeTerm.MARK * heads, heads)
            add_row(as_prev, at, one, edge_terms, place + EdgeTerm.AS_PREV * heads, heads)
    if saturating:
        half, slope = source.dtype.type(0.5), source.dtype.type(SOURCE_SLOPE)
        for i in range(room):
            put(source, first * heads + i, _cut(slope * get(raw, i) + half, source.dtype.type(0), one))
    for i in range(raw.shape[0]):
        raw[i] = sigmoid(raw[i])
    for i in range(room):
        if not saturating:
            put(source, first * heads + i, get(raw, i))
        put(mark, first * heads + i, get(raw, room + i))


@part
def _transitions(block, terms, strides, tables, as_prev, transition, total, saturating, heads):  # type: ignore[no-untyped-def]
    """Transitions of the pairs whose prev some edges are, normalised if there is room for their totals."""
    first, count = block
    node_terms, edge_terms, _ = terms
    stride, edge_stride = strides
    (_, joint), column, (first_exiting, exiting, exit, exit_next) = tables
    begin, last = first_exiting[first], first + count - 1
    places = first_exiting[last] + exiting[last] - begin
    raw = _room(places * heads, transition)
    one = transition.dtype.type(1)
    for row in range(count):
        edge = first + row
        for j in range(first_exiting[edge], first_exiting[edge] + exiting[edge]):
            at, other = (j - begin) * heads, exit_next[j]
            add_row(raw, at, one, as_prev, row * heads, heads)
            add_row(raw, at, one, node_terms, joint[other] * stride + NodeTerm.HEAD * heads, heads)
            if edge_stride > 0:
                add_row(raw, at, one, edge_terms, column[other] * edge_stride + EdgeTerm.AS_NEXT * heads, heads)
    if saturating:
        for i in range(raw.shape[0]):
            raw[i] = _cut(raw[i], -one, one)
    else:
        for i in range(raw.shape[0]):
            raw[i] = tanh(raw[i])
    if total.shape[0] > 0:
        for edge in range(first, first + count):
            _normalize(edge, first_exiting[edge] - begin, exiting[edge], raw, total, heads)
    for i in range(places):
        for h in range(heads):
            put(transition, exit[begin + i] * heads + h, get(raw, i * heads + h))


@part
def _normalize(edge, at, count, raw, total, heads):  # type: ignore[no-untyped-def]
    """Divide the transitions of one prev by their total where that is more than 1."""
    for h in range(heads):
        put(total, edge * heads + h, total.dtype.type(0))
    for i in range(at, at + count):
        for h in range(heads):
            put(total, edge * heads + h, get(total, edge * heads + h) + abs(get(raw, i * heads + h)))
    one = total.dtype.type(1)
    for i in range(at, at + count):
        for h in range(heads):
            put(raw, i * heads + h, get(raw, i * heads + h) / _at_least_one(get(total, edge * heads + h), one))


@part
def _at_least_one(total, one):  # type: ignore[no-untyped-def]
    """Like ``clamp(min=1)``: a NaN stays one. ``one`` in the dtype of ``total``, for with 1 all would be float64."""
    return one if total < one else total


@parallel
def _forward(terms, strides, tables, gates, total, saturating, sizes):  # type: ignore[no-untyped-def]
    """Let each block take the nodes and the edges of the same numbers."""
    nodes, edges, heads = sizes
    ends, column, exits = tables  # a parallel loop takes tuples of arrays, but not of tuples
    for number in prange(-(-max(nodes, edges) // ROWS)):
        first = number * ROWS
        some_nodes, some_edges = min(ROWS, nodes - first), min(ROWS, edges - first)
        if some_nodes > 0:
            _direct_gates((first, some_nodes), terms, strides, gates[3], heads)
        if some_edges > 0:
            as_prev = np.empty(some_edges * heads, gates[0].dtype)
            given = (first, some_edges), terms, strides, (ends, column, exits)
            _edge_gates(*given, gates, as_prev, saturating, heads)
            _transitions(*given, as_prev, gates[1], total, saturating, heads)


@part
def _through_sigmoid(gate, grad, at, into, place, heads):  # type: ignore[no-untyped-def]
    """Gradient before the sigmoid of one row."""
    one = gate.dtype.type(1)
    for h in range(heads):
        value = get(gate, at + h)
        put(into, place + h, get(grad, at + h) * value * (one - value))


@part
def _through_source(gate, grad, at, into, place, saturating, heads):  # type: ignore[no-untyped-def]
    """Gradient before the activation of one row of sources."""
    if saturating:
        one, saturated = gate.dtype.type(1), gate.dtype.type(SATURATED)
        slope, leak = gate.dtype.type(SOURCE_SLOPE), gate.dtype.type(SOURCE_SLOPE * LEAK)
        for h in range(heads):
            value = get(gate, at + h)
            put(into, place + h, get(grad, at + h) * (slope if abs(value + value - one) < saturated else leak))
    else:
        _through_sigmoid(gate, grad, at, into, place, heads)


@part
def _through_transition(edge, exits, pairs, into, place, shared, saturating, heads):  # type: ignore[no-untyped-def]
    """``d_raw`` of the pairs whose prev an edge is, and their sum. ``shared`` is room for H numbers."""
    transition, total, d_transition, d_raw = pairs
    first_exiting, exiting, exit, _ = exits
    first, last = first_exiting[edge], first_exiting[edge] + exiting[edge]
    zero, one = into.dtype.type(0), into.dtype.type(1)
    saturated, leak = into.dtype.type(SATURATED), into.dtype.type(LEAK)
    for h in range(heads):
        put(into, place + h, zero)
        put(shared, h, zero)
    normalized = total.shape[0] > 0
    if normalized:
        for j in range(first, last):
            at = exit[j] * heads
            for h in range(heads):
                put(shared, h, get(shared, h) + get(transition, at + h) * get(d_transition, at + h))
        for h in range(heads):
            if get(total, edge * heads + h) < one:  # clamp passes the gradient from 1 on
                put(shared, h, zero)
    for j in range(first, last):
        at = exit[j] * heads
        for h in range(heads):
            divisor = _at_least_one(get(total, edge * heads + h), one) if normalized else one
            gate = get(transition, at + h) * divisor
            sign = one if gate > zero else (-one if gate < zero else zero)
            found = (get(d_transition, at + h) - sign * get(shared, h)) / divisor
            slope = (one if abs(gate) < saturated else leak) if saturating else one - gate * gate
            found = slope * found
            put(d_raw, at + h, found)
            put(into, place + h, get(into, place + h) + found)


@parallel
def _backward_edges(gates, total, d_gates, tables, d_raw, d_edge, saturating, sizes):  # type: ignore[no-untyped-def]
    """``d_raw`` [P * H] before the activation, and all chunks but the last of ``d_edge``."""
    _, edges, heads = sizes
    source, transition, mark, _ = gates
    d_source, d_transition, d_mark, _ = d_gates
    column, exits = tables
    pairs = transition, total, d_transition, d_raw
    for block in prange(-(-edges // ROWS)):
        shared = np.empty(heads, d_raw.dtype)
        for edge in range(block * ROWS, min((block + 1) * ROWS, edges)):
            at, place = edge * heads, column[edge] * EDGE_TERMS * heads
            _through_source(source, d_source, at, d_edge, place + EdgeTerm.SOURCE * heads, saturating, heads)
            _through_sigmoid(mark, d_mark, at, d_edge, place + EdgeTerm.MARK * heads, heads)
            _through_transition(edge, exits, pairs, d_edge, place + EdgeTerm.AS_PREV * heads, shared, saturating, heads)


@part
def _add_edge(d_joined, row, d_edge, place, dst, heads):  # type: ignore[no-untyped-def]
    """Add what an edge passes on to its src or, with ``dst`` 1, to its dst."""
    one = d_joined.dtype.type(1)
    add_row(d_joined, row + (NodeTerm.SOURCE_SRC + dst) * heads, one, d_edge, place + EdgeTerm.SOURCE * heads, heads)
    add_row(d_joined, row + (NodeTerm.MARK_SRC + dst) * heads, one, d_edge, place + EdgeTerm.MARK * heads, heads)
    add_row(d_joined, row + (NodeTerm.TAIL + dst) * heads, one, d_edge, place + EdgeTerm.AS_PREV * heads, heads)


@part
def _add_bias(sums, at, d_joined, row, heads):  # type: ignore[no-untyped-def]
    """Add a node's part of the gradient of the bias: each edge has one src."""
    one = d_joined.dtype.type(1)
    add_row(sums, at + Gate.SOURCE * heads, one, d_joined, row + NodeTerm.SOURCE_SRC * heads, heads)
    add_row(sums, at + Gate.TRANSITION * heads, one, d_joined, row + NodeTerm.TAIL * heads, heads)
    add_row(sums, at + Gate.MARK * heads, one, d_joined, row + NodeTerm.MARK_SRC * heads, heads)
    add_row(sums, at + Gate.DIRECT * heads, one, d_joined, row + NodeTerm.DIRECT * heads, heads)


@parallel
def _backward_nodes(gates, d_gates, tables, rows, columns, sizes):  # type: ignore[no-untyped-def]
    """The node terms of ``d_joined``, the last chunk of ``d_edge`` (an edge has one dst), the gradient of the bias and
    the sum of the columns before the node terms."""
    nodes, _, heads = sizes
    direct, d_direct = gates[3], d_gates[3]
    column, (first_entering, entering, enter), stars = tables
    first_arriving, arriving, by_dst, first_leaving, leaving, by_src = stars
    d_raw, d_edge, d_joined, sums, found = rows
    one = d_joined.dtype.type(1)
    biases = BIASES * heads
    room = biases + columns
    for block in prange(-(-nodes // ROWS)):
        for node in range(block * ROWS, min((block + 1) * ROWS, nodes)):
            row = node * (columns + NODE_TERMS * heads) + columns
            for i in range(first_leaving[node], first_leaving[node] + leaving[node]):
                _add_edge(d_joined, row, d_edge, column[by_src[i]] * EDGE_TERMS * heads, 0, heads)
            for i in range(first_arriving[node], first_arriving[node] + arriving[node]):
                edge = by_dst[i]
                place = column[edge] * EDGE_TERMS * heads
                as_next = place + EdgeTerm.AS_NEXT * heads
                for h in range(heads):
                    put(d_edge, as_next + h, d_edge.dtype.type(0))
                for j in range(first_entering[edge], first_entering[edge] + entering[edge]):
                    add_row(d_edge, as_next, one, d_raw, enter[j] * heads, heads)
                _add_edge(d_joined, row, d_edge, place, 1, heads)
                add_row(d_joined, row + NodeTerm.HEAD * heads, one, d_edge, as_next, heads)
            _through_sigmoid(direct, d_direct, node * heads, d_joined, row + NodeTerm.DIRECT * heads, heads)
            _add_bias(sums, block * room, d_joined, row, heads)
            add_row(sums, block * room + biases, one, d_joined, row - columns, columns)
    for block in range(-(-nodes // ROWS)):
        add_row(found, 0, one, sums, block * room, room)


def forward_gates(node_terms: Tensor, edge_terms: Tensor | None, bias: Tensor, plan: Plan, setting: Setting) -> Tensor:
    """Do as :func:`plstm_graph.ops.triton.gates.forward_gates`."""
    given = [node_terms, bias] if edge_terms is None else [node_terms, bias, edge_terms]
    wide = torch.float64 if any(x.dtype == torch.float64 for x in given) else torch.float32
    heads, sizes = setting.heads, (plan.nodes.size(1), plan.edges.size(1), setting.heads)
    rows = [_rows(x, wide) for x in (node_terms, edge_terms) if x is not None]
    strides = rows[0].stride(0), rows[1].stride(0) if len(rows) > 1 else 0
    terms = arrays([flat(rows[0]), flat(rows[-1]), bias.detach().to(wide).view(-1)])
    gates = node_terms.new_empty(places(plan, heads)[GATES], dtype=wide)
    tables = _tables(plan, setting.reversed, setting.gathered or edge_terms is None)[:3]
    four, total = _split(gates, plan, setting)
    with torch_threads():
        _forward(terms, strides, tables, four, total, setting.transition == "saturating", sizes)
    return gates


def backward_gates(
    gates: Tensor,
    d_gates: Tensor,
    plan: Plan,
    setting: Setting,
    d_joined: Tensor,
    d_edge: Tensor | None,
    parts: Tensor,
) -> tuple[Tensor, Tensor]:
    """Do as :func:`plstm_graph.ops.triton.gates.backward_gates`."""
    nodes, edges, pairs = plan.nodes.size(1), plan.edges.size(1), plan.pairs.size(1)
    heads, saturating = setting.heads, setting.transition == "saturating"
    by_node = d_joined.to(gates.dtype)
    by_node[:, -NODE_TERMS * heads :] = 0
    by_edge = gates.new_empty(edges, EDGE_TERMS * heads) if d_edge is None else d_edge.to(gates.dtype)
    columns = d_joined.size(1) - NODE_TERMS * heads
    room = BIASES * heads + columns
    found, sums = gates.new_zeros(room), gates.new_zeros(-(-nodes // ROWS), room)
    _, column, exits, enters, stars = _tables(plan, setting.reversed, setting.gathered or d_edge is None)
    (four, total), (d_four, _) = (_split(x, plan, setting) for x in (gates, d_gates))
    d_raw = d_gates[places(plan, heads)[GRADIENTS - 1] :][: pairs * heads]
    rows = arrays(x.view(-1) for x in (d_raw, by_edge, by_node, sums, found))
    sizes = (nodes, edges, heads)
    with torch_threads():
        _backward_edges(four, total, d_four, (column, exits), *rows[:2], saturating, sizes)
        _backward_nodes(four, d_four, (column, enters, stars), rows, columns, sizes)
    for given, wide in ((d_joined, by_node), (d_edge, by_edge)):
        if given is not None and given is not wide:
            given.copy_(wide)
    return found, parts.sum(0)


def _split(gates: Tensor, plan: Plan, setting: Setting) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """The four gates, or their gradients, and the totals of P mode, [numbers] each."""
    parts, behind = unfold(gates, plan, setting.heads)
    *four, total = arrays(x.view(-1) for x in (*parts, behind))
    return tuple(four), total if setting.mode == "P" else total[:0]


def _rows(terms: Tensor, wide: torch.dtype) -> Tensor:
    """Terms in the dtype of the gates whose columns stand side by side; the rows may lie apart, as in a slice."""
    terms = terms.detach().to(wide)
    return terms if terms.stride(1) == 1 else terms.contiguous()


def _tables(plan: Plan, reversed: bool, gathered: bool) -> tuple[tuple[np.ndarray, ...], ...]:
    """End points; row of the edge terms of each edge; first place, number and lists of the pairs that exit, and of
    those that enter; first place, number and list of the edges that arrive, and of those that leave."""
    nodes, edges, pairs = plan.nodes.numpy(), plan.edges.numpy(), plan.pairs.numpy()
    ends = (edges[Edge.SRC], edges[Edge.DST])
    enter = (*edges[Edge.ENTERING : Edge.ENTER + 1], *pairs[Pair.BY_NEXT : Pair.BY_NEXT_PREV + 1])
    exit = (*edges[Edge.EXITING : Edge.EXIT + 1], *pairs[Pair.BY_PREV : Pair.BY_PREV_NEXT + 1])
    arrive = (nodes[Node.ARRIVING], nodes[Node.ARRIVE], edges[Edge.BY_DST])
    leave = (nodes[Node.LEAVING], nodes[Node.LEAVE], edges[Edge.BY_SRC])
    column = edges[Edge.AGAINST if reversed else Edge.ALONG]
    if gathered:
        column = np.arange(edges.shape[1], dtype=np.int32)
    if reversed:
        ends, enter, exit, arrive, leave = ends[::-1], exit, enter, leave, arrive
    return ends, column, exit, enter[:3], (*arrive, *leave)

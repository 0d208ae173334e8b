"""The four gates from their linear terms, and back: blocks of rows in parallel. No atomics.

Every sum runs over one node's or one edge's own list, in the order of the list: gates and the gradients of the terms
do not change with the batch around a graph. The gradient of the bias is summed block by block, in order. Nothing
changes with the number of threads.
"""

import numpy as np
import torch
from numba import prange
from torch import Tensor

from plstm_graph.gates import LEAK, SATURATED, SOURCE_SLOPE
from plstm_graph.line_dag.plan import Edge, Node, Pair, Plan
from plstm_graph.ops.flat import GATES, GRADIENTS, places, unfold
from plstm_graph.ops.numba.activations import sigmoid, tanh
from plstm_graph.ops.numba.lanes import LANES, add_row, get, load, plus, put, store
from plstm_graph.ops.numba.runtime import arrays, flat, parallel, part, torch_threads

ROWS = 64
"""Nodes, or edges, of a block."""
FULL = 64
"""Numbers are activated so many at a time, none left over: all of them take the same instructions."""

# Chunks of H columns. Node terms: source as src 0 and dst 1, mark as src 2 and dst 3, transition as tail 4, joint 5 and
# head 6, direct 7. Edge terms: source 0, mark 1, transition as prev 2 and as next 3. Bias and its gradient: source 0,
# transition 1, mark 2, direct 3. Terms are flat, with a stride from row to row; gates and tables as in ``_tables``.


@part
def _sum_terms(raw, at, a, at_a, b, at_b, bias, at_bias, heads):  # type: ignore[no-untyped-def]
    """``raw = a + b + bias``, each H numbers."""
    full = heads - heads % LANES
    for h in range(0, full, LANES):
        store(raw, at + h, plus(plus(load(a, at_a + h), load(b, at_b + h)), load(bias, at_bias + h)))
    for h in range(full, heads):
        put(raw, at + h, get(a, at_a + h) + get(b, at_b + h) + get(bias, at_bias + h))


@part
def _cut(x, low, high):  # type: ignore[no-untyped-def]
    """``x`` from ``low`` to ``high``; a NaN stays one."""
    return high if x > high else (low if x < low else x)


@part
def _room(numbers, like):  # type: ignore[no-untyped-def]
    """Zeros for so many numbers, rounded up to whole groups of ``FULL``."""
    return np.zeros(-(-numbers // FULL) * FULL, like.dtype)


@part
def _direct_gates(first, count, node_terms, stride, bias, direct, heads):  # type: ignore[no-untyped-def]
    """Direct gates of some nodes."""
    raw = _room(count * heads, direct)
    for row in range(count):
        for h in range(heads):
            put(
                raw, row * heads + h, get(node_terms, (first + row) * stride + 7 * heads + h) + get(bias, 3 * heads + h)
            )
    for i in range(raw.shape[0]):
        raw[i] = sigmoid(raw[i])
    for i in range(count * heads):
        put(direct, first * heads + i, raw[i])


@part
def _edge_gates(first, count, terms, strides, bias, ends, column, source, mark, as_prev, saturating, heads):  # type: ignore[no-untyped-def]
    """Source and mark of some edges, and their part ``as_prev`` in the transitions that leave them."""
    node_terms, edge_terms = terms
    stride, edge_stride = strides
    tail, joint = ends
    room = count * heads
    raw = _room(2 * room, source)  # sources, then marks
    one = source.dtype.type(1)
    for row in range(count):
        at, edge = row * heads, first + row
        src, dst = tail[edge] * stride, joint[edge] * stride
        _sum_terms(raw, at, node_terms, src, node_terms, dst + heads, bias, 0, heads)
        _sum_terms(raw, room + at, node_terms, src + 2 * heads, node_terms, dst + 3 * heads, bias, 2 * heads, heads)
        _sum_terms(as_prev, at, node_terms, src + 4 * heads, node_terms, dst + 5 * heads, bias, heads, heads)
        if edge_stride > 0:
            place = column[edge] * edge_stride
            add_row(raw, at, one, edge_terms, place, heads)
            add_row(raw, room + at, one, edge_terms, place + heads, heads)
            add_row(as_prev, at, one, edge_terms, place + 2 * heads, heads)
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
def _transitions(first, count, terms, strides, ends, column, exits, as_prev, transition, total, saturating, heads):  # type: ignore[no-untyped-def]
    """Transitions of the pairs whose prev some edges are, normalised if there is room for their totals."""
    node_terms, edge_terms = terms
    stride, edge_stride = strides
    joint = ends[1]
    first_exiting, exiting, exit, exit_next = exits
    begin, last = first_exiting[first], first + count - 1
    places = first_exiting[last] + exiting[last] - begin
    raw = _room(places * heads, transition)
    one = transition.dtype.type(1)
    for row in range(count):
        edge = first + row
        for j in range(first_exiting[edge], first_exiting[edge] + exiting[edge]):
            at, other = (j - begin) * heads, exit_next[j]
            add_row(raw, at, one, as_prev, row * heads, heads)
            add_row(raw, at, one, node_terms, joint[other] * stride + 6 * heads, heads)
            if edge_stride > 0:
                add_row(raw, at, one, edge_terms, column[other] * edge_stride + 3 * heads, heads)
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
def _forward(terms, strides, bias, ends, column, exits, gates, total, saturating, sizes):  # type: ignore[no-untyped-def]
    """Each block takes the nodes and the edges of the same numbers."""
    nodes, edges, heads = sizes
    source, transition, mark, direct = gates
    for block in prange(-(-max(nodes, edges) // ROWS)):
        first = block * ROWS
        some_nodes, some_edges = min(ROWS, nodes - first), min(ROWS, edges - first)
        if some_nodes > 0:
            _direct_gates(first, some_nodes, terms[0], strides[0], bias, direct, heads)
        if some_edges > 0:
            as_prev = np.empty(some_edges * heads, source.dtype)
            place = first, some_edges, terms, strides
            _edge_gates(*place, bias, ends, column, source, mark, as_prev, saturating, heads)
            _transitions(*place, ends, column, exits, as_prev, transition, total, saturating, heads)


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
def _through_transition(edge, exits, transition, total, d_transition, d_raw, into, place, shared, saturating, heads):  # type: ignore[no-untyped-def]
    """``d_raw`` of the pairs whose prev an edge is, and their sum. ``shared`` is room for H numbers."""
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
def _backward_edges(gates, total, d_gates, column, exits, d_raw, d_edge, saturating, sizes):  # type: ignore[no-untyped-def]
    """``d_raw`` [P * H] before the activation, and chunks 0 to 2 of ``d_edge``."""
    _, edges, heads = sizes
    source, transition, mark, _ = gates
    d_source, d_transition, d_mark, _ = d_gates
    for block in prange(-(-edges // ROWS)):
        shared = np.empty(heads, d_raw.dtype)
        for edge in range(block * ROWS, min((block + 1) * ROWS, edges)):
            place = column[edge] * 4 * heads
            _through_source(source, d_source, edge * heads, d_edge, place, saturating, heads)
            _through_sigmoid(mark, d_mark, edge * heads, d_edge, place + heads, heads)
            place += 2 * heads
            given = edge, exits, transition, total, d_transition
            _through_transition(*given, d_raw, d_edge, place, shared, saturating, heads)


@parallel
def _backward_nodes(gates, d_gates, column, enters, stars, d_raw, d_edge, d_joined, sums, found, columns, sizes):  # type: ignore[no-untyped-def]
    """The node terms of ``d_joined``, chunk 3 of ``d_edge`` (an edge has one dst), the gradient of the bias (and one
    src) and the sum of the columns before the node terms."""
    nodes, _, heads = sizes
    direct, d_direct = gates[3], d_gates[3]
    first_entering, entering, enter = enters
    first_arriving, arriving, by_dst, first_leaving, leaving, by_src = stars
    one = d_joined.dtype.type(1)
    room = 4 * heads + columns
    for block in prange(-(-nodes // ROWS)):
        for node in range(block * ROWS, min((block + 1) * ROWS, nodes)):
            row = node * (columns + 8 * heads) + columns
            for i in range(first_leaving[node], first_leaving[node] + leaving[node]):
                place = column[by_src[i]] * 4 * heads
                for chunk in range(3):
                    add_row(d_joined, row + 2 * chunk * heads, one, d_edge, place + chunk * heads, heads)
            for i in range(first_arriving[node], first_arriving[node] + arriving[node]):
                edge = by_dst[i]
                place = column[edge] * 4 * heads
                for h in range(heads):
                    put(d_edge, place + 3 * heads + h, d_edge.dtype.type(0))
                for j in range(first_entering[edge], first_entering[edge] + entering[edge]):
                    add_row(d_edge, place + 3 * heads, one, d_raw, enter[j] * heads, heads)
                for chunk in range(3):
                    add_row(d_joined, row + (2 * chunk + 1) * heads, one, d_edge, place + chunk * heads, heads)
                add_row(d_joined, row + 6 * heads, one, d_edge, place + 3 * heads, heads)
            _through_sigmoid(direct, d_direct, node * heads, d_joined, row + 7 * heads, heads)
            add_row(sums, block * room, one, d_joined, row, heads)
            add_row(sums, block * room + heads, one, d_joined, row + 4 * heads, heads)
            add_row(sums, block * room + 2 * heads, one, d_joined, row + 2 * heads, heads)
            add_row(sums, block * room + 3 * heads, one, d_joined, row + 7 * heads, heads)
            add_row(sums, block * room + 4 * heads, one, d_joined, row - columns, columns)
    for block in range(-(-nodes // ROWS)):
        add_row(found, 0, one, sums, block * room, room)


def forward_gates(
    node_terms: Tensor,
    edge_terms: Tensor | None,
    bias: Tensor,
    plan: Plan,
    mode: str,
    transition: str,
    reversed: bool,
    gathered: bool = False,
) -> Tensor:
    """As :func:`plstm_graph.ops.triton.gates.forward_gates`."""
    given = [node_terms, bias] if edge_terms is None else [node_terms, bias, edge_terms]
    wide = torch.float64 if any(x.dtype == torch.float64 for x in given) else torch.float32
    heads, sizes = bias.size(1), (plan.nodes.size(1), plan.edges.size(1), bias.size(1))
    rows = [_rows(x, wide) for x in (node_terms, edge_terms) if x is not None]
    strides = rows[0].stride(0), rows[1].stride(0) if len(rows) > 1 else 0
    terms = arrays(flat(x) for x in (rows[0], rows[-1]))
    gates = node_terms.new_empty(places(plan, heads)[GATES], dtype=wide)
    ends, column, exits, _, _ = _tables(plan, reversed, gathered or edge_terms is None)
    (flat_bias,) = arrays([bias.detach().to(wide).view(-1)])
    four, total = _split(gates, plan, mode, heads)
    with torch_threads():
        _forward(terms, strides, flat_bias, ends, column, exits, four, total, transition == "saturating", sizes)
    return gates


def backward_gates(
    gates: Tensor,
    d_gates: Tensor,
    heads: int,
    plan: Plan,
    mode: str,
    transition: str,
    reversed: bool,
    d_joined: Tensor,
    d_edge: Tensor | None,
    gathered: bool,
    parts: Tensor,
) -> tuple[Tensor, Tensor]:
    """As :func:`plstm_graph.ops.triton.gates.backward_gates`."""
    nodes, edges, pairs = plan.nodes.size(1), plan.edges.size(1), plan.pairs.size(1)
    by_node = d_joined.to(gates.dtype)
    by_node[:, -8 * heads :] = 0
    by_edge = gates.new_empty(edges, 4 * heads) if d_edge is None else d_edge.to(gates.dtype)
    columns = d_joined.size(1) - 8 * heads
    found, sums = gates.new_zeros(4 * heads + columns), gates.new_zeros(-(-nodes // ROWS), 4 * heads + columns)
    _, column, exits, enters, stars = _tables(plan, reversed, gathered or d_edge is None)
    (four, total), (d_four, _) = (_split(x, plan, mode, heads) for x in (gates, d_gates))
    d_raw = d_gates[places(plan, heads)[GRADIENTS - 1] :][: pairs * heads]
    rest = arrays(x.view(-1) for x in (d_raw, by_edge, by_node, sums, found))
    sizes = (nodes, edges, heads)
    with torch_threads():
        _backward_edges(four, total, d_four, column, exits, *rest[:2], transition == "saturating", sizes)
        _backward_nodes(four, d_four, column, enters, stars, *rest, columns, sizes)
    for given, wide in ((d_joined, by_node), (d_edge, by_edge)):
        if given is not None and given is not wide:
            given.copy_(wide)
    return found, parts.sum(0)


def _split(gates: Tensor, plan: Plan, mode: str, heads: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """The four gates, or their gradients, and the totals of P mode, [numbers] each."""
    parts, behind = unfold(gates, plan, heads)
    *four, total = arrays(x.view(-1) for x in (*parts, behind))
    return tuple(four), total if mode == "P" else total[:0]


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

"""The operator: one graph and head per work item, whose states stay in cache.

Queries, keys and values are rows of flat arrays: each an array of its own, or all three in one projection. States are
flat rows of K * V numbers. Rows of ``LANES`` numbers run through SIMD registers, others number by number.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import prange
from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.line_dag.plan import Edge, Graph, Pair, Plan
from plstm_graph.ops.flat import GRADIENTS, Norm, Setting, places, unfold
from plstm_graph.ops.numba.lanes import (
    LANES,
    add,
    add_row,
    get,
    inner,
    load,
    multiply,
    plus,
    put,
    scale,
    spread,
    store,
    total,
    totals,
)
from plstm_graph.ops.numba.norm import backward_norm, forward_norm
from plstm_graph.ops.numba.runtime import arrays, flat, parallel, part, torch_threads

# ``vectors`` are query, key and value, flat; ``strides`` from node to node and from head to head of each; ``sizes`` H,
# K and V. ``gates``, ``d_vectors`` and ``d_gates`` likewise. ``tables`` as in ``_tables``.
# Rows are given by an array and where they begin in it: views of their own would be counted, which costs as much as a
# row. ``left`` has K numbers, ``right`` V, a state K * V. What does not fill a register runs number by number.


@part
def _fill(states, at, factor, left, at_left, right, at_right, keys, width):  # type: ignore[no-untyped-def]
    """``state = factor * left ⊗ right``"""
    full = width - width % LANES
    for v in range(0, full, LANES):
        lanes = load(right, at_right + v)
        for k in range(keys):
            store(states, at + k * width + v, scale(factor * get(left, at_left + k), lanes))
    for v in range(full, width):
        number = get(right, at_right + v)
        for k in range(keys):
            put(states, at + k * width + v, factor * get(left, at_left + k) * number)


@part
def _add_and_inner(adjoints, at, weight, other, states, size):  # type: ignore[no-untyped-def]
    """``adjoint += weight * adjoints[other]``; returns ``adjoints[other] · state``."""
    full = size - size % (2 * LANES)
    even = odd = spread(states.dtype.type(0))  # two sums, since each addition waits for the one before
    for i in range(0, full, 2 * LANES):
        a, b = load(adjoints, other + i), load(adjoints, other + i + LANES)
        even, odd = multiply(even, a, load(states, at + i)), multiply(odd, b, load(states, at + i + LANES))
        store(adjoints, at + i, add(load(adjoints, at + i), weight, a))
        store(adjoints, at + i + LANES, add(load(adjoints, at + i + LANES), weight, b))
    found = total(even) + total(odd)
    for i in range(full, size):
        number = get(adjoints, other + i)
        found += number * get(states, at + i)
        put(adjoints, at + i, get(adjoints, at + i) + weight * number)
    return found


@part
def _read(right, at_right, factor, left, at_left, states, at, keys, width):  # type: ignore[no-untyped-def]
    """``right += factor * left · state``"""
    full = width - width % LANES
    for v in range(0, full, LANES):
        lanes = load(right, at_right + v)
        for k in range(keys):
            lanes = add(lanes, factor * get(left, at_left + k), load(states, at + k * width + v))
        store(right, at_right + v, lanes)
    for v in range(full, width):
        number = get(right, at_right + v)
        for k in range(keys):
            number += factor * get(left, at_left + k) * get(states, at + k * width + v)
        put(right, at_right + v, number)


@part
def _read_back(d_left, left, at_left, factor, state, row, seen, sizes):  # type: ignore[no-untyped-def]
    """``seen = state · right``, then ``d_left += factor * seen``; returns ``left · seen``. ``state`` and ``row``, which
    is right, are arrays and where they begin."""
    (states, at), (right, at_right), (_, keys, width) = state, row, sizes
    full, full_keys = width - width % LANES, keys - keys % LANES
    for k in range(0, full_keys, LANES):
        lanes = spread(right.dtype.type(0))
        for v in range(0, full, LANES):
            lanes = plus(lanes, totals(states, at + k * width + v, width, load(right, at_right + v)))
        store(seen, k, lanes)
        for i in range(k, k + LANES):
            for v in range(full, width):
                put(seen, i, get(seen, i) + get(states, at + i * width + v) * get(right, at_right + v))
    for k in range(full_keys, keys):
        put(seen, k, inner(states, at + k * width, right, at_right, width))
    add_row(d_left, at_left, factor, seen, 0, keys)
    return inner(left, at_left, seen, 0, keys)


@part
def _carry(edge, head, first, vectors, strides, sizes, gates, lines, states):  # type: ignore[no-untyped-def]
    """State of one edge into its row of ``states`` [edges of the graph * K * V]."""
    _, keys, width = sizes
    _, key, value = vectors
    _, _, key_node, key_head, value_node, value_head = strides
    source, transition, _, _ = gates
    src, _, first_entering, entering, enter, enter_prev, _, _, _, _ = lines
    at_key, at_value = src[edge] * key_node + head * key_head, src[edge] * value_node + head * value_head
    size = keys * width
    at = (edge - first) * size
    _fill(states, at, source[edge, head], key, at_key, value, at_value, keys, width)
    for j in range(first_entering[edge], first_entering[edge] + entering[edge]):
        add_row(states, at, transition[enter[j], head], states, (enter_prev[j] - first) * size, size)


@parallel
def _forward(vectors, strides, sizes, gates, tables, output):  # type: ignore[no-untyped-def]
    """Fill ``output`` [N * H * V]. Edges of a reversed line graph run down."""
    heads, keys, width = sizes
    lines, graphs, step = tables
    query, key, value = vectors
    query_node, query_head, key_node, key_head, value_node, value_head = strides
    _, _, mark, direct = gates
    dst = lines[1]
    first_node, nodes, first_edge, edges = graphs
    size = keys * width
    for item in prange(nodes.shape[0] * heads):
        graph, head = item // heads, item % heads
        for node in range(first_node[graph], first_node[graph] + nodes[graph]):
            at_query, at_key = node * query_node + head * query_head, node * key_node + head * key_head
            at_value = node * value_node + head * value_head
            score = direct[node, head] * inner(query, at_query, key, at_key, keys)
            for v in range(width):
                output[(node * heads + head) * width + v] = score * value[at_value + v]
        first, count = first_edge[graph], edges[graph]
        states = np.empty(count * size, value.dtype)
        for i in range(count):
            edge = first + (i if step > 0 else count - 1 - i)
            _carry(edge, head, first, vectors, strides, sizes, gates, lines, states)
            at, at_query = (dst[edge] * heads + head) * width, dst[edge] * query_node + head * query_head
            _read(output, at, mark[edge, head], query, at_query, states, (edge - first) * size, keys, width)


@parallel
def _backward(vectors, strides, sizes, gates, tables, grad, d_vectors, d_gates):  # type: ignore[no-untyped-def]
    """Fill the seven gradients. States are computed again (in cache), then their adjoints against the order."""
    heads, keys, width = sizes
    lines, graphs, step = tables
    query, key, value = vectors
    query_node, query_head, key_node, key_head, value_node, value_head = strides
    source, transition, mark, direct = gates
    d_query, d_key, d_value = d_vectors
    d_source, d_transition, d_mark, d_direct = d_gates
    src, dst, _, _, _, _, first_exiting, exiting, exit, exit_next = lines
    first_node, nodes, first_edge, edges = graphs
    size = keys * width
    for item in prange(nodes.shape[0] * heads):
        graph, head = item // heads, item % heads
        for node in range(first_node[graph], first_node[graph] + nodes[graph]):
            at_query, at_key = node * query_node + head * query_head, node * key_node + head * key_head
            at_value, at_grad = node * value_node + head * value_head, (node * heads + head) * width
            score = inner(query, at_query, key, at_key, keys)
            wanted = inner(grad, at_grad, value, at_value, width)
            d_direct[node, head] = score * wanted
            score *= direct[node, head]
            wanted *= direct[node, head]
            for v in range(width):
                d_value[at_value + v] = score * grad[at_grad + v]
            for k in range(keys):
                d_query[at_query + k] = wanted * key[at_key + k]
                d_key[at_key + k] = wanted * query[at_query + k]
        first, count = first_edge[graph], edges[graph]
        states = np.empty(count * size, value.dtype)
        for i in range(count):
            edge = first + (i if step > 0 else count - 1 - i)
            _carry(edge, head, first, vectors, strides, sizes, gates, lines, states)
        adjoints = np.empty(count * size, value.dtype)
        seen = np.empty(keys, value.dtype)
        for i in range(count):
            number = count - 1 - i if step > 0 else i
            edge, at = first + number, number * size
            node, gate = dst[edge], mark[edge, head]
            at_query, at_grad = node * query_node + head * query_head, (node * heads + head) * width
            row = grad, at_grad
            d_mark[edge, head] = _read_back(d_query, query, at_query, gate, (states, at), row, seen, sizes)
            _fill(adjoints, at, gate, query, at_query, grad, at_grad, keys, width)
            for j in range(first_exiting[edge], first_exiting[edge] + exiting[edge]):
                pair, other = exit[j], (exit_next[j] - first) * size
                d_transition[pair, head] = _add_and_inner(adjoints, at, transition[pair, head], other, states, size)
            node, gate = src[edge], source[edge, head]
            at_key, at_value = node * key_node + head * key_head, node * value_node + head * value_head
            _read(d_value, at_value, gate, key, at_key, adjoints, at, keys, width)
            row = value, at_value
            d_source[edge, head] = _read_back(d_key, key, at_key, gate, (adjoints, at), row, seen, sizes)


class Vectors(NamedTuple):
    """Queries and keys [N, H, K] and values [N, H, V], or tensors shaped alike, wherever they lie.

    Attributes:
        rows: flat arrays that each begin with its first number.
        strides: from node to node and from head to head of each; the last dimension is contiguous.
        sizes: H, K and V.
    """

    rows: tuple[np.ndarray, ...]
    strides: tuple[int, ...]
    sizes: tuple[int, int, int]

    @classmethod
    def apart(cls, query: Tensor, key: Tensor, value: Tensor) -> "Vectors":
        """Three tensors."""
        strides = (*query.stride()[:2], *key.stride()[:2], *value.stride()[:2])
        rows = arrays(flat(x) for x in (query, key, value))
        return cls(rows, strides, (value.size(1), key.size(2), value.size(2)))

    @classmethod
    def together(cls, joined: Tensor, heads: int, keys: int, values: int) -> "Vectors":
        """Side by side for each head at the beginning of contiguous rows, [N, H * (2 * K + V) + ...]."""
        (joint,) = arrays([joined.view(-1)])
        rows = (joint, joint[keys:], joint[2 * keys :])
        return cls(rows, 3 * (joined.size(1), 2 * keys + values), (heads, keys, values))


def forward(query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool) -> tuple[Tensor, None]:
    """See :class:`plstm_graph.ops.compiled.Compiled`."""
    output = value.new_empty(value.shape)
    _run_forward(Vectors.apart(*map(_rows, (query, key, value))), gates, plan, reversed, output)
    return output, None


def backward(
    query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool, grad: Tensor, call: None
) -> tuple[Tensor, ...]:
    """All seven gradients in one sweep, strided as their inputs."""
    given = query, key, value
    inputs = [_rows(x) for x in given]
    found = [x.new_empty_strided(x.shape, x.stride()) for x in inputs]
    d_gates = Gates(*(torch.empty_like(gate) for gate in gates))
    _run_backward(Vectors.apart(*inputs), gates, plan, reversed, grad, Vectors.apart(*found), d_gates)
    for i, (x, row) in enumerate(zip(given, inputs, strict=True)):
        if row is not x:
            found[i] = x.new_empty_strided(x.shape, x.stride()).copy_(found[i])
    return (*found, *d_gates)


class Call(NamedTuple):
    """Things that the steps of a layer share: H, K, V, the plan, and whether it is read against the edges."""

    heads: int
    keys: int
    values: int
    plan: Plan
    reversed: bool


def walk_along(gates: Tensor, values: int, plan: Plan, setting: Setting) -> Call:
    """Do nothing yet: one loop does all of the forward pass, and one all of the backward pass."""
    return Call(setting.heads, setting.keys, values, plan, setting.reversed)


def attend(call: Call, joined: Tensor, lin_bias: Tensor | None, gates: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Output [N, H, V], in the dtype of ``joined``, and what the norm makes of it. Adds ``lin_bias`` to ``joined``."""
    heads, keys, values, plan, reversed = call
    if lin_bias is not None:
        joined[:, : lin_bias.numel()] += lin_bias
    wide = joined.to(gates.dtype)
    output = wide.new_empty(joined.size(0), heads, values)
    vectors = Vectors.together(wide, heads, keys, values)
    _run_forward(vectors, unfold(gates, plan, heads)[0], plan, reversed, output)
    y = output.to(joined.dtype)
    return y, forward_norm(y, norm)


def attend_back(
    call: Call, joined: Tensor, lin_bias: Tensor | None, gates: Tensor, y: Tensor, grad: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``joined`` but for the nodes' terms, of the gates, and of the norm as :func:`backward_norm` gives
    them. ``lin_bias`` is in ``joined`` already."""
    heads, keys, values, plan, reversed = call
    d_y, parts = backward_norm(grad, y, norm)
    wide = joined.to(gates.dtype)
    d_joined = torch.empty_like(wide)
    d_gates = gates.new_empty(places(plan, heads)[GRADIENTS])
    vectors, d_vectors = (Vectors.together(x, heads, keys, values) for x in (wide, d_joined))
    four, d_four = (unfold(x, plan, heads)[0] for x in (gates, d_gates))
    _run_backward(vectors, four, plan, reversed, d_y.to(gates.dtype), d_vectors, d_four)
    return d_joined.to(joined.dtype), d_gates, parts


def walk_back(call: Call, gates: Tensor, d_gates: Tensor) -> None:
    """Do nothing: all is done."""


def _run_forward(vectors: Vectors, gates: Gates, plan: Plan, reversed: bool, output: Tensor) -> None:
    with torch_threads():
        _forward(*vectors, arrays(gates), _tables(plan, reversed), output.view(-1).numpy())


def _run_backward(
    vectors: Vectors, gates: Gates, plan: Plan, reversed: bool, grad: Tensor, d_vectors: Vectors, d_gates: Gates
) -> None:
    tables = _tables(plan, reversed)
    with torch_threads():
        _backward(*vectors, arrays(gates), tables, grad.detach().view(-1).numpy(), d_vectors.rows, arrays(d_gates))


def _rows(x: Tensor) -> Tensor:
    """[N, H, K] whose last dimension is contiguous."""
    return x if x.stride(2) == 1 or x.size(2) == 1 else x.contiguous()


def _tables(plan: Plan, reversed: bool) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], int]:
    """``lines``: end points, then first place, number, list and far ends of the pairs that enter and that exit;
    ``graphs``: first node and nodes, first edge and edges; ``step``: 1, or -1 where edges run down."""
    graphs, edges, pairs = plan.graphs.numpy(), plan.edges.numpy(), plan.pairs.numpy()
    ends = edges[Edge.SRC], edges[Edge.DST]
    enter = *edges[Edge.ENTERING : Edge.ENTER + 1], *pairs[Pair.BY_NEXT : Pair.BY_NEXT_PREV + 1]
    exit = *edges[Edge.EXITING : Edge.EXIT + 1], *pairs[Pair.BY_PREV : Pair.BY_PREV_NEXT + 1]
    lines = (*ends[::-1], *exit, *enter) if reversed else (*ends, *enter, *exit)
    return lines, tuple(graphs[: Graph.EDGES + 1]), -1 if reversed else 1

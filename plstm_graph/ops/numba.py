"""Compiled loops on the CPU: one graph and head per work item, whose states stay in cache. No atomics.

Imported on first use only: numba is an extra, and compiling takes seconds (once per machine, kept on disk).
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from plstm_graph.gates import Gates
from plstm_graph.plan import Edge, Graph, Pair, Plan

# ``inputs`` are query, key, value and the four gates, ``gradients`` theirs; ``lines`` and ``graphs`` as in ``_tables``.
# A ``row`` is an edge counted within its graph. Sums may be reordered for SIMD and products fused into them.
_compile = njit(parallel=True, cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
_inline = njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy", inline="always")

_pool: int | None = None  # the process that has started numba's threads
_turn = threading.Lock()


@_inline
def _carry(edge, head, first, inputs, lines, state):  # type: ignore[no-untyped-def]
    """State of one edge into its row of ``state`` [edges of the graph, K * V]: flat, since long loops are fast ones."""
    _, key, value, source, transition, _, _ = inputs
    src, _, first_entering, entering, enter, enter_prev, _, _, _, _ = lines
    node, row, gate, width = src[edge], edge - first, source[edge, head], value.shape[2]
    for k in range(key.shape[2]):
        fed = gate * key[node, head, k]
        for v in range(width):
            state[row, k * width + v] = fed * value[node, head, v]
    for i in range(first_entering[edge], first_entering[edge] + entering[edge]):
        weight, other = transition[enter[i], head], enter_prev[i] - first
        for at in range(state.shape[1]):
            state[row, at] += weight * state[other, at]


@_compile
def _forward(inputs, lines, graphs, step, output):  # type: ignore[no-untyped-def]
    """Fill ``output`` [N, H, V]. ``step`` is 1, or -1 on a reversed line graph, whose edges run down."""
    query, key, value, _, _, mark, direct = inputs
    dst = lines[1]
    heads, width = value.shape[1], value.shape[2]
    first_node, nodes, first_edge, edges = graphs
    for item in prange(nodes.shape[0] * heads):
        graph, head = item // heads, item % heads
        for node in range(first_node[graph], first_node[graph] + nodes[graph]):
            score = value.dtype.type(0)
            for k in range(key.shape[2]):
                score += query[node, head, k] * key[node, head, k]
            for v in range(width):
                output[node, head, v] = direct[node, head] * score * value[node, head, v]
        first, count = first_edge[graph], edges[graph]
        state = np.empty((count, key.shape[2] * width), value.dtype)
        for i in range(count):
            edge = first + (i if step > 0 else count - 1 - i)
            _carry(edge, head, first, inputs, lines, state)
            node, row = dst[edge], edge - first
            for k in range(key.shape[2]):
                read = mark[edge, head] * query[node, head, k]
                for v in range(width):
                    output[node, head, v] += read * state[row, k * width + v]


@_compile
def _backward(inputs, lines, graphs, step, grad, gradients):  # type: ignore[no-untyped-def]
    """Fill the seven gradients. States are computed again (in cache), then their adjoints against the order."""
    query, key, value, source, transition, mark, direct = inputs
    d_query, d_key, d_value, d_source, d_transition, d_mark, d_direct = gradients
    src, dst, _, _, _, _, first_exiting, exiting, exit, exit_next = lines
    heads, keys, width = value.shape[1], key.shape[2], value.shape[2]
    first_node, nodes, first_edge, edges = graphs
    for item in prange(nodes.shape[0] * heads):
        graph, head = item // heads, item % heads
        for node in range(first_node[graph], first_node[graph] + nodes[graph]):
            score, inner = value.dtype.type(0), value.dtype.type(0)
            for k in range(keys):
                score += query[node, head, k] * key[node, head, k]
            for v in range(width):
                inner += grad[node, head, v] * value[node, head, v]
                d_value[node, head, v] = direct[node, head] * score * grad[node, head, v]
            d_direct[node, head] = score * inner
            for k in range(keys):
                d_query[node, head, k] = direct[node, head] * inner * key[node, head, k]
                d_key[node, head, k] = direct[node, head] * inner * query[node, head, k]
        first, count = first_edge[graph], edges[graph]
        state = np.empty((count, keys * width), value.dtype)
        adjoint = np.empty((count, keys * width), value.dtype)
        for i in range(count):
            edge = first + (i if step > 0 else count - 1 - i)
            _carry(edge, head, first, inputs, lines, state)
        for i in range(count):
            edge = first + (count - 1 - i if step > 0 else i)
            row, tail, node = edge - first, src[edge], dst[edge]
            gate, read = source[edge, head], mark[edge, head]
            d_mark_e = value.dtype.type(0)
            for k in range(keys):
                seen, asked = value.dtype.type(0), read * query[node, head, k]
                for v in range(width):
                    seen += state[row, k * width + v] * grad[node, head, v]
                    adjoint[row, k * width + v] = asked * grad[node, head, v]
                d_query[node, head, k] += read * seen
                d_mark_e += query[node, head, k] * seen
            d_mark[edge, head] = d_mark_e
            for j in range(first_exiting[edge], first_exiting[edge] + exiting[edge]):
                pair = exit[j]
                weight, other = transition[pair, head], exit_next[j] - first
                inner = value.dtype.type(0)
                for at in range(keys * width):
                    inner += adjoint[other, at] * state[row, at]
                    adjoint[row, at] += weight * adjoint[other, at]
                d_transition[pair, head] = inner
            d_source_e = value.dtype.type(0)
            for k in range(keys):
                seen = value.dtype.type(0)
                fed = gate * key[tail, head, k]
                for v in range(width):
                    seen += adjoint[row, k * width + v] * value[tail, head, v]
                    d_value[tail, head, v] += fed * adjoint[row, k * width + v]
                d_key[tail, head, k] += gate * seen
                d_source_e += key[tail, head, k] * seen
            d_source[edge, head] = d_source_e


def forward(query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool) -> tuple[Tensor, None]:
    """See :class:`plstm_graph.ops.compiled.Compiled`."""
    output = torch.empty(value.shape, dtype=value.dtype)
    with _torch_threads():
        _forward(_numpy((query, key, value, *gates)), *_tables(plan, reversed), output.numpy())
    return output, None


def backward(
    query: Tensor, key: Tensor, value: Tensor, gates: Gates, plan: Plan, reversed: bool, grad: Tensor, call: None
) -> tuple[Tensor, ...]:
    """All seven gradients in one sweep."""
    inputs = (query, key, value, *gates)
    gradients = tuple(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype) for x in inputs)
    with _torch_threads():
        _backward(_numpy(inputs), *_tables(plan, reversed), grad.detach().numpy(), _numpy(gradients))
    return gradients


def _numpy(tensors: Iterable[Tensor]) -> tuple[np.ndarray, ...]:
    return tuple((x.detach() if x.requires_grad else x).numpy() for x in tensors)


def _tables(plan: Plan, reversed: bool) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], int]:
    """``lines``: end points, then first place, number, list and far ends of the pairs that enter and that exit;
    ``graphs``: first node and nodes, first edge and edges; ``step``."""
    graphs, edges, pairs = plan.graphs.numpy(), plan.edges.numpy(), plan.pairs.numpy()
    ends = edges[Edge.SRC], edges[Edge.DST]
    enter = *edges[Edge.ENTERING : Edge.ENTER + 1], *pairs[Pair.BY_NEXT : Pair.BY_NEXT_PREV + 1]
    exit = *edges[Edge.EXITING : Edge.EXIT + 1], *pairs[Pair.BY_PREV : Pair.BY_PREV_NEXT + 1]
    lines = (*ends[::-1], *exit, *enter) if reversed else (*ends, *enter, *exit)
    return lines, tuple(graphs[: Graph.EDGES + 1]), -1 if reversed else 1


def runs_here(device: torch.device) -> str | None:
    """Why the loops cannot run for tensors on ``device`` in this process, or None."""
    if device.type != "cpu":
        return f"numba's loops are for the CPU, the tensors are on {device}"
    if _pool not in (None, os.getpid()):
        return "numba ran before this process was forked, and its threads did not come along; start processes by spawn"
    return None


@contextmanager
def _torch_threads() -> Iterator[None]:
    """As many threads as torch may use, so that one setting rules both.

    Numba's own pool, which it takes where there is neither OpenMP nor TBB, ends the process if two threads launch at
    once: there they take turns.
    """
    global _pool
    with _turn:
        _pool = os.getpid()
        threads = torch.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # starts the pool, which says what it is
        if torch.get_num_threads() != threads:  # numba starts it by setting OpenMP's threads, which are torch's too
            torch.set_num_threads(threads)
    with _turn if numba.threading_layer() == "workqueue" else nullcontext():
        yield

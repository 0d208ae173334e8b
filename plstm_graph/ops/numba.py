"""Compiled loops on the CPU: one graph and head per work item, whose states stay in cache. No atomics.

Imported on first use only: numba is an extra, and compiling takes seconds (once per machine, kept on disk).
"""

import os
from collections.abc import Iterable
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from plstm_graph.gates import Gates
from plstm_graph.line_dag import LineDAG

# ``inputs`` are query, key, value and the four gates, ``gradients`` theirs, ``lines`` as in ``_lines``. A ``row`` is an
# edge counted within its graph. Sums may be reordered for SIMD and products fused into them.
_compile = njit(parallel=True, cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
_inline = njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy", inline="always")

_pool: int | None = None  # the process that has started numba's threads


@_inline
def _carry(edge, head, first, inputs, lines, state):  # type: ignore[no-untyped-def]
    """State of one edge into its row of ``state`` [edges of the graph, K, V]."""
    _, key, value, source, transition, _, _ = inputs
    src, _, prev, _, arrive_ptr, arrive, _, _ = lines
    node, row, gate = src[edge], edge - first, source[edge, head]
    for k in range(key.shape[2]):
        fed = gate * key[node, head, k]
        for v in range(value.shape[2]):
            state[row, k, v] = fed * value[node, head, v]
    for i in range(arrive_ptr[edge], arrive_ptr[edge + 1]):
        weight, other = transition[arrive[i], head], prev[arrive[i]] - first
        for k in range(key.shape[2]):
            for v in range(value.shape[2]):
                state[row, k, v] += weight * state[other, k, v]


@_compile
def _forward(inputs, lines, nodes, edges, step, output):  # type: ignore[no-untyped-def]
    """Fill ``output`` [N, H, V]. ``step`` is 1, or -1 on a reversed line graph, whose edges run down."""
    query, key, value, _, _, mark, direct = inputs
    dst = lines[1]
    heads = value.shape[1]
    for item in prange((nodes.shape[0] - 1) * heads):
        graph, head = item // heads, item % heads
        for node in range(nodes[graph], nodes[graph + 1]):
            score = value.dtype.type(0)
            for k in range(key.shape[2]):
                score += query[node, head, k] * key[node, head, k]
            for v in range(value.shape[2]):
                output[node, head, v] = direct[node, head] * score * value[node, head, v]
        first, count = edges[graph], edges[graph + 1] - edges[graph]
        state = np.empty((count, key.shape[2], value.shape[2]), value.dtype)
        for i in range(count):
            edge = first + (i if step > 0 else count - 1 - i)
            _carry(edge, head, first, inputs, lines, state)
            node, row = dst[edge], edge - first
            for k in range(key.shape[2]):
                read = mark[edge, head] * query[node, head, k]
                for v in range(value.shape[2]):
                    output[node, head, v] += read * state[row, k, v]


@_compile
def _backward(inputs, lines, nodes, edges, step, grad, gradients):  # type: ignore[no-untyped-def]
    """Fill the seven gradients. States are computed again (in cache), then their adjoints against the order."""
    query, key, value, source, transition, mark, direct = inputs
    d_query, d_key, d_value, d_source, d_transition, d_mark, d_direct = gradients
    src, dst, _, next, _, _, leave_ptr, leave = lines
    heads, keys, width = value.shape[1], key.shape[2], value.shape[2]
    for item in prange((nodes.shape[0] - 1) * heads):
        graph, head = item // heads, item % heads
        for node in range(nodes[graph], nodes[graph + 1]):
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
        first, count = edges[graph], edges[graph + 1] - edges[graph]
        state = np.empty((count, keys, width), value.dtype)
        adjoint = np.empty((count, keys, width), value.dtype)
        for i in range(count):
            edge = first + (i if step > 0 else count - 1 - i)
            _carry(edge, head, first, inputs, lines, state)
        for i in range(count):
            edge = first + (count - 1 - i if step > 0 else i)
            row, tail, node = edge - first, src[edge], dst[edge]
            gate, read = source[edge, head], mark[edge, head]
            d_mark_e = value.dtype.type(0)
            for k in range(keys):
                seen = value.dtype.type(0)
                for v in range(width):
                    seen += state[row, k, v] * grad[node, head, v]
                    adjoint[row, k, v] = read * query[node, head, k] * grad[node, head, v]
                d_query[node, head, k] += read * seen
                d_mark_e += query[node, head, k] * seen
            d_mark[edge, head] = d_mark_e
            for j in range(leave_ptr[edge], leave_ptr[edge + 1]):
                pair = leave[j]
                weight, other = transition[pair, head], next[pair] - first
                inner = value.dtype.type(0)
                for k in range(keys):
                    for v in range(width):
                        inner += adjoint[other, k, v] * state[row, k, v]
                        adjoint[row, k, v] += weight * adjoint[other, k, v]
                d_transition[pair, head] = inner
            d_source_e = value.dtype.type(0)
            for k in range(keys):
                seen = value.dtype.type(0)
                fed = gate * key[tail, head, k]
                for v in range(width):
                    seen += adjoint[row, k, v] * value[tail, head, v]
                    d_value[tail, head, v] += fed * adjoint[row, k, v]
                d_key[tail, head, k] += gate * seen
                d_source_e += key[tail, head, k] * seen
            d_source[edge, head] = d_source_e


class _Propagate(torch.autograd.Function):
    """Keeps its inputs only."""

    @staticmethod
    def forward(ctx: Any, dag: LineDAG, *inputs: Tensor) -> Tensor:
        """``inputs``: query, key, value, source, transition, mark, direct."""
        arrays = [x.detach().contiguous() for x in inputs]
        output = torch.empty_like(arrays[2])
        _with_torch_threads()
        _forward(_numpy(arrays), _lines(dag), *_numpy((dag.graph_ptr, dag.edge_ptr)), _step(dag), output.numpy())
        ctx.dag = dag
        ctx.save_for_backward(*inputs)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """All seven gradients in one sweep."""
        dag, arrays = ctx.dag, [x.contiguous() for x in ctx.saved_tensors]
        gradients = [torch.empty_like(x) for x in arrays]
        pointers, grad = _numpy((dag.graph_ptr, dag.edge_ptr)), grads[0].contiguous().numpy()
        _with_torch_threads()
        _backward(_numpy(arrays), _lines(dag), *pointers, _step(dag), grad, _numpy(gradients))
        return None, *gradients


def _numpy(tensors: Iterable[Tensor]) -> tuple[np.ndarray, ...]:
    return tuple(x.numpy() for x in tensors)


def _lines(dag: LineDAG) -> tuple[np.ndarray, ...]:
    """End points, pairs, and the pairs grouped by next and by prev."""
    return _numpy((dag.src, dag.dst, dag.prev, dag.next, *dag.pairs_by_next, *dag.pairs_by_prev))


def _step(dag: LineDAG) -> int:
    return -1 if dag.reversed else 1


def runs_here() -> bool:
    """Whether a thread pool can be had: not in a child forked from a process that had started one."""
    return _pool in (None, os.getpid())


def _with_torch_threads() -> None:
    """As many threads as torch may use, so that one setting rules both."""
    global _pool
    _pool = os.getpid()
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    if torch.get_num_threads() != threads:  # numba starts its pool by setting OpenMP's threads, which are torch's too
        torch.set_num_threads(threads)


def propagate(query: Tensor, key: Tensor, value: Tensor, gates: Gates, dag: LineDAG) -> Tensor:
    """See :func:`plstm_graph.propagate`. CPU tensors; states are computed again in the backward pass."""
    return _Propagate.apply(dag, query, key, value, *gates)

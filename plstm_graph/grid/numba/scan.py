"""A chain token by token, its state in cache; what arrives every CHUNK tokens is kept for the backward pass.

As numpy arrays: queries and keys [B, H, n, K], values [B, H, n, V], sources and marks [B, H, n, J], transitions
[B, H, n, J, J] (next x prev), direct [B, H, n], states [B, H, J, K, V].
"""

import numpy as np
from numba import prange

from plstm_graph.ops.numba.runtime import parallel, part

CHUNK = 32
"""Tokens whose states the backward pass has at a time."""


@part
def _read(query, mark, state, y):  # type: ignore[no-untyped-def]
    """Adds what a token reads of the state that arrives at it."""
    for j in range(mark.size):
        for k in range(query.size):
            weight, row = mark[j] * query[k], state[j, k]
            for v in range(y.size):
                y[v] += weight * row[v]


@part
def _leave(key, value, source, transition, state, result):  # type: ignore[no-untyped-def]
    """The state that leaves a token, from the one that arrives at it."""
    for j in range(source.size):
        passed = transition[j, 0]
        for k in range(key.size):
            weight, row, first = source[j] * key[k], result[j, k], state[0, k]
            for v in range(value.size):
                row[v] = weight * value[v] + passed * first[v]
        for i in range(1, source.size):
            passed = transition[j, i]
            for k in range(key.size):
                row, other = result[j, k], state[i, k]
                for v in range(value.size):
                    row[v] += passed * other[v]


@part
def _arrive(query, d_y, mark, transition, adjoint, result):  # type: ignore[no-untyped-def]
    """The gradient of the state that arrives at a token, from that of the one that leaves it."""
    for i in range(mark.size):
        passed = transition[0, i]
        for k in range(query.size):
            weight, row, first = mark[i] * query[k], result[i, k], adjoint[0, k]
            for v in range(d_y.size):
                row[v] = weight * d_y[v] + passed * first[v]
        for j in range(1, mark.size):
            passed = transition[j, i]
            for k in range(query.size):
                row, other = result[i, k], adjoint[j, k]
                for v in range(d_y.size):
                    row[v] += passed * other[v]


@part
def _itself(query, key, value, d_y, direct, d_query, d_key, d_value):  # type: ignore[no-untyped-def]
    """Gradients of what a token reads of itself; returns that of its direct gate."""
    zero = direct * 0
    score, d_score = zero, zero
    for k in range(query.size):
        score += query[k] * key[k]
    for v in range(value.size):
        d_score += d_y[v] * value[v]
    for k in range(query.size):
        d_query[k], d_key[k] = direct * d_score * key[k], direct * d_score * query[k]
    for v in range(value.size):
        d_value[v] = direct * score * d_y[v]
    return score * d_score


@part
def _own(  # type: ignore[no-untyped-def]
    query, key, value, source, mark, state, adjoint, d_y, d_query, d_key, d_value, d_source, d_mark
):  # fmt: skip
    """Adds the gradients of a token's vectors, source and mark, from the state that arrives at it and the gradient of
    the one that leaves it."""
    zero = value[0] * 0
    for j in range(source.size):
        d_source[j], d_mark[j] = zero, zero
        for k in range(query.size):
            arriving, leaving, weight = state[j, k], adjoint[j, k], source[j] * key[k]
            read, given = zero, zero
            for v in range(value.size):
                read += arriving[v] * d_y[v]
                given += leaving[v] * value[v]
                d_value[v] += weight * leaving[v]
            d_query[k] += mark[j] * read
            d_mark[j] += query[k] * read
            d_key[k] += source[j] * given
            d_source[j] += key[k] * given


@part
def _passed(state, adjoint, d_transition):  # type: ignore[no-untyped-def]
    """Gradients of a token's transitions."""
    states, keys, values = state.shape
    for j in range(states):
        for i in range(states):
            total = state[0, 0, 0] * 0
            for k in range(keys):
                leaving, arriving = adjoint[j, k], state[i, k]
                for v in range(values):
                    total += leaving[v] * arriving[v]
            d_transition[j, i] = total


@parallel
def forward(query, key, value, source, transition, mark, direct, begin, y, end, kept):  # type: ignore[no-untyped-def]
    """Outputs, the state behind the last token, and what arrives at every chunk, [B, H, chunks, J, K, V]."""
    sequences, heads, tokens, keys = query.shape
    for item in prange(sequences * heads):
        b, h = item // heads, item % heads
        here = begin[b, h].copy()
        there = np.empty_like(here)
        for t in range(tokens):
            if t % CHUNK == 0:
                kept[b, h, t // CHUNK] = here
            score = direct[b, h, t] * 0
            for k in range(keys):
                score += query[b, h, t, k] * key[b, h, t, k]
            for v in range(value.shape[3]):
                y[b, h, t, v] = direct[b, h, t] * score * value[b, h, t, v]
            _read(query[b, h, t], mark[b, h, t], here, y[b, h, t])
            _leave(key[b, h, t], value[b, h, t], source[b, h, t], transition[b, h, t], here, there)
            here, there = there, here
        end[b, h] = here


@parallel
def backward(  # type: ignore[no-untyped-def]
    query, key, value, source, transition, mark, direct, kept, d_y, d_end,
    d_query, d_key, d_value, d_source, d_transition, d_mark, d_direct, d_begin,
):  # fmt: skip
    """All gradients, chunk by chunk from the last, whose states are found again."""
    sequences, heads, tokens = direct.shape
    for item in prange(sequences * heads):
        b, h = item // heads, item % heads
        adjoint = d_end[b, h].copy()
        before = np.empty_like(adjoint)
        states = np.empty((CHUNK, *adjoint.shape), adjoint.dtype)
        for chunk in range(kept.shape[2] - 1, -1, -1):
            first, last = chunk * CHUNK, min(tokens, (chunk + 1) * CHUNK)
            states[0] = kept[b, h, chunk]
            for t in range(first, last - 1):
                at = t - first
                _leave(
                    key[b, h, t], value[b, h, t], source[b, h, t], transition[b, h, t], states[at], states[at + 1]
                )  # fmt: skip
            for t in range(last - 1, first - 1, -1):
                q, k, v, g = query[b, h, t], key[b, h, t], value[b, h, t], d_y[b, h, t]
                d_q, d_k, d_v, state = d_query[b, h, t], d_key[b, h, t], d_value[b, h, t], states[t - first]
                d_direct[b, h, t] = _itself(q, k, v, g, direct[b, h, t], d_q, d_k, d_v)
                _own(
                    q, k, v, source[b, h, t], mark[b, h, t], state, adjoint, g,
                    d_q, d_k, d_v, d_source[b, h, t], d_mark[b, h, t],
                )  # fmt: skip
                _passed(state, adjoint, d_transition[b, h, t])
                _arrive(q, g, mark[b, h, t], transition[b, h, t], adjoint, before)
                adjoint, before = before, adjoint
        d_begin[b, h] = adjoint

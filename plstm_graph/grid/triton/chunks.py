# mypy: disable-error-code="assignment, var-annotated"
"""A chain chunk by chunk: masked attention within a chunk, K x V states between them, forward and backward.

A program takes a chunk of C tokens of one sequence and head, or, where states are carried, some numbers of a state. No
atomics.
"""

import triton
import triton.language as tl

# Queries, keys and values [B, H, N, K or V] by their strides of sequence, head and token in UNITs, see
# ``launch.in_units``; the last is 1. All else is contiguous: gates [B, H, N], ``states`` [B * H, chunks, K, V],
# ``through`` [B * H, chunks].
# Within a chunk W[t, t'] is what passes all tokens strictly between t' and t, FROM[t] all tokens before t, TO[t] all
# after t.


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=a.dtype)


@triton.jit
def _chunk(H: tl.constexpr, N: tl.constexpr, C: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sequence times head, sequence, head, the program's number, its tokens."""
    CHUNKS: tl.constexpr = (N + C - 1) // C
    program = tl.program_id(0).to(tl.int64)
    here = program // CHUNKS
    return here, here // H, here % H, program, (program % CHUNKS) * C + tl.arange(0, C)


@triton.jit
def _rows(base, token, stride, N: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, PADDED)
    mask = (token < N)[:, None] & (at < WIDTH)[None, :]
    return tl.load(base + token[:, None] * stride + at[None, :], mask=mask, other=0.0).to(DTYPE)


@triton.jit
def _keep(base, token, tile, N: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, PADDED)
    mask = (token < N)[:, None] & (at < WIDTH)[None, :]
    tl.store(base + token[:, None] * WIDTH + at[None, :], tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _state(K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Places of a state, and which of them are there."""
    k, v = tl.arange(0, KP)[:, None], tl.arange(0, VP)[None, :]
    return k * V + v, (k < K) & (v < V)


@triton.jit
def _ends(transition, token, C: tl.constexpr, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """Transitions of the tokens before, FROM and TO."""
    first = token - tl.arange(0, C)
    before = tl.load(transition + token - 1, mask=(token > first) & (token <= N), other=1.0)
    after = tl.load(transition + token + 1, mask=(token < first + C - 1) & (token + 1 < N), other=1.0)
    return before, tl.cumprod(before, 0), tl.cumprod(after, 0, reverse=True)


@triton.jit
def _between(before, C: tl.constexpr):  # type: ignore[no-untyped-def]
    """W [C, C]."""
    row, column = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    factors = tl.where(row > column + 1, before[:, None], 1.0)
    return tl.where(row > column, tl.cumprod(factors, 0), 0.0)


@triton.jit(do_not_specialize=["k_i", "k_h", "k_n", "v_i", "v_h", "v_n"])
def given(  # type: ignore[no-untyped-def]
    key, value, weight, transition, states, through, k_i, k_h, k_n, v_i, v_h, v_n,
    H: tl.constexpr, N: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    C: tl.constexpr, PRECISION: tl.constexpr, UNIT: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """What a chunk puts into the state behind it, Σ TO · source · k ⊗ v, and how much passes ``through`` it.

    BACK: the same against the chain, with queries, gradients and marks: Σ FROM · mark · q ⊗ dy.
    """
    DTYPE: tl.constexpr = states.dtype.element_ty
    here, sequence, head, program, token = _chunk(H, N, C)
    _, before, after = _ends(transition + here * N, token, C, N)
    factor = (before if BACK else after) * tl.load(weight + here * N + token, mask=token < N, other=0.0)
    keys = _rows(key + (sequence * k_i + head * k_h) * UNIT, token, k_n * UNIT, N, K, KP, DTYPE)
    values = _rows(value + (sequence * v_i + head * v_h) * UNIT, token, v_n * UNIT, N, V, VP, DTYPE)
    at, mask = _state(K, V, KP, VP)
    tl.store(states + program * (K * V) + at, _dot(tl.trans(keys * factor[:, None]), values, PRECISION), mask=mask)
    first = tl.arange(0, C) == 0
    itself = tl.load(transition + here * N + token, mask=first, other=0.0)
    tl.store(through + program + tl.arange(0, C), itself * after, mask=first)


AT_ONCE = tl.constexpr(8)
"""Chunks whose states are asked for at once."""


@triton.jit
def carry(  # type: ignore[no-untyped-def]
    states, through, begin, end,
    NUMBERS: tl.constexpr, CHUNKS: tl.constexpr, SOME: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """From what each chunk gives to what arrives at each, SOME of the NUMBERS of a state; BACK: from the last on."""
    PARTS: tl.constexpr = (NUMBERS + SOME - 1) // SOME
    here, at = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS * SOME + tl.arange(0, SOME)
    mask = at < NUMBERS
    state = tl.load(begin + here.to(tl.int64) * NUMBERS + at, mask=mask, other=0.0)
    states += here.to(tl.int64) * (CHUNKS * NUMBERS) + at
    through += here * CHUNKS
    for some in range(0, CHUNKS, AT_ONCE):
        gives, passes = (), ()
        for i in tl.static_range(AT_ONCE):
            chunk = CHUNKS - 1 - some - i if BACK else some + i
            inside = (chunk >= 0) & (chunk < CHUNKS)
            place = tl.where(inside, chunk, 0)
            gives = gives + (tl.load(states + place * NUMBERS, mask=at < tl.where(inside, NUMBERS, 0), other=0.0),)
            passes = passes + (tl.load(through + place),)
        for i in tl.static_range(AT_ONCE):
            chunk = CHUNKS - 1 - some - i if BACK else some + i
            inside = (chunk >= 0) & (chunk < CHUNKS)
            place = tl.where(inside, chunk, 0)
            tl.store(states + place * NUMBERS, state, mask=at < tl.where(inside, NUMBERS, 0))
            state = tl.where(inside, passes[i] * state + gives[i], state)
    tl.store(end + here.to(tl.int64) * NUMBERS + at, state, mask=mask)


@triton.jit
def _gating(source, mark, direct, token, between, C: tl.constexpr, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sources, marks, and the gating matrix of a chunk."""
    fed = tl.load(source + token, mask=token < N, other=0.0)
    read = tl.load(mark + token, mask=token < N, other=0.0)
    itself = tl.load(direct + token, mask=token < N, other=0.0)
    diagonal = tl.arange(0, C)[:, None] == tl.arange(0, C)[None, :]
    return fed, read, read[:, None] * between * fed[None, :] + tl.where(diagonal, itself[:, None], 0.0)


@triton.jit(do_not_specialize=["q_i", "q_h", "q_n", "k_i", "k_h", "k_n", "v_i", "v_h", "v_n"])
def forward(  # type: ignore[no-untyped-def]
    query, key, value, source, transition, mark, direct, states, y, q_i, q_h, q_n, k_i, k_h, k_n, v_i, v_h, v_n,
    H: tl.constexpr, N: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    C: tl.constexpr, PRECISION: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """``y`` [B, H, N, V], from the states that arrive at each chunk."""
    DTYPE: tl.constexpr = states.dtype.element_ty
    here, sequence, head, program, token = _chunk(H, N, C)
    before, begun, _ = _ends(transition + here * N, token, C, N)
    _, read, gating = _gating(
        source + here * N, mark + here * N, direct + here * N, token, _between(before, C), C, N
    )  # fmt: skip
    queries = _rows(query + (sequence * q_i + head * q_h) * UNIT, token, q_n * UNIT, N, K, KP, DTYPE)
    keys = _rows(key + (sequence * k_i + head * k_h) * UNIT, token, k_n * UNIT, N, K, KP, DTYPE)
    values = _rows(value + (sequence * v_i + head * v_h) * UNIT, token, v_n * UNIT, N, V, VP, DTYPE)
    at, mask = _state(K, V, KP, VP)
    state = tl.load(states + program * (K * V) + at, mask=mask, other=0.0)
    total = _dot(queries * (read * begun)[:, None], state, PRECISION)
    total += _dot(_dot(queries, tl.trans(keys), PRECISION) * gating, values, PRECISION)
    _keep(y + here * (N * V), token, total, N, V, VP)


@triton.jit(do_not_specialize=["q_i", "q_h", "q_n", "k_i", "k_h", "k_n", "v_i", "v_h", "v_n"])
def backward(  # type: ignore[no-untyped-def]
    query, key, value, source, transition, mark, direct, states, adjoints, d_y,
    d_query, d_key, d_value, d_source, d_transition, d_mark, d_direct, q_i, q_h, q_n, k_i, k_h, k_n, v_i, v_h, v_n,
    H: tl.constexpr, N: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    C: tl.constexpr, PRECISION: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """All gradients of a chunk, from the state that arrives at it and the ``adjoints`` of the one that leaves it."""
    DTYPE: tl.constexpr = states.dtype.element_ty
    here, sequence, head, program, token = _chunk(H, N, C)
    inside = token < N
    before, begun, ending = _ends(transition + here * N, token, C, N)
    between = _between(before, C)
    fed, read, gating = _gating(source + here * N, mark + here * N, direct + here * N, token, between, C, N)
    queries = _rows(query + (sequence * q_i + head * q_h) * UNIT, token, q_n * UNIT, N, K, KP, DTYPE)
    keys = _rows(key + (sequence * k_i + head * k_h) * UNIT, token, k_n * UNIT, N, K, KP, DTYPE)
    values = _rows(value + (sequence * v_i + head * v_h) * UNIT, token, v_n * UNIT, N, V, VP, DTYPE)
    grads = _rows(d_y + here * (N * V), token, V, N, V, VP, DTYPE)
    score, d_score = _dot(queries, tl.trans(keys), PRECISION), _dot(grads, tl.trans(values), PRECISION)
    at, mask = _state(K, V, KP, VP)
    state = tl.load(states + program * (K * V) + at, mask=mask, other=0.0)
    adjoint = tl.load(adjoints + program * (K * V) + at, mask=mask, other=0.0)
    # Of what arrives at the chunk and of what leaves it: seen by each token's query, key and value.
    from_state = _dot(grads, tl.trans(state), PRECISION)
    to_state = _dot(values, tl.trans(adjoint), PRECISION)
    begins, leaves = tl.sum(from_state * queries, 1), tl.sum(to_state * keys, 1)
    weight = d_score * gating
    d_queries = _dot(weight, keys, PRECISION) + (read * begun)[:, None] * from_state
    d_keys = _dot(tl.trans(weight), queries, PRECISION) + (fed * ending)[:, None] * to_state
    d_values = _dot(tl.trans(score * gating), grads, PRECISION)
    d_values += (fed * ending)[:, None] * _dot(keys, adjoint, PRECISION)
    _keep(d_query + here * (N * K), token, d_queries, N, K, KP)
    _keep(d_key + here * (N * K), token, d_keys, N, K, KP)
    _keep(d_value + here * (N * V), token, d_values, N, V, VP)
    d_gating = d_score * score
    diagonal = tl.arange(0, C)[:, None] == tl.arange(0, C)[None, :]
    tl.store(d_direct + here * N + token, tl.sum(tl.where(diagonal, d_gating, 0.0), 1), mask=inside)
    passed = d_gating * between
    tl.store(d_mark + here * N + token, tl.sum(passed * fed[None, :], 1) + begun * begins, mask=inside)
    tl.store(d_source + here * N + token, tl.sum(passed * read[:, None], 0) + ending * leaves, mask=inside)
    # A transition stands between two tokens of the chunk, after what arrives, before what leaves, or in what passes.
    later = tl.arange(0, C)[:, None] > tl.arange(0, C)[None, :]
    d_between = tl.where(later, d_gating * read[:, None] * fed[None, :], 0.0)
    total = tl.sum(_dot(tl.trans(between), d_between, PRECISION) * between, 1)
    total += begun * tl.sum(between * (read * begins)[:, None], 0)
    total += ending * tl.sum(between * (fed * leaves)[None, :], 1)
    total += begun * ending * tl.sum(tl.sum(state * adjoint, 1), 0)
    tl.store(d_transition + here * N + token, total, mask=inside)

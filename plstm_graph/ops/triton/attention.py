"""Attention under the gating matrix, ``y = ((Q Kᵀ) ⊙ G) V``, and its gradients: one head of one graph a program.

The matrices come from ``walk`` and lie in the graph's room; going back, their gradients take their place. In a layer
the RMS norm of ``y`` and a bias follow at once, for both are a head's own.
"""

import triton
import triton.language as tl

from plstm_graph.ops.triton.walk import graph_of, task

# C rows and columns of a matrix at a time, the narrowest tile; n0 to n3 graphs of each class; KP and VP powers of two
# from K and V on. SHIFTED: to queries, keys and values belongs a bias ``shift`` [H, 2 * K + V]. NORMED: a norm with EPS
# and a weight [H, V] follows and, if BIASED, a bias [H, V].


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=a.dtype)


@triton.jit
def _rows(base, row, valid, STRIDE: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Some rows of queries, keys or values, [rows, PADDED], zero beyond WIDTH."""
    at = tl.arange(0, PADDED)
    mask = valid[:, None] & (at < WIDTH)[None, :]
    return tl.load(base + row[:, None] * STRIDE + at[None, :], mask=mask, other=0.0).to(DTYPE)


@triton.jit
def _parameter(base, WIDTH: tl.constexpr, PADDED: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """A head's part of a weight or bias, [1, PADDED]."""
    at = tl.arange(0, PADDED)
    return tl.load(base + at, mask=at < WIDTH, other=0.0).to(DTYPE)[None, :]


@triton.jit
def _vectors(  # type: ignore[no-untyped-def]
    base, shift, row, valid, STRIDE: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, DTYPE: tl.constexpr,
    SHIFTED: tl.constexpr,
):  # fmt: skip
    """Some rows plus, if SHIFTED, a bias; rows that are not valid hold numbers that no other row reads."""
    rows = _rows(base, row, valid, STRIDE, WIDTH, PADDED, DTYPE)
    if SHIFTED:
        rows += shift
    return rows


@triton.jit
def _shifts(  # type: ignore[no-untyped-def]
    shift, head, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr, DTYPE: tl.constexpr,
    SHIFTED: tl.constexpr,
):  # fmt: skip
    """A head's bias of queries, keys and values."""
    query, key, value = shift, shift, shift
    if SHIFTED:
        shift += head * (2 * K + V)
        query, key = _parameter(shift, K, KP, DTYPE), _parameter(shift + K, K, KP, DTYPE)
        value = _parameter(shift + 2 * K, V, VP, DTYPE)
    return query, key, value


@triton.jit
def _keep(base, row, tile, valid, STRIDE: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, PADDED)
    mask = valid[:, None] & (at < WIDTH)[None, :]
    tl.store(base + row[:, None] * STRIDE + at[None, :], tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _scale(rows, valid, V: tl.constexpr, EPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """One over the root mean square of each row, [rows, 1], zero where there is none."""
    return tl.where(valid, tl.rsqrt(tl.sum(rows * rows, 1) / V + EPS), 0.0)[:, None]


@triton.jit
def _gradients(  # type: ignore[no-untyped-def]
    d_output, y, weight, row, valid,
    STRIDE: tl.constexpr, V: tl.constexpr, VP: tl.constexpr, NORMED: tl.constexpr, EPS: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """Gradient of some rows of ``y``, what there is for that of the weight, and the given gradient: [rows, VP] each."""
    given = _rows(d_output, row, valid, STRIDE, V, VP, DTYPE)
    grads, product = given, given
    if NORMED:
        rows = _rows(y, row, valid, STRIDE, V, VP, DTYPE)
        scale = _scale(rows, valid, V, EPS)
        rows *= scale
        product = given * rows
        grads = given * weight
        grads = (grads - rows * (tl.sum(grads * rows, 1) / V)[:, None]) * scale
    return grads, product, given


@triton.jit
def _keep_sums(parts, to_weight, to_bias, V: tl.constexpr, VP: tl.constexpr, GAP: tl.constexpr, BIASED: tl.constexpr):  # type: ignore[no-untyped-def]
    """What some rows add to the gradients of weight and, if BIASED, GAP numbers further on of the bias."""
    at = tl.arange(0, VP)
    if BIASED:
        which = tl.arange(0, 2)[None, :]
        tl.store(parts + at[:, None] + which * GAP, tl.sum(tl.join(to_weight, to_bias), 0), mask=(at < V)[:, None])
    else:
        tl.store(parts + at, tl.sum(to_weight, 0), mask=at < V)


@triton.jit
def _keep_no_sums(parts, V: tl.constexpr, VP: tl.constexpr, GAP: tl.constexpr, BIASED: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, VP)
    tl.store(parts + at, 0.0, mask=at < V)
    if BIASED:
        tl.store(parts + GAP + at, 0.0, mask=at < V)


@triton.jit
def _task(graphs, work, room, n0, n1, n2, n3, G, H: tl.constexpr, C: tl.constexpr, KINDS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The program's part of one head of a graph: first node, nodes, the head's rows of its matrix, from row to row, the
    head and the part. A graph of the narrowest class is one part, others KINDS for each C columns of their class."""
    found, place, part = task(n0, n1, n2, n3, H, H * (KINDS << 1), H * (KINDS << 2), H * (KINDS << 3))
    columns, head = C << found, part % H
    node, nodes, _, _, _, matrix = graph_of(work, graphs, room, place, G, H, columns)
    return node.to(tl.int64), nodes, matrix + head * columns, H * columns, head, part // H


@triton.jit
def _gating(matrix, row, column, nodes, stride):  # type: ignore[no-untyped-def]
    """Where a block of a matrix stands, and which of it is there."""
    mask = (row < nodes)[:, None] & (column < nodes)[None, :]
    return matrix + row[:, None] * stride + column[None, :], mask


@triton.jit(do_not_specialize=["n0", "n1", "n2", "n3", "G"], do_not_specialize_on_alignment=["graphs", "work"])
def forward(  # type: ignore[no-untyped-def]
    query, key, value, y, output, shift, weight, bias, room, graphs, work, n0, n1, n2, n3, G,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    Q_NODE: tl.constexpr, Q_HEAD: tl.constexpr, K_NODE: tl.constexpr, K_HEAD: tl.constexpr,
    V_NODE: tl.constexpr, V_HEAD: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
    SHIFTED: tl.constexpr, NORMED: tl.constexpr, BIASED: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """``y`` [N, H, V], C rows a program, and ``output`` after the norm."""
    DTYPE: tl.constexpr = room.dtype.element_ty
    node, nodes, matrix, stride, head, part = _task(graphs, work, room, n0, n1, n2, n3, G, H, C, 1)
    row = part * C + tl.arange(0, C)
    valid = row < nodes
    to_query, to_key, to_value = _shifts(shift, head, K, V, KP, VP, DTYPE, SHIFTED)
    queries = _vectors(query + node * Q_NODE + head * Q_HEAD, to_query, row, valid, Q_NODE, K, KP, DTYPE, SHIFTED)
    result = tl.zeros([C, VP], DTYPE)
    for c in range(0, tl.where(part * C < nodes, nodes, 0), C):
        column = c + tl.arange(0, C)
        inside = column < nodes
        at = key + node * K_NODE + head * K_HEAD
        keys = _vectors(at, to_key, column, inside, K_NODE, K, KP, DTYPE, SHIFTED)
        at = value + node * V_NODE + head * V_HEAD
        values = _vectors(at, to_value, column, inside, V_NODE, V, VP, DTYPE, SHIFTED)
        at, mask = _gating(matrix, row, column, nodes, stride)
        gating = tl.load(at, mask=mask, other=0.0)
        result += _dot(_dot(queries, tl.trans(keys), PRECISION) * gating, values, PRECISION)
    at = (node * H + head) * V
    _keep(y + at, row, result, valid, H * V, V, VP)
    if NORMED:
        result = result.to(y.dtype.element_ty).to(DTYPE)  # as the backward pass will read it
        result *= _scale(result, valid, V, EPS) * _parameter(weight + head * V, V, VP, DTYPE)
        if BIASED:
            result += _parameter(bias + head * V, V, VP, DTYPE)
        _keep(output + at, row, result, valid, H * V, V, VP)


@triton.jit(do_not_specialize=["n0", "n1", "n2", "n3", "G"], do_not_specialize_on_alignment=["graphs", "work"])
def backward(  # type: ignore[no-untyped-def]
    query, key, value, d_output, d_query, d_key, d_value, d_direct, y, shift, weight, sums, room, graphs, work,
    n0, n1, n2, n3, G,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, KP: tl.constexpr, VP: tl.constexpr,
    Q_NODE: tl.constexpr, Q_HEAD: tl.constexpr, K_NODE: tl.constexpr, K_HEAD: tl.constexpr,
    V_NODE: tl.constexpr, V_HEAD: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
    SHIFTED: tl.constexpr, NORMED: tl.constexpr, BIASED: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Gradients of query, key, value (strided as those are) and direct.

    Those of a matrix replace it where one program takes all of it. Of a wider graph some programs take C rows for the
    gradients of queries while others take C columns for everything else: there they stand behind the matrix.

    If NORMED, ``d_output`` is the gradient after the norm, and ``sums`` gets a row for all heads of a part: what its
    rows add to the gradients of weight and bias, [H, V] each.
    """
    DTYPE: tl.constexpr = room.dtype.element_ty
    node, nodes, matrix, stride, head, part = _task(graphs, work, room, n0, n1, n2, n3, G, H, C, 2)
    first, parts = tl.arange(0, C), stride // (H * C)
    query, d_query = query + node * Q_NODE + head * Q_HEAD, d_query + node * Q_NODE + head * Q_HEAD
    key, d_key = key + node * K_NODE + head * K_HEAD, d_key + node * K_NODE + head * K_HEAD
    value, d_value = value + node * V_NODE + head * V_HEAD, d_value + node * V_NODE + head * V_HEAD
    to_query, to_key, to_value = _shifts(shift, head, K, V, KP, VP, DTYPE, SHIFTED)
    begin = (node * H + head) * V
    d_output, y = d_output + begin, y + begin
    d_direct += node * H + head
    scaling = d_output
    if NORMED:
        scaling = _parameter(weight + head * V, V, VP, DTYPE)
        parts_row = (tl.program_id(0) // H).to(tl.int64) * (2 if BIASED else 1)
        sums += (parts_row * H + head) * V
    if parts == 1:
        valid = first < nodes
        queries = _vectors(query, to_query, first, valid, Q_NODE, K, KP, DTYPE, SHIFTED)
        keys = _vectors(key, to_key, first, valid, K_NODE, K, KP, DTYPE, SHIFTED)
        values = _vectors(value, to_value, first, valid, V_NODE, V, VP, DTYPE, SHIFTED)
        grads, product, given = _gradients(d_output, y, scaling, first, valid, H * V, V, VP, NORMED, EPS, DTYPE)
        if NORMED:
            _keep_sums(sums, product, given, V, VP, H * V, BIASED)
        at, mask = _gating(matrix, first, first, nodes, stride)
        gating = tl.load(at, mask=mask, other=0.0)
        score = _dot(queries, tl.trans(keys), PRECISION)
        d_score = _dot(grads, tl.trans(values), PRECISION)
        d_gating = d_score * score
        tl.debug_barrier()  # every thread has read the numbers that are now replaced
        tl.store(at, d_gating, mask=mask)
        itself = tl.sum(tl.where(first[:, None] == first[None, :], d_gating, 0.0), 1)
        tl.store(d_direct + first * H, itself, mask=valid)
        _keep(d_value, first, _dot(tl.trans(score * gating), grads, PRECISION), valid, V_NODE, V, VP)
        d_score *= gating
        _keep(d_key, first, _dot(tl.trans(d_score), queries, PRECISION), valid, K_NODE, K, KP)
        _keep(d_query, first, _dot(d_score, keys, PRECISION), valid, Q_NODE, K, KP)
    elif part < parts:
        row = part * C + first
        valid = row < nodes
        grads, product, given = _gradients(d_output, y, scaling, row, valid, H * V, V, VP, NORMED, EPS, DTYPE)
        if NORMED:
            _keep_sums(sums, product, given, V, VP, H * V, BIASED)
        d_queries = tl.zeros([C, KP], DTYPE)
        for c in range(0, tl.where(part * C < nodes, nodes, 0), C):
            column = c + first
            keys = _vectors(key, to_key, column, column < nodes, K_NODE, K, KP, DTYPE, SHIFTED)
            values = _vectors(value, to_value, column, column < nodes, V_NODE, V, VP, DTYPE, SHIFTED)
            at, mask = _gating(matrix, row, column, nodes, stride)
            gating = tl.load(at, mask=mask, other=0.0)
            d_queries += _dot(_dot(grads, tl.trans(values), PRECISION) * gating, keys, PRECISION)
        _keep(d_query, row, d_queries, valid, Q_NODE, K, KP)
    else:
        part -= parts
        column = part * C + first
        inside = column < nodes
        keys = _vectors(key, to_key, column, inside, K_NODE, K, KP, DTYPE, SHIFTED)
        values = _vectors(value, to_value, column, inside, V_NODE, V, VP, DTYPE, SHIFTED)
        d_keys = tl.zeros([C, KP], DTYPE)
        d_values = tl.zeros([C, VP], DTYPE)
        for r in range(0, tl.where(part * C < nodes, nodes, 0), C):
            row = r + first
            valid = row < nodes
            queries = _vectors(query, to_query, row, valid, Q_NODE, K, KP, DTYPE, SHIFTED)
            grads, _, _ = _gradients(d_output, y, scaling, row, valid, H * V, V, VP, NORMED, EPS, DTYPE)
            at, mask = _gating(matrix, row, column, nodes, stride)
            gating = tl.load(at, mask=mask, other=0.0)
            score = _dot(queries, tl.trans(keys), PRECISION)
            d_score = _dot(grads, tl.trans(values), PRECISION)
            d_gating = d_score * score
            tl.store(at + nodes * stride, d_gating, mask=mask)
            if r == part * C:
                itself = tl.sum(tl.where(row[:, None] == column[None, :], d_gating, 0.0), 1)
                tl.store(d_direct + row * H, itself, mask=valid)
            d_values += _dot(tl.trans(score * gating), grads, PRECISION)
            d_keys += _dot(tl.trans(d_score * gating), queries, PRECISION)
        _keep(d_key, column, d_keys, inside, K_NODE, K, KP)
        _keep(d_value, column, d_values, inside, V_NODE, V, VP)
        if NORMED:
            _keep_no_sums(sums, V, VP, H * V, BIASED)

"""The four gates from their linear terms: one launch forward, two and a sum backward. No atomics.

Every sum runs over one node's or one edge's own list, in the order of the list: gates and the gradients of the terms
do not change with the batch around a graph, nor from run to run; the gradient of the bias, a sum over the batch, does
not change from run to run. The last launch makes a layer's other sums over nodes, too, in a fixed order.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from plstm_graph.ops import flat
from plstm_graph.ops.triton.runtime import ceil_div, launch, power_of_2
from plstm_graph.plan import Edge, Node, Pair, Plan

TILE = 256
"""Entries (rows times heads) of a program. Few: one that walks lists waits, and only other programs hide the wait."""
MOST_ROWS = 64
"""Rows of a program, for all of them wait for the longest list among them."""
SUMMED = 2048
"""Numbers of the tile of a program that sums columns."""
PARTS, COLUMNS = 512, 4
"""Rows of such a tile where one program takes all of them, and its columns."""
OPTIONS = (("num_warps", 1),)

ARRIVING: tl.constexpr = tl.constexpr(int(Node.ARRIVING))
ARRIVE: tl.constexpr = tl.constexpr(int(Node.ARRIVE))
LEAVING: tl.constexpr = tl.constexpr(int(Node.LEAVING))
LEAVE: tl.constexpr = tl.constexpr(int(Node.LEAVE))
SRC: tl.constexpr = tl.constexpr(int(Edge.SRC))
DST: tl.constexpr = tl.constexpr(int(Edge.DST))
ENTERING: tl.constexpr = tl.constexpr(int(Edge.ENTERING))
ENTER: tl.constexpr = tl.constexpr(int(Edge.ENTER))
EXITING: tl.constexpr = tl.constexpr(int(Edge.EXITING))
EXIT: tl.constexpr = tl.constexpr(int(Edge.EXIT))
BY_DST: tl.constexpr = tl.constexpr(int(Edge.BY_DST))
BY_SRC: tl.constexpr = tl.constexpr(int(Edge.BY_SRC))
ALONG: tl.constexpr = tl.constexpr(int(Edge.ALONG))
AGAINST: tl.constexpr = tl.constexpr(int(Edge.AGAINST))
BY_NEXT: tl.constexpr = tl.constexpr(int(Pair.BY_NEXT))
BY_PREV: tl.constexpr = tl.constexpr(int(Pair.BY_PREV))
LINE: tl.constexpr = tl.constexpr(flat.LINE)

# Chunks of H columns. Node terms: source as src 0 and dst 1, mark as src 2 and dst 3, transition as tail 4, joint 5 and
# head 6, direct 7. Edge terms: source 0, mark 1, transition as prev 2 and as next 3. Bias and its gradient: source 0,
# transition 1, mark 2, direct 3. Tiles are [BLOCK, HP], HP the power of two from H on. REV: read against the edges.
# NODE and EDGE: from row to row of node and edge terms.
# Rows of tables stand one after the other, ``table + ROW * size``. Sizes are never specialised: one compiled kernel
# serves every batch.


# ---------------------------------------------------------------------------------------------------- parts of kernels


@triton.jit
def _parts(flat, N, E, P, H: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where the parts of ``flat`` begin, see ``flat.py``."""
    edges = (E.to(tl.int64) * H + LINE - 1) // LINE * LINE
    pairs = (P.to(tl.int64) * H + LINE - 1) // LINE * LINE
    nodes = (N.to(tl.int64) * H + LINE - 1) // LINE * LINE
    transition = flat + edges
    mark = transition + pairs
    direct = mark + edges
    fifth = direct + nodes
    return flat, transition, mark, direct, fifth, fifth + edges


@triton.jit
def _inside(valid, H: tl.constexpr, HP: tl.constexpr):  # type: ignore[no-untyped-def]
    return valid[:, None] & (tl.arange(0, HP) < H)[None, :]


@triton.jit
def _at(base, row, chunk, WIDTH: tl.constexpr, H: tl.constexpr, HP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Pointers to one chunk of some rows, [BLOCK, HP]."""
    return base + row.to(tl.int64)[:, None] * WIDTH + chunk * H + tl.arange(0, HP)[None, :]


@triton.jit
def _term(base, row, chunk, inside, WIDTH: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """One chunk of some rows, zero outside."""
    return tl.load(_at(base, row, chunk, WIDTH, H, HP), mask=inside, other=0.0).to(DTYPE)


@triton.jit
def _keep(base, row, chunk, tile, inside, WIDTH: tl.constexpr, H: tl.constexpr, HP: tl.constexpr):  # type: ignore[no-untyped-def]
    tl.store(_at(base, row, chunk, WIDTH, H, HP), tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _bias(bias, chunk, H: tl.constexpr, HP: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row of the bias, [1, HP]."""
    head = tl.arange(0, HP)
    return tl.load(bias + chunk * H + head, mask=head < H, other=0.0).to(DTYPE)[None, :]


@triton.jit
def _column(edges, edge, valid, E, GATHERED: tl.constexpr, REV: tl.constexpr):  # type: ignore[no-untyped-def]
    """Row of the edge terms that each edge reads."""
    COLUMN: tl.constexpr = AGAINST if REV else ALONG
    return edge if GATHERED else tl.load(edges + COLUMN * E + edge, mask=valid, other=0)


@triton.jit
def _exits(edges, edge, valid, E, REV: tl.constexpr):  # type: ignore[no-untyped-def]
    """First place and length of each edge's list of pairs whose prev it is; edges that are not valid have none."""
    LIST: tl.constexpr = ENTERING if REV else EXITING
    LENGTH: tl.constexpr = ENTER if REV else EXIT
    first = tl.load(edges + LIST * E + edge, mask=valid, other=0)
    return first, tl.load(edges + LENGTH * E + edge, mask=valid, other=0)


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    """From exp, which every dtype and the interpreter have; by its series near 0, where that would lose the digits."""
    size = tl.abs(x)
    shrunk = tl.exp(-2 * size)
    large = (1 - shrunk) / (1 + shrunk)
    square = x * x
    # Horner, x - x³/3 + 2x⁵/15 - ..., right to 4e-15 below 0.1
    series = 62 / 2835 - square * (1382 / 155925)
    series = -1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * series))
    small = x + x * square * series
    return tl.where(size < 0.1, small, tl.where(x < 0, -large, large))


@triton.jit
def _at_least_one(total):  # type: ignore[no-untyped-def]
    """Like ``clamp(min=1)``: a NaN stays one."""
    return tl.where(total < 1, 1.0, total)


@triton.jit
def _through_sigmoid(gate, grad, row, inside, H: tl.constexpr, HP: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Gradient of some rows before the sigmoid."""
    value = _term(gate, row, 0, inside, H, H, HP, DTYPE)
    return _term(grad, row, 0, inside, H, H, HP, DTYPE) * value * (1 - value)


# -------------------------------------------------------------------------------------------------------------- kernels


@triton.jit
def _forward_edges(  # type: ignore[no-untyped-def]
    node_terms, edge_terms, bias, edges, pairs, source, transition, mark, total, edge, valid, E, P,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, NODE: tl.constexpr, EDGE: tl.constexpr,
    NORMALIZED: tl.constexpr, FEATURES: tl.constexpr, GATHERED: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Source and mark of some edges, and the transitions of the pairs whose prev they are."""
    START: tl.constexpr = DST if REV else SRC
    END: tl.constexpr = SRC if REV else DST
    LIST: tl.constexpr = BY_NEXT if REV else BY_PREV
    DTYPE: tl.constexpr = source.dtype.element_ty
    inside = _inside(valid, H, HP)
    tail = tl.load(edges + START * E + edge, mask=valid, other=0)
    joint = tl.load(edges + END * E + edge, mask=valid, other=0)
    first, count = _exits(edges, edge, valid, E, REV)
    raw_source = _term(node_terms, tail, 0, inside, NODE, H, HP, DTYPE)
    raw_source += _term(node_terms, joint, 1, inside, NODE, H, HP, DTYPE)
    raw_mark = _term(node_terms, tail, 2, inside, NODE, H, HP, DTYPE)
    raw_mark += _term(node_terms, joint, 3, inside, NODE, H, HP, DTYPE)
    as_prev = _term(node_terms, tail, 4, inside, NODE, H, HP, DTYPE)
    as_prev += _term(node_terms, joint, 5, inside, NODE, H, HP, DTYPE)
    if FEATURES:
        row = _column(edges, edge, valid, E, GATHERED, REV)
        raw_source += _term(edge_terms, row, 0, inside, EDGE, H, HP, DTYPE)
        raw_mark += _term(edge_terms, row, 1, inside, EDGE, H, HP, DTYPE)
        as_prev += _term(edge_terms, row, 2, inside, EDGE, H, HP, DTYPE)
    raw_source += _bias(bias, 0, H, HP, DTYPE)
    raw_mark += _bias(bias, 2, H, HP, DTYPE)
    as_prev += _bias(bias, 1, H, HP, DTYPE)
    _keep(source, edge, 0, tl.sigmoid(raw_source), inside, H, H, HP)
    _keep(mark, edge, 0, tl.sigmoid(raw_mark), inside, H, H, HP)

    most = tl.max(count, 0)
    size = tl.zeros([BLOCK, HP], DTYPE)
    for i in range(0, most):
        here = i < count
        pair = tl.load(pairs + LIST * P + first + i, mask=here, other=0)
        other = tl.load(pairs + (LIST + 1) * P + first + i, mask=here, other=0)
        head = tl.load(edges + END * E + other, mask=here, other=0)
        part = _inside(here, H, HP)
        raw = as_prev + _term(node_terms, head, 6, part, NODE, H, HP, DTYPE)
        if FEATURES:
            row = _column(edges, other, here, E, GATHERED, REV)
            raw += _term(edge_terms, row, 3, part, EDGE, H, HP, DTYPE)
        gate = _tanh(raw)
        size += tl.where(part, tl.abs(gate), 0.0)
        _keep(transition, pair, 0, gate, part, H, H, HP)
    if NORMALIZED:
        _keep(total, edge, 0, size, inside, H, H, HP)
        tl.debug_barrier()  # what this program stored in the first walk is read again, perhaps by another thread
        divisor = _at_least_one(size)
        for i in range(0, most):
            here = i < count
            pair = tl.load(pairs + LIST * P + first + i, mask=here, other=0)
            part = _inside(here, H, HP)
            gate = _term(transition, pair, 0, part, H, H, HP, DTYPE)
            _keep(transition, pair, 0, gate / divisor, part, H, H, HP)


@triton.jit(do_not_specialize=["N", "E", "P"], do_not_specialize_on_alignment=["edges", "pairs"])
def _forward(  # type: ignore[no-untyped-def]
    node_terms, edge_terms, bias, gates, edges, pairs, N, E, P,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, NODE: tl.constexpr, EDGE: tl.constexpr,
    NORMALIZED: tl.constexpr, FEATURES: tl.constexpr, GATHERED: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Each program takes the nodes and the edges of the same numbers."""
    DTYPE: tl.constexpr = gates.dtype.element_ty
    source, transition, mark, direct, total, _ = _parts(gates, N, E, P, H)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = _inside(row < N, H, HP)
    raw = _term(node_terms, row, 7, inside, NODE, H, HP, DTYPE) + _bias(bias, 3, H, HP, DTYPE)
    _keep(direct, row, 0, tl.sigmoid(raw), inside, H, H, HP)
    _forward_edges(
        node_terms, edge_terms, bias, edges, pairs, source, transition, mark, total, row, row < E, E, P,
        H, HP, BLOCK, NODE, EDGE, NORMALIZED, FEATURES, GATHERED, REV,
    )  # fmt: skip


@triton.jit(do_not_specialize=["N", "E", "P"], do_not_specialize_on_alignment=["edges", "pairs"])
def _backward_edges(  # type: ignore[no-untyped-def]
    gates, d_gates, d_edge, edges, pairs, N, E, P,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr,
    NORMALIZED: tl.constexpr, FEATURES: tl.constexpr, GATHERED: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Through the tanh: ``d_raw`` [P, H] before it, ``d_prev`` [E, H] its sum over the pairs with the same prev. Also
    chunks 0 to 2 of ``d_edge``."""
    LIST: tl.constexpr = BY_NEXT if REV else BY_PREV
    DTYPE: tl.constexpr = gates.dtype.element_ty
    source, transition, mark, _, total, _ = _parts(gates, N, E, P, H)
    d_source, d_transition, d_mark, _, d_prev, d_raw = _parts(d_gates, N, E, P, H)
    edge = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = edge < E
    inside = _inside(valid, H, HP)
    first, count = _exits(edges, edge, valid, E, REV)
    most = tl.max(count, 0)
    divisor = tl.full([BLOCK, HP], 1.0, DTYPE)
    shared = tl.zeros([BLOCK, HP], DTYPE)
    if NORMALIZED:
        size = _term(total, edge, 0, inside, H, H, HP, DTYPE)
        divisor = _at_least_one(size)
        for i in range(0, most):
            here = i < count
            pair = tl.load(pairs + LIST * P + first + i, mask=here, other=0)
            part = _inside(here, H, HP)
            gate = _term(transition, pair, 0, part, H, H, HP, DTYPE)
            shared += gate * _term(d_transition, pair, 0, part, H, H, HP, DTYPE)
        shared = tl.where(size < 1, 0.0, shared)  # clamp passes the gradient from 1 on
    sum_prev = tl.zeros([BLOCK, HP], DTYPE)
    for i in range(0, most):
        here = i < count
        pair = tl.load(pairs + LIST * P + first + i, mask=here, other=0)
        part = _inside(here, H, HP)
        gate = _term(transition, pair, 0, part, H, H, HP, DTYPE) * divisor
        grad = _term(d_transition, pair, 0, part, H, H, HP, DTYPE)
        sign = tl.where(gate > 0, 1.0, tl.where(gate < 0, -1.0, 0.0))
        raw = (grad - sign * shared) / divisor * (1 - gate * gate)
        _keep(d_raw, pair, 0, raw, part, H, H, HP)
        sum_prev += tl.where(part, raw, 0.0)
    _keep(d_prev, edge, 0, sum_prev, inside, H, H, HP)
    if FEATURES:
        row = _column(edges, edge, valid, E, GATHERED, REV)
        _keep(d_edge, row, 0, _through_sigmoid(source, d_source, edge, inside, H, HP, DTYPE), inside, 4 * H, H, HP)
        _keep(d_edge, row, 1, _through_sigmoid(mark, d_mark, edge, inside, H, HP, DTYPE), inside, 4 * H, H, HP)
        _keep(d_edge, row, 2, sum_prev, inside, 4 * H, H, HP)


@triton.jit
def _sum_entering(  # type: ignore[no-untyped-def]
    d_raw, edges, pairs, edge, valid, E, P, H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, REV: tl.constexpr
):
    """Sum of ``d_raw`` over the pairs whose next each edge is, [BLOCK, HP]."""
    LIST: tl.constexpr = BY_PREV if REV else BY_NEXT
    DTYPE: tl.constexpr = d_raw.dtype.element_ty
    first, count = _exits(edges, edge, valid, E, not REV)
    sum_next = tl.zeros([BLOCK, HP], DTYPE)
    for i in range(0, tl.max(count, 0)):
        here = i < count
        pair = tl.load(pairs + LIST * P + first + i, mask=here, other=0)
        sum_next += _term(d_raw, pair, 0, _inside(here, H, HP), H, H, HP, DTYPE)
    return sum_next


@triton.jit
def _sum_edges(  # type: ignore[no-untyped-def]
    source, mark, d_source, d_mark, d_raw, d_prev, nodes, edges, pairs, node, valid, N, E, P,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, REV: tl.constexpr, AT_DST: tl.constexpr,
):  # fmt: skip
    """Sums over the edges that each node is the dst of (or else the src), [BLOCK, HP] each: gradients before the
    activations of source, of mark, of the transitions that the edge is the prev of and, at dst, the next of."""
    FIRST: tl.constexpr = ARRIVING if AT_DST != REV else LEAVING
    COUNT: tl.constexpr = ARRIVE if AT_DST != REV else LEAVE
    LIST: tl.constexpr = BY_DST if AT_DST != REV else BY_SRC
    DTYPE: tl.constexpr = d_raw.dtype.element_ty
    first = tl.load(nodes + FIRST * N + node, mask=valid, other=0)
    count = tl.load(nodes + COUNT * N + node, mask=valid, other=0)
    zero = tl.zeros([BLOCK, HP], DTYPE)
    sum_source, sum_mark, sum_prev, sum_next = zero, zero, zero, zero
    for i in range(0, tl.max(count, 0)):
        here = i < count
        part = _inside(here, H, HP)
        edge = tl.load(edges + LIST * E + first + i, mask=here, other=0)
        sum_source += _through_sigmoid(source, d_source, edge, part, H, HP, DTYPE)
        sum_mark += _through_sigmoid(mark, d_mark, edge, part, H, HP, DTYPE)
        sum_prev += _term(d_prev, edge, 0, part, H, H, HP, DTYPE)
        if AT_DST:
            sum_next += _sum_entering(d_raw, edges, pairs, edge, here, E, P, H, HP, BLOCK, REV)
    return sum_source, sum_mark, sum_prev, sum_next


@triton.jit
def _keep_sum(sums, chunk, tile, H: tl.constexpr, HP: tl.constexpr):  # type: ignore[no-untyped-def]
    """A program's part of one row of the bias gradient."""
    head = tl.arange(0, HP)
    tl.store(sums + chunk * H + head, tl.sum(tile, 0), mask=head < H)


@triton.jit
def _sum_columns(  # type: ignore[no-untyped-def]
    d_joined, sums, part, N,
    H: tl.constexpr, BLOCK: tl.constexpr, NODE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of some rows and some columns of what comes before the node terms."""
    WIDTH: tl.constexpr = NODE - 8 * H
    GROUPS: tl.constexpr = (WIDTH + COLUMNS - 1) // COLUMNS
    block, column = part // GROUPS, part % GROUPS * COLUMNS + tl.arange(0, COLUMNS)
    row = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = (row < N)[:, None] & (column < WIDTH)[None, :]
    tile = tl.load(d_joined + row[:, None] * NODE + column[None, :], mask=mask, other=0.0).to(sums.dtype.element_ty)
    tl.store(sums + block.to(tl.int64) * (4 * H + WIDTH) + 4 * H + column, tl.sum(tile, 0), mask=column < WIDTH)


@triton.jit
def _sum_parts(parts, total, part, R, NUMBERS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of all rows and some columns of parts of a gradient."""
    column = part * COLUMNS + tl.arange(0, COLUMNS)
    found = tl.zeros([ROWS, COLUMNS], total.dtype.element_ty)
    for first in range(0, R, ROWS):
        row = (first + tl.arange(0, ROWS)).to(tl.int64)
        mask = (row < R)[:, None] & (column < NUMBERS)[None, :]
        found += tl.load(parts + row[:, None] * NUMBERS + column[None, :], mask=mask, other=0.0)
    tl.store(total + column, tl.sum(found, 0), mask=column < NUMBERS)


@triton.jit
def _backward_nodes(  # type: ignore[no-untyped-def]
    gates, d_gates, d_joined, sums, nodes, edges, pairs, block, N, E, P,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, NODE: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Some rows of the node terms. Every edge has one src, so sums at src add up to the gradient of the bias."""
    d_node = d_joined + (NODE - 8 * H)
    sums += block.to(tl.int64) * (NODE - 4 * H)
    source, _, mark, direct, _, _ = _parts(gates, N, E, P, H)
    d_source, _, d_mark, d_direct, d_prev, d_raw = _parts(d_gates, N, E, P, H)
    node = block * BLOCK + tl.arange(0, BLOCK)
    valid = node < N
    inside = _inside(valid, H, HP)
    at_source, at_mark, at_prev, _ = _sum_edges(
        source, mark, d_source, d_mark, d_raw, d_prev, nodes, edges, pairs, node, valid, N, E, P,
        H, HP, BLOCK, REV, False,
    )  # fmt: skip
    _keep(d_node, node, 0, at_source, inside, NODE, H, HP)
    _keep(d_node, node, 2, at_mark, inside, NODE, H, HP)
    _keep(d_node, node, 4, at_prev, inside, NODE, H, HP)
    at_direct = _through_sigmoid(direct, d_direct, node, inside, H, HP, d_raw.dtype.element_ty)
    _keep(d_node, node, 7, at_direct, inside, NODE, H, HP)
    _keep_sum(sums, 0, at_source, H, HP)
    _keep_sum(sums, 1, at_prev, H, HP)
    _keep_sum(sums, 2, at_mark, H, HP)
    _keep_sum(sums, 3, at_direct, H, HP)
    at_source, at_mark, at_prev, at_next = _sum_edges(
        source, mark, d_source, d_mark, d_raw, d_prev, nodes, edges, pairs, node, valid, N, E, P,
        H, HP, BLOCK, REV, True,
    )  # fmt: skip
    _keep(d_node, node, 1, at_source, inside, NODE, H, HP)
    _keep(d_node, node, 3, at_mark, inside, NODE, H, HP)
    _keep(d_node, node, 5, at_prev, inside, NODE, H, HP)
    _keep(d_node, node, 6, at_next, inside, NODE, H, HP)


@triton.jit(do_not_specialize=["N", "E", "P", "R"], do_not_specialize_on_alignment=["nodes", "edges", "pairs"])
def _backward_terms(  # type: ignore[no-untyped-def]
    gates, d_gates, d_joined, d_edge, sums, parts, total, nodes, edges, pairs, N, E, P, R,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, NODE: tl.constexpr, COLUMNS: tl.constexpr,
    NUMBERS: tl.constexpr, PART_ROWS: tl.constexpr, PART_COLUMNS: tl.constexpr,
    FEATURES: tl.constexpr, GATHERED: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Programs first that sum parts, for they take longest, then of the nodes, then, if there are edge terms, of the
    edges: chunk 3 of ``d_edge``. Last those that sum columns."""
    part_blocks = (NUMBERS + PART_COLUMNS - 1) // PART_COLUMNS
    block = tl.program_id(0) - part_blocks
    node_blocks = tl.cdiv(N, BLOCK)
    edge_blocks = tl.cdiv(E, BLOCK) if FEATURES else 0
    if block < 0:
        _sum_parts(parts, total, block + part_blocks, R, NUMBERS, PART_ROWS, PART_COLUMNS)
    elif block < node_blocks:
        _backward_nodes(gates, d_gates, d_joined, sums, nodes, edges, pairs, block, N, E, P, H, HP, BLOCK, NODE, REV)
    elif block < node_blocks + edge_blocks:
        _, _, _, _, _, d_raw = _parts(d_gates, N, E, P, H)
        edge = (block - node_blocks) * BLOCK + tl.arange(0, BLOCK)
        valid = edge < E
        row = _column(edges, edge, valid, E, GATHERED, REV)
        sum_next = _sum_entering(d_raw, edges, pairs, edge, valid, E, P, H, HP, BLOCK, REV)
        _keep(d_edge, row, 3, sum_next, _inside(valid, H, HP), 4 * H, H, HP)
    else:
        _sum_columns(d_joined, sums, block - node_blocks - edge_blocks, N, H, BLOCK, NODE, COLUMNS)


# ------------------------------------------------------------------------------------------------------------- launches


@cache
def _shape(heads: int) -> tuple[int, int]:
    """HP and BLOCK; worked out once, since launches have no time to lose."""
    padded = power_of_2(heads)
    return padded, min(max(TILE // padded, 1), MOST_ROWS)


def _rows(terms: Tensor) -> Tensor:
    """Terms whose columns stand side by side; the rows may lie apart, as in a slice of wider ones."""
    return terms if terms.stride(1) == 1 else terms.contiguous()


def forward_gates(
    node_terms: Tensor,
    edge_terms: Tensor | None,
    bias: Tensor,
    plan: Plan,
    mode: str,
    reversed: bool,
    gathered: bool = False,
) -> Tensor:
    """Sum the linear terms of each gate and activate, as :class:`plstm_graph.PLSTMConv` does in plain PyTorch.

    Half precision terms are summed in float32. Sizes are not checked.

    Args:
        node_terms: source as src and as dst, mark as src and as dst, transition as tail, joint and head, direct,
            [N, 8 * H].
        edge_terms: source, mark, transition as prev and as next, one row per column of the caller's ``edge_index``,
            [M, 4 * H].
        bias: source, transition, mark, direct, [4, H]; contiguous.
        plan: of the line graph, pruned in D mode.
        mode: ``"P"`` or ``"D"``.
        reversed: read against the edges.
        gathered: ``edge_terms`` have one row per edge, [E, 4 * H], as where duplicate columns were averaged.

    Returns:
        The gates in float32, or float64 where a term has it, in one tensor, see :mod:`plstm_graph.ops.flat`. What
        stands behind them has no meaning in D mode.
    """
    heads = bias.size(1)
    nodes, edges, pairs = plan.nodes.size(1), plan.edges.size(1), plan.pairs.size(1)
    features = edge_terms is not None
    node_terms = _rows(node_terms)
    edge_terms = node_terms if edge_terms is None else _rows(edge_terms)
    exact = torch.float64 in (node_terms.dtype, edge_terms.dtype, bias.dtype)
    gates = node_terms.new_empty(flat.places(plan, heads)[flat.GATES], dtype=torch.float64 if exact else torch.float32)
    padded, block = _shape(heads)
    blocks = ceil_div(max(nodes, edges), block)
    if blocks:
        launch(
            _forward,
            (blocks,),
            (node_terms, edge_terms, bias, gates),
            (plan.edges, plan.pairs),
            (nodes, edges, pairs),
            (
                heads,
                padded,
                block,
                node_terms.stride(0),
                edge_terms.stride(0),
                mode == "P",
                features,
                gathered,
                reversed,
            ),
            OPTIONS,
        )
    return gates


def backward_gates(
    gates: Tensor,
    d_gates: Tensor,
    heads: int,
    plan: Plan,
    mode: str,
    reversed: bool,
    d_joined: Tensor,
    d_edge: Tensor | None,
    gathered: bool,
    parts: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the terms and the bias of :func:`forward_gates`, and sums for what else has a row for each node.

    Args:
        gates, d_gates: see :mod:`plstm_graph.ops.flat`.
        heads: H.
        plan, mode, reversed, gathered: as there.
        d_joined: the last 8 * H columns are filled with the gradients of the node terms; others may stand before,
            [N, columns + 8 * H]; contiguous.
        d_edge: filled with those of the edge terms, [M, 4 * H]; contiguous. Rows that no edge reads are left alone.
        parts: of any gradient, in the dtype of the gates, [parts, numbers]; contiguous.

    Returns:
        The gradient of the bias and the sum of the other columns, [4 * H + columns], and the sum of ``parts``.
    """
    nodes, edges, pairs = plan.nodes.size(1), plan.edges.size(1), plan.pairs.size(1)
    padded, block = _shape(heads)
    node_blocks, edge_blocks = ceil_div(nodes, block), ceil_div(edges, block)
    width, columns = d_joined.size(1), SUMMED // block
    rows, numbers = parts.shape
    sums = gates.new_empty(node_blocks, width - 4 * heads)
    total = gates.new_empty(numbers)
    features, into = d_edge is not None, d_joined if d_edge is None else d_edge
    if edges:
        launch(
            _backward_edges,
            (edge_blocks,),
            (gates, d_gates, into),
            (plan.edges, plan.pairs),
            (nodes, edges, pairs),
            (heads, padded, block, mode == "P", features, gathered, reversed),
            OPTIONS,
        )
    by_column = ceil_div(numbers, COLUMNS) + node_blocks * ceil_div(width - 8 * heads, columns)
    programs = by_column + node_blocks + (edge_blocks if features else 0)
    if programs:
        launch(
            _backward_terms,
            (programs,),
            (gates, d_gates, d_joined, into, sums, parts, total),
            (plan.nodes, plan.edges, plan.pairs),
            (nodes, edges, pairs, rows),
            (heads, padded, block, width, columns, numbers, PARTS, COLUMNS, features, gathered, reversed),
            OPTIONS,
        )
    return sums.sum(0), total

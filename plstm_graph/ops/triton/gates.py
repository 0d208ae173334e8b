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

from plstm_graph.gates import Gate, NodeTerm
from plstm_graph.launch import ceil_div, launch, power_of_2
from plstm_graph.line_dag.plan import Plan
from plstm_graph.ops import flat
from plstm_graph.ops.flat import Setting
from plstm_graph.ops.triton import gates_back
from plstm_graph.ops.triton.sums import SUM_COLUMNS, SUM_ROWS, SUMMED
from plstm_graph.ops.triton.terms import (
    AS_NEXT,
    AS_PREV,
    BIAS_DIRECT,
    BIAS_MARK,
    BIAS_SOURCE,
    BIAS_TRANSITION,
    BY_NEXT,
    BY_PREV,
    DIRECT,
    DST,
    EDGE_MARK,
    EDGE_SOURCE,
    HEAD,
    JOINT,
    MARK_DST,
    MARK_SRC,
    SOURCE_DST,
    SOURCE_SRC,
    SRC,
    TAIL,
    at_least_one,
    column_of,
    load_bias,
    load_chunk,
    pairs_of,
    source_gate,
    split_flat,
    store_chunk,
    there,
    transition_gate,
)

TILE = 256
"""Entries (rows times heads) of a program. Few: one that walks lists waits, and only other programs hide the wait."""
MOST_ROWS = 64
"""Rows of a program, for all of them wait for the longest list among them."""
OPTIONS = (("num_warps", 1),)


@triton.jit
def _forward_edges(  # type: ignore[no-untyped-def]
    node_terms, edge_terms, bias, edges, pairs, source, transition, mark, total, edge, valid, E, P,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, NODE: tl.constexpr, EDGE: tl.constexpr,
    NORMALIZED: tl.constexpr, SATURATING: tl.constexpr,
    FEATURES: tl.constexpr, GATHERED: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Source and mark of some edges, and the transitions of the pairs whose prev they are."""
    START: tl.constexpr = DST if REV else SRC
    END: tl.constexpr = SRC if REV else DST
    LIST: tl.constexpr = BY_NEXT if REV else BY_PREV
    DTYPE: tl.constexpr = source.dtype.element_ty
    inside = there(valid, H, HP)
    tail = tl.load(edges + START * E + edge, mask=valid, other=0)
    joint = tl.load(edges + END * E + edge, mask=valid, other=0)
    first, count = pairs_of(edges, edge, valid, E, REV)
    raw_source = load_chunk(node_terms, tail, SOURCE_SRC, inside, NODE, H, HP, DTYPE)
    raw_source += load_chunk(node_terms, joint, SOURCE_DST, inside, NODE, H, HP, DTYPE)
    raw_mark = load_chunk(node_terms, tail, MARK_SRC, inside, NODE, H, HP, DTYPE)
    raw_mark += load_chunk(node_terms, joint, MARK_DST, inside, NODE, H, HP, DTYPE)
    as_prev = load_chunk(node_terms, tail, TAIL, inside, NODE, H, HP, DTYPE)
    as_prev += load_chunk(node_terms, joint, JOINT, inside, NODE, H, HP, DTYPE)
    if FEATURES:
        row = column_of(edges, edge, valid, E, GATHERED, REV)
        raw_source += load_chunk(edge_terms, row, EDGE_SOURCE, inside, EDGE, H, HP, DTYPE)
        raw_mark += load_chunk(edge_terms, row, EDGE_MARK, inside, EDGE, H, HP, DTYPE)
        as_prev += load_chunk(edge_terms, row, AS_PREV, inside, EDGE, H, HP, DTYPE)
    raw_source += load_bias(bias, BIAS_SOURCE, H, HP, DTYPE)
    raw_mark += load_bias(bias, BIAS_MARK, H, HP, DTYPE)
    as_prev += load_bias(bias, BIAS_TRANSITION, H, HP, DTYPE)
    store_chunk(source, edge, 0, source_gate(raw_source, SATURATING), inside, H, H, HP)
    store_chunk(mark, edge, 0, tl.sigmoid(raw_mark), inside, H, H, HP)

    most = tl.max(count, 0)
    size = tl.zeros([BLOCK, HP], DTYPE)
    for i in range(0, most):
        here = i < count
        pair = tl.load(pairs + LIST * P + first + i, mask=here, other=0)
        other = tl.load(pairs + (LIST + 1) * P + first + i, mask=here, other=0)
        head = tl.load(edges + END * E + other, mask=here, other=0)
        part = there(here, H, HP)
        raw = as_prev + load_chunk(node_terms, head, HEAD, part, NODE, H, HP, DTYPE)
        if FEATURES:
            row = column_of(edges, other, here, E, GATHERED, REV)
            raw += load_chunk(edge_terms, row, AS_NEXT, part, EDGE, H, HP, DTYPE)
        gate = transition_gate(raw, SATURATING)
        size += tl.where(part, tl.abs(gate), 0.0)
        store_chunk(transition, pair, 0, gate, part, H, H, HP)
    if NORMALIZED:
        store_chunk(total, edge, 0, size, inside, H, H, HP)
        tl.debug_barrier()  # what this program stored in the first walk is read again, perhaps by another thread
        divisor = at_least_one(size)
        for i in range(0, most):
            here = i < count
            pair = tl.load(pairs + LIST * P + first + i, mask=here, other=0)
            part = there(here, H, HP)
            gate = load_chunk(transition, pair, 0, part, H, H, HP, DTYPE)
            store_chunk(transition, pair, 0, gate / divisor, part, H, H, HP)


@triton.jit(do_not_specialize=["N", "E", "P"], do_not_specialize_on_alignment=["edges", "pairs"])
def _forward(  # type: ignore[no-untyped-def]
    node_terms, edge_terms, bias, gates, edges, pairs, N, E, P,
    H: tl.constexpr, HP: tl.constexpr, BLOCK: tl.constexpr, NODE: tl.constexpr, EDGE: tl.constexpr,
    NORMALIZED: tl.constexpr, SATURATING: tl.constexpr,
    FEATURES: tl.constexpr, GATHERED: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Let each program take the nodes and the edges of the same numbers."""
    DTYPE: tl.constexpr = gates.dtype.element_ty
    source, transition, mark, direct, total, _ = split_flat(gates, N, E, P, H)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = there(row < N, H, HP)
    raw = load_chunk(node_terms, row, DIRECT, inside, NODE, H, HP, DTYPE) + load_bias(bias, BIAS_DIRECT, H, HP, DTYPE)
    store_chunk(direct, row, 0, tl.sigmoid(raw), inside, H, H, HP)
    _forward_edges(
        node_terms, edge_terms, bias, edges, pairs, source, transition, mark, total, row, row < E, E, P,
        H, HP, BLOCK, NODE, EDGE, NORMALIZED, SATURATING, FEATURES, GATHERED, REV,
    )  # fmt: skip


@cache
def _shape(heads: int) -> tuple[int, int]:
    """HP and BLOCK; worked out once, since launches have no time to lose."""
    padded = power_of_2(heads)
    return padded, min(max(TILE // padded, 1), MOST_ROWS)


def _rows(terms: Tensor) -> Tensor:
    """Terms whose columns stand side by side; the rows may lie apart, as in a slice of wider ones."""
    return terms if terms.stride(1) == 1 else terms.contiguous()


def forward_gates(node_terms: Tensor, edge_terms: Tensor | None, bias: Tensor, plan: Plan, setting: Setting) -> Tensor:
    """Sum the linear terms of each gate and activate, as :class:`plstm_graph.PLSTMConv` does in plain PyTorch.

    Half precision terms are summed in float32. Sizes are not checked.

    Args:
        node_terms: chunks in the order of :class:`NodeTerm`, [N, 8 * H].
        edge_terms: in the order of :class:`EdgeTerm`, one row per column of the caller's ``edge_index``, [M, 4 * H], or
            one per edge, [E, 4 * H], if ``gathered``, as where duplicate columns were averaged.
        bias: in the order of :class:`Gate`, [4, H]; contiguous.
        plan: of the line graph, pruned in D mode.
        setting: heads, mode, transition, reversed and gathered.

    Returns:
        The gates in float32, or float64 where a term has it, in one tensor, see :mod:`plstm_graph.ops.flat`. What
        stands behind them has no meaning in D mode.
    """
    heads = setting.heads
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
                setting.mode == "P",
                setting.transition == "saturating",
                features,
                setting.gathered,
                setting.reversed,
            ),
            OPTIONS,
        )
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
    """Gradients of the terms and the bias of :func:`forward_gates`, and sums for what else has a row for each node.

    Args:
        gates, d_gates: see :mod:`plstm_graph.ops.flat`.
        plan, setting: as there.
        d_joined: the last 8 * H columns are filled with the gradients of the node terms; others may stand before,
            [N, columns + 8 * H]; contiguous.
        d_edge: filled with those of the edge terms, [M, 4 * H]; contiguous. Rows that no edge reads are left alone.
        parts: of any gradient, in the dtype of the gates, [parts, numbers]; contiguous.

    Returns:
        The gradient of the bias and the sum of the other columns, [4 * H + columns], and the sum of ``parts``.
    """
    heads, saturating = setting.heads, setting.transition == "saturating"
    nodes, edges, pairs = plan.nodes.size(1), plan.edges.size(1), plan.pairs.size(1)
    padded, block = _shape(heads)
    node_blocks, edge_blocks = ceil_div(nodes, block), ceil_div(edges, block)
    width, columns = d_joined.size(1), SUMMED // block
    rows, numbers = parts.shape
    sums = gates.new_empty(node_blocks, width - (len(NodeTerm) - len(Gate)) * heads)
    total = gates.new_empty(numbers)
    features, into = d_edge is not None, d_joined if d_edge is None else d_edge
    if edges:
        launch(
            gates_back.edges_back,
            (edge_blocks,),
            (gates, d_gates, into),
            (plan.edges, plan.pairs),
            (nodes, edges, pairs),
            (heads, padded, block, setting.mode == "P", saturating, features, setting.gathered, setting.reversed),
            OPTIONS,
        )
    by_column = ceil_div(numbers, SUM_COLUMNS) + node_blocks * ceil_div(width - len(NodeTerm) * heads, columns)
    programs = by_column + node_blocks + (edge_blocks if features else 0)
    if programs:
        launch(
            gates_back.terms_back,
            (programs,),
            (gates, d_gates, d_joined, into, sums, parts, total),
            (plan.nodes, plan.edges, plan.pairs),
            (nodes, edges, pairs, rows),
            (
                *(heads, padded, block, width, columns, numbers, SUM_ROWS, SUM_COLUMNS),
                *(saturating, features, setting.gathered, setting.reversed),
            ),
            OPTIONS,
        )
    return sums.sum(0), total

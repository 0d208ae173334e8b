"""Things that the kernels of gates share: linear terms, lists of pairs, gates and their gradients in one tensor."""

import triton
import triton.language as tl

from plstm_graph import gates as definition
from plstm_graph.line_dag.plan import Edge, Node, Pair
from plstm_graph.ops import flat

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
SOURCE_SRC: tl.constexpr = tl.constexpr(int(definition.NodeTerm.SOURCE_SRC))
SOURCE_DST: tl.constexpr = tl.constexpr(int(definition.NodeTerm.SOURCE_DST))
MARK_SRC: tl.constexpr = tl.constexpr(int(definition.NodeTerm.MARK_SRC))
MARK_DST: tl.constexpr = tl.constexpr(int(definition.NodeTerm.MARK_DST))
TAIL: tl.constexpr = tl.constexpr(int(definition.NodeTerm.TAIL))
JOINT: tl.constexpr = tl.constexpr(int(definition.NodeTerm.JOINT))
HEAD: tl.constexpr = tl.constexpr(int(definition.NodeTerm.HEAD))
DIRECT: tl.constexpr = tl.constexpr(int(definition.NodeTerm.DIRECT))
NODE_TERMS: tl.constexpr = tl.constexpr(len(definition.NodeTerm))
EDGE_SOURCE: tl.constexpr = tl.constexpr(int(definition.EdgeTerm.SOURCE))
EDGE_MARK: tl.constexpr = tl.constexpr(int(definition.EdgeTerm.MARK))
AS_PREV: tl.constexpr = tl.constexpr(int(definition.EdgeTerm.AS_PREV))
AS_NEXT: tl.constexpr = tl.constexpr(int(definition.EdgeTerm.AS_NEXT))
EDGE_TERMS: tl.constexpr = tl.constexpr(len(definition.EdgeTerm))
BIAS_SOURCE: tl.constexpr = tl.constexpr(int(definition.Gate.SOURCE))
BIAS_TRANSITION: tl.constexpr = tl.constexpr(int(definition.Gate.TRANSITION))
BIAS_MARK: tl.constexpr = tl.constexpr(int(definition.Gate.MARK))
BIAS_DIRECT: tl.constexpr = tl.constexpr(int(definition.Gate.DIRECT))
BIASES: tl.constexpr = tl.constexpr(len(definition.Gate))
LINE: tl.constexpr = tl.constexpr(flat.LINE)
SATURATED: tl.constexpr = tl.constexpr(definition.SATURATED)
LEAK: tl.constexpr = tl.constexpr(definition.LEAK)
SLOPE: tl.constexpr = tl.constexpr(definition.SOURCE_SLOPE)

# Terms are chunks of H columns, in the orders of NodeTerm and EdgeTerm; rows of the bias and of its gradient have that
# of Gate. Tiles are [BLOCK, HP], HP the power of two from H on. REV: read against the edges.
# SATURATING: transitions and sources are cut off. NODE and EDGE: from row to row of node and edge terms.
# Rows of tables stand one after the other, ``table + ROW * size``. Sizes are never specialised: one compiled kernel
# serves every batch.


@triton.jit
def split_flat(flat, N, E, P, H: tl.constexpr):  # type: ignore[no-untyped-def]
    """Find where the parts of ``flat`` begin, see ``flat.py``."""
    edges = (E.to(tl.int64) * H + LINE - 1) // LINE * LINE
    pairs = (P.to(tl.int64) * H + LINE - 1) // LINE * LINE
    nodes = (N.to(tl.int64) * H + LINE - 1) // LINE * LINE
    transition = flat + edges
    mark = transition + pairs
    direct = mark + edges
    fifth = direct + nodes
    return flat, transition, mark, direct, fifth, fifth + edges


@triton.jit
def there(valid, H: tl.constexpr, HP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Mask of the numbers that there are in some rows, [BLOCK, HP]."""
    return valid[:, None] & (tl.arange(0, HP) < H)[None, :]


@triton.jit
def _chunk(base, row, chunk, WIDTH: tl.constexpr, H: tl.constexpr, HP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Pointers to one chunk of some rows, [BLOCK, HP]."""
    return base + row.to(tl.int64)[:, None] * WIDTH + chunk * H + tl.arange(0, HP)[None, :]


@triton.jit
def load_chunk(base, row, chunk, inside, WIDTH: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """One chunk of some rows, zero outside."""
    return tl.load(_chunk(base, row, chunk, WIDTH, H, HP), mask=inside, other=0.0).to(DTYPE)


@triton.jit
def store_chunk(base, row, chunk, tile, inside, WIDTH: tl.constexpr, H: tl.constexpr, HP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write one chunk of some rows."""
    tl.store(_chunk(base, row, chunk, WIDTH, H, HP), tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def load_bias(bias, chunk, H: tl.constexpr, HP: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row of the bias, [1, HP]."""
    head = tl.arange(0, HP)
    return tl.load(bias + chunk * H + head, mask=head < H, other=0.0).to(DTYPE)[None, :]


@triton.jit
def column_of(edges, edge, valid, E, GATHERED: tl.constexpr, REV: tl.constexpr):  # type: ignore[no-untyped-def]
    """Row of the edge terms that each edge reads."""
    COLUMN: tl.constexpr = AGAINST if REV else ALONG
    return edge if GATHERED else tl.load(edges + COLUMN * E + edge, mask=valid, other=0)


@triton.jit
def pairs_of(edges, edge, valid, E, REV: tl.constexpr):  # type: ignore[no-untyped-def]
    """First place and length of each edge's list of pairs whose prev it is; edges that are not valid have none."""
    LIST: tl.constexpr = ENTERING if REV else EXITING
    LENGTH: tl.constexpr = ENTER if REV else EXIT
    first = tl.load(edges + LIST * E + edge, mask=valid, other=0)
    return first, tl.load(edges + LENGTH * E + edge, mask=valid, other=0)


@triton.jit
def tanh(x):  # type: ignore[no-untyped-def]
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
def _cut(x, LOW: tl.constexpr):  # type: ignore[no-untyped-def]
    """``x`` from LOW to 1; a NaN stays one."""
    return tl.where(x > 1, 1.0, tl.where(x < LOW, LOW, x))


@triton.jit
def _slope(place):  # type: ignore[no-untyped-def]
    """Slope of what is cut off at -1 and 1."""
    return tl.where(tl.abs(place) < SATURATED, 1.0, LEAK)


@triton.jit
def transition_gate(raw, SATURATING: tl.constexpr):  # type: ignore[no-untyped-def]
    """See :func:`plstm_graph.gates.activate_transition`."""
    return _cut(raw, -1.0) if SATURATING else tanh(raw)


@triton.jit
def through_transition(gate, grad, SATURATING: tl.constexpr):  # type: ignore[no-untyped-def]
    """Gradient before the activation; ``gate`` before the normalisation."""
    return grad * (_slope(gate) if SATURATING else 1 - gate * gate)


@triton.jit
def source_gate(raw, SATURATING: tl.constexpr):  # type: ignore[no-untyped-def]
    """See :func:`plstm_graph.gates.activate_source`."""
    return _cut(raw * SLOPE + 0.5, 0.0) if SATURATING else tl.sigmoid(raw)


@triton.jit
def at_least_one(total):  # type: ignore[no-untyped-def]
    """Like ``clamp(min=1)``: a NaN stays one."""
    return tl.where(total < 1, 1.0, total)


@triton.jit
def through_sigmoid(gate, grad, row, inside, H: tl.constexpr, HP: tl.constexpr, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Gradient of some rows before the sigmoid."""
    value = load_chunk(gate, row, 0, inside, H, H, HP, DTYPE)
    return load_chunk(grad, row, 0, inside, H, H, HP, DTYPE) * value * (1 - value)


@triton.jit
def through_source(  # type: ignore[no-untyped-def]
    gate, grad, row, inside, H: tl.constexpr, HP: tl.constexpr, DTYPE: tl.constexpr, SATURATING: tl.constexpr
):
    """Gradient of some rows before the activation of a source."""
    if SATURATING:
        value = load_chunk(gate, row, 0, inside, H, H, HP, DTYPE)
        raw = load_chunk(grad, row, 0, inside, H, H, HP, DTYPE) * _slope(2 * value - 1) * SLOPE
    else:
        raw = through_sigmoid(gate, grad, row, inside, H, HP, DTYPE)
    return raw

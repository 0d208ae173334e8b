"""The walks of the parallel form: along the edges of a graph for its gating matrix, and back for the gates' gradients.

A program takes some heads of one graph and every column of their matrices (the node that a signal comes from); columns
do not mix. No atomics, and a graph's numbers depend on nothing but the graph.
"""

import triton
import triton.language as tl

from plstm_graph.line_dag.plan import TILES, Edge, Graph, Pair, Work

UNIT = tl.constexpr(TILES[0])
CLASSES = tl.constexpr(4)
"""Size classes of graphs that kernels tell apart, at most."""
CLEARED = tl.constexpr(1024)
"""Numbers of the tile that clears a matrix."""
ROOM = tl.constexpr(int(Work.ROOM))
NODE = tl.constexpr(int(Graph.NODE))
NODES = tl.constexpr(int(Graph.NODES))
EDGE = tl.constexpr(int(Graph.EDGE))
EDGES = tl.constexpr(int(Graph.EDGES))
SRC = tl.constexpr(int(Edge.SRC))
DST = tl.constexpr(int(Edge.DST))
ENTERING = tl.constexpr(int(Edge.ENTERING))
EXITING = tl.constexpr(int(Edge.EXITING))
BY_NEXT = tl.constexpr(int(Pair.BY_NEXT))
BY_PREV = tl.constexpr(int(Pair.BY_PREV))

# Letters of the kernels: HB heads of a program, C columns of a tile, NB nodes at a time. REV: read against the edges.
# A row of a table is ``table + ROW * size``. ``states`` [edges, H, C] and ``matrix`` [nodes, H, C] of a graph stand in
# its room, one after the other; edges and nodes in them are counted within the graph. Gates and room start at the
# program's first head, ``heads`` are those left from there on.


@triton.jit
def task(n0, n1, n2, n3, P0: tl.constexpr, P1: tl.constexpr, P2: tl.constexpr, P3: tl.constexpr):  # type: ignore[no-untyped-def]
    """Class and place in ``work`` of the program's graph, and its number among the graph's programs, from the graphs of
    each class and the programs of a graph. The widest class comes first, in each the graph with the most edges: their
    programs take the longest."""
    program, last = tl.program_id(0), n0 + n1 + n2 + n3 - 1
    found, place, part = 0, 0, 0
    for i in tl.static_range(CLASSES - 1, -1, -1):
        count = n0 if i == 0 else (n1 if i == 1 else (n2 if i == 2 else n3))
        parts = P0 if i == 0 else (P1 if i == 1 else (P2 if i == 2 else P3))
        here = (program >= 0) & (program < count * parts)
        found = tl.where(here, i, found)
        place = tl.where(here, last - program // parts, place)
        part = tl.where(here, program % parts, part)
        program -= count * parts
        last -= count
    return found, place, part


@triton.jit
def graph_of(work, graphs, room, place, G, H: tl.constexpr, C: tl.constexpr):  # type: ignore[no-untyped-def]
    """First node, nodes, first edge and edges of a graph, and where its states and its matrix begin."""
    graph = tl.load(work + place)
    node, nodes = tl.load(graphs + NODE * G + graph), tl.load(graphs + NODES * G + graph)
    edge, count = tl.load(graphs + EDGE * G + graph), tl.load(graphs + EDGES * G + graph)
    states = room + tl.load(work + ROOM * G + place).to(tl.int64) * (UNIT * H)
    return node, nodes, edge, count, states, states + count.to(tl.int64) * (H * C)


@triton.jit
def gate(gates, at, mask):  # type: ignore[no-untyped-def]
    """Gates in the dtype that they are computed in: float32, or float64 as they are."""
    DTYPE: tl.constexpr = tl.float64 if gates.dtype.element_ty == tl.float64 else tl.float32
    return tl.load(gates + at, mask=mask, other=0.0).to(DTYPE)


@triton.jit
def _edge(edges, gates, at, valid, heads, E, H: tl.constexpr, HB: tl.constexpr, END: tl.constexpr, LIST: tl.constexpr):  # type: ignore[no-untyped-def]
    """What the walk needs of one edge: an end point, the first of its pairs, their number, a gate [HB]."""
    lane = tl.arange(0, HB)
    return (
        tl.load(edges + END * E + at, mask=valid, other=0),
        tl.load(edges + LIST * E + at, mask=valid, other=0),
        tl.load(edges + (LIST + 1) * E + at, mask=valid, other=0),
        gate(gates, at * H + lane, lane < tl.where(valid, heads, 0)),
    )


@triton.jit
def _pair(pairs, place, valid, P, PAIRED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Number of a pair and the edge at its other end."""
    pair = tl.load(pairs + PAIRED * P + place, mask=valid, other=0).to(tl.int64)
    return pair, tl.load(pairs + (PAIRED + 1) * P + place, mask=valid, other=0)


@triton.jit
def _clear(  # type: ignore[no-untyped-def]
    direct, matrix, nodes, heads, H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr, NB: tl.constexpr
):  # fmt: skip
    """Gating matrices [nodes, H, C] with nothing but the direct gates on the diagonal."""
    lane, column = tl.arange(0, HB)[None, :, None], tl.arange(0, C)[None, None, :]
    for n in range(0, nodes, NB):
        at = n + tl.arange(0, NB)[:, None, None]
        mask = (at < nodes) & (lane < heads)
        tile = tl.where(column == at, gate(direct, at * H + lane, mask), 0.0)
        tl.store(matrix + (at * H + lane) * C + column, tile, mask=mask & (column < C))


@triton.jit
def _states(  # type: ignore[no-untyped-def]
    source, transition, mark, edges, pairs, states, matrix, node, nodes, edge, count, heads, E, P,
    H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """How much of each node's signal every edge carries, ``(I - T)⁻¹`` times the sources, into ``states``
    [edges, H, C]; marked, added to the row of the edge's head in ``matrix`` [nodes, H, C].

    What an edge looks up is asked for two steps ahead and its first pair one step ahead: what a step then waits for is
    the state of another edge, nothing more.
    """
    START: tl.constexpr = DST if REV else SRC
    END: tl.constexpr = SRC if REV else DST
    LIST: tl.constexpr = EXITING if REV else ENTERING
    PAIRED: tl.constexpr = BY_PREV if REV else BY_NEXT
    lane, column = tl.arange(0, HB), tl.arange(0, C)[None, :]
    inside = (lane < heads)[:, None] & (column < C)
    own = lane[:, None] * C + column
    begin = count - 1 if REV else 0
    step = -1 if REV else 1
    tail, first, length, fed = _edge(edges, source, begin, count > 0, heads, E, H, HB, START, LIST)
    tail1, first1, length1, fed1 = _edge(edges, source, begin + step, count > 1, heads, E, H, HB, START, LIST)
    pair, other = _pair(pairs, first, length > 0, P, PAIRED)
    for i in range(0, count):
        at = begin + step * i
        tail2, first2, length2, fed2 = _edge(edges, source, at + 2 * step, i + 2 < count, heads, E, H, HB, START, LIST)
        pair1, other1 = _pair(pairs, first1, length1 > 0, P, PAIRED)
        row = matrix + (tl.load(edges + END * E + at) - node) * (H * C) + own
        read = tl.load(row, mask=inside, other=0.0)
        weight = gate(mark, at * H + lane, lane < heads)
        state = tl.where(column == tail - node, fed[:, None], 0.0)
        for j in range(0, length):
            if j > 0:
                pair, other = _pair(pairs, first + j, length > 0, P, PAIRED)
            through = gate(transition, pair * H + lane, lane < heads)
            state += through[:, None] * tl.load(states + (other - edge) * (H * C) + own, mask=inside, other=0.0)
        tl.store(states + at * (H * C) + own, state, mask=inside)
        tl.store(row, read + weight[:, None] * state, mask=inside)
        tl.debug_barrier()  # the next step may read both in other threads
        tail, first, length, fed, pair, other = tail1, first1, length1, fed1, pair1, other1
        tail1, first1, length1, fed1 = tail2, first2, length2, fed2


@triton.jit
def _adjoints(  # type: ignore[no-untyped-def]
    transition, mark, d_source, d_transition, d_mark, edges, pairs, states, d_matrix, node, nodes, edge, count, heads,
    E, P, H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """The walk back, ``(I - Tᵀ)⁻¹``: the adjoint of each state takes its place, and three gates get their gradients.

    ``T̄_p = ⟨B̄_next(p), C_prev(p)⟩``; a mark's is the state times its head's row of ``d_matrix``, a source's the
    adjoint at its tail's column.
    """
    START: tl.constexpr = DST if REV else SRC
    END: tl.constexpr = SRC if REV else DST
    LIST: tl.constexpr = ENTERING if REV else EXITING
    PAIRED: tl.constexpr = BY_NEXT if REV else BY_PREV
    lane, column = tl.arange(0, HB), tl.arange(0, C)[None, :]
    inside = (lane < heads)[:, None] & (column < C)
    known = inside & (column < nodes) if C > UNIT else inside  # what stands behind a matrix has no zeros beyond
    own = lane[:, None] * C + column
    begin = 0 if REV else count - 1
    step = 1 if REV else -1
    end, first, length, read = _edge(edges, mark, begin, count > 0, heads, E, H, HB, END, LIST)
    end1, first1, length1, read1 = _edge(edges, mark, begin + step, count > 1, heads, E, H, HB, END, LIST)
    pair, other = _pair(pairs, first, length > 0, P, PAIRED)
    for i in range(0, count):
        at = begin + step * i
        end2, first2, length2, read2 = _edge(edges, mark, at + 2 * step, i + 2 < count, heads, E, H, HB, END, LIST)
        pair1, other1 = _pair(pairs, first1, length1 > 0, P, PAIRED)
        tail = tl.load(edges + START * E + at) - node
        state = tl.load(states + at * (H * C) + own, mask=inside, other=0.0)
        row = tl.load(d_matrix + (end - node) * (H * C) + own, mask=known, other=0.0)
        adjoint = read[:, None] * row
        for j in range(0, length):
            if j > 0:
                pair, other = _pair(pairs, first + j, length > 0, P, PAIRED)
            through = gate(transition, pair * H + lane, lane < heads)
            carried = tl.load(states + (other - edge) * (H * C) + own, mask=inside, other=0.0)
            adjoint += through[:, None] * carried
            tl.store(d_transition + pair * H + lane, tl.sum(carried * state, 1), mask=lane < heads)
        tl.debug_barrier()  # every thread has read the state that is now replaced
        tl.store(states + at * (H * C) + own, adjoint, mask=inside)
        tl.store(d_mark + at * H + lane, tl.sum(row * state, 1), mask=lane < heads)
        tl.store(d_source + at * H + lane, tl.sum(tl.where(column == tail, adjoint, 0.0), 1), mask=lane < heads)
        tl.debug_barrier()
        end, first, length, read, pair, other = end1, first1, length1, read1, pair1, other1
        end1, first1, length1, read1 = end2, first2, length2, read2


@triton.jit
def _along(  # type: ignore[no-untyped-def]
    source, transition, mark, direct, room, graphs, edges, pairs, work, place, block, G, E, P,
    H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """States and gating matrix of the graph at a place of ``work``, of one block of its heads."""
    NB: tl.constexpr = CLEARED // (HB * C)
    node, nodes, edge, count, states, matrix = graph_of(work, graphs, room, place, G, H, C)
    head = block * HB
    heads = tl.minimum(H - head, HB)
    gates = edge.to(tl.int64) * H + head
    _clear(direct + node.to(tl.int64) * H + head, matrix + head * C, nodes, heads, H, HB, C, NB)
    tl.debug_barrier()
    _states(
        source + gates, transition + head, mark + gates, edges + edge, pairs, states + head * C, matrix + head * C,
        node, nodes, edge, count, heads, E, P, H, HB, C, REV,
    )  # fmt: skip


@triton.jit
def _back(  # type: ignore[no-untyped-def]
    transition, mark, d_source, d_transition, d_mark, room, graphs, edges, pairs, work, place, block, G, E, P,
    H: tl.constexpr, HB: tl.constexpr, C: tl.constexpr, REV: tl.constexpr,
):  # fmt: skip
    """Gradients of source, transition and mark of the same graph and heads."""
    node, nodes, edge, count, states, d_matrix = graph_of(work, graphs, room, place, G, H, C)
    if C > UNIT:  # behind the matrix, see attention.py
        d_matrix += nodes * (H * C)
    head = block * HB
    gates = edge.to(tl.int64) * H + head
    _adjoints(
        transition + head, mark + gates, d_source + gates, d_transition + head, d_mark + gates, edges + edge, pairs,
        states + head * C, d_matrix + head * C, node, nodes, edge, count, tl.minimum(H - head, HB), E, P, H, HB, C, REV,
    )  # fmt: skip


# Both kernels take all classes in one launch. C: tile of the narrowest class, each of the others is twice the one
# before; n0 to n3: graphs of each class; HB0 to HB3: heads of a program.


@triton.jit(
    do_not_specialize=["n0", "n1", "n2", "n3", "G", "E", "P"],
    do_not_specialize_on_alignment=["graphs", "edges", "pairs", "work"],
)
def along(  # type: ignore[no-untyped-def]
    source, transition, mark, direct, room, graphs, edges, pairs, work, n0, n1, n2, n3, G, E, P,
    H: tl.constexpr, C: tl.constexpr, HB0: tl.constexpr, HB1: tl.constexpr, HB2: tl.constexpr, HB3: tl.constexpr,
    REV: tl.constexpr,
):  # fmt: skip
    """States and gating matrices."""
    found, place, block = task(
        n0, n1, n2, n3, (H + HB0 - 1) // HB0, (H + HB1 - 1) // HB1, (H + HB2 - 1) // HB2, (H + HB3 - 1) // HB3
    )
    for i in tl.static_range(CLASSES):
        if found == i:
            _along(
                source, transition, mark, direct, room, graphs, edges, pairs, work, place, block, G, E,
                P, H, HB0 if i == 0 else (HB1 if i == 1 else (HB2 if i == 2 else HB3)), C << i, REV,
            )  # fmt: skip


@triton.jit(
    do_not_specialize=["n0", "n1", "n2", "n3", "G", "E", "P"],
    do_not_specialize_on_alignment=["graphs", "edges", "pairs", "work"],
)
def back(  # type: ignore[no-untyped-def]
    transition, mark, d_source, d_transition, d_mark, room, graphs, edges, pairs, work, n0, n1, n2, n3, G, E, P,
    H: tl.constexpr, C: tl.constexpr, HB0: tl.constexpr, HB1: tl.constexpr, HB2: tl.constexpr, HB3: tl.constexpr,
    REV: tl.constexpr,
):  # fmt: skip
    """Gradients of source, transition and mark, from states and the gradients of the matrices."""
    found, place, block = task(
        n0, n1, n2, n3, (H + HB0 - 1) // HB0, (H + HB1 - 1) // HB1, (H + HB2 - 1) // HB2, (H + HB3 - 1) // HB3
    )
    for i in tl.static_range(CLASSES):
        if found == i:
            _back(
                transition, mark, d_source, d_transition, d_mark, room, graphs, edges, pairs, work, place, block, G, E,
                P, H, HB0 if i == 0 else (HB1 if i == 1 else (HB2 if i == 2 else HB3)), C << i, REV,
            )  # fmt: skip

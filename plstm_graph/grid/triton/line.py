# mypy: disable-error-code="assignment, var-annotated"
"""D mode: of each pair of pixels there is one path at most, down a column, through one turn, along a row.

A program takes some source pixels, a lane each, as in ``walk``. What a lane has comes down its own column, so it takes
one register and nothing has to be kept for the way back. With the other turn open, paths run along a row first: seen
from the pixel that reads they are of the first kind. Then (MIRRORED) lanes are the pixels that read, sources and marks
change places, as do a direction's gates with those of the opposite one, and the matrix is transposed.
"""

import triton
import triton.language as tl

from plstm_graph.grid.triton.lanes import at_step, in_lanes, in_steps, no_sums, with_step
from plstm_graph.grid.triton.walk import keep_row, place, side


@triton.jit
def _gates(begin, direction, H: tl.constexpr, N: tl.constexpr, MIRRORED: tl.constexpr):  # type: ignore[no-untyped-def]
    return begin + (3 - direction if MIRRORED else direction) * H * N


@triton.jit
def _own(source, transition, mark, down, home, at, mask, MIRRORED: tl.constexpr):  # type: ignore[no-untyped-def]
    """A row at each lane's own column, from what comes ``down``: transitions to the row and further down, the mark,
    and what enters the row. In a pixel's own row, ``home``, that is its source."""
    turn = tl.load(transition + 4 * at + (2 if MIRRORED else 1), mask=mask, other=0.0)
    further = tl.load(transition + 4 * at + 3, mask=mask, other=0.0)
    to_own = tl.load(mark + 2 * at + 1, mask=mask, other=0.0)
    return turn, further, to_own, tl.where(home, tl.load(source + 2 * at, mask=mask, other=0.0), turn * down)


@triton.jit
def _row(  # type: ignore[no-untyped-def]
    source, transition, mark, down, lane, column_of, row, X: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr,
    LEFT: tl.constexpr, MIRRORED: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """One row: what comes down after it, and what each pixel reads."""
    at, mask, own = row * X + column_of, lane < N, tl.arange(0, LANES)
    home = lane == at
    _, further, to_own, enters = _own(source, transition, mark, down, home, at, mask, MIRRORED)
    begun = tl.load(source + 2 * at + 1, mask=mask, other=0.0)
    order = row * X + (X - 1 - own if LEFT else own)
    to_a, along = in_steps(mark, order, own < X, 2, 0), in_steps(transition, order, own < X, 4, 0)
    a = tl.zeros([LANES], DTYPE)
    to_own *= down
    found = ()
    for step in tl.static_range(X):
        here = column_of == (X - 1 - step if LEFT else step)
        found = found + (tl.where(here, to_own, at_step(to_a, step) * a),)
        a = tl.where(here, enters, at_step(along, step) * a)
    return tl.where(home, begun, further * down), found


@triton.jit(do_not_specialize=["first"])
def line(  # type: ignore[no-untyped-def]
    source, transition, mark, direct, matrix, first,
    H: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, LANES: tl.constexpr, MIRRORED: tl.constexpr,
):  # fmt: skip
    """The gating matrices of four directions and the direct gates, added."""
    DTYPE: tl.constexpr = matrix.dtype.element_ty
    N: tl.constexpr = Y * X
    here, block, _, begin, low, high = place(first, H, N, X, LANES, 1)
    lane = block * LANES + tl.arange(0, LANES)
    column_of = lane % X
    matrix += here * N * N
    direct += (here + first) * N
    for up in range(0, 2):
        right, left = _gates(begin, 2 * up, H, N, MIRRORED), _gates(begin, 2 * up + 1, H, N, MIRRORED)
        rows, begins, kept, _ = side(up, low, high, Y, 0)
        down, down_left = tl.zeros([LANES], DTYPE), tl.zeros([LANES], DTYPE)
        for step in range(0, rows):
            row = begins + step * (1 - 2 * up)
            down, found = _row(
                source + 2 * right, transition + 4 * right, mark + 2 * right, down, lane, column_of, row,
                X, N, LANES, False, MIRRORED, DTYPE,
            )  # fmt: skip
            down_left, more = _row(
                source + 2 * left, transition + 4 * left, mark + 2 * left, down_left, lane, column_of, row,
                X, N, LANES, True, MIRRORED, DTYPE,
            )  # fmt: skip
            keep_row(matrix, found, more, direct, lane, row, kept, up, X, N)
        tl.debug_barrier()  # the other side adds to what other threads may have written


@triton.jit
def _row_back(  # type: ignore[no-untyped-def]
    source, transition, mark, d_matrix, parts, columns, comes, below, fed_a, fed_b, lane, column_of, row, left,
    Y: tl.constexpr, X: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr, MIRRORED: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """One row against its direction; ``comes`` down to it, ``below`` is the adjoint of what comes down from it.

    Sums over lanes for what is along the row go to ``parts`` [Y * X, 2]; of its own column each lane says for itself
    what it adds, ``columns`` [3, Y, Y * X]: turn, down and mark.
    """
    at, mask, own = row * X + column_of, lane < N, tl.arange(0, LANES)
    home = lane == at
    turn, further, to_own, enters = _own(source, transition, mark, comes, home, at, mask, MIRRORED)
    last, back = tl.where(left == 1, 0, X - 1), tl.where(left == 1, 1, -1)
    order = row * X + last + back * own
    to_a, along = in_steps(mark, order, own < X, 2, 0), in_steps(transition, order, own < X, 4, 0)
    reads = ()
    for step in tl.static_range(X):
        reads = reads + (tl.load(d_matrix + (row * X + last + back * step) * N + lane, mask=mask, other=0.0),)
    own_step = (column_of - last) * back
    a = tl.zeros([LANES], DTYPE)
    states = ()
    for step in tl.static_range(X):
        states = states + (a,)
        a = tl.where(own_step == X - 1 - step, enters, at_step(along, X - 1 - step) * a)
    to_right, to_enters = tl.zeros([LANES], DTYPE), tl.zeros([LANES], DTYPE)
    read_own, one = to_right, no_sums(to_right, LANES)
    two = one
    for step in tl.static_range(X):
        here, read, a = own_step == step, reads[step], states[X - 1 - step]
        one, two = with_step(one, to_right * a, own, step, LANES), with_step(two, read * a, own, step, LANES)
        to_enters, read_own = tl.where(here, to_right, to_enters), tl.where(here, read, read_own)
        to_right = tl.where(here, 0.0, at_step(to_a, step) * read + at_step(along, step) * to_right)
    tl.store(parts + 2 * order, in_lanes(one, own, X, LANES), mask=own < X)
    tl.store(parts + 2 * order + 1, in_lanes(two, own, X, LANES), mask=own < X)
    to = columns + row * N + lane
    tl.store(to, to_enters * comes, mask=mask)
    tl.store(to + Y * N, below * comes, mask=mask)
    tl.store(to + 2 * Y * N, read_own * comes, mask=mask)
    fed_a, fed_b = tl.where(home, to_enters, fed_a), tl.where(home, below, fed_b)
    return turn * to_enters + to_own * read_own + further * below, fed_a, fed_b


@triton.jit(do_not_specialize=["first"])
def back(  # type: ignore[no-untyped-def]
    source, transition, mark, d_source, parts, columns, d_matrix, edge, first,
    H: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, LANES: tl.constexpr, MIRRORED: tl.constexpr,
):  # fmt: skip
    """Gradients of the sources, and what adds up to those of the other gates: ``parts`` [BLOCKS, M, 4, Y * X, 2] and
    ``columns`` [M, 4, 3, Y, Y * X]. One direction a program; ``edge`` [M, 4, BLOCKS, Y, LANES] is room."""
    DTYPE: tl.constexpr = d_matrix.dtype.element_ty
    N: tl.constexpr = Y * X
    BLOCKS: tl.constexpr = (N + LANES - 1) // LANES
    here, block, direction, begin, low, high = place(first, H, N, X, LANES, 4)
    many = tl.num_programs(0) // (4 * BLOCKS)
    up, left = direction // 2, direction % 2
    rows, begins, _, _ = side(up, low, high, Y, 0)
    gates = _gates(begin, direction, H, N, MIRRORED)
    source, transition, mark = source + 2 * gates, transition + 4 * gates, mark + 2 * gates
    own = tl.arange(0, LANES)
    lane = block * LANES + own
    column_of = lane % X
    edge += ((here * 4 + direction) * BLOCKS + block) * (Y * LANES) + own
    down = tl.zeros([LANES], DTYPE)
    for step in range(0, rows):
        row = begins + step * (1 - 2 * up)
        at = row * X + column_of
        tl.store(edge + row * LANES, down)
        further = tl.load(transition + 4 * at + 3, mask=lane < N, other=0.0)
        down = tl.where(lane == at, tl.load(source + 2 * at + 1, mask=lane < N, other=0.0), further * down)
    tl.debug_barrier()  # other threads read that
    fed_a, fed_b, below = tl.zeros([LANES], DTYPE), tl.zeros([LANES], DTYPE), tl.zeros([LANES], DTYPE)
    parts += ((block * many + here) * 4 + direction) * (N * 2)
    columns += (here * 4 + direction) * (3 * Y * N)
    for step in range(0, rows):
        row = begins + (rows - 1 - step) * (1 - 2 * up)
        comes = tl.load(edge + row * LANES)
        below, fed_a, fed_b = _row_back(
            source, transition, mark, d_matrix + here * N * N, parts, columns, comes, below, fed_a, fed_b, lane,
            column_of, row, left, Y, X, N, LANES, MIRRORED, DTYPE,
        )  # fmt: skip
    to = d_source + 2 * (gates + lane)
    tl.store(to, fed_a, mask=lane < N)
    tl.store(to + 1, fed_b, mask=lane < N)


@triton.jit(do_not_specialize=["first"])
def add_blocks(  # type: ignore[no-untyped-def]
    parts, columns, d_transition, d_mark, first,
    H: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, LANES: tl.constexpr, MIRRORED: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """Gradients of transitions and marks, PIXELS pixels of one direction a program."""
    N: tl.constexpr = Y * X
    BLOCKS: tl.constexpr = (N + LANES - 1) // LANES
    GROUPS: tl.constexpr = (N + PIXELS - 1) // PIXELS
    program = tl.program_id(0)
    group, direction, here = program % GROUPS, program // GROUPS % 4, program // (GROUPS * 4)
    many = tl.num_programs(0) // (GROUPS * 4)
    at = group * PIXELS + tl.arange(0, PIXELS)
    row, inside = at // X, at < N
    along, to_row = tl.zeros([PIXELS], parts.dtype.element_ty), tl.zeros([PIXELS], parts.dtype.element_ty)
    for block in range(0, BLOCKS):
        low, high = block * LANES // X, (tl.minimum(block * LANES + LANES, N) - 1) // X
        reached = inside & ((row >= low) if direction < 2 else (row <= high))
        part = parts + ((block * many + here).to(tl.int64) * 4 + direction) * (N * 2) + 2 * at
        along += tl.load(part, mask=reached, other=0.0)
        to_row += tl.load(part + 1, mask=reached, other=0.0)
    columns += (here.to(tl.int64) * 4 + direction) * (3 * Y * N) + row * N + at % X
    turn, down, to_own = along * 0, along * 0, along * 0
    for begun in range(0, Y):
        reached = inside & ((row > begun) if direction < 2 else (row < begun))
        turn += tl.load(columns + begun * X, mask=reached, other=0.0)
        down += tl.load(columns + Y * N + begun * X, mask=reached, other=0.0)
        to_own += tl.load(columns + 2 * Y * N + begun * X, mask=reached, other=0.0)
    image, head = (here + first) // H, (here + first) % H
    gates = _gates((image.to(tl.int64) * (4 * H) + head) * N, direction, H, N, MIRRORED) + at
    tl.store(d_mark + 2 * gates, to_row, mask=inside)
    tl.store(d_mark + 2 * gates + 1, to_own, mask=inside)
    to = d_transition + 4 * gates
    tl.store(to, along, mask=inside)
    tl.store(to + (2 if MIRRORED else 1), turn, mask=inside)
    tl.store(to + (1 if MIRRORED else 2), 0.0, mask=inside)
    tl.store(to + 3, down, mask=inside)

# mypy: disable-error-code="assignment, var-annotated"
"""Walks over the pixels of an image: out for the gating matrix of its four directions, back for the gradients of gates.

A program takes some source pixels of one image and head, a lane each; lanes do not mix. It goes row by row, away from
its sources, with what each lane has on the edges between two rows in registers: loops over columns are unrolled. No
atomics.
"""

import triton
import triton.language as tl

from plstm_graph.grid.triton.lanes import at_step, in_lanes, in_steps, no_sums, with_step

# M images times heads; a program's number is (image and head, block of LANES pixels). Gates: source
# [B, 4, H, Y * X, 2], transition [.., 2, 2] next x prev, or [.., 2] if SHARED (it does not depend on prev: P mode),
# mark [.., 2].
# ``matrix`` [M, Y * X, Y * X]: what a pixel (row) reads of another (column). ``first``: M before these.
# ``states``: what arrives at a pixel, a plane for each LANES lanes of a block and each of right and left:
# [M, 2, BLOCKS, PLANES, Y + SPAN, X, LANES]; SPAN rows at most have pixels of one block. Paths up use rows from 0 on,
# paths down rows from SPAN on: nothing meets, for a block's paths up end where its paths down begin.


@triton.jit
def place(first, H: tl.constexpr, N: tl.constexpr, X: tl.constexpr, LANES: tl.constexpr, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Image times head (here and in all), the block and the part, gates of the first direction, first and last row."""
    BLOCKS: tl.constexpr = (N + LANES - 1) // LANES
    program = tl.program_id(0)
    part, block, here = program % PARTS, program // PARTS % BLOCKS, program // (PARTS * BLOCKS)
    image, head = (here + first) // H, (here + first) % H
    last = tl.minimum(block * LANES + LANES, N) - 1
    return here.to(tl.int64), block, part, (image.to(tl.int64) * (4 * H) + head) * N, block * LANES // X, last // X


@triton.jit
def _gates(transition, marks, at, mask, SHARED: tl.constexpr):  # type: ignore[no-untyped-def]
    """A row: transitions right to right, down to right, right to down, down to down, and marks."""
    WIDTH: tl.constexpr = 2 if SHARED else 4
    rr = in_steps(transition, at, mask, WIDTH, 0)
    dd = in_steps(transition, at, mask, WIDTH, WIDTH - 1)
    rd, dr = rr, dd
    if not SHARED:
        rd, dr = in_steps(transition, at, mask, WIDTH, 1), in_steps(transition, at, mask, WIDTH, 2)
    return rr, rd, dr, dd, in_steps(marks, at, mask, 2, 0), in_steps(marks, at, mask, 2, 1)


@triton.jit
def side(up, low, high, Y: tl.constexpr, SPAN: tl.constexpr):  # type: ignore[no-untyped-def]
    """Down or up: number of rows, the first one, the first one where paths of the other side have been, and by how much
    rows of states are shifted."""
    return (
        tl.where(up == 1, high + 1, Y - low), tl.where(up == 1, high, low), tl.where(up == 1, low, Y),
        tl.where(up == 1, 0, SPAN),
    )  # fmt: skip


@triton.jit
def keep_row(matrix, found, more, direct, lane, row, kept, up, X: tl.constexpr, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """Both directions of a side, added, into one row of pixels of the matrix; ``more`` is in the order of its steps.

    Paths up add, from row ``kept`` on, to what paths down left there, and these add the direct gates.
    """
    to = matrix + row * X * N + lane
    at = lane - row * X
    own = (at >= 0) & (at < X) & (lane < tl.where(up == 0, N, 0))
    itself = tl.load(direct + lane, mask=own, other=0.0)
    others = ()
    for column in tl.static_range(X):
        others = others + (tl.load(to + column * N, mask=lane < tl.where(row >= kept, N, 0), other=0.0),)
    for column in tl.static_range(X):
        read = found[column] + more[X - 1 - column] + tl.where(at == column, itself, 0.0)
        tl.store(to + column * N, read + others[column], mask=lane < N)


@triton.jit
def _row(  # type: ignore[no-untyped-def]
    source, transition, mark, states, above, lane, own, row,
    X: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr, LEFT: tl.constexpr, SHARED: tl.constexpr,
    KEEP: tl.constexpr, PLANE: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """One row of pixels to the right, or to the left: what comes down from each, and what each reads."""
    order = row * X + (X - 1 - own if LEFT else own)
    t_rr, t_rd, t_dr, t_dd, m_a, m_b = _gates(transition, mark, order, own < X, SHARED)
    # A source is its lane's own: no need to give it to all.
    at = lane - row * X
    home = (at >= 0) & (at < X) & (lane < N)
    fed_a, fed_b = in_steps(source, lane, home, 2, 0), in_steps(source, lane, home, 2, 1)
    a = tl.zeros([LANES], DTYPE)
    below, found = (), ()
    for step in tl.static_range(X):
        column = X - 1 - step if LEFT else step
        b = above[step]
        found = found + (at_step(m_a, step) * a + at_step(m_b, step) * b,)
        new_a, new_b = tl.where(at == column, fed_a, 0.0), tl.where(at == column, fed_b, 0.0)
        if SHARED:
            both = a + b
            if KEEP:
                tl.store(states + column * LANES + own, both, mask=lane < N)
            a, b = at_step(t_rr, step) * both + new_a, at_step(t_dd, step) * both + new_b
        else:
            if KEEP:
                tl.store(states + column * LANES + own, a, mask=lane < N)
                tl.store(states + PLANE + column * LANES + own, b, mask=lane < N)
            new_a += at_step(t_rr, step) * a + at_step(t_rd, step) * b
            new_b += at_step(t_dr, step) * a + at_step(t_dd, step) * b
            a, b = new_a, new_b
        below = below + (b,)
    return below, found


@triton.jit(do_not_specialize=["first"])
def walk(  # type: ignore[no-untyped-def]
    source, transition, mark, direct, matrix, states, first,
    H: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, LANES: tl.constexpr, SPAN: tl.constexpr,
    SHARED: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """The gating matrices of four directions and the direct gates, added; with KEEP, what arrives at each pixel."""
    DTYPE: tl.constexpr = matrix.dtype.element_ty
    N: tl.constexpr = Y * X
    BLOCKS: tl.constexpr = (N + LANES - 1) // LANES
    WIDTH: tl.constexpr = 2 if SHARED else 4
    PLANE: tl.constexpr = (Y + SPAN) * X * LANES
    PLANES: tl.constexpr = 1 if SHARED else 2
    here, block, _, begin, low, high = place(first, H, N, X, LANES, 1)
    own = tl.arange(0, LANES)
    lane = block * LANES + own
    matrix += here * N * N
    direct += (here + first) * N
    to_left = states + (here * 2 + 1) * (BLOCKS * PLANES * PLANE) + block * (PLANES * PLANE)
    to_right = states + here * 2 * (BLOCKS * PLANES * PLANE) + block * (PLANES * PLANE)
    for up in range(0, 2):
        right, left = begin + 2 * up * H * N, begin + (2 * up + 1) * H * N
        rows, begins, kept, shift = side(up, low, high, Y, SPAN)
        above = (tl.zeros([LANES], DTYPE),) * X
        above_left = (tl.zeros([LANES], DTYPE),) * X
        for step in range(0, rows):
            row = begins + step * (1 - 2 * up)
            slot = (row + shift) * X * LANES
            above, found = _row(
                source + 2 * right, transition + WIDTH * right, mark + 2 * right, to_right + slot, above, lane, own,
                row, X, N, LANES, False, SHARED, KEEP, PLANE, DTYPE,
            )  # fmt: skip
            above_left, more = _row(
                source + 2 * left, transition + WIDTH * left, mark + 2 * left, to_left + slot, above_left, lane, own,
                row, X, N, LANES, True, SHARED, KEEP, PLANE, DTYPE,
            )  # fmt: skip
            keep_row(matrix, found, more, direct, lane, row, kept, up, X, N)
        tl.debug_barrier()  # the other side adds to what other threads may have written


@triton.jit
def _row_of(states, last, back, lane, own, END, X: tl.constexpr, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """What arrives at the pixels of a row, in the order of their steps back, of the lanes before END."""
    row = ()
    for step in tl.static_range(X):
        row = row + (tl.load(states + (last + back * step) * LANES + own, mask=lane < END, other=0.0),)
    return row


@triton.jit
def _row_back(  # type: ignore[no-untyped-def]
    own_a, own_b, transition, mark, d_matrix, states, parts, below, first, fed_a, fed_b, lane, own, row, left,
    to_row, first_row,
    X: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr, SHARED: tl.constexpr, PLANE: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """One row against its direction, from the adjoints of what comes down from it to those of what comes down to it;
    the gradients of the lanes' sources so far (``own_a`` and ``own_b`` are these sources). If SHARED, ``first`` is what
    arrives at its pixels, and what arrives at those before is returned, too. All that is read comes before all that is
    written. ``to_row``: from the row before to this one, 1 or -1."""
    SUMS: tl.constexpr = 4 if SHARED else 6
    last, back = tl.where(left == 1, 0, X - 1), tl.where(left == 1, 1, -1)
    order, inside = row * X + last + back * own, own < X
    t_rr, t_rd, t_dr, t_dd, m_a, m_b = _gates(transition, mark, order, inside, SHARED)
    if SHARED:  # the row from which something comes down, if this is not the first one
        came = own < tl.where(row == first_row, 0, X)
        above_dd = in_steps(transition, order - to_row * X, came, 2, 1)
        there = tl.where(row == first_row, 0, N)
        second = _row_of(states - to_row * X * LANES, last, back, lane, own, there, X, LANES)
    else:
        first = _row_of(states, last, back, lane, own, N, X, LANES)
        second = _row_of(states + PLANE, last, back, lane, own, N, X, LANES)
    reads = ()
    for step in tl.static_range(X):
        at_column = d_matrix + (row * X + last + back * step) * N + lane
        reads = reads + (tl.load(at_column, mask=lane < N, other=0.0),)
    at = (lane - row * X - last) * back  # the lane's own step, if it is in this row
    at_above = at + back * to_row * X  # and in the row before
    to_right = tl.zeros([LANES], DTYPE)  # adjoint of what leaves to the right
    above = ()
    one = no_sums(to_right, LANES)
    two, three, four, five, six = one, one, one, one, one
    for step in tl.static_range(X):
        to_below, read, a = below[step], reads[step], first[step]
        fed_a = tl.where(at == step, to_right, fed_a)
        fed_b = tl.where(at == step, to_below, fed_b)
        if SHARED:
            # Both parts of what arrives are made anew of what they come from: a difference would lose its digits.
            one, two = with_step(one, to_right * a, own, step, LANES), with_step(two, to_below * a, own, step, LANES)
            b = at_step(above_dd, step) * second[step] + tl.where(at_above == step, own_b, 0.0)
            if step < X - 1:
                a = at_step(t_rr, step + 1) * first[step + 1] + tl.where(at == step + 1, own_a, 0.0)
            else:
                a = tl.zeros([LANES], DTYPE)
        else:
            b = second[step]
            one, two = with_step(one, to_right * a, own, step, LANES), with_step(two, to_right * b, own, step, LANES)
            three = with_step(three, to_below * a, own, step, LANES)
            four = with_step(four, to_below * b, own, step, LANES)
        five, six = with_step(five, read * a, own, step, LANES), with_step(six, read * b, own, step, LANES)
        new_a = at_step(m_a, step) * read + at_step(t_rr, step) * to_right + at_step(t_dr, step) * to_below
        new_b = at_step(m_b, step) * read + at_step(t_rd, step) * to_right + at_step(t_dd, step) * to_below
        above = above + (new_b,)
        to_right = new_a
    part = parts + order * SUMS
    HALF: tl.constexpr = 0.5 if SHARED else 1.0
    tl.store(part, HALF * in_lanes(one, own, X, LANES), mask=inside)
    tl.store(part + 1, HALF * in_lanes(two, own, X, LANES), mask=inside)
    if not SHARED:
        tl.store(part + 2, in_lanes(three, own, X, LANES), mask=inside)
        tl.store(part + 3, in_lanes(four, own, X, LANES), mask=inside)
    tl.store(part + SUMS - 2, in_lanes(five, own, X, LANES), mask=inside)
    tl.store(part + SUMS - 1, in_lanes(six, own, X, LANES), mask=inside)
    return above, second, fed_a, fed_b


@triton.jit(do_not_specialize=["first"])
def back(  # type: ignore[no-untyped-def]
    source, transition, mark, d_source, parts, d_matrix, states, first,
    H: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, LANES: tl.constexpr, SPAN: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    """Gradients of the sources, and what each block adds to those of transitions and marks of a pixel: ``parts``
    [BLOCKS, M, 4, Y * X, 6], or 4 if SHARED. One direction a program."""
    DTYPE: tl.constexpr = d_matrix.dtype.element_ty
    N: tl.constexpr = Y * X
    BLOCKS: tl.constexpr = (N + LANES - 1) // LANES
    PLANE: tl.constexpr = (Y + SPAN) * X * LANES
    SUMS: tl.constexpr = 4 if SHARED else 6
    WIDTH: tl.constexpr = 2 if SHARED else 4
    here, block, direction, begin, low, high = place(first, H, N, X, LANES, 4)
    up, left = direction // 2, direction % 2
    rows, begins, _, shift = side(up, low, high, Y, SPAN)
    many = tl.num_programs(0) // (4 * BLOCKS)
    gates = begin + direction * H * N
    own = tl.arange(0, LANES)
    lane = block * LANES + own
    fed_a, fed_b = tl.zeros([LANES], DTYPE), tl.zeros([LANES], DTYPE)
    states += ((here * 2 + left) * BLOCKS + block) * ((1 if SHARED else 2) * PLANE)
    parts += ((block * many + here) * 4 + direction) * (N * SUMS)
    of_lanes = source + 2 * gates
    own_a, own_b = in_steps(of_lanes, lane, lane < N, 2, 0), in_steps(of_lanes, lane, lane < N, 2, 1)
    below = (tl.zeros([LANES], DTYPE),) * X
    arrived = below
    if SHARED:
        end = states + (begins + (rows - 1) * (1 - 2 * up) + shift) * X * LANES
        arrived = _row_of(end, tl.where(left == 1, 0, X - 1), tl.where(left == 1, 1, -1), lane, own, N, X, LANES)
    for step in range(0, rows):
        row = begins + (rows - 1 - step) * (1 - 2 * up)
        below, arrived, fed_a, fed_b = _row_back(
            own_a, own_b, transition + WIDTH * gates, mark + 2 * gates, d_matrix + here * N * N,
            states + (row + shift) * X * LANES, parts, below, arrived, fed_a, fed_b, lane, own, row, left,
            1 - 2 * up, begins, X, N, LANES, SHARED, PLANE, DTYPE,
        )  # fmt: skip
    to = d_source + 2 * (gates + lane)
    tl.store(to, fed_a, mask=lane < N)
    tl.store(to + 1, fed_b, mask=lane < N)


@triton.jit(do_not_specialize=["first"])
def add_blocks(  # type: ignore[no-untyped-def]
    parts, d_transition, d_mark, first,
    H: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, LANES: tl.constexpr, SHARED: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Sums of ``parts`` over those blocks that have paths to a pixel, PIXELS pixels of one direction a program."""
    N: tl.constexpr = Y * X
    BLOCKS: tl.constexpr = (N + LANES - 1) // LANES
    GROUPS: tl.constexpr = (N + PIXELS - 1) // PIXELS
    SUMS: tl.constexpr = 4 if SHARED else 6
    program = tl.program_id(0)
    group, direction, here = program % GROUPS, program // GROUPS % 4, program // (GROUPS * 4)
    many = tl.num_programs(0) // (GROUPS * 4)
    at = group * PIXELS + tl.arange(0, PIXELS)
    which = tl.arange(0, 8)[None, :]
    row = at // X
    mask = (at < N)[:, None] & (which < SUMS)
    total = tl.zeros([PIXELS, 8], parts.dtype.element_ty)
    for block in range(0, BLOCKS):
        low, high = block * LANES // X, (tl.minimum(block * LANES + LANES, N) - 1) // X
        reached = (row >= low) if direction < 2 else (row <= high)
        part = parts + ((block * many + here).to(tl.int64) * 4 + direction) * (N * SUMS)
        total += tl.load(part + at[:, None] * SUMS + which, mask=mask & reached[:, None], other=0.0)
    image, head = (here + first) // H, (here + first) % H
    gates = ((image.to(tl.int64) * 4 + direction) * H + head) * N + at[:, None]
    tl.store(d_transition + gates * (SUMS - 2) + which, total, mask=mask & (which < SUMS - 2))
    tl.store(d_mark + gates * 2 + which - (SUMS - 2), total, mask=mask & (which >= SUMS - 2))

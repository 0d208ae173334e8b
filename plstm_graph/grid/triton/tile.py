# mypy: disable-error-code="assignment, var-annotated"
"""A tile of SIDE x SIDE pixels as one matrix ``[[T, S], [M, G]]``, see ``grid.merge``, and the way back to its gates.

A program walks the pixels of a tile, with a lane for each thing that may enter it: a pixel as a source, or a state on
one of the edges that arrive. A lane's numbers are its own, so nothing waits for other threads.
"""

import triton
import triton.language as tl

# M images times heads, TILES tiles each; N = SIDE * SIDE pixels of a tile by rows. A direction's ends and tiles stand
# in its own frame, in which it runs right and down: upper (lower) ends by columns, then left (right) ends by rows.
# Gates [M, 4, TILES, N, 8]: source right and down, transition right to right, down to right, right to down, down to
# down, mark of what comes from the left and from above. ``through`` [M, 4, TILES, ENDS, ENDS], ``source``
# [.., ENDS, N], ``mark`` [.., N, ENDS] are one direction's, ``inside`` [M, TILES, N, N] is the sum of four.
# ``states``: what arrives at each pixel from the left and from above, [M, 4, TILES, N, 2, LANES].


@triton.jit
def place(program, TILES):  # type: ignore[no-untyped-def]
    """Image times head, and tile."""
    return (program // TILES).to(tl.int64), program % TILES


@triton.jit
def pixel_at(i, j, direction, SIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    """A pixel of the tile by its row and column in the frame of a direction."""
    row = tl.where(direction >= 2, SIDE - 1 - i, i)
    return row * SIDE + tl.where(direction % 2 == 1, SIDE - 1 - j, j)


@triton.jit
def _turns(gates):  # type: ignore[no-untyped-def]
    """Transitions and marks of a pixel."""
    return (
        tl.load(gates + 2), tl.load(gates + 3), tl.load(gates + 4), tl.load(gates + 5), tl.load(gates + 6),
        tl.load(gates + 7),
    )  # fmt: skip


@triton.jit
def _keep(nodes, ends, row, numbers, lane, N: tl.constexpr, ENDS: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row of the tile's matrix: what it takes of pixels, and of ends."""
    tl.store(nodes + row * N + lane, numbers, mask=lane < N)
    tl.store(ends + row * ENDS + lane - N, numbers, mask=(lane >= N) & (lane < N + ENDS))


@triton.jit(do_not_specialize=["TILES"])
def walk(  # type: ignore[no-untyped-def]
    gates, direct, through, source, mark, inside, states, TILES,
    SIDE: tl.constexpr, LANES: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """The matrices of a tile, direct gates [M, TILES, N] included; with KEEP, what arrives at each pixel."""
    DTYPE: tl.constexpr = inside.dtype.element_ty
    N: tl.constexpr = SIDE * SIDE
    ENDS: tl.constexpr = 2 * SIDE
    here, tile = place(tl.program_id(0), TILES)
    lane = tl.arange(0, LANES)
    end = lane - N
    direct += (here * TILES + tile) * N
    inside += (here * TILES + tile) * (N * N)
    for direction in range(0, 4):
        one = (here * 4 + direction) * TILES + tile
        to_ends, to_nodes, reads = through + one * (ENDS * ENDS), source + one * (ENDS * N), mark + one * (N * ENDS)
        above = ()
        for j in tl.static_range(SIDE):
            above = above + (tl.where(end == j, 1.0, tl.zeros([LANES], DTYPE)),)
        for i in range(0, SIDE):
            a = tl.where(end == SIDE + i, 1.0, tl.zeros([LANES], DTYPE))
            below = ()
            for j in tl.static_range(SIDE):
                pixel, b = pixel_at(i, j, direction, SIDE), above[j]
                at = gates + (one * N + pixel) * 8
                t_rr, t_rd, t_dr, t_dd, m_a, m_b = _turns(at)
                if KEEP:
                    kept = states + (one * N + pixel) * (2 * LANES) + lane
                    tl.store(kept, a)
                    tl.store(kept + LANES, b)
                read = m_a * a + m_b * b
                tl.store(reads + pixel * ENDS + end, read, mask=(end >= 0) & (end < ENDS))
                # A lane's pixels of ``inside`` are its own: it finds there what it left in other directions.
                home, to = lane == pixel, inside + pixel * N + lane
                read += tl.load(to, mask=lane < tl.where(direction > 0, N, 0), other=0.0)
                read += tl.load(direct + lane, mask=home & (lane < tl.where(direction > 0, 0, N)), other=0.0)
                tl.store(to, read, mask=lane < N)
                fed_a, fed_b = tl.load(at), tl.load(at + 1)
                below = below + (t_dr * a + t_dd * b + tl.where(home, fed_b, 0.0),)
                a = t_rr * a + t_rd * b + tl.where(home, fed_a, 0.0)
            _keep(to_nodes, to_ends, SIDE + i, a, lane, N, ENDS)
            above = below
        for j in tl.static_range(SIDE):
            _keep(to_nodes, to_ends, j, above[j], lane, N, ENDS)


@triton.jit
def _sum(nodes, ends, row, lane, all, N: tl.constexpr, ENDS: tl.constexpr, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row of the gradient of the tile's matrix; what is of ends comes in PARTS."""
    total = tl.load(nodes + row * N + lane, mask=lane < N, other=0.0)
    for part in tl.static_range(PARTS):
        place = part * all * (ENDS * ENDS) + row * ENDS + lane - N
        total += tl.load(ends + place, mask=(lane >= N) & (lane < N + ENDS), other=0.0)
    return total


@triton.jit(do_not_specialize=["TILES"])
def back(  # type: ignore[no-untyped-def]
    gates, d_gates, d_through, d_source, d_mark, d_inside, states, TILES,
    SIDE: tl.constexpr, LANES: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates of a tile and direction; that of ``through`` comes in PARTS."""
    DTYPE: tl.constexpr = d_inside.dtype.element_ty
    N: tl.constexpr = SIDE * SIDE
    ENDS: tl.constexpr = 2 * SIDE
    direction = tl.program_id(0) % 4
    here, tile = place(tl.program_id(0) // 4, TILES)
    one = (here * 4 + direction) * TILES + tile
    all = (tl.num_programs(0)).to(tl.int64)
    lane = tl.arange(0, LANES)
    end = lane - N
    is_end = (end >= 0) & (end < ENDS)
    d_through += one * (ENDS * ENDS)
    d_source += one * (ENDS * N)
    d_mark += one * (N * ENDS) + end
    d_inside += (here * TILES + tile) * (N * N) + lane
    fed_a, fed_b = tl.zeros([LANES], DTYPE), tl.zeros([LANES], DTYPE)
    below = ()
    for step in tl.static_range(SIDE):
        row = _sum(d_source, d_through, SIDE - 1 - step, lane, all, N, ENDS, PARTS)
        below = below + (row,)
    for step_i in range(0, SIDE):
        i = SIDE - 1 - step_i
        right = _sum(d_source, d_through, SIDE + i, lane, all, N, ENDS, PARTS)
        above = ()
        for step in tl.static_range(SIDE):
            pixel, down = pixel_at(i, SIDE - 1 - step, direction, SIDE), below[step]
            at = (one * N + pixel) * 8
            t_rr, t_rd, t_dr, t_dd, m_a, m_b = _turns(gates + at)
            a = tl.load(states + (one * N + pixel) * (2 * LANES) + lane)
            b = tl.load(states + (one * N + pixel) * (2 * LANES) + LANES + lane)
            read = tl.load(d_inside + pixel * N, mask=lane < N, other=0.0)
            read += tl.load(d_mark + pixel * ENDS, mask=is_end, other=0.0)
            home = lane == pixel
            fed_a, fed_b = tl.where(home, right, fed_a), tl.where(home, down, fed_b)
            tl.store(d_gates + at + 2, tl.sum(right * a, 0))
            tl.store(d_gates + at + 3, tl.sum(right * b, 0))
            tl.store(d_gates + at + 4, tl.sum(down * a, 0))
            tl.store(d_gates + at + 5, tl.sum(down * b, 0))
            tl.store(d_gates + at + 6, tl.sum(read * a, 0))
            tl.store(d_gates + at + 7, tl.sum(read * b, 0))
            above = above + (m_b * read + t_rd * right + t_dd * down,)
            right = m_a * read + t_rr * right + t_dr * down
        below = above
    to = d_gates + (one * N + lane) * 8
    tl.store(to, fed_a, mask=lane < N)
    tl.store(to + 1, fed_b, mask=lane < N)

# mypy: disable-error-code="assignment, var-annotated"
"""What lanes of a program tell each other: a row of numbers step by step, and sums over all lanes."""

import triton
import triton.language as tl


@triton.jit
def in_steps(gates, at, mask, WIDTH: tl.constexpr, WHICH: tl.constexpr):  # type: ignore[no-untyped-def]
    """One of the WIDTH gates of the pixels ``at``, a row in the order of its steps; :func:`at_step` gives it to all
    lanes. A load for each pixel would have to wait for memory each time."""
    return tl.load(gates + WIDTH * at + WHICH, mask=mask, other=0.0)


@triton.jit
def at_step(row, STEP: tl.constexpr):  # type: ignore[no-untyped-def]
    """One step of a row."""
    return tl.gather(row, tl.full(row.shape, STEP, tl.int32), 0)


@triton.jit
def _paired(x, y, own, BIT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each lane adds what the lane across BIT has: of ``y`` if its number has that bit, else of ``x``."""
    mine = (own & BIT) != 0
    return tl.where(mine, y, x) + tl.gather(tl.where(mine, x, y), own ^ BIT, 0)


@triton.jit
def no_sums(zero, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rooms for :func:`with_step`: of 1, 2, 4, ..., LANES steps."""
    rooms = ()
    for level in tl.static_range(7):
        if 1 << level <= LANES:
            rooms = rooms + (zero,)
    return rooms


@triton.jit
def with_step(rooms, x, own, STEP: tl.constexpr, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """One vector more, whose sum over all lanes the lane STEP is to get.

    A vector alone takes log(LANES) exchanges between lanes; two that are paired share all further ones. So steps are
    added up as binary numbers are: room ``level`` has 2 ** level of them, paired.
    """
    added = ()
    for level in tl.static_range(7):
        if 1 << level <= LANES:
            room = rooms[level]
            if STEP % (2 << level) == (2 << level) - 1:
                x = _paired(room, x, own, 1 << level)
            elif STEP % (2 << level) == (1 << level) - 1:
                room = x
            added = added + (room,)
    return added


@triton.jit
def in_lanes(rooms, own, STEPS: tl.constexpr, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """The sums of STEPS vectors, each in the lane of its step: a row of sums is stored at once."""
    sums = rooms[0]
    for level in tl.static_range(7):
        if 1 << level < LANES:
            if STEPS % (2 << level) >= 1 << level:  # this room is taken, and the lower ones may be
                sums = _paired(rooms[level], sums if STEPS % (1 << level) != 0 else rooms[level], own, 1 << level)
            elif STEPS % (1 << level) != 0:
                sums = _paired(sums, sums, own, 1 << level)
        elif 1 << level == STEPS:
            sums = rooms[level]
    return sums

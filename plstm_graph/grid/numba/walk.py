"""Walks over the pixels of an image, as in ``grid.triton.walk``, with all source pixels of an image in one inner loop.

Gates as numpy arrays: source and mark [B, 4, H, Y, X, 2], transition [B, 4, H, Y, X, 2, 2], direct [B, H, Y, X]; gating
matrices and their gradients [B, H, Y * X, Y * X].
"""

import numpy as np
from numba import prange

from plstm_graph.ops.numba.runtime import parallel, part


@part
def _turn(direction, step_i, step_j, rows, columns):  # type: ignore[no-untyped-def]
    """A pixel of a direction by its steps from where that begins."""
    i = rows - 1 - step_i if direction >= 2 else step_i
    j = columns - 1 - step_j if direction % 2 == 1 else step_j
    return i, j


@part
def _reached(direction, i, rows, columns):  # type: ignore[no-untyped-def]
    """Source pixels that can be seen from row i: first one, and the one behind the last."""
    if direction >= 2:
        return i * columns, rows * columns
    return 0, (i + 1) * columns


@part
def _leave(source, transition, i, j, n, low, high, a, b, next_a, next_b):  # type: ignore[no-untyped-def]
    """What leaves a pixel to the right and down, from what arrives at it."""
    rr, rd, dr, dd = transition[i, j, 0, 0], transition[i, j, 0, 1], transition[i, j, 1, 0], transition[i, j, 1, 1]
    for m in range(low, high):
        right = rr * a[m] + rd * b[m]
        next_b[m] = dr * a[m] + dd * b[m]
        next_a[m] = right
    next_a[n] += source[i, j, 0]
    next_b[n] += source[i, j, 1]


@parallel
def matrices(source, transition, mark, direct, result):  # type: ignore[no-untyped-def]
    """Gating matrices of four directions and the direct gates, added into ``result``."""
    images, _, heads, rows, columns, _ = source.shape
    pixels = rows * columns
    for item in prange(images * heads):
        image, head = item // heads, item % heads
        matrix = result[image, head]
        matrix[:] = 0
        for n in range(pixels):
            matrix[n, n] = direct[image, head, n // columns, n % columns]
        a = np.zeros(pixels, source.dtype)
        b = np.zeros((columns, pixels), source.dtype)
        for direction in range(4):
            s, t, k = source[image, direction, head], transition[image, direction, head], mark[image, direction, head]
            b[:] = 0
            for step_i in range(rows):
                a[:] = 0
                for step_j in range(columns):
                    i, j = _turn(direction, step_i, step_j, rows, columns)
                    n = i * columns + j
                    low, high = _reached(direction, i, rows, columns)
                    to_a, to_b, above, row = k[i, j, 0], k[i, j, 1], b[j], matrix[n]
                    for m in range(low, high):
                        row[m] += to_a * a[m] + to_b * above[m]
                    _leave(s, t, i, j, n, low, high, a, above, a, above)


@parallel
def back(source, transition, mark, d_matrix, d_source, d_transition, d_mark):  # type: ignore[no-untyped-def]
    """Gradients of sources, transitions and marks; what arrives at each pixel is found again."""
    images, _, heads, rows, columns, _ = source.shape
    pixels = rows * columns
    for item in prange(images * heads):
        image, head = item // heads, item % heads
        along = np.zeros((pixels + 1, pixels), source.dtype)
        down = np.zeros((pixels, pixels), source.dtype)
        right, nothing = np.zeros(pixels, source.dtype), np.zeros(pixels, source.dtype)
        below = np.zeros((columns, pixels), source.dtype)
        for direction in range(4):
            s, t, k = source[image, direction, head], transition[image, direction, head], mark[image, direction, head]
            d_s, d_t = d_source[image, direction, head], d_transition[image, direction, head]
            d_k = d_mark[image, direction, head]
            along[:], down[:] = 0, 0
            for step_i in range(rows):
                for step_j in range(columns):
                    i, j = _turn(direction, step_i, step_j, rows, columns)
                    n = i * columns + j
                    low, high = _reached(direction, i, rows, columns)
                    more_i, more_j = _turn(direction, step_i + 1, step_j + 1, rows, columns)
                    next_a = along[i * columns + more_j] if step_j + 1 < columns else along[pixels]
                    next_b = down[more_i * columns + j] if step_i + 1 < rows else nothing
                    _leave(s, t, i, j, n, low, high, along[n], down[n], next_a, next_b)
            below[:] = 0
            for step_i in range(rows - 1, -1, -1):
                right[:] = 0
                for step_j in range(columns - 1, -1, -1):
                    i, j = _turn(direction, step_i, step_j, rows, columns)
                    n = i * columns + j
                    low, high = _reached(direction, i, rows, columns)
                    a, b, to_below, read = along[n], down[n], below[j], d_matrix[image, head, n]
                    d_s[i, j, 0], d_s[i, j, 1] = right[n], to_below[n]
                    rr, rd, dr, dd = t[i, j, 0, 0], t[i, j, 0, 1], t[i, j, 1, 0], t[i, j, 1, 1]
                    to_a, to_b = k[i, j, 0], k[i, j, 1]
                    zero = s[i, j, 0] * 0
                    one, two, three, four, five, six = zero, zero, zero, zero, zero, zero
                    for m in range(low, high):
                        one += right[m] * a[m]
                        two += right[m] * b[m]
                        three += to_below[m] * a[m]
                        four += to_below[m] * b[m]
                        five += read[m] * a[m]
                        six += read[m] * b[m]
                    for m in range(low, high):
                        back_a = to_a * read[m] + rr * right[m] + dr * to_below[m]
                        to_below[m] = to_b * read[m] + rd * right[m] + dd * to_below[m]
                        right[m] = back_a
                    d_t[i, j, 0, 0], d_t[i, j, 0, 1], d_t[i, j, 1, 0], d_t[i, j, 1, 1] = one, two, three, four
                    d_k[i, j, 0], d_k[i, j, 1] = five, six

"""Sigmoid and tanh, which in float32 are SIMD: calls of the C library, one for each number, would take longer than all
else that gates need.

Right to the last digits, as :mod:`tests.ops.numba.test_loops` finds; a NaN stays one.
"""

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from plstm_graph.ops.numba.runtime import exact

# Constants in float32, for with Python's own all would be computed in float64. Polynomials are those of Cephes' expf
# and tanhf (S. L. Moshier).
ONE, TWO, HALF = np.float32(1), np.float32(2), np.float32(0.5)
LOWEST, HIGHEST = np.float32(-87), np.float32(88)
LOG2_E = np.float32(1.44269504088896341)
LN_2, LN_2_REST = np.float32(0.693359375), np.float32(-2.12194440e-4)
"""The first has few digits: whole multiples of it are exact."""
TO_WHOLE = np.float32(12582912)
"""1.5 * 2**23: numbers around it are whole, and their last bits are how far they are from it."""
MANTISSA, BIAS = np.int32(23), np.int32(127 << 23)
E5, E4, E3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
E2, E1, E0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
T4, T3, T2 = np.float32(-5.70498872745e-3), np.float32(2.06390887954e-2), np.float32(-5.37397155531e-2)
T1, T0 = np.float32(1.33314422036e-1), np.float32(-3.33332819422e-1)
SMALL = np.float32(0.625)


def exponential(x: Any) -> Any:
    """exp, in float32 of ``x`` clamped to [-87, 88]."""
    return np.exp(x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))"""
    return 1 / (1 + np.exp(-x))


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return np.tanh(x)


@overload(exponential, jit_options=exact)
def _exponential(x: Any) -> Any:
    def single(x: Any) -> Any:
        x = HIGHEST if x > HIGHEST else x
        x = LOWEST if x < LOWEST else x
        shifted = x * LOG2_E + TO_WHOLE
        whole = shifted - TO_WHOLE
        rest = x - whole * LN_2 - whole * LN_2_REST
        series = ((((E5 * rest + E4) * rest + E3) * rest + E2) * rest + E1) * rest + E0
        low = np.float32(shifted).view(np.int32)  # as numba wants it: the dtype right before the view
        power = np.int32(np.int32(low << MANTISSA) + BIAS).view(np.float32)  # 2**whole
        return (series * (rest * rest) + rest + ONE) * power

    def double(x: Any) -> Any:
        return math.exp(x)

    return single if x == types.float32 else double


@overload(sigmoid, jit_options=exact)
def _sigmoid(x: Any) -> Any:
    def single(x: Any) -> Any:
        return ONE / (ONE + exponential(-x))

    def double(x: Any) -> Any:
        return 1 / (1 + math.exp(-x))

    return single if x == types.float32 else double


@overload(tanh, jit_options=exact)
def _tanh(x: Any) -> Any:
    def single(x: Any) -> Any:
        size, square = abs(x), x * x
        large = ONE - TWO / (exponential(size + size) + ONE)
        large = -large if x < 0 else large
        series = (((T4 * square + T3) * square + T2) * square + T1) * square + T0
        return x + x * square * series if size < SMALL else large

    def double(x: Any) -> Any:
        return math.tanh(x)

    return single if x == types.float32 else double

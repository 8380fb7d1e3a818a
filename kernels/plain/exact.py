"""float32 arithmetic that is the same to the last bit on every CPU: the scalars of 8-bit operations.

They do not depend on which instructions the CPU has, nor on what the compiler contracts: products are exact in float64,
and other results are rounded to float32 one by one.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from npmobilenet.kernels.checks import Array
from npmobilenet.kernels.jit import jit
from npmobilenet.kernels.plain.activation import HARD_SIGMOID, HARD_SWISH, NONE, RELU, RELU6, SIGMOID, SIX, SWISH, ZERO
from npmobilenet.kernels.reference import EXP_FACTOR, EXP_POLYNOMIAL, EXP_ROUND, SWISH_END, SWISH_POLYNOMIAL

ONE, THREE, SIXTH, LIMIT = np.float32(1), np.float32(3), np.float32(1 / 6), np.float32(170)
EXPONENT_BIAS = np.int32(127)

exact = partial(jit, contract=False)


@exact
def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """``a * b + c``, rounded once; see :func:`npmobilenet.kernels.reference.fma`."""
    product = np.float64(a) * np.float64(b)
    addend = np.float64(c)
    total = np.float64(product + addend)
    part = total - product
    error = (product - (total - part)) + (addend - part)
    if error != 0 and np.isfinite(error):
        bits = total.view(np.int64)
        if bits & 1 == 0:
            bits += 1 if (error > 0) == (total > 0) else -1
            return np.float32(np.int64(bits).view(np.float64))
    return np.float32(total)


@exact
def saturated(y: np.float32) -> np.uint8:
    """The nearest integer from 0 to 255, ties to even; 0 for NaN."""
    return np.uint8(np.rint(min(y, np.float32(255)))) if y > ZERO else np.uint8(0)


@exact
def polynomial(coefficients: Array, x: np.float32) -> np.float32:
    """By fused multiply-adds, the highest power's coefficient first."""
    y = coefficients[0]
    for i in range(1, len(coefficients)):
        y = fma(y, x, coefficients[i])
    return y


@exact
def swish(x: np.float32) -> np.float32:
    """``x / (1 + exp(-x))``, nearly: as :func:`npmobilenet.kernels.reference.activation_float32` has it."""
    a = min(abs(x), SWISH_END)
    rest = np.float32(SWISH_END - a)
    square = np.float32(rest * rest)
    product = np.float32(a * np.float32(square * square))
    return fma(np.float32(-product), polynomial(SWISH_POLYNOMIAL, a), max(x, ZERO))


@exact
def exp_minus(x: np.float32) -> np.float32:
    """``exp(-x)`` of a number, as :func:`npmobilenet.kernels.reference.activation_float32` has it."""
    x = -LIMIT if x < -LIMIT else LIMIT if x > LIMIT else x
    shifted = fma(x, EXP_FACTOR, EXP_ROUND)
    f = fma(x, EXP_FACTOR, np.float32(EXP_ROUND - shifted))
    root = fma(polynomial(EXP_POLYNOMIAL, f), f, ONE)
    power = np.int32(np.float32(shifted - EXP_ROUND))
    root = np.float32(root * np.int32((power + EXPONENT_BIAS) << 23).view(np.float32))  # by a power of two: exact
    return np.float32(root * root)


@exact
def activate(row: Array, activation: int) -> None:
    """Apply an activation to a row of values, in place; NaN passes through."""
    if activation == NONE:
        return
    for c in range(row.shape[0]):
        x = row[c]
        if x != x:
            continue
        if activation == RELU:
            row[c] = max(x, ZERO)
        elif activation == RELU6:
            row[c] = min(max(x, ZERO), SIX)
        elif activation in (HARD_SIGMOID, HARD_SWISH):
            gate = np.float32(min(max(np.float32(x + THREE), ZERO), SIX) * SIXTH)
            row[c] = gate if activation == HARD_SIGMOID else np.float32(x * gate)
        elif activation == SWISH:
            row[c] = swish(x)
        elif activation == SIGMOID:
            row[c] = np.float32(ONE / np.float32(ONE + exp_minus(x)))

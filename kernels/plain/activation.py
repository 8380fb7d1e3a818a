"""Activations: fused into the end of other kernels by :func:`activate`, and as operations of their own."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array
from npmobilenet.kernels.jit import jit, parallel_loop

NONE, RELU, RELU6, HARD_SWISH, SWISH, SIGMOID, HARD_SIGMOID = (
    checks.code(name) for name in ("none", "relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid")
)
ZERO, ONE, THREE, SIX = np.float32(0), np.float32(1), np.float32(3), np.float32(6)

# exp(x) = 2^n exp(r) with n = round(x / ln 2) and r = x - n ln 2 in [-ln 2 / 2, ln 2 / 2]: ln 2 in two parts,
# the first of which times n is exact, and the polynomial of Cephes' expf (Moshier, netlib.org/cephes).
LOG2_E = np.float32(1.44269504)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
P5, P4, P3, P2, P1, P0 = (
    np.float32(p) for p in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
)
# Adding 1.5 * 2^23 rounds a float32 to an integer and leaves that integer in its lowest bits.
ROUND = np.float32(12582912.0)
ROUND_BITS = np.int32(0x4B400000)
EXPONENT_BIAS = np.int32(127)
LOWEST, HIGHEST = np.float32(-104.0), np.float32(89.0)  # exp is 0 below, infinity above


@jit
def exp(x: np.float32) -> np.float32:
    """``e^x`` in float32 within 2 units in the last place; arithmetic only, so that loops of it vectorise."""
    x = LOWEST if x < LOWEST else x
    x = HIGHEST if x > HIGHEST else x
    shifted = x * LOG2_E + ROUND
    n = shifted - ROUND
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    p = P5
    p = p * r + P4
    p = p * r + P3
    p = p * r + P2
    p = p * r + P1
    p = p * r + P0
    p = p * (r * r) + r + ONE
    # 2^n in two factors: n reaches from -150 to 128, and one float32 exponent does not.
    whole = np.int32(np.float32(shifted).view(np.int32) - ROUND_BITS)
    half = np.int32(whole >> 1)
    first = np.int32((half + EXPONENT_BIAS) << 23).view(np.float32)
    second = np.int32((whole - half + EXPONENT_BIAS) << 23).view(np.float32)
    return p * first * second


@jit
def activate(row: Array, activation: int) -> None:
    """Apply an activation to a row of values, in place.

    The comparisons are written so that a NaN passes through: NaN compares false with everything.
    """
    if activation == RELU:
        for c in range(row.shape[0]):
            row[c] = ZERO if row[c] < ZERO else row[c]
    elif activation == RELU6:
        for c in range(row.shape[0]):
            x = ZERO if row[c] < ZERO else row[c]
            row[c] = SIX if x > SIX else x
    elif activation == HARD_SWISH:
        for c in range(row.shape[0]):
            x = row[c]
            gate = ZERO if x + THREE < ZERO else x + THREE
            gate = SIX if gate > SIX else gate
            row[c] = x * gate / SIX
    elif activation == SWISH:
        for c in range(row.shape[0]):
            row[c] = row[c] / (ONE + exp(-row[c]))
    elif activation == SIGMOID:
        for c in range(row.shape[0]):
            row[c] = ONE / (ONE + exp(-row[c]))
    elif activation == HARD_SIGMOID:
        for c in range(row.shape[0]):
            gate = ZERO if row[c] + THREE < ZERO else row[c] + THREE
            row[c] = (SIX if gate > SIX else gate) / SIX


BLOCK = 4096  # values per trip of a loop without other structure


@parallel_loop
def _elementwise(x: Array, activation: int, out: Array) -> None:
    size = x.shape[0]
    for block in prange((size + BLOCK - 1) // BLOCK):
        start, stop = block * BLOCK, min((block + 1) * BLOCK, size)
        for i in range(start, stop):
            out[i] = x[i]
        activate(out[start:stop], activation)


@parallel_loop
def _add(x: Array, y: Array, activation: int, out: Array) -> None:
    size = x.shape[0]
    for block in prange((size + BLOCK - 1) // BLOCK):
        start, stop = block * BLOCK, min((block + 1) * BLOCK, size)
        for i in range(start, stop):
            out[i] = x[i] + y[i]
        activate(out[start:stop], activation)


def add(
    x: np.ndarray,
    y: np.ndarray,
    *,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Sum of two arrays of one shape: ``activation(x + y)``."""
    g = checks.add(x, y, activation=activation)
    out = checks.output(out, g.shape)
    x, y = checks.float32(x).reshape(-1), checks.float32(y).reshape(-1)
    _add(threads, x, y, checks.code(activation), out.reshape(-1))
    return out


def relu(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``max(x, 0)``, any shape."""
    return _map(x, RELU, out, threads)


def relu6(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``min(max(x, 0), 6)``, any shape."""
    return _map(x, RELU6, out, threads)


def hard_swish(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x * relu6(x + 3) / 6``, any shape."""
    return _map(x, HARD_SWISH, out, threads)


def swish(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x * sigmoid(x)``, any shape."""
    return _map(x, SWISH, out, threads)


def sigmoid(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``1 / (1 + exp(-x))``, any shape."""
    return _map(x, SIGMOID, out, threads)


def hard_sigmoid(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``relu6(x + 3) / 6``, any shape."""
    return _map(x, HARD_SIGMOID, out, threads)


def _map(x: np.ndarray, activation: int, out: np.ndarray | None, threads: int) -> np.ndarray:
    out = checks.output(out, checks.elementwise(x).shape)
    _elementwise(threads, checks.float32(x).reshape(-1), activation, out.reshape(-1))
    return out

"""Functions of every value that no other kernel ends with."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array
from npmobilenet.kernels.jit import parallel_loop
from npmobilenet.kernels.plain.activation import BLOCK

ZERO = np.float32(0)
LEAKY_RELU, ELU, TANH = range(3)


@parallel_loop
def _map(x: Array, function: int, factor: np.float32, out: Array) -> None:
    size = x.shape[0]
    for block in prange((size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, size)):
            value = x[i]
            if function == TANH:
                out[i] = math.tanh(value)
            elif value > ZERO:
                out[i] = value
            else:
                out[i] = factor * (value if function == LEAKY_RELU else np.float32(math.expm1(value)))


def leaky_relu(x: np.ndarray, *, slope: float = 0.01, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x`` where it is positive, ``slope * x`` elsewhere, any shape."""
    return _mapped(x, LEAKY_RELU, slope, out, threads)


def elu(x: np.ndarray, *, alpha: float = 1.0, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere, any shape."""
    return _mapped(x, ELU, alpha, out, threads)


def tanh(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Hyperbolic tangent, any shape."""
    return _mapped(x, TANH, 0.0, out, threads)


def _mapped(x: np.ndarray, function: int, factor: float, out: np.ndarray | None, threads: int) -> np.ndarray:
    out = checks.output(out, checks.elementwise(x).shape)
    _map(threads, checks.float32(x).reshape(-1), function, np.float32(factor), out.reshape(-1))
    return out

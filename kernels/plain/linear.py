"""Fully connected layers and softmax: rows of values without pixels."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array
from npmobilenet.kernels.jit import parallel_loop
from npmobilenet.kernels.plain.activation import activate, exp
from npmobilenet.kernels.plain.pointwise import matrix_product

BLOCK = 256  # output channels per trip: enough trips for several threads when there is one image


@parallel_loop
def _linear(x: Array, weight: Array, bias: Array, activation: int, out: Array) -> None:
    rows, c_out = out.shape
    blocks = (c_out + BLOCK - 1) // BLOCK
    for trip in prange(rows * blocks):
        n, start = trip // blocks, trip % blocks * BLOCK
        stop = min(start + BLOCK, c_out)
        y, b = out[n, start:stop], bias[start:stop]
        for c in range(y.shape[0]):
            y[c] = b[c]
        for k in range(x.shape[1]):
            w = weight[k, start:stop]
            for c in range(y.shape[0]):
                y[c] += x[n, k] * w[c]
        activate(y, activation)


def linear(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Fully connected layer: (N, C_in) @ (C_in, C_out) -> (N, C_out)."""
    g = checks.linear(x, weight, bias, activation=activation)
    out = checks.output(out, g.shape)
    x, weight = checks.float32(x), checks.float32(weight)
    bias, code = checks.bias(bias, weight.shape[1]), checks.code(activation)
    if x.shape[0] < 4 * threads:
        _linear(threads, x, weight, bias, code, out)
    else:  # a tile of four rows for every thread: the same sums, and each weight is loaded once for four rows
        matrix_product(threads, x, weight[None], bias, out[:0], code, out)
    return out


@parallel_loop
def _softmax(x: Array, out: Array) -> None:
    for n in prange(x.shape[0]):
        largest = x[n, 0]
        for c in range(x.shape[1]):
            if not x[n, c] <= largest:  # a NaN becomes the largest value, and stays it
                largest = x[n, c]
        for c in range(x.shape[1]):
            out[n, c] = exp(x[n, c] - largest)
        total = np.float32(0)
        for c in range(x.shape[1]):
            total += out[n, c]
        for c in range(x.shape[1]):
            out[n, c] /= total


def softmax(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``exp(x) / sum of exp(x)`` over the last axis: (N, ..., C) -> (N, ..., C)."""
    out = checks.output(out, checks.softmax(x).shape)
    rows = (-1, x.shape[-1])
    _softmax(threads, checks.float32(x).reshape(rows), out.reshape(rows))
    return out

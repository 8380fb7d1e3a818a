"""Fully connected layers and softmax: rows of values without pixels."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.cpu.activation import activate, exp
from npmobilenet.kernels.jit import parallel_loop

BLOCK = 256  # output channels per trip: enough trips for several threads when there is one image


@parallel_loop
def _linear(x, weight, bias, activation, out):
    c_in, c_out = weight.shape
    blocks = (c_out + BLOCK - 1) // BLOCK
    whole = c_in - c_in % 4
    for trip in prange(x.shape[0] * blocks):
        n, block = trip // blocks, trip % blocks
        start, stop = block * BLOCK, min((block + 1) * BLOCK, c_out)
        for c in range(start, stop):
            out[n, c] = bias[c]
        for k in range(0, whole, 4):
            x0, x1, x2, x3 = x[n, k], x[n, k + 1], x[n, k + 2], x[n, k + 3]
            for c in range(start, stop):
                out[n, c] = (
                    out[n, c]
                    + x0 * weight[k, c]
                    + x1 * weight[k + 1, c]
                    + x2 * weight[k + 2, c]
                    + x3 * weight[k + 3, c]
                )
        for k in range(whole, c_in):
            for c in range(start, stop):
                out[n, c] += x[n, k] * weight[k, c]
        activate(out[n, start:stop], activation)


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
    _linear(
        threads,
        checks.float32(x),
        checks.float32(weight),
        checks.bias(bias, weight.shape[1]),
        checks.code(activation),
        out,
    )
    return out


@parallel_loop
def _softmax(x, out):
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
    """``exp(x) / sum of exp(x)`` over the last axis: (N, C) -> (N, C)."""
    out = checks.output(out, checks.softmax(x).shape)
    _softmax(threads, checks.float32(x), out)
    return out

"""Sums and products of an array with one that stands for an array of its shape."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array
from npmobilenet.kernels.jit import parallel_loop


@parallel_loop
def _combine(x: Array, y: Array, product: bool, out: Array) -> None:
    n_out, p_out, q_out, channels = out.shape
    _, height, width, every = y.shape  # each that of the result, or 1
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        for q in range(q_out):
            row = y[n, p % height, q % width]
            for c in range(channels):
                value = row[c % every]
                out[n, p, q, c] = x[n, p, q, c] * value if product else x[n, p, q, c] + value


def broadcast_add(x: np.ndarray, y: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Sum in which ``y`` has length 1 along some axes of ``x``, or no pixels: (N, H, W, C) + (N, C) -> (N, H, W, C)."""
    return _combined(x, y, False, out, threads)


def multiply(x: np.ndarray, y: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Product in which ``y`` is as in :func:`broadcast_add`: (N, H, W, C) * (N, C) -> (N, H, W, C)."""
    return _combined(x, y, True, out, threads)


def _combined(x: np.ndarray, y: np.ndarray, product: bool, out: np.ndarray | None, threads: int) -> np.ndarray:
    out = checks.output(out, checks.broadcast_add(x, y).shape)
    x4, y4, out4 = (
        array[:, None, None] if array.ndim == 2 else array for array in (checks.float32(x), checks.float32(y), out)
    )
    _combine(threads, x4, y4, product, out4)
    return out

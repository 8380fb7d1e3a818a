"""Feature maps at another size. Photographs, whose pixels are averaged as they shrink, are `resize`'s."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array, Size
from npmobilenet.kernels.geometry import Tap
from npmobilenet.kernels.jit import parallel_loop

ONE = np.float32(1)


@parallel_loop
def _nearest(x: Array, rows: Array, columns: Array, out: Array) -> None:
    n_out, p_out, q_out, channels = out.shape
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        for q in range(q_out):
            for c in range(channels):
                out[n, p, q, c] = x[n, rows[p, 0], columns[q, 0], c]


@parallel_loop
def _bilinear(x: Array, rows: Array, columns: Array, row_weights: Array, column_weights: Array, out: Array) -> None:
    n_out, p_out, q_out, channels = out.shape
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        below = row_weights[p]
        for q in range(q_out):
            right = column_weights[q]
            h0, h1, w0, w1 = rows[p, 0], rows[p, 1], columns[q, 0], columns[q, 1]
            for c in range(channels):
                upper = x[n, h0, w0, c] * (ONE - right) + x[n, h0, w1, c] * right
                lower = x[n, h1, w0, c] * (ONE - right) + x[n, h1, w1, c] * right
                out[n, p, q, c] = upper * (ONE - below) + lower * below


def resize2d(
    x: np.ndarray,
    size: Size | None = None,
    *,
    like: np.ndarray | None = None,
    scale: float | Sequence[float] | None = None,
    mode: str = "bilinear",
    coordinates: str = "half_pixel",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """The image at another size: (N, H, W, C) -> (N, P, Q, C)."""
    g = checks.resize2d(x, size, like=like, scale=scale, mode=mode, coordinates=coordinates)
    x, out = checks.float32(x), checks.output(out, g.shape)
    rows, columns = map(_pixels, g.taps)
    if mode == "nearest":
        _nearest(threads, x, rows, columns, out)
    else:
        _bilinear(threads, x, rows, columns, *map(_weights, g.taps), out)
    return out


def _pixels(taps: Sequence[Tap]) -> Array:
    return np.array([tap[:2] for tap in taps], np.int64)


def _weights(taps: Sequence[Tap]) -> Array:
    return np.array([tap[2] for tap in taps], np.float32)

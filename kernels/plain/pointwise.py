"""1x1 convolutions: a matrix product of pixels and weights, in two versions."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array
from npmobilenet.kernels.jit import ParallelLoop, inlined, parallel_loop
from npmobilenet.kernels.plain.activation import activate


@inlined
def accumulate(x: Array, weight: Array, y: Array) -> None:
    """``y += x @ weight``, one weight row after the other."""
    for k in range(x.shape[0]):
        for c in range(y.shape[0]):
            y[c] += x[k] * weight[k, c]


@inlined
def accumulate4(
    x0: Array, x1: Array, x2: Array, x3: Array, weight: Array, y0: Array, y1: Array, y2: Array, y3: Array
) -> None:
    """:func:`accumulate` for four pixels at once, four input channels per trip.

    Every weight row is loaded once for four pixels, and every output once for four weight rows. Each sum runs
    from left to right, so that an output is the same chain of operations as in :func:`accumulate`: its value
    does not depend on where the pixel lies in a tile.
    """
    c_in, c_out = x0.shape[0], y0.shape[0]
    whole = c_in - c_in % 4
    for k in range(0, whole, 4):
        a0, a1, a2, a3 = x0[k], x0[k + 1], x0[k + 2], x0[k + 3]
        b0, b1, b2, b3 = x1[k], x1[k + 1], x1[k + 2], x1[k + 3]
        c0, c1, c2, c3 = x2[k], x2[k + 1], x2[k + 2], x2[k + 3]
        d0, d1, d2, d3 = x3[k], x3[k + 1], x3[k + 2], x3[k + 3]
        for c in range(c_out):
            w0, w1, w2, w3 = weight[k, c], weight[k + 1, c], weight[k + 2, c], weight[k + 3, c]
            y0[c] = y0[c] + a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
            y1[c] = y1[c] + b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
            y2[c] = y2[c] + c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
            y3[c] = y3[c] + d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
    for k in range(whole, c_in):
        for c in range(c_out):
            w = weight[k, c]
            y0[c] += x0[k] * w
            y1[c] += x1[k] * w
            y2[c] += x2[k] * w
            y3[c] += x3[k] * w


@parallel_loop
def _plain(x: Array, weight: Array, bias: Array, residual: Array, activation: int, out: Array) -> None:
    groups, c_in, c_out = weight.shape
    for pixel in prange(out.shape[0]):
        y = out[pixel]
        for c in range(y.shape[0]):
            y[c] = bias[c]
        for g in range(groups):
            accumulate(x[pixel, g * c_in : (g + 1) * c_in], weight[g], y[g * c_out : (g + 1) * c_out])
        activate(y, activation)
        if residual.shape[0] > 0:
            for c in range(y.shape[0]):
                y[c] += residual[pixel, c]


@parallel_loop
def matrix_product(x: Array, weight: Array, bias: Array, residual: Array, activation: int, out: Array) -> None:
    """``activation(x @ weight + bias) + residual``, in tiles of four rows.

    ``weight`` is (G, C_in/G, C_out/G), one matrix for each group of channels; ``residual`` may have no rows.
    """
    groups, c_in, c_out = weight.shape
    pixels, channels = out.shape
    for tile in prange((pixels + 3) // 4):
        first, stop = tile * 4, min(tile * 4 + 4, pixels)
        for pixel in range(first, stop):
            for c in range(channels):
                out[pixel, c] = bias[c]
        for g in range(groups):
            i0, i1, o0, o1 = g * c_in, (g + 1) * c_in, g * c_out, (g + 1) * c_out
            if stop - first == 4:
                accumulate4(
                    x[first, i0:i1], x[first + 1, i0:i1], x[first + 2, i0:i1], x[first + 3, i0:i1], weight[g],
                    out[first, o0:o1], out[first + 1, o0:o1], out[first + 2, o0:o1], out[first + 3, o0:o1],
                )  # fmt: skip
            else:
                for pixel in range(first, stop):
                    accumulate(x[pixel, i0:i1], weight[g], out[pixel, o0:o1])
        for pixel in range(first, stop):
            activate(out[pixel], activation)
            if residual.shape[0] > 0:
                for c in range(channels):
                    out[pixel, c] += residual[pixel, c]


def pointwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    groups: int = 1,
    residual: np.ndarray | None = None,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """1x1 convolution in tiles of 4 pixels and 4 input channels: (N, H, W, C_in) -> (N, H, W, C_out)."""
    return _pointwise(matrix_product, x, weight, bias, groups, residual, activation, out, threads)


def pointwise_conv2d_plain(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    groups: int = 1,
    residual: np.ndarray | None = None,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """1x1 convolution, one multiple of a weight row after the other: (N, H, W, C_in) -> (N, H, W, C_out)."""
    return _pointwise(_plain, x, weight, bias, groups, residual, activation, out, threads)


def _pointwise(
    loop: ParallelLoop,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    groups: int,
    residual: np.ndarray | None,
    activation: str,
    out: np.ndarray | None,
    threads: int,
) -> np.ndarray:
    g = checks.pointwise_conv2d(x, weight, bias, groups=groups, residual=residual, activation=activation)
    out = checks.output(out, g.shape)
    c_in, c_out = x.shape[3], weight.shape[1]
    weight = checks.float32(weight).reshape(c_in // groups, groups, c_out // groups)
    # Without a residual: an empty array, which is a value of the same type.
    residual = np.empty((0, c_out), np.float32) if residual is None else checks.float32(residual)
    loop(
        threads,
        checks.float32(x).reshape(-1, c_in),
        checks.float32(weight.transpose(1, 0, 2)),  # copies when there are several groups
        checks.bias(bias, c_out),
        residual.reshape(-1, c_out),
        checks.code(activation),
        out.reshape(-1, c_out),
    )
    return out

"""The ladder of the depthwise convolution: its lower rungs; :data:`~npmobilenet.kernels.ladder.LADDERS` has all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from npmobilenet.kernels.blocked import depthwise as blocked
from npmobilenet.kernels.blocked.tiles import Tiling
from npmobilenet.kernels.checks import Array, Geometry, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.jit import inlined, jit, parallel_loop
from npmobilenet.kernels.ladder.rung import rung_of
from npmobilenet.kernels.plain.activation import activate
from npmobilenet.kernels.plain.depthwise import FIRST, slide, taps_inside, window
from npmobilenet.kernels.prepared import Prepared, prepared

PIXEL = Tiling((1,), weights_stay=False)
ROW = Tiling((7, 3, 1), weights_stay=False)


def loops(x: Array, weight: Array, stride: Pair, start: Pair, dilation: Pair, out: Array) -> None:
    """The formula: for every output, the sum over its window."""
    n_out, p_out, q_out, channels = out.shape
    for n in range(n_out):
        for p in range(p_out):
            for q in range(q_out):
                for c in range(channels):
                    total = np.float32(0)
                    for i in range(weight.shape[0]):
                        for j in range(weight.shape[1]):
                            h = p * stride[0] + i * dilation[0] - start[0]
                            w = q * stride[1] + j * dilation[1] - start[1]
                            if 0 <= h < x.shape[1] and 0 <= w < x.shape[2]:
                                total += x[n, h, w, c] * weight[i, j, c]
                    out[n, p, q, c] = total


_compiled = jit(loops)


@rung_of("depthwise_conv2d")
def python(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """Six nested Python loops: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    loops(x, weight, g.stride, g.start, g.dilation, out)


def taps(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """All outputs at once, tap after tap."""
    padded = g.padded(x)
    out[:] = 0
    for i, j in np.ndindex(g.kernel):
        out += g.tap(padded, i, j) * weight[i, j]


@rung_of("depthwise_conv2d")
def numpy_taps(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """One NumPy product of the shifted image for each tap: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    taps(x, weight, g, out)


@rung_of("depthwise_conv2d")
def njit_loops(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """The six nested loops, compiled: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    _compiled(x, weight, g.stride, g.start, g.dilation, out)


Sums = tuple[np.float32, np.float32, np.float32, np.float32]


@inlined
def _add_row(x: Array, weight: Array, c: int, s0: np.float32, s1: np.float32, s2: np.float32, s3: np.float32) -> Sums:
    """Add one row of the window to the sums of four neighbours: six values, three weights, twelve products."""
    x0, x1, x2, x3, x4, x5 = x[0, c], x[1, c], x[2, c], x[3, c], x[4, c], x[5, c]
    w0, w1, w2 = weight[0, c], weight[1, c], weight[2, c]
    return (
        s0 + x0 * w0 + x1 * w1 + x2 * w2,
        s1 + x1 * w0 + x2 * w1 + x3 * w2,
        s2 + x2 * w0 + x3 * w1 + x4 * w2,
        s3 + x3 * w0 + x4 * w1 + x5 * w2,
    )


@inlined
def _four(
    x0: Array, x1: Array, x2: Array, weight: Array, bias: Array, y0: Array, y1: Array, y2: Array, y3: Array
) -> None:
    """Four neighbours of a row whose 3x3 windows, in the rows ``x0`` to ``x2``, lie inside the image."""
    w0, w1, w2 = weight[0], weight[1], weight[2]
    for c in range(weight.shape[2]):
        b = bias[c]
        s0, s1, s2, s3 = _add_row(x0, w0, c, b, b, b, b)
        s0, s1, s2, s3 = _add_row(x1, w1, c, s0, s1, s2, s3)
        y0[c], y1[c], y2[c], y3[c] = _add_row(x2, w2, c, s0, s1, s2, s3)


@parallel_loop
def _tiled(
    x: Array, weight: Array, bias: Array, stride: Pair, start: Pair, dilation: Pair, activation: int, out: Array
) -> None:
    kernel_h, kernel_w = weight.shape[:2]
    n_out, p_out, q_out, _ = out.shape
    dense = kernel_h == 3 and kernel_w == 3 and stride[1] == 1 and dilation[0] == 1 and dilation[1] == 1
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        h = p * stride[0] - start[0]
        i0, i1 = taps_inside(h, dilation[0], kernel_h, x.shape[1])
        q = 0
        while q < q_out:
            w = q * stride[1] - start[1]
            if dense and i1 - i0 == 3 and w >= 0 and w + 6 <= x.shape[2]:
                _four(
                    x[n, h, w : w + 6], x[n, h + 1, w : w + 6], x[n, h + 2, w : w + 6], weight, bias,
                    out[n, p, q], out[n, p, q + 1], out[n, p, q + 2], out[n, p, q + 3],
                )  # fmt: skip
                q += 4
            else:
                j0, j1 = taps_inside(w, dilation[1], kernel_w, x.shape[2])
                window(x, weight, bias, FIRST, n, h, w, i0, i1, j0, j1, dilation, out[n, p, q])
                q += 1
        activate(out[n, p].reshape(-1), activation)


def njit_tiled(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Four pixels at once where a 3x3 window moves by one pixel: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    return slide(_tiled, x, weight, bias, stride, padding, dilation, activation, out, threads)


@prepared("depthwise_conv2d")
def simd_pixel(*arguments: Any, **options: Any) -> Prepared:
    """Explicit vectors, a pixel at a time: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    return blocked.depthwise_conv2d.prepare(*arguments, **options, tiling=PIXEL)


@prepared("depthwise_conv2d")
def simd_row(*arguments: Any, **options: Any) -> Prepared:
    """Explicit vectors, seven pixels of a row at a time: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    return blocked.depthwise_conv2d.prepare(*arguments, **options, tiling=ROW)

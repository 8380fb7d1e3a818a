"""Depthwise convolutions."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.jit import ParallelLoop, inlined, parallel_loop
from npmobilenet.kernels.plain.activation import activate

FIRST = np.uint64(0)


@inlined
def taps_inside(start: int, dilation: int, kernel: int, size: int) -> Pair:
    """Return the first tap inside the image, and one past the last, of a window that starts at ``start``."""
    first = max(0, (dilation - 1 - start) // dilation)
    stop = min(kernel, (size - start + dilation - 1) // dilation)
    return first, stop


@inlined
def window3x3(
    x: Array, weight: Array, bias: Array, first: np.uint64, n: int, h: int, w: int, dilation: Pair, y: Array
) -> None:
    """One output pixel of a 3x3 window that lies inside the image: a single pass over the channels.

    The weights, (3, 3, channels), are those of the channels from ``first`` on. It is unsigned because a loop in
    which an index might be negative, and count from the end, does not become vectors.
    """
    h1, h2 = h + dilation[0], h + 2 * dilation[0]
    w1, w2 = w + dilation[1], w + 2 * dilation[1]
    a0, a1, a2 = x[n, h, w], x[n, h, w1], x[n, h, w2]
    b0, b1, b2 = x[n, h1, w], x[n, h1, w1], x[n, h1, w2]
    d0, d1, d2 = x[n, h2, w], x[n, h2, w1], x[n, h2, w2]
    t0, t1, t2 = weight[0, 0], weight[0, 1], weight[0, 2]
    u0, u1, u2 = weight[1, 0], weight[1, 1], weight[1, 2]
    v0, v1, v2 = weight[2, 0], weight[2, 1], weight[2, 2]
    for c in range(weight.shape[2]):
        at = first + np.uint64(c)
        top = bias[at] + a0[at] * t0[c] + a1[at] * t1[c] + a2[at] * t2[c]
        middle = top + b0[at] * u0[c] + b1[at] * u1[c] + b2[at] * u2[c]
        y[at] = middle + d0[at] * v0[c] + d1[at] * v1[c] + d2[at] * v2[c]


@inlined
def window(
    x: Array,
    weight: Array,
    bias: Array,
    first: np.uint64,
    n: int,
    h: int,
    w: int,
    i0: int,
    i1: int,
    j0: int,
    j1: int,
    dilation: Pair,
    y: Array,
) -> None:
    """One output pixel of any window, of which the taps in [i0, i1) x [j0, j1) lie inside the image.

    ``weight`` and ``first`` are as in :func:`window3x3`.
    """
    channels = weight.shape[2]
    for c in range(channels):
        at = first + np.uint64(c)
        y[at] = bias[at]
    for i in range(i0, i1):
        row = h + i * dilation[0]
        triples = max(j1 - j0, 0) // 3
        for j in range(j0, j0 + 3 * triples, 3):  # the output is loaded and stored once for three taps
            w0 = w + j * dilation[1]
            a0, a1, a2 = x[n, row, w0], x[n, row, w0 + dilation[1]], x[n, row, w0 + 2 * dilation[1]]
            t0, t1, t2 = weight[i, j], weight[i, j + 1], weight[i, j + 2]
            for c in range(channels):
                at = first + np.uint64(c)
                y[at] = y[at] + a0[at] * t0[c] + a1[at] * t1[c] + a2[at] * t2[c]
        for j in range(j0 + 3 * triples, j1):
            a, t = x[n, row, w + j * dilation[1]], weight[i, j]
            for c in range(channels):
                at = first + np.uint64(c)
                y[at] += a[at] * t[c]


@parallel_loop
def _depthwise(
    x: Array,
    weight: Array,
    bias: Array,
    stride: Pair,
    start: Pair,
    dilation: Pair,
    activation: int,
    out: Array,
) -> None:
    kernel_h, kernel_w = weight.shape[:2]
    n_out, p_out, q_out, _ = out.shape
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        h = p * stride[0] - start[0]
        i0, i1 = taps_inside(h, dilation[0], kernel_h, x.shape[1])
        for q in range(q_out):
            w = q * stride[1] - start[1]
            j0, j1 = taps_inside(w, dilation[1], kernel_w, x.shape[2])
            if kernel_h == 3 and kernel_w == 3 and i1 - i0 == 3 and j1 - j0 == 3:
                window3x3(x, weight, bias, FIRST, n, h, w, dilation, out[n, p, q])
            else:
                window(x, weight, bias, FIRST, n, h, w, i0, i1, j0, j1, dilation, out[n, p, q])
        activate(out[n, p].reshape(-1), activation)


def depthwise_conv2d(
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
    """Depthwise convolution: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    return slide(_depthwise, x, weight, bias, stride, padding, dilation, activation, out, threads)


def slide(
    loop: ParallelLoop,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Size,
    padding: PaddingSpec,
    dilation: Size,
    activation: str,
    out: np.ndarray | None,
    threads: int,
) -> np.ndarray:
    """Check and convert the arguments of a depthwise convolution, and call its loop over lines."""
    g = checks.depthwise_conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    out = checks.output(out, g.shape)
    loop(
        threads,
        checks.float32(x),
        checks.float32(weight),
        checks.bias(bias, weight.shape[2]),
        g.stride,
        g.start,
        g.dilation,
        checks.code(activation),
        out,
    )
    return out

"""Depthwise convolutions."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.geometry import PaddingSpec
from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.cpu.activation import activate
from npmobilenet.kernels.jit import jit, parallel_loop


@jit
def taps_inside(start, dilation, kernel, size):
    """Return the first tap inside the image, and one past the last, of a window that starts at ``start``."""
    first = max(0, (dilation - 1 - start) // dilation)
    stop = min(kernel, (size - start + dilation - 1) // dilation)
    return first, stop


@parallel_loop
def _depthwise(x, weight, bias, stride, start, dilation, activation, out):
    n_out, p_out, q_out, channels = out.shape
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        top = p * stride[0] - start[0]
        i0, i1 = taps_inside(top, dilation[0], weight.shape[0], x.shape[1])
        for q in range(q_out):
            row = out[n, p, q]
            for c in range(channels):
                row[c] = bias[c]
            left = q * stride[1] - start[1]
            j0, j1 = taps_inside(left, dilation[1], weight.shape[1], x.shape[2])
            for i in range(i0, i1):
                h = top + i * dilation[0]
                j = j0
                while j + 3 <= j1:  # three taps per trip: the output is loaded and stored once for three
                    w0 = left + j * dilation[1]
                    w1, w2 = w0 + dilation[1], w0 + 2 * dilation[1]
                    for c in range(channels):
                        row[c] = (
                            row[c]
                            + x[n, h, w0, c] * weight[i, j, c]
                            + x[n, h, w1, c] * weight[i, j + 1, c]
                            + x[n, h, w2, c] * weight[i, j + 2, c]
                        )
                    j += 3
                while j < j1:
                    w0 = left + j * dilation[1]
                    for c in range(channels):
                        row[c] += x[n, h, w0, c] * weight[i, j, c]
                    j += 1
            activate(row, activation)


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
    g = checks.depthwise_conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    out = checks.output(out, g.shape)
    _depthwise(
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

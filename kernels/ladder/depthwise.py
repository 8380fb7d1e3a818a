"""The ladder of the depthwise convolution: its lower rungs; :data:`~npmobilenet.kernels.ladder.LADDERS` has all."""

from __future__ import annotations

import numpy as np

from npmobilenet.geometry import Pair
from npmobilenet.kernels.checks import Array, Geometry
from npmobilenet.kernels.jit import jit
from npmobilenet.kernels.ladder.rung import rung_of


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

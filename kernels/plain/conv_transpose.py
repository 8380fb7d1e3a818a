"""Transposed convolutions."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.jit import parallel_loop


@parallel_loop
def _conv_transpose(x: Array, weight: Array, bias: Array, stride: Pair, start: Pair, out: Array) -> None:
    """Every pixel of the result gathers what falls on it."""
    n_out, p_out, q_out, channels = out.shape
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        for q in range(q_out):
            for c in range(channels):
                out[n, p, q, c] = bias[c]
            for i in range(weight.shape[0]):
                down = p + start[0] - i
                h = down // stride[0]
                if h * stride[0] != down or h < 0 or h >= x.shape[1]:
                    continue
                for j in range(weight.shape[1]):
                    right = q + start[1] - j
                    w = right // stride[1]
                    if w * stride[1] != right or w < 0 or w >= x.shape[2]:
                        continue
                    for k in range(weight.shape[2]):
                        for c in range(channels):
                            out[n, p, q, c] += x[n, h, w, k] * weight[i, j, k, c]


def conv_transpose2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Transposed convolution: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out)."""
    g = checks.conv_transpose2d(x, weight, bias, stride=stride, padding=padding)
    out, bias = checks.output(out, g.shape), checks.bias(bias, g.shape[3])
    _conv_transpose(threads, checks.float32(x), checks.float32(weight), bias, g.stride, g.start, out)
    return out

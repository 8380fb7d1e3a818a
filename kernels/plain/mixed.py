"""Mixed depthwise convolutions: groups of channels, each with a kernel size of its own, in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.jit import parallel_loop
from npmobilenet.kernels.plain.activation import activate
from npmobilenet.kernels.plain.depthwise import taps_inside, window, window3x3


@parallel_loop
def _mixed(x: Array, weights: Array, bias: Array, groups: Array, stride: Pair, activation: int, out: Array) -> None:
    # Weights of several shapes lie one after the other in one array, and a row of `groups` says where each
    # begins, its shape and how it slides: one compiled function serves any number of groups.
    n_out, p_out, q_out, _ = out.shape
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        first = 0
        for g in range(groups.shape[0]):
            begin, kernel_h, kernel_w, channels = groups[g, 0], groups[g, 1], groups[g, 2], groups[g, 3]
            dilation = groups[g, 6], groups[g, 7]
            weight = weights[begin : begin + kernel_h * kernel_w * channels].reshape(kernel_h, kernel_w, channels)
            h = p * stride[0] - groups[g, 4]
            i0, i1 = taps_inside(h, dilation[0], kernel_h, x.shape[1])
            for q in range(q_out):
                w = q * stride[1] - groups[g, 5]
                j0, j1 = taps_inside(w, dilation[1], kernel_w, x.shape[2])
                if kernel_h == 3 and kernel_w == 3 and i1 - i0 == 3 and j1 - j0 == 3:
                    window3x3(x, weight, bias, np.uint64(first), n, h, w, dilation, out[n, p, q])
                else:
                    window(x, weight, bias, np.uint64(first), n, h, w, i0, i1, j0, j1, dilation, out[n, p, q])
            first += channels
        activate(out[n, p].reshape(-1), activation)


def mixed_depthwise_conv2d(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = "symmetric",
    dilation: Size | list[Size] = 1,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Mixed depthwise convolution in one pass: (N, H, W, C) * list of (K_h, K_w, C_group) -> (N, P, Q, C)."""
    g = checks.mixed_depthwise_conv2d(
        x, weights, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    out = checks.output(out, g.shape)
    begins = np.cumsum([0, *(weight.size for weight in weights)])
    groups = [
        (begin, *weight.shape, *group.start, *group.dilation)
        for begin, weight, group in zip(begins, weights, g.groups, strict=False)
    ]
    _mixed(
        threads,
        checks.float32(x),
        np.concatenate([checks.float32(weight).reshape(-1) for weight in weights]),
        checks.bias(bias, x.shape[3]),
        np.array(groups, np.int64),
        g.groups[0].stride,
        checks.code(activation),
        out,
    )
    return out

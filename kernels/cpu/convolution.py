"""Dense and grouped convolutions."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.geometry import PaddingSpec
from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.cpu.activation import activate
from npmobilenet.kernels.cpu.depthwise import taps_inside
from npmobilenet.kernels.jit import parallel_loop


@parallel_loop
def _convolution(x, weight, bias, stride, start, dilation, groups, activation, out):
    n_out, p_out, q_out, c_out = out.shape
    kernel_h, kernel_w, c_in, _ = weight.shape
    c_group = c_out // groups
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        top = p * stride[0] - start[0]
        i0, i1 = taps_inside(top, dilation[0], kernel_h, x.shape[1])
        for q in range(q_out):
            row = out[n, p, q]
            for c in range(c_out):
                row[c] = bias[c]
            left = q * stride[1] - start[1]
            j0, j1 = taps_inside(left, dilation[1], kernel_w, x.shape[2])
            for i in range(i0, i1):
                h = top + i * dilation[0]
                for j in range(j0, j1):
                    w = left + j * dilation[1]
                    for group in range(groups):
                        for k in range(c_in):
                            value = x[n, h, w, group * c_in + k]
                            for c in range(group * c_group, (group + 1) * c_group):
                                row[c] += value * weight[i, j, k, c]
            activate(row, activation)


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Convolution: (N, H, W, C_in) * (K_h, K_w, C_in/G, C_out) -> (N, P, Q, C_out)."""
    g = checks.conv2d(
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=activation,
    )
    out = checks.output(out, g.shape)
    _convolution(
        threads,
        checks.float32(x),
        checks.float32(weight),
        checks.bias(bias, weight.shape[3]),
        g.stride,
        g.start,
        g.dilation,
        groups,
        checks.code(activation),
        out,
    )
    return out

"""Dense and grouped convolutions."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.jit import parallel_loop
from npmobilenet.kernels.plain.activation import activate
from npmobilenet.kernels.plain.depthwise import taps_inside
from npmobilenet.kernels.plain.pointwise import accumulate, accumulate4


@parallel_loop
def _convolution(
    x: Array,
    weight: Array,
    bias: Array,
    kernel_w: int,
    stride: Pair,
    start: Pair,
    dilation: Pair,
    activation: int,
    out: Array,
) -> None:
    # x (N, H, W * C_in), weight (G, K_h, K_w * C_in/G, C_out/G), out (N, P, Q * C_out). In NHWC the inputs of
    # all taps of a kernel row follow each other, and so do their weights: one sum over K_w * C_in products.
    # That holds without groups and dilation; with them the sum goes tap by tap.
    groups, kernel_h, _, c_out = weight.shape
    c_in = weight.shape[2] // kernel_w
    width = x.shape[2] // (groups * c_in)
    n_out, p_out, _ = out.shape
    q_out = out.shape[2] // (groups * c_out)
    contiguous = groups == 1 and dilation[1] == 1
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        y = out[n, p]
        for q in range(q_out):
            for c in range(groups * c_out):
                y[q * groups * c_out + c] = bias[c]
        top = p * stride[0] - start[0]
        i0, i1 = taps_inside(top, dilation[0], kernel_h, x.shape[1])
        for group in range(groups):
            q = 0
            while q < q_out:
                left = q * stride[1] - start[1]
                j0, j1 = taps_inside(left, dilation[1], kernel_w, width)
                last = left + 3 * stride[1] + (kernel_w - 1) * dilation[1]
                four = left >= 0 and last < width and q + 4 <= q_out  # pixels whose taps are all inside
                taps = max(1, j1 - j0) if contiguous else 1
                length = taps * c_in
                y0 = (q * groups + group) * c_out
                for i in range(i0, i1):
                    row = x[n, top + i * dilation[0]]
                    for j in range(j0, j1, taps):
                        w = weight[group, i, j * c_in : j * c_in + length]
                        x0 = ((left + j * dilation[1]) * groups + group) * c_in
                        if four:
                            x_step, y_step = stride[1] * groups * c_in, groups * c_out
                            x1, x2, x3 = x0 + x_step, x0 + 2 * x_step, x0 + 3 * x_step
                            y1, y2, y3 = y0 + y_step, y0 + 2 * y_step, y0 + 3 * y_step
                            accumulate4(
                                row[x0 : x0 + length], row[x1 : x1 + length],
                                row[x2 : x2 + length], row[x3 : x3 + length], w,
                                y[y0 : y0 + c_out], y[y1 : y1 + c_out],
                                y[y2 : y2 + c_out], y[y3 : y3 + c_out],
                            )  # fmt: skip
                        else:
                            accumulate(row[x0 : x0 + length], w, y[y0 : y0 + c_out])
                q += 4 if four else 1
        activate(y, activation)


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
    n, h, w, c_in = x.shape
    k_h, k_w, c_group, c_out = weight.shape
    weight = checks.float32(weight).reshape(k_h, k_w * c_group, groups, c_out // groups)
    _convolution(
        threads,
        checks.float32(x).reshape(n, h, w * c_in),
        checks.float32(weight.transpose(2, 0, 1, 3)),  # copies when there are several groups
        checks.bias(bias, c_out),
        k_w,
        g.stride,
        g.start,
        g.dilation,
        checks.code(activation),
        out.reshape(*out.shape[:2], -1),
    )
    return out

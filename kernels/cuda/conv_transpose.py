"""Transposed convolutions: every pixel of the result gathers what falls on it.

Pixels that stand a stride apart are met by the same taps of the window. A thread computes some of these, for some
neighbouring output channels, and loads the weights of a tap once for all of them.
"""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import float32

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.cuda import device, launch
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.launch import Call, Launch, divided, stand_in
from npmobilenet.kernels.cuda.registers import fill, multiply_outer, quotient, read, write
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.sharing import once

COLUMNS = 4  # output pixels of a thread


@once
def _kernel(kernel: Pair, stride: Pair, columns: int, lanes: int) -> Any:
    KERNEL_H, KERNEL_W = kernel
    STRIDE_H, STRIDE_W = stride
    PIXELS, LANES = columns, lanes
    SUMS = PIXELS * LANES

    def conv_transpose(x, weight, bias, out, height, width, c_in, c_out, out_height, out_width, top, left, blocks):
        # Block x: columns, and blocks of output channels, which change first; block y: output rows; block z: images.
        sums = cuda.local.array(SUMS, float32)
        inputs = cuda.local.array(PIXELS, float32)
        weights = cuda.local.array(LANES, float32)
        block = quotient(cuda.blockIdx.x, blocks)
        c = ((cuda.blockIdx.x - block * blocks) * cuda.blockDim.x + cuda.threadIdx.x) * LANES
        column = block * cuda.blockDim.y + cuda.threadIdx.y
        tile = quotient(column, STRIDE_W)
        q = tile * (PIXELS - 1) * STRIDE_W + column
        p = cuda.blockIdx.y * cuda.blockDim.z + cuda.threadIdx.z
        n = cuda.blockIdx.z
        if c < c_out and q < out_width and p < out_height:
            read(weights, bias, c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
            fill(sums, SUMS, weights, LANES)
            # The last row of x whose window begins above this one meets it with tap i, the row before with the
            # tap that is a stride further down; so do columns.
            h = quotient(p + top, STRIDE_H)
            i = p + top - h * STRIDE_H
            while i < KERNEL_H:
                if 0 <= h < height:
                    w = quotient(q + left, STRIDE_W)
                    j = q + left - w * STRIDE_W
                    while j < KERNEL_W:
                        place = ((n * height + h) * width + w) * c_in
                        tap = (i * KERNEL_W + j) * c_in * c_out + c
                        for k in range(c_in):
                            read(inputs, x, place + k, 1, 0, 0, 1, PIXELS, c_in, w, 1, width, 1)
                            read(weights, weight, tap + k * c_out, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
                            multiply_outer(sums, inputs, weights, PIXELS, LANES)
                        w -= 1
                        j += STRIDE_W
                h -= 1
                i += STRIDE_H
            place = ((n * out_height + p) * out_width + q) * c_out + c
            write(out, place, 1, 0, 0, 1, PIXELS, STRIDE_W * c_out, 1, q, STRIDE_W, out_width, sums, LANES)

    return device.kernel(conv_transpose)


def prepare_conv_transpose2d(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dtype: Any = np.float32,
) -> Launch:
    """Return a launcher of ``x, weight, bias, out``, the weights (K_h, K_w, C_in, C_out)."""
    g = checks.conv_transpose2d(stand_in(x_shape), stand_in(weight_shape), stride=stride, padding=padding)
    n, p, q, c_out = g.shape
    lanes, columns = launch.lanes(c_out), g.stride[1] * divided(q, COLUMNS * g.stride[1])
    block = launch.block_of(c_out, lanes, columns, p)
    blocks = divided(c_out, lanes * block[0])
    return Launch(
        f"conv_transpose{g.kernel[0]}x{g.kernel[1]}",
        g.shape,
        _kernel(g.kernel, g.stride, COLUMNS, lanes),
        (blocks * divided(columns, block[1]), divided(p, block[2]), n),
        block,
        (*x_shape[1:], c_out, p, q, *g.start, blocks),
        (0, 1, 2, 3),
        launch.storage(dtype),
    )


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
    call = Call(x)
    checks.conv_transpose2d(call.see(x), call.see(weight), call.see(bias), stride=stride, padding=padding)
    prepared = prepare_conv_transpose2d(x.shape, weight.shape, stride=stride, padding=padding, dtype=call.dtype)
    return call(prepared, out, x, weight, call.bias(bias, weight.shape[3]))

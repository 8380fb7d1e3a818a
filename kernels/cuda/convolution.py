"""Dense and grouped convolutions: the first layer of a network, whose few input channels suit no other kernel.

A thread computes some neighbouring output pixels for some neighbouring output channels. All its neighbours need the
same inputs at the same time, which the multiprocessor loads once; the weights of a tap are loaded once for all pixels
of the thread.
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
from npmobilenet.kernels.cuda.registers import activate, fill, multiply_outer, quotient, read, write
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.sharing import once

COLUMNS = 8  # output pixels of a thread


@once
def _kernel(kernel: Pair, stride: Pair, dilation: Pair, columns: int, lanes: int, activation: int) -> Any:
    KERNEL_H, KERNEL_W = kernel
    STRIDE_H, STRIDE_W = stride
    DILATION_H, DILATION_W = dilation
    PIXELS, LANES, ACTIVATION = columns, lanes, activation
    SUMS = PIXELS * LANES

    def convolution(x, weight, bias, out, height, width, c_in, c_out, groups, out_height, out_width, top, left, blocks):
        # Block x: columns of tiles, and blocks of output channels, which change first; block y: output rows;
        # block z: images. A thread's channels lie in one group.
        sums = cuda.local.array(SUMS, float32)
        inputs = cuda.local.array(PIXELS, float32)
        weights = cuda.local.array(LANES, float32)
        block = quotient(cuda.blockIdx.x, blocks)
        c = ((cuda.blockIdx.x - block * blocks) * cuda.blockDim.x + cuda.threadIdx.x) * LANES
        q = (block * cuda.blockDim.y + cuda.threadIdx.y) * PIXELS
        p = cuda.blockIdx.y * cuda.blockDim.z + cuda.threadIdx.z
        n = cuda.blockIdx.z
        channels, out_channels = groups * c_in, groups * c_out
        if c < out_channels and q < out_width and p < out_height:
            read(weights, bias, c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
            fill(sums, SUMS, weights, LANES)
            first_channel = quotient(c, c_out) * c_in
            for i in range(KERNEL_H):
                h = p * STRIDE_H - top + i * DILATION_H
                if 0 <= h < height:
                    for j in range(KERNEL_W):
                        first = q * STRIDE_W - left + j * DILATION_W
                        place = ((n * height + h) * width + first) * channels + first_channel
                        tap = (i * KERNEL_W + j) * c_in * out_channels + c
                        for k in range(c_in):
                            read(
                                inputs, x, place + k, 1, 0, 0, 1,
                                PIXELS, STRIDE_W * channels, first, STRIDE_W, width, 1,
                            )  # fmt: skip
                            read(weights, weight, tap + k * out_channels, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
                            multiply_outer(sums, inputs, weights, PIXELS, LANES)
            activate(sums, SUMS, ACTIVATION)
            place = ((n * out_height + p) * out_width + q) * out_channels + c
            write(out, place, 1, 0, 0, 1, PIXELS, out_channels, 1, q, 1, out_width, sums, LANES)

    return device.kernel(convolution)


def prepare_conv2d(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str = "none",
    dtype: Any = np.float32,
) -> Launch:
    """Return a launcher of ``x, weight, bias, out``, the weights (K_h, K_w, C_in/G, C_out)."""
    g = checks.conv2d(
        stand_in(x_shape),
        stand_in(weight_shape),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=activation,
    )
    n, p, q, channels = g.shape
    c_in, c_out = weight_shape[2], channels // groups
    lanes = launch.lanes(c_out)
    block = launch.block_of(channels, lanes, divided(q, COLUMNS), p)
    blocks = divided(channels, lanes * block[0])
    return Launch(
        f"convolution{g.kernel[0]}x{g.kernel[1]}",
        g.shape,
        _kernel(g.kernel, g.stride, g.dilation, COLUMNS, lanes, checks.code(activation)),
        (blocks * divided(q, COLUMNS * block[1]), divided(p, block[2]), n),
        block,
        (*x_shape[1:3], c_in, c_out, groups, p, q, *g.start, blocks),
        (0, 1, 2, 3),
        launch.storage(dtype),
    )


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
    """Convolution, a tile per thread: (N, H, W, C_in) * (K_h, K_w, C_in/G, C_out) -> (N, P, Q, C_out)."""
    call = Call(x)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "activation": activation}
    checks.conv2d(call.see(x), call.see(weight), call.see(bias), **geometry)
    prepared = prepare_conv2d(x.shape, weight.shape, **geometry, dtype=call.dtype)
    return call(prepared, out, x, weight, call.bias(bias, weight.shape[3]))

"""Depthwise convolutions, bound by memory: every input read from it once, every output written once.

A thread computes a tile of outputs (rows x columns x neighbouring channels). It walks down the image rows that its
tile sees; of each it keeps in registers all columns the tile sees, and slides over them the kernel rows that meet the
image row. So a value is loaded once for all the windows of a thread that hold it, and the windows of its neighbours
find it in the cache.
"""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import float32

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.cuda import device, launch
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.launch import Call, Launch, divided, stand_in
from npmobilenet.kernels.cuda.registers import activate, fill, quotient, read, slide, write
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.sharing import once

# Rows and columns of a thread's tile, and its channels at most, by the width of the window.
TILES = {3: (2, 4, 4), 5: (2, 4, 4), 7: (2, 8, 2), 99: (2, 8, 2)}


def tile_of(kernel: Pair, dilation: Pair) -> tuple[int, int, int]:
    """Return rows, columns and channels, at most, of a thread's tile."""
    width = kernel[1] if dilation[1] == 1 else (kernel[1] - 1) * dilation[1] + 1
    rows, columns, channels = next(tile for widest, tile in TILES.items() if width <= widest or widest == 99)
    return (rows if dilation[0] == 1 else 1), columns, channels


def values(kernel: Pair, stride: Pair, dilation: Pair, tile: Pair, lanes: int) -> int:
    """How many values a thread keeps: its sums, and the columns of an image row."""
    rows, columns = tile
    return (rows * columns + (columns - 1) * stride[1] + (kernel[1] - 1) * dilation[1]) * lanes


@once
def window_tile(
    kernel: Pair, stride: Pair, dilation: Pair, tile: Pair, lanes: int, activation: int
) -> Callable[..., None]:
    """Return the device function with which a thread computes its tile, for windows of one kind."""
    KERNEL_H, KERNEL_W = kernel
    STRIDE_H, STRIDE_W = stride
    DILATION_H, DILATION_W = dilation
    ROWS, COLUMNS = tile
    LANES, ACTIVATION = lanes, activation
    SEEN_ROWS = (ROWS - 1) * STRIDE_H + KERNEL_H  # with two rows there is no vertical dilation
    SEEN_COLUMNS = (COLUMNS - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W + 1
    LINE, SUMS, ROW, TAPS = COLUMNS * LANES, ROWS * COLUMNS * LANES, SEEN_COLUMNS * LANES, KERNEL_W * LANES

    def compute(
        x, weight, start, step, bias, out, n, p, q, c, height, width, channels, out_height, out_width, top, left
    ):
        # Channels c up to c + LANES of outputs (n, p, q) and those below and to the right. The weights of the first
        # tap are at `start`, those of the next one `step` further.
        sums = cuda.local.array(SUMS, float32)
        row = cuda.local.array(ROW, float32)
        taps = cuda.local.array(TAPS, float32)
        read(taps, bias, c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
        fill(sums, SUMS, taps, LANES)
        first = q * STRIDE_W - left
        for r in range(SEEN_ROWS):
            h = p * STRIDE_H - top + r * DILATION_H
            if 0 <= h < height:
                at = ((n * height + h) * width + first) * channels + c
                read(row, x, at, 1, 0, 0, 1, SEEN_COLUMNS, channels, first, 1, width, LANES)
                if r < KERNEL_H:
                    at = start + r * KERNEL_W * step
                    read(taps, weight, at, 1, 0, 0, 1, KERNEL_W, step, 0, 0, 1, LANES)
                    slide(sums, 0, row, taps, KERNEL_W, COLUMNS, STRIDE_W, DILATION_W, LANES)
                if ROWS == 2 and r >= STRIDE_H:
                    at = start + (r - STRIDE_H) * KERNEL_W * step
                    read(taps, weight, at, 1, 0, 0, 1, KERNEL_W, step, 0, 0, 1, LANES)
                    slide(sums, LINE, row, taps, KERNEL_W, COLUMNS, STRIDE_W, DILATION_W, LANES)
        activate(sums, SUMS, ACTIVATION)
        at = ((n * out_height + p) * out_width + q) * channels + c
        line = out_width * channels
        write(out, at, ROWS, line, p, out_height, COLUMNS, channels, 1, q, 1, out_width, sums, LANES)

    return device.device_function(compute, kernel, stride, dilation, tile, lanes, activation)


@once
def _kernel(kernel: Pair, stride: Pair, dilation: Pair, tile: Pair, lanes: int, activation: int) -> Any:
    ROWS, COLUMNS = tile
    LANES = lanes
    compute = window_tile(kernel, stride, dilation, tile, lanes, activation)

    def depthwise(x, weight, bias, out, height, width, channels, out_height, out_width, top, left, blocks):
        # Block x: columns of tiles, and blocks of channels, which change first; block y: rows of tiles; block z: N.
        column = quotient(cuda.blockIdx.x, blocks)
        c = ((cuda.blockIdx.x - column * blocks) * cuda.blockDim.x + cuda.threadIdx.x) * LANES
        q = (column * cuda.blockDim.y + cuda.threadIdx.y) * COLUMNS
        p = (cuda.blockIdx.y * cuda.blockDim.z + cuda.threadIdx.z) * ROWS
        n = cuda.blockIdx.z
        if c < channels and q < out_width and p < out_height:
            compute(
                x, weight, c, channels, bias, out, n, p, q, c,
                height, width, channels, out_height, out_width, top, left,
            )  # fmt: skip

    return device.kernel(depthwise, values(kernel, stride, dilation, tile, lanes))


def prepare_depthwise_conv2d(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    activation: str = "none",
    dtype: Any = np.float32,
) -> Launch:
    """Return a launcher of ``x, weight, bias, out``: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    g = checks.depthwise_conv2d(
        stand_in(x_shape),
        stand_in(weight_shape),
        stride=stride,
        padding=padding,
        dilation=dilation,
        activation=activation,
    )
    (_, height, width, channels), (n, p, q, _) = x_shape, g.shape
    rows, columns, most = tile_of(g.kernel, g.dilation)
    lanes = launch.lanes(channels, most=min(most, launch.CONFIGURATION["lanes"]))
    block = launch.block_of(channels, lanes, divided(q, columns), divided(p, rows))
    blocks = divided(channels, lanes * block[0])
    return Launch(
        f"depthwise{g.kernel[0]}x{g.kernel[1]}",
        g.shape,
        _kernel(g.kernel, g.stride, g.dilation, (rows, columns), lanes, checks.code(activation)),
        (blocks * divided(q, columns * block[1]), divided(p, rows * block[2]), n),
        block,
        (height, width, channels, p, q, *g.start, blocks),
        (0, 1, 2, 3),
        launch.storage(dtype),
    )


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
    """Depthwise convolution, a tile of windows per thread: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    call = Call(x)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "activation": activation}
    checks.depthwise_conv2d(call.see(x), call.see(weight), call.see(bias), **geometry)
    prepared = prepare_depthwise_conv2d(x.shape, weight.shape, **geometry, dtype=call.dtype)
    return call(prepared, out, x, weight, call.bias(bias, x.shape[3]))

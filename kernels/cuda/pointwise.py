"""1x1 convolutions: a product of matrices, pixels by input channels and input by output channels.

A block computes a tile of the result. It goes through the input channels in steps; in each a tile of either matrix
lies in shared memory, while the next ones are already on their way from the device's memory to registers, and every
thread multiplies its part: ``rows`` x ``columns`` sums that stay in registers. Where the result is too small to give
every multiprocessor a tile, the input channels are cut into slices that several groups of threads of one block sum up
side by side; their sums are added at the end, in order.
"""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import float32

from npmobilenet.kernels import checks
from npmobilenet.kernels.cuda import device, launch
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.launch import Call, Launch, divided, stand_in
from npmobilenet.kernels.cuda.registers import QUAD, activate, add, fill, multiply, quotient, read, scale, write, zero
from npmobilenet.kernels.sharing import once


@dataclass(frozen=True)
class Tile:
    """How a product is cut up: powers of two, ``depth`` and ``channels`` at most the threads of a slice.

    Attributes
    ----------
    pixels, channels : int
        The part of the result that a block computes.
    depth : int
        Input channels per step and slice.
    rows, columns : int
        The part of a thread.
    slices : int
        Groups of threads that share the input channels.
    """

    pixels: int
    channels: int
    depth: int
    rows: int
    columns: int
    slices: int = 1

    @property
    def threads(self) -> int:
        """Threads of a slice."""
        return (self.pixels // self.rows) * (self.channels // self.columns)


# From the one that computes the most per value it loads to the one that spreads a small result over the most blocks.
TILES = (
    Tile(128, 128, 8, 8, 8),
    Tile(128, 64, 8, 8, 4),
    Tile(64, 64, 8, 4, 4),
    Tile(128, 32, 8, 4, 4),
    Tile(128, 16, 8, 4, 2),
    Tile(32, 32, 8, 4, 4, 4),
    Tile(16, 32, 8, 2, 4, 4),
    Tile(4, 32, 8, 1, 4, 8),
)


# What `choose` reckons with, in clocks of a multiprocessor of a recent device.
LANES = 128  # multiply-adds in one clock
BYTES = 24.0  # from the second-level cache in one clock
LATENCY = 600.0  # of a load from the device's memory: a step takes no less
BEGIN = 2000.0  # to start a block and to write what it has computed


def choose(pixels: int, c_in: int, c_out: int, batch: int, multiprocessors: int) -> Tile:
    """Return the tile with the least estimated time for ``batch`` products.

    A step costs its multiply-adds and the loads from shared memory that they need, or the loads from further away if
    these take longer. Blocks run in waves over the multiprocessors, some side by side on each.
    """

    def time(tile: Tile) -> float:
        blocks = max(1, divided(pixels, tile.pixels) * divided(c_out, tile.channels) * batch)
        steps = divided(c_in, tile.depth * tile.slices)
        beside = min(2 if tile.rows * tile.columns > 32 else 3, divided(blocks, multiprocessors))
        sums = tile.depth * (tile.rows * tile.columns + (tile.rows + tile.columns) / 2)
        arithmetic = beside * sums * tile.threads * tile.slices / LANES
        loads = beside * 4 * tile.depth * tile.slices * (tile.pixels + tile.channels) / BYTES
        # The last wave is seldom full, but then blocks do not all end at once either.
        full = blocks / (multiprocessors * beside)
        waves = (max(full, 1.0) + math.ceil(full)) / 2
        return waves * (steps * max(arithmetic, loads, LATENCY) + BEGIN)

    return min(TILES, key=time)


@once
def _kernel(tile: Tile, lanes_in: int, lanes_out: int, activation: int, residual: bool, scaled: bool) -> Any:
    PIXELS, CHANNELS, DEPTH, ROWS, COLUMNS = tile.pixels, tile.channels, tile.depth, tile.rows, tile.columns
    SLICES, THREADS, ACTIVATION = tile.slices, tile.threads, activation
    IN, OUT = lanes_in, min(lanes_out, tile.columns)
    RESIDUAL, SCALED = residual, scaled
    SUMS, PIECES = ROWS * COLUMNS, COLUMNS // OUT
    ACROSS = CHANNELS // COLUMNS  # threads side by side in a row of the tile
    GAP = ACROSS * OUT  # between a thread's pieces: neighbouring threads load and store neighbouring pieces
    # Loads of the tile of x, pixels x depth, and of the weights, depth x channels; a thread makes so many of each.
    X_ACROSS, W_ACROSS = DEPTH // IN, CHANNELS // OUT
    X_VECTORS, W_VECTORS = PIXELS * X_ACROSS, DEPTH * W_ACROSS
    X_LOADS, W_LOADS = divided(X_VECTORS, THREADS), divided(W_VECTORS, THREADS)
    X_STRIDE, W_STRIDE = THREADS // X_ACROSS, THREADS // W_ACROSS  # rows between a thread's loads
    X_SIZE, W_SIZE = X_LOADS * IN, W_LOADS * OUT
    # In shared memory x stands transposed, so that a thread's pixels follow each other.
    X_STEP = PIXELS + 4
    BUFFER = DEPTH * (X_STEP + CHANNELS)  # of a slice
    W_BEGIN = DEPTH * X_STEP
    SUM_VECTORS = SUMS // OUT
    SUM_STEP = SLICES * THREADS * OUT
    QUADS = divided(max(2 * SLICES * BUFFER, SLICES * THREADS * SUMS if SLICES > 1 else 0), 4)

    def pointwise(x, weight, bias, out, residual, factors, pixels, c_in, c_out, groups, blocks):
        # Block x: tiles of pixels, and of channels, which change first: they share the pixels; block y: groups of
        # channels; block z: images with scales of their own.
        tiles = cuda.shared.array(QUADS, QUAD)
        sums = cuda.local.array(SUMS, float32)
        other = cuda.local.array(SUMS, float32)
        x_next = cuda.local.array(X_SIZE, float32)
        w_next = cuda.local.array(W_SIZE, float32)
        x_factors = cuda.local.array(IN, float32)
        thread, slice_ = cuda.threadIdx.x, cuda.threadIdx.y
        image, group = cuda.blockIdx.z, cuda.blockIdx.y
        in_width, out_width = groups * c_in, groups * c_out
        block = quotient(cuda.blockIdx.x, blocks)
        row_begin, column_begin = block * PIXELS, (cuda.blockIdx.x - block * blocks) * CHANNELS

        x_row, x_k = row_begin + thread // X_ACROSS, thread % X_ACROSS * IN
        w_k, w_column = thread // W_ACROSS, thread % W_ACROSS * OUT
        x_limit = pixels if thread < X_VECTORS else 0
        w_inside = thread < W_VECTORS and column_begin + w_column < c_out
        x_place = (image * pixels + x_row) * in_width + group * c_in + x_k
        w_place = w_k * out_width + group * c_out + column_begin + w_column
        x_store = x_k * X_STEP + x_row - row_begin
        w_store = W_BEGIN + w_k * CHANNELS + w_column

        row, column = thread // ACROSS * ROWS, thread % ACROSS * OUT
        first = column_begin + column
        if slice_ == 0:
            read(other, bias, group * c_out + first, 1, 0, 0, 1, PIECES, GAP, first, GAP, c_out, OUT)
            fill(sums, SUMS, other, COLUMNS)
        else:
            zero(sums, SUMS)

        step = DEPTH * SLICES
        steps = (c_in + step - 1) // step
        for s in range(steps + 1):
            k = s * step + slice_ * DEPTH
            if s < steps:
                limit = x_limit if k + x_k < c_in else 0
                read(x_next, x, x_place + k, 1, 0, 0, 1, X_LOADS, X_STRIDE * in_width, x_row, X_STRIDE, limit, IN)
                limit = c_in if w_inside else 0
                place = w_place + k * out_width
                read(w_next, weight, place, 1, 0, 0, 1, W_LOADS, W_STRIDE * out_width, k + w_k, W_STRIDE, limit, OUT)
                if SCALED:
                    limit = c_in if x_limit > 0 else 0
                    place = image * in_width + group * c_in + k + x_k
                    read(x_factors, factors, place, 1, 0, 0, 1, 1, 0, k + x_k, 0, limit, IN)
                    scale(x_next, x_factors, X_SIZE, IN)
            if s > 0:
                begin = ((s - 1) % 2 * SLICES + slice_) * BUFFER
                multiply(
                    sums, tiles, begin + row, X_STEP, tiles, begin + W_BEGIN + column, CHANNELS, GAP,
                    DEPTH, ROWS, COLUMNS, OUT,
                )  # fmt: skip
            if s < steps:
                begin = (s % 2 * SLICES + slice_) * BUFFER
                limit = X_VECTORS if thread < X_VECTORS else 0
                write(tiles, begin + x_store, 1, 0, 0, 1, X_LOADS, X_STRIDE, X_STEP, 0, 0, limit, x_next, IN)
                limit = W_VECTORS if thread < W_VECTORS else 0
                write(tiles, begin + w_store, 1, 0, 0, 1, W_LOADS, W_STRIDE * CHANNELS, 1, 0, 0, limit, w_next, OUT)
            cuda.syncthreads()

        if SLICES > 1:
            place = (slice_ * THREADS + thread) * OUT
            write(tiles, place, 1, 0, 0, 1, SUM_VECTORS, SUM_STEP, 1, 0, 0, 1, sums, OUT)
            cuda.syncthreads()
            if slice_ == 0:
                for s in range(1, SLICES):
                    place = (s * THREADS + thread) * OUT
                    read(other, tiles, place, 1, 0, 0, 1, SUM_VECTORS, SUM_STEP, 0, 0, 1, OUT)
                    add(sums, other, SUMS)

        if slice_ == 0:
            row += row_begin
            place = (image * pixels + row) * out_width + group * c_out + first
            activate(sums, SUMS, ACTIVATION)
            if RESIDUAL:
                read(other, residual, place, ROWS, out_width, row, pixels, PIECES, GAP, first, GAP, c_out, OUT)
                add(sums, other, SUMS)
            write(out, place, ROWS, out_width, row, pixels, PIECES, GAP, 1, first, GAP, c_out, sums, OUT)

    return device.kernel(pointwise, SUMS)


def prepare_pointwise_conv2d(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    groups: int = 1,
    activation: str = "none",
    residual: bool = False,
    scale: bool = False,
    dtype: Any = np.float32,
) -> Launch:
    """Return a launcher of ``x, weight, bias, out`` and the residual and the scale that are asked for.

    The scale, (N, C_in), multiplies every pixel of its image before the convolution.
    """
    g = checks.pointwise_conv2d(stand_in(x_shape), stand_in(weight_shape), groups=groups, activation=activation)
    n, pixels = x_shape[0], math.prod(x_shape[1:3])
    # Tiles may run from one image into the next, unless every image has a scale of its own.
    images, pixels = (n, pixels) if scale else (min(n, 1), n * pixels)
    c_in, c_out = weight_shape[0], weight_shape[1] // groups
    tile = choose(pixels, c_in, c_out, images * groups, device.multiprocessors())
    lanes_in, lanes_out = launch.lanes(c_in, tile.depth), launch.lanes(c_out)
    blocks = divided(c_out, tile.channels)
    return Launch(
        "pointwise",
        g.shape,
        _kernel(tile, lanes_in, lanes_out, checks.code(activation), residual, scale),
        (divided(pixels, tile.pixels) * blocks, groups, images),
        (tile.threads, tile.slices, 1),
        (pixels, c_in, c_out, groups, blocks),
        (0, 1, 2, 3, 4 if residual else 2, 4 + residual if scale else 2),
        launch.storage(dtype),
    )


def pointwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    groups: int = 1,
    residual: np.ndarray | None = None,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """1x1 convolution in tiles of shared memory and registers: (N, H, W, C_in) -> (N, H, W, C_out)."""
    call = Call(x)
    checks.pointwise_conv2d(
        call.see(x), call.see(weight), call.see(bias), groups=groups, residual=call.see(residual), activation=activation
    )
    prepared = prepare_pointwise_conv2d(
        x.shape, weight.shape, groups=groups, activation=activation, residual=residual is not None, dtype=call.dtype
    )
    extras = () if residual is None else (residual,)
    return call(prepared, out, x, weight, call.bias(bias, weight.shape[1]), extras=extras)

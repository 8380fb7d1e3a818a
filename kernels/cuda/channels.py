"""Channels put elsewhere: concatenated, padded, or made a vector."""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from numba import float32

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Shape
from npmobilenet.kernels.cuda import device, launch
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.launch import Call, Launch, divided, stand_in
from npmobilenet.kernels.cuda.registers import load, quotient, read, store, write
from npmobilenet.kernels.sharing import once


@once
def _place(lanes: int) -> Any:
    LANES = lanes

    def place(x, out, rows, channels, width, start, first, span, blocks):
        # The channels of x go to those of out from ``start`` on; of out, ``span`` from ``first`` on are written, with
        # zeros where x has none. Block x: pixels, and blocks of channels, which change first.
        values = cuda.local.array(LANES, float32)
        block = quotient(cuda.blockIdx.x, blocks)
        c = ((cuda.blockIdx.x - block * blocks) * cuda.blockDim.x + cuda.threadIdx.x) * LANES
        row = block * cuda.blockDim.y + cuda.threadIdx.y
        if c < span and row < rows:
            source = first + c - start
            read(values, x, row * channels + source, 1, 0, 0, 1, 1, 0, source, 1, channels, LANES)
            write(out, row * width + first + c, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, values, LANES)

    return device.kernel(place)


def _prepare(name: str, shape: Shape, channels: int, start: int, first: int, span: int, dtype: Any) -> Launch:
    """Return a launcher of ``x, out``, the latter of this shape."""
    *outer, width = shape
    rows, lanes = prod(outer), launch.lanes(channels, width, start, first, span)
    block = launch.block_of(span, lanes, rows)
    blocks = divided(span, lanes * block[0])
    return Launch(
        name,
        shape,
        _place(lanes),
        (blocks * divided(rows, block[1]), 1, 1),
        block,
        (rows, channels, width, start, first, span, blocks),
        (0, 1),
        launch.storage(dtype),
    )


def prepare_concat(x_shapes: Sequence[Sequence[int]], *, dtype: Any = np.float32) -> list[Launch]:
    """Return a launcher of ``x, out`` for each ``x``, which puts its channels where they belong."""
    g = checks.concat([stand_in(shape) for shape in x_shapes])
    counts = [channels for *_, channels in x_shapes]
    starts = accumulate(counts[:-1], initial=0)
    return [
        _prepare("concat", g.shape, count, start, start, count, dtype)
        for count, start in zip(counts, starts, strict=True)
    ]


def prepare_channel_pad(x_shape: Sequence[int], *, before: int = 0, after: int = 0, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, out``: (N, ..., C) -> (N, ..., before + C + after)."""
    g = checks.channel_pad(stand_in(x_shape), before=before, after=after)
    *_, channels = x_shape
    return _prepare("channel_pad", g.shape, channels, before, 0, g.shape[-1], dtype)


def concat(xs: Sequence[np.ndarray], *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """The channels of several arrays one after the other: list of (N, ..., C_i) -> (N, ..., C)."""
    several = isinstance(xs, (list, tuple)) and bool(xs)
    call = Call(xs[0] if several else xs)
    checks.concat([call.see(x) for x in xs] if several else xs)
    launches = prepare_concat([x.shape for x in xs], dtype=call.dtype)
    return call.parts(out, [(each, [x]) for each, x in zip(launches, xs, strict=True)])


def channel_pad(
    x: np.ndarray, *, before: int = 0, after: int = 0, out: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """Channels of zeros before and after the others: (N, ..., C) -> (N, ..., before + C + after)."""
    call = Call(x)
    checks.channel_pad(call.see(x), before=before, after=after)
    return call(prepare_channel_pad(x.shape, before=before, after=after, dtype=call.dtype), out, x)


@once
def _flatten(side: int) -> Any:
    SIDE, STEP = side, side + 1
    SQUARE = side * STEP

    def flatten(x, out, pixels, channels, blocks):
        # A block turns a square of pixels and channels around, so that neighbouring threads read neighbouring channels
        # and write neighbouring pixels. Block x: squares, along the channels first; block y: images.
        square = cuda.shared.array(SQUARE, float32)
        across, down = cuda.threadIdx.x, cuda.threadIdx.y
        block = quotient(cuda.blockIdx.x, blocks)
        pixel, c = block * SIDE, (cuda.blockIdx.x - block * blocks) * SIDE
        begin = cuda.blockIdx.y * pixels * channels
        if pixel + down < pixels and c + across < channels:
            square[down * STEP + across] = load(x, begin + (pixel + down) * channels + c + across)
        cuda.syncthreads()
        if c + down < channels and pixel + across < pixels:
            store(out, begin + (c + down) * pixels + pixel + across, square[across * STEP + down])

    return device.kernel(flatten)


def prepare_flatten(x_shape: Sequence[int], *, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, out``: (N, H, W, C) -> (N, C * H * W)."""
    g = checks.flatten(stand_in(x_shape))
    n, height, width, channels = x_shape
    side = 1 << (launch.CONFIGURATION["threads"].bit_length() - 1) // 2
    blocks = divided(channels, side)
    return Launch(
        "flatten",
        g.shape,
        _flatten(side),
        (blocks * divided(height * width, side), n, 1),
        (side, side, 1),
        (height * width, channels, blocks),
        (0, 1),
        launch.storage(dtype),
    )


def flatten(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """The image as a vector, channel after channel as in PyTorch: (N, H, W, C) -> (N, C * H * W)."""
    call = Call(x)
    checks.flatten(call.see(x))
    return call(prepare_flatten(x.shape, dtype=call.dtype), out, x)

"""Means and maxima of windows."""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import float32

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Geometry, Size
from npmobilenet.kernels.cuda import device, launch
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.launch import Call, Launch, divided, stand_in
from npmobilenet.kernels.cuda.registers import QUAD, add, fill, load, quotient, read, scale, store, take_larger, write
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.sharing import once

MAXIMUM, AVERAGE, AVERAGE_INSIDE = 0, 1, 2


@once
def _global_pool(width: int, slices: int, lanes: int, kind: int) -> Any:
    SLICES, LANES, KIND = slices, lanes, kind
    SHARED = divided(width * slices * lanes, 4)
    START = np.float32(-np.inf if kind == MAXIMUM else 0)

    def global_pool(x, out, pixels, channels):
        # Block x: channels; block y: images. The pixels are dealt out to the slices of a block; what these find is
        # put together in order.
        shared = cuda.shared.array(SHARED, QUAD)
        found = cuda.local.array(LANES, float32)
        value = cuda.local.array(LANES, float32)
        c = (cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x) * LANES
        n, slice_ = cuda.blockIdx.y, cuda.threadIdx.y
        value[0] = START
        fill(found, LANES, value, 1)
        if c < channels:
            place = n * pixels * channels + c
            for pixel in range(slice_, pixels, SLICES):
                read(value, x, place + pixel * channels, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
                if KIND == MAXIMUM:
                    take_larger(found, value, LANES)
                else:
                    add(found, value, LANES)
        place = cuda.threadIdx.x * LANES
        step = cuda.blockDim.x * LANES
        write(shared, slice_ * step + place, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, found, LANES)
        cuda.syncthreads()
        if slice_ == 0 and c < channels:
            for s in range(1, SLICES):
                read(value, shared, s * step + place, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
                if KIND == MAXIMUM:
                    take_larger(found, value, LANES)
                else:
                    add(found, value, LANES)
            if KIND == AVERAGE:
                value[0] = float32(1) / float32(pixels)
                scale(found, value, LANES, 1)
            write(out, n * channels + c, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, found, LANES)

    return device.kernel(global_pool)


def _prepare_global(name: str, x_shape: Sequence[int], kind: int, dtype: Any, keepdims: bool = False) -> Launch:
    g = checks.global_average_pool(stand_in(x_shape), keepdims=keepdims)
    n, height, width, channels = x_shape
    lanes = launch.lanes(channels)
    x, slices, _ = launch.block_of(min(channels, launch.CONFIGURATION["segment"]), lanes, height * width)
    return Launch(
        name,
        g.shape,
        _global_pool(x, slices, lanes, kind),
        (divided(channels, x * lanes), n, 1),
        (x, slices, 1),
        (height * width, channels),
        (0, 1),
        launch.storage(dtype),
    )


def prepare_global_average_pool(x_shape: Sequence[int], *, keepdims: bool = False, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, out``: (N, H, W, C) -> (N, C), or (N, 1, 1, C)."""
    return _prepare_global("global_average_pool", x_shape, AVERAGE, dtype, keepdims)


def prepare_global_max_pool(x_shape: Sequence[int], *, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, out``: (N, H, W, C) -> (N, C)."""
    return _prepare_global("global_max_pool", x_shape, MAXIMUM, dtype)


def global_average_pool(
    x: np.ndarray, *, keepdims: bool = False, out: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """Mean over all pixels: (N, H, W, C) -> (N, C), or (N, 1, 1, C)."""
    call = Call(x)
    checks.global_average_pool(call.see(x), keepdims=keepdims)
    return call(prepare_global_average_pool(x.shape, keepdims=keepdims, dtype=call.dtype), out, x)


def global_max_pool(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Maximum of all pixels: (N, H, W, C) -> (N, C)."""
    call = Call(x)
    checks.global_max_pool(call.see(x))
    return call(prepare_global_max_pool(x.shape, dtype=call.dtype), out, x)


@once
def _pool(kernel: Pair, stride: Pair, kind: int) -> Any:
    KERNEL_H, KERNEL_W = kernel
    STRIDE_H, STRIDE_W = stride
    KIND = kind

    def pool(x, out, height, width, channels, out_height, out_width, top, left, blocks):
        # One output per thread. Block x: columns, and blocks of channels, which change first; y: rows; z: images.
        block = quotient(cuda.blockIdx.x, blocks)
        c = (cuda.blockIdx.x - block * blocks) * cuda.blockDim.x + cuda.threadIdx.x
        q = block * cuda.blockDim.y + cuda.threadIdx.y
        p = cuda.blockIdx.y * cuda.blockDim.z + cuda.threadIdx.z
        n = cuda.blockIdx.z
        if c < channels and q < out_width and p < out_height:
            h0, w0 = p * STRIDE_H - top, q * STRIDE_W - left
            result = float32(0)
            count = 0
            for i in range(KERNEL_H):
                for j in range(KERNEL_W):
                    h, w = h0 + i, w0 + j
                    if 0 <= h < height and 0 <= w < width:
                        value = load(x, ((n * height + h) * width + w) * channels + c)
                        if KIND != MAXIMUM:
                            result += value
                        elif count == 0 or value > result or value != value:  # a NaN is taken in, and stays
                            result = value
                        count += 1
            if KIND == AVERAGE:
                count = KERNEL_H * KERNEL_W
            if KIND != MAXIMUM:
                result /= float32(count)
            store(out, ((n * out_height + p) * out_width + q) * channels + c, result)

    return device.kernel(pool)


def _prepare(name: str, x_shape: Sequence[int], g: Geometry, kind: int, dtype: Any) -> Launch:
    (_, height, width, channels), (n, p, q, _) = x_shape, g.shape
    block = launch.block_of(channels, 1, q, p)
    blocks = divided(channels, block[0])
    return Launch(
        name,
        g.shape,
        _pool(g.kernel, g.stride, kind),
        (blocks * divided(q, block[1]), divided(p, block[2]), n),
        block,
        (height, width, channels, p, q, *g.start, blocks),
        (0, 1),
        launch.storage(dtype),
    )


def prepare_max_pool2d(
    x_shape: Sequence[int],
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSpec = 0,
    dtype: Any = np.float32,
) -> Launch:
    """Return a launcher of ``x, out``: (N, H, W, C) -> (N, P, Q, C)."""
    g = checks.max_pool2d(stand_in(x_shape), kernel_size, stride=stride, padding=padding)
    return _prepare("max_pool2d", x_shape, g, MAXIMUM, dtype)


def prepare_average_pool2d(
    x_shape: Sequence[int],
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSpec = 0,
    count_include_pad: bool = True,
    dtype: Any = np.float32,
) -> Launch:
    """Return a launcher of ``x, out``: (N, H, W, C) -> (N, P, Q, C)."""
    g = checks.average_pool2d(stand_in(x_shape), kernel_size, stride=stride, padding=padding)
    return _prepare("average_pool2d", x_shape, g, AVERAGE if count_include_pad else AVERAGE_INSIDE, dtype)


def max_pool2d(
    x: np.ndarray,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSpec = 0,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Maximum of every window: (N, H, W, C) -> (N, P, Q, C)."""
    call = Call(x)
    checks.max_pool2d(call.see(x), kernel_size, stride=stride, padding=padding)
    return call(prepare_max_pool2d(x.shape, kernel_size, stride=stride, padding=padding, dtype=call.dtype), out, x)


def average_pool2d(
    x: np.ndarray,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSpec = 0,
    count_include_pad: bool = True,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Mean of every window: (N, H, W, C) -> (N, P, Q, C)."""
    call = Call(x)
    options = {"stride": stride, "padding": padding, "count_include_pad": count_include_pad}
    checks.average_pool2d(call.see(x), kernel_size, **options)
    return call(prepare_average_pool2d(x.shape, kernel_size, **options, dtype=call.dtype), out, x)

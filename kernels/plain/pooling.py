"""Means and maxima of windows."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.jit import parallel_loop
from npmobilenet.kernels.plain.depthwise import taps_inside

BLOCK = 64  # channels per trip of the global pool: enough trips for several threads when there is one image


@parallel_loop
def _global_average(x: Array, out: Array) -> None:
    n_out, channels = out.shape
    blocks = (channels + BLOCK - 1) // BLOCK
    for trip in prange(n_out * blocks):
        n, block = trip // blocks, trip % blocks
        start, stop = block * BLOCK, min((block + 1) * BLOCK, channels)
        for c in range(start, stop):
            out[n, c] = np.float32(0)
        for pixel in range(x.shape[1]):
            for c in range(start, stop):
                out[n, c] += x[n, pixel, c]
        count = np.float32(x.shape[1])
        for c in range(start, stop):
            out[n, c] /= count


def global_average_pool(
    x: np.ndarray, *, keepdims: bool = False, out: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """Mean over all pixels: (N, H, W, C) -> (N, C), or (N, 1, 1, C)."""
    out = checks.output(out, checks.global_average_pool(x, keepdims=keepdims).shape)
    n, h, w, c = x.shape
    _global_average(threads, checks.float32(x).reshape(n, h * w, c), out.reshape(n, c))
    return out


@parallel_loop
def _global_max(x: Array, out: Array) -> None:
    n_out, channels = out.shape
    blocks = (channels + BLOCK - 1) // BLOCK
    for trip in prange(n_out * blocks):
        n, block = trip // blocks, trip % blocks
        for c in range(block * BLOCK, min((block + 1) * BLOCK, channels)):
            largest = x[n, 0, c]
            for pixel in range(1, x.shape[1]):
                value = x[n, pixel, c]
                if value > largest or value != value:  # as in _max_pool
                    largest = value
            out[n, c] = largest


def global_max_pool(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Maximum of all pixels: (N, H, W, C) -> (N, C)."""
    out = checks.output(out, checks.global_max_pool(x).shape)
    n, h, w, c = x.shape
    _global_max(threads, checks.float32(x).reshape(n, h * w, c), out)
    return out


@parallel_loop
def _max_pool(x: Array, kernel: Pair, stride: Pair, start: Pair, out: Array) -> None:
    n_out, p_out, q_out, channels = out.shape
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        top = p * stride[0] - start[0]
        i0, i1 = taps_inside(top, 1, kernel[0], x.shape[1])
        for q in range(q_out):
            left = q * stride[1] - start[1]
            j0, j1 = taps_inside(left, 1, kernel[1], x.shape[2])
            for c in range(channels):
                out[n, p, q, c] = x[n, top + i0, left + j0, c]
            for i in range(i0, i1):
                for j in range(j0, j1):
                    for c in range(channels):
                        value, largest = x[n, top + i, left + j, c], out[n, p, q, c]
                        # A NaN is taken in (it is not <= anything) and stays (nothing is > it).
                        larger = value > largest or value != value
                        out[n, p, q, c] = value if larger else largest


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
    g = checks.max_pool2d(x, kernel_size, stride=stride, padding=padding)
    out = checks.output(out, g.shape)
    _max_pool(threads, checks.float32(x), g.kernel, g.stride, g.start, out)
    return out


@parallel_loop
def _average_pool(x: Array, kernel: Pair, stride: Pair, start: Pair, count_include_pad: bool, out: Array) -> None:
    n_out, p_out, q_out, channels = out.shape
    for line in prange(n_out * p_out):
        n, p = line // p_out, line % p_out
        top = p * stride[0] - start[0]
        i0, i1 = taps_inside(top, 1, kernel[0], x.shape[1])
        for q in range(q_out):
            left = q * stride[1] - start[1]
            j0, j1 = taps_inside(left, 1, kernel[1], x.shape[2])
            count = np.float32(kernel[0] * kernel[1] if count_include_pad else (i1 - i0) * (j1 - j0))
            for c in range(channels):
                out[n, p, q, c] = np.float32(0)
            for i in range(i0, i1):
                for j in range(j0, j1):
                    for c in range(channels):
                        out[n, p, q, c] += x[n, top + i, left + j, c]
            for c in range(channels):
                out[n, p, q, c] /= count


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
    g = checks.average_pool2d(x, kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad)
    out = checks.output(out, g.shape)
    _average_pool(threads, checks.float32(x), g.kernel, g.stride, g.start, bool(count_include_pad), out)
    return out

"""Channels put elsewhere: concatenated, chosen, padded, or made a vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array
from npmobilenet.kernels.jit import parallel_loop


@parallel_loop
def _copy(x: Array, start: int, out: Array) -> None:
    """The channels of every pixel, to where they begin."""
    for row in prange(x.shape[0]):
        for c in range(x.shape[1]):
            out[row, start + c] = x[row, c]


def concat(xs: Sequence[np.ndarray], *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """The channels of several arrays one after the other: list of (N, ..., C_i) -> (N, ..., C)."""
    out = checks.output(out, checks.concat(xs).shape)
    rows, start = out.reshape(-1, out.shape[-1]), 0
    for x in xs:
        _copy(threads, checks.float32(x).reshape(-1, x.shape[-1]), start, rows)
        start += x.shape[-1]
    return out


@parallel_loop
def _select(x: Array, read: Array, write: Array, out: Array) -> None:
    """Some channels of every pixel, to where each belongs."""
    for row in prange(x.shape[0]):
        for c in range(read.shape[0]):
            out[row, write[c]] = x[row, read[c]]


def channel_select(
    xs: Sequence[np.ndarray], *, indices: Sequence[int], out: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """Some channels of several arrays that follow one another, in any order: list of (N, ..., C_i) -> (N, ..., C)."""
    out = checks.output(out, checks.channel_select(xs, indices=indices).shape)
    rows, chosen, start = out.reshape(-1, out.shape[-1]), np.array(indices, np.int64), 0
    for x in xs:
        end = start + x.shape[-1]
        (write,) = np.nonzero((start <= chosen) & (chosen < end))
        _select(threads, checks.float32(x).reshape(-1, x.shape[-1]), chosen[write] - start, write, rows)
        start = end
    return out


def channel_pad(
    x: np.ndarray, *, before: int = 0, after: int = 0, out: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """Channels of zeros before and after the others: (N, ..., C) -> (N, ..., before + C + after)."""
    out = checks.output(out, checks.channel_pad(x, before=before, after=after).shape)
    out[..., :before] = 0
    out[..., before + x.shape[-1] :] = 0
    _copy(threads, checks.float32(x).reshape(-1, x.shape[-1]), before, out.reshape(-1, out.shape[-1]))
    return out


@parallel_loop
def _flatten(x: Array, out: Array) -> None:
    channels, pixels = x.shape[2], x.shape[1]
    for plane in prange(x.shape[0] * channels):
        n, c = plane // channels, plane % channels
        for pixel in range(pixels):
            out[n, c * pixels + pixel] = x[n, pixel, c]


def flatten(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """The image as a vector, channel after channel as in PyTorch: (N, H, W, C) -> (N, C * H * W)."""
    out = checks.output(out, checks.flatten(x).shape)
    n, h, w, c = x.shape
    _flatten(threads, checks.float32(x).reshape(n, h * w, c), out)
    return out

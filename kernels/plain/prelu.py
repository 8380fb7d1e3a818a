"""Rectifiers with a learned slope below zero."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array
from npmobilenet.kernels.jit import parallel_loop


@parallel_loop
def _prelu(x: Array, slopes: Array, out: Array) -> None:
    pixels, channels = slopes.shape
    for row in prange(x.shape[0]):
        for c in range(channels):
            value = x[row, c]
            out[row, c] = value if value > np.float32(0) else slopes[row % pixels, c] * value


def prelu(x: np.ndarray, weight: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x`` where it is positive, ``weight * x`` elsewhere: (N, ..., C) -> (N, ..., C)."""
    out = checks.output(out, checks.prelu(x, weight).shape)
    channels = x.shape[-1]
    slopes = checks.float32(np.resize(weight, channels) if weight.shape == (1,) else weight)
    _prelu(threads, checks.float32(x).reshape(-1, channels), slopes.reshape(-1, channels), out.reshape(-1, channels))
    return out

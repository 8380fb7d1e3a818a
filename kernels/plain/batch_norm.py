"""Batch normalisation that no convolution has taken in."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array
from npmobilenet.kernels.jit import parallel_loop


@parallel_loop
def _batch_norm(x: Array, mean: Array, scale: Array, bias: Array, out: Array) -> None:
    for row in prange(x.shape[0]):
        for c in range(x.shape[1]):
            out[row, c] = (x[row, c] - mean[c]) * scale[c] + bias[c]


def batch_norm(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    *,
    eps: float = 1e-5,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Batch normalisation with stored statistics, all (C,): (N, H, W, C) -> (N, H, W, C)."""
    g = checks.batch_norm(x, weight, bias, mean, variance, eps=eps)
    out = checks.output(out, g.shape)
    scale = checks.float32(weight / np.sqrt(variance.astype(np.float64) + eps))
    mean, bias, rows = checks.float32(mean), checks.float32(bias), (-1, x.shape[3])
    _batch_norm(threads, checks.float32(x).reshape(rows), mean, scale, bias, out.reshape(rows))
    return out

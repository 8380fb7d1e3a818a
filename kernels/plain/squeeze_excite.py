"""Squeeze-and-excitation: a weight for every channel of an image, from its own means."""

from __future__ import annotations

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array
from npmobilenet.kernels.jit import parallel_loop
from npmobilenet.kernels.plain.linear import linear
from npmobilenet.kernels.plain.pooling import global_average_pool


@parallel_loop
def _scale(x: Array, scale: Array, out: Array) -> None:
    n_out, h_out, w_out, channels = out.shape
    for line in prange(n_out * h_out):
        n, h = line // h_out, line % h_out
        for w in range(w_out):
            for c in range(channels):
                out[n, h, w, c] = x[n, h, w, c] * scale[n, c]


def squeeze_excite(
    x: np.ndarray,
    reduce_weight: np.ndarray,
    reduce_bias: np.ndarray | None,
    expand_weight: np.ndarray,
    expand_bias: np.ndarray | None,
    *,
    activation: str = "relu",
    gate: str = "sigmoid",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Squeeze-and-excitation, (C, R) and (R, C): (N, H, W, C) -> (N, H, W, C)."""
    g = checks.squeeze_excite(
        x, reduce_weight, reduce_bias, expand_weight, expand_bias, activation=activation, gate=gate
    )
    out, x = checks.output(out, g.shape), checks.float32(x)
    means = global_average_pool(x, threads=threads)
    squeezed = linear(means, reduce_weight, reduce_bias, activation=activation, threads=threads)
    scale = linear(squeezed, expand_weight, expand_bias, activation=gate, threads=threads)
    _scale(threads, x, scale, out)
    return out

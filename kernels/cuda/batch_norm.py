"""Batch normalisation that no convolution has taken in."""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numba import float32

from npmobilenet.kernels import checks
from npmobilenet.kernels.cuda import device, launch
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.launch import Call, Launch, divided
from npmobilenet.kernels.cuda.registers import normalise, quotient, read, write
from npmobilenet.kernels.sharing import once


@once
def _kernel(lanes: int, eps: float) -> Any:
    LANES, EPS = lanes, np.float32(eps)

    def batch_norm(x, weight, bias, mean, variance, out, rows, channels, blocks):
        # Block x: pixels, and blocks of channels, which change first.
        values = cuda.local.array(LANES, float32)
        weights = cuda.local.array(LANES, float32)
        biases = cuda.local.array(LANES, float32)
        means = cuda.local.array(LANES, float32)
        variances = cuda.local.array(LANES, float32)
        block = quotient(cuda.blockIdx.x, blocks)
        c = ((cuda.blockIdx.x - block * blocks) * cuda.blockDim.x + cuda.threadIdx.x) * LANES
        row = block * cuda.blockDim.y + cuda.threadIdx.y
        if c < channels and row < rows:
            place = row * channels + c
            read(values, x, place, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
            read(weights, weight, c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
            read(biases, bias, c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
            read(means, mean, c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
            read(variances, variance, c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
            normalise(values, weights, biases, means, variances, EPS, LANES)
            write(out, place, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, values, LANES)

    return device.kernel(batch_norm)


def prepare_batch_norm(x_shape: Sequence[int], *, eps: float = 1e-5, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, weight, bias, mean, variance, out``."""
    *outer, channels = x_shape
    rows, lanes = prod(outer), launch.lanes(channels)
    block = launch.block_of(channels, lanes, rows)
    blocks = divided(channels, lanes * block[0])
    return Launch(
        "batch_norm",
        tuple(x_shape),
        _kernel(lanes, eps),
        (blocks * divided(rows, block[1]), 1, 1),
        block,
        (rows, channels, blocks),
        (0, 1, 2, 3, 4, 5),
        launch.storage(dtype),
    )


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
    call = Call(x)
    arrays = (x, weight, bias, mean, variance)
    checks.batch_norm(*map(call.see, arrays), eps=eps)
    return call(prepare_batch_norm(x.shape, eps=eps, dtype=call.dtype), out, *arrays)

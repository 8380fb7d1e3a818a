"""Fully connected layers and softmax: rows of values without pixels."""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numba import float32

from npmobilenet.kernels import checks
from npmobilenet.kernels.cuda import device, launch
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.launch import Call, Launch, stand_in
from npmobilenet.kernels.cuda.pointwise import prepare_pointwise_conv2d
from npmobilenet.kernels.cuda.registers import exp, load, store
from npmobilenet.kernels.sharing import once


def prepare_linear(
    x_shape: Sequence[int], weight_shape: Sequence[int], *, activation: str = "none", dtype: Any = np.float32
) -> Launch:
    """Return a launcher of ``x, weight, bias, out``: a 1x1 convolution of images of one pixel."""
    g = checks.linear(stand_in(x_shape), stand_in(weight_shape), activation=activation)
    n, c_in = x_shape
    prepared = prepare_pointwise_conv2d((n, 1, 1, c_in), weight_shape, activation=activation, dtype=dtype)
    return replace(prepared, name="linear", shape=g.shape)


def linear(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Fully connected layer, as a 1x1 convolution of single pixels: (N, C_in) @ (C_in, C_out) -> (N, C_out)."""
    call = Call(x)
    checks.linear(call.see(x), call.see(weight), call.see(bias), activation=activation)
    prepared = prepare_linear(x.shape, weight.shape, activation=activation, dtype=call.dtype)
    return call(prepared, out, x, weight, call.bias(bias, weight.shape[1]))


@once
def _softmax(threads: int) -> Any:
    THREADS = threads

    def softmax(x, out, channels):
        # A block for every row. What the threads find each by itself, they all combine in one order.
        found = cuda.shared.array(THREADS, float32)
        thread, begin = cuda.threadIdx.x, cuda.blockIdx.x * channels
        largest = load(x, begin)
        for c in range(thread, channels, THREADS):
            value = load(x, begin + c)
            if not value <= largest:  # a NaN becomes the largest value, and stays it
                largest = value
        found[thread] = largest
        cuda.syncthreads()
        for t in range(THREADS):
            if not found[t] <= largest:
                largest = found[t]
        cuda.syncthreads()
        total = float32(0)
        for c in range(thread, channels, THREADS):
            total += exp(load(x, begin + c) - largest)
        found[thread] = total
        cuda.syncthreads()
        total = float32(0)
        for t in range(THREADS):
            total += found[t]
        for c in range(thread, channels, THREADS):
            store(out, begin + c, exp(load(x, begin + c) - largest) / total)

    return device.kernel(softmax)


def prepare_softmax(shape: Sequence[int], *, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, out``: (N, ..., C) -> (N, ..., C)."""
    g = checks.softmax(stand_in(shape))
    *rows, channels = g.shape
    threads = launch.power_of_two(channels, launch.CONFIGURATION["threads"])
    return Launch(
        "softmax",
        g.shape,
        _softmax(threads),
        (prod(rows), 1, 1),
        (threads, 1, 1),
        (channels,),
        (0, 1),
        launch.storage(dtype),
    )


def softmax(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``exp(x) / sum of exp(x)`` over the last axis: (N, ..., C) -> (N, ..., C)."""
    call = Call(x)
    checks.softmax(call.see(x))
    return call(prepare_softmax(x.shape, dtype=call.dtype), out, x)

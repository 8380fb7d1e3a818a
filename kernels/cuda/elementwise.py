"""Functions of every value, and of every value and one of a second tensor: one pass over memory, 16 bytes per thread.

The second tensor has distances of its own along images, rows, columns and channels. They are 0 along the axes in which
one of its values stands for all: a gate of every channel, a mask without channels, slopes of a network's own.
"""

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
from npmobilenet.kernels.cuda.launch import Call, Launch, divided, stand_in
from npmobilenet.kernels.cuda.registers import activate, apply_elu, apply_tanh, fill, quotient, read, rectify, write
from npmobilenet.kernels.cuda.registers import add as add_to
from npmobilenet.kernels.cuda.registers import scale as multiply_by
from npmobilenet.kernels.sharing import once

KEEP, ADD, MULTIPLY, RECTIFY, ELU, TANH = range(6)  # what becomes of a value

Steps = tuple[int, int, int, int]  # between neighbouring images, rows, columns and channels, in values
SAME: Steps = (0, 0, 0, 1)  # of a tensor that stands for all images and pixels; of one of x's shape, seen as a row
ONE: Steps = (0, 0, 0, 0)


@once
def _kernel(lanes: int, function: int, activation: int, two: bool, one: bool, factor: float) -> Any:
    LANES, FUNCTION, ACTIVATION = lanes, function, activation
    TWO, ONE_FOR_ALL = two, one
    WIDTH = 1 if one or not two else lanes  # values of y that a thread's channels need
    FACTOR = np.float32(factor)

    def elementwise(x, y, out, height, width, channels, blocks, y_image, y_row, y_column):
        # Block x: columns, and blocks of channels, which change first; block y: rows; block z: images.
        values = cuda.local.array(LANES, float32)
        found = cuda.local.array(WIDTH, float32)
        other = cuda.local.array(LANES, float32)
        block = quotient(cuda.blockIdx.x, blocks)
        c = ((cuda.blockIdx.x - block * blocks) * cuda.blockDim.x + cuda.threadIdx.x) * LANES
        q = block * cuda.blockDim.y + cuda.threadIdx.y
        p = cuda.blockIdx.y * cuda.blockDim.z + cuda.threadIdx.z
        n = cuda.blockIdx.z
        if c < channels and q < width and p < height:
            place = ((n * height + p) * width + q) * channels + c
            read(values, x, place, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
            if TWO:
                at = n * y_image + p * y_row + q * y_column + (0 if ONE_FOR_ALL else c)
                read(found, y, at, 1, 0, 0, 1, 1, 0, 0, 0, 1, WIDTH)
            else:
                found[0] = FACTOR
            fill(other, LANES, found, WIDTH)
            if FUNCTION == ADD:
                add_to(values, other, LANES)
            elif FUNCTION == MULTIPLY:
                multiply_by(values, other, LANES, LANES)
            elif FUNCTION == RECTIFY:
                rectify(values, other, LANES, LANES)
            elif FUNCTION == ELU:
                apply_elu(values, other, LANES, LANES)
            elif FUNCTION == TANH:
                apply_tanh(values, LANES)
            activate(values, LANES, ACTIVATION)
            write(out, place, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, values, LANES)

    return device.kernel(elementwise)


def _prepare(
    name: str,
    shape: Sequence[int],
    function: int,
    y: Steps | None = None,
    *,
    walked: Sequence[int] | None = None,
    factor: float = 0.0,
    activation: str = "none",
    dtype: Any,
) -> Launch:
    """Return a launcher of ``x, y, out``, or of ``x, out`` if there is no ``y`` but a ``factor``.

    ``walked`` is the shape as images (N, H, W, C), in which the steps of ``y`` are meant; one row unless given.
    """
    n, height, width, channels = walked or (1, 1, 1, prod(shape))
    lanes = launch.lanes(channels)
    block = launch.block_of(channels, lanes, width, height)
    blocks = divided(channels, lanes * block[0])
    *steps, step = y or ONE
    return Launch(
        name,
        tuple(shape),
        _kernel(lanes, function, checks.code(activation), y is not None, step == 0, factor),
        (blocks * divided(width, block[1]), divided(height, block[2]), n),
        block,
        (height, width, channels, blocks, *steps),
        (0, 1, 2) if y else (0, 0, 1),
        launch.storage(dtype),
    )


def prepare_map(shape: Sequence[int], activation: str, *, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, out``, which may be the same, for any shape."""
    return _prepare(activation, shape, KEEP, activation=activation, dtype=dtype)


def prepare_leaky_relu(shape: Sequence[int], *, slope: float = 0.01, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, out``, which may be the same, for any shape."""
    return _prepare("leaky_relu", shape, RECTIFY, factor=slope, dtype=dtype)


def prepare_elu(shape: Sequence[int], *, alpha: float = 1.0, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, out``, which may be the same, for any shape."""
    return _prepare("elu", shape, ELU, factor=alpha, dtype=dtype)


def prepare_tanh(shape: Sequence[int], *, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, out``, which may be the same, for any shape."""
    return _prepare("tanh", shape, TANH, dtype=dtype)


def prepare_add(shape: Sequence[int], *, activation: str = "none", dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, y, out``, for any shape; ``out`` may be one of the others."""
    return _prepare("add", shape, ADD, SAME, activation=activation, dtype=dtype)


def prepare_broadcast_add(x_shape: Sequence[int], y_shape: Sequence[int], *, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, y, out``; ``out`` may be ``x``."""
    return _broadcast("broadcast_add", x_shape, y_shape, ADD, dtype)


def prepare_multiply(x_shape: Sequence[int], y_shape: Sequence[int], *, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, y, out``; ``out`` may be ``x``."""
    return _broadcast("multiply", x_shape, y_shape, MULTIPLY, dtype)


def _broadcast(name: str, x_shape: Sequence[int], y_shape: Sequence[int], function: int, dtype: Any) -> Launch:
    checks.broadcast_add(stand_in(x_shape), stand_in(y_shape))
    x, y = ((n, *image, channels) if image else (n, 1, 1, channels) for n, *image, channels in (x_shape, y_shape))
    if x == y:
        return _prepare(name, x_shape, function, SAME, dtype=dtype)
    steps = tuple(0 if y[axis] == 1 else prod(y[axis + 1 :]) for axis in range(4))
    return _prepare(name, x_shape, function, steps, walked=x, dtype=dtype)


def prepare_prelu(x_shape: Sequence[int], weight_shape: Sequence[int], *, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, weight, out``; ``out`` may be ``x``."""
    checks.prelu(stand_in(x_shape), stand_in(weight_shape))
    slopes = prod(weight_shape)  # for the last axis or all but the first: as many values that follow each other
    if slopes == 1:
        return _prepare("prelu", x_shape, RECTIFY, ONE, dtype=dtype)
    walked = (1, 1, prod(x_shape) // slopes, slopes)
    return _prepare("prelu", x_shape, RECTIFY, SAME, walked=walked, dtype=dtype)


def add(
    x: np.ndarray,
    y: np.ndarray,
    *,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Sum of two arrays of one shape: ``activation(x + y)``."""
    call = Call(x)
    checks.add(call.see(x), call.see(y), activation=activation)
    return call(prepare_add(x.shape, activation=activation, dtype=call.dtype), out, x, y)


def relu(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``max(x, 0)``, any shape."""
    return _map(x, "relu", out)


def relu6(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``min(max(x, 0), 6)``, any shape."""
    return _map(x, "relu6", out)


def hard_swish(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x * relu6(x + 3) / 6``, any shape."""
    return _map(x, "hard_swish", out)


def swish(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x * sigmoid(x)``, any shape."""
    return _map(x, "swish", out)


def sigmoid(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``1 / (1 + exp(-x))``, any shape."""
    return _map(x, "sigmoid", out)


def hard_sigmoid(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``relu6(x + 3) / 6``, any shape."""
    return _map(x, "hard_sigmoid", out)


def _map(x: np.ndarray, activation: str, out: np.ndarray | None) -> np.ndarray:
    call = Call(x)
    checks.elementwise(call.see(x))
    return call(prepare_map(x.shape, activation, dtype=call.dtype), out, x)


def leaky_relu(x: np.ndarray, *, slope: float = 0.01, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x`` where it is positive, ``slope * x`` elsewhere, any shape."""
    call = Call(x)
    checks.leaky_relu(call.see(x), slope=slope)
    return call(prepare_leaky_relu(x.shape, slope=slope, dtype=call.dtype), out, x)


def elu(x: np.ndarray, *, alpha: float = 1.0, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere, any shape."""
    call = Call(x)
    checks.elu(call.see(x), alpha=alpha)
    return call(prepare_elu(x.shape, alpha=alpha, dtype=call.dtype), out, x)


def tanh(x: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Hyperbolic tangent, any shape."""
    call = Call(x)
    checks.tanh(call.see(x))
    return call(prepare_tanh(x.shape, dtype=call.dtype), out, x)


def prelu(x: np.ndarray, weight: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """``x`` where it is positive, ``weight * x`` elsewhere: (N, ..., C) -> (N, ..., C)."""
    call = Call(x)
    checks.prelu(call.see(x), call.see(weight))
    return call(prepare_prelu(x.shape, weight.shape, dtype=call.dtype), out, x, weight)


def broadcast_add(x: np.ndarray, y: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Sum in which ``y`` has length 1 along some axes of ``x``, or no pixels: (N, H, W, C) + (N, C) -> (N, H, W, C)."""
    call = Call(x)
    checks.broadcast_add(call.see(x), call.see(y))
    return call(prepare_broadcast_add(x.shape, y.shape, dtype=call.dtype), out, x, y)


def multiply(x: np.ndarray, y: np.ndarray, *, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Product in which ``y`` is as in :func:`broadcast_add`: (N, H, W, C) * (N, C) -> (N, H, W, C)."""
    call = Call(x)
    checks.multiply(call.see(x), call.see(y))
    return call(prepare_multiply(x.shape, y.shape, dtype=call.dtype), out, x, y)

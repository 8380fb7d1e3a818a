"""Activations and sums as operations of their own: one pass over the tensor, 16 bytes per thread."""

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
from npmobilenet.kernels.cuda.registers import activate, read, write
from npmobilenet.kernels.cuda.registers import add as add_to
from npmobilenet.kernels.sharing import once


@once
def _kernel(lanes: int, activation: int, two: bool) -> Any:
    LANES, ACTIVATION, TWO = lanes, activation, two

    def elementwise(x, y, out, size):
        values = cuda.local.array(LANES, float32)
        other = cuda.local.array(LANES, float32)
        place = (cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x) * LANES
        read(values, x, place, 1, 0, 0, 1, 1, 0, place, 0, size, LANES)
        if TWO:
            read(other, y, place, 1, 0, 0, 1, 1, 0, place, 0, size, LANES)
            add_to(values, other, LANES)
        activate(values, LANES, ACTIVATION)
        write(out, place, 1, 0, 0, 1, 1, 0, 1, place, 0, size, values, LANES)

    return device.kernel(elementwise)


def _prepare(name: str, shape: Sequence[int], activation: str, two: bool, dtype: Any) -> Launch:
    size, code = prod(shape), checks.code(activation)
    lanes, threads = launch.lanes(size), launch.CONFIGURATION["threads"]
    return Launch(
        name,
        tuple(shape),
        _kernel(lanes, code, two),
        (divided(size, lanes * threads), 1, 1),
        (threads, 1, 1),
        (size,),
        (0, 1, 2) if two else (0, 0, 1),
        launch.storage(dtype),
    )


def prepare_map(shape: Sequence[int], activation: str, *, dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, out``, which may be the same, for any shape."""
    return _prepare(activation, shape, activation, False, dtype)


def prepare_add(shape: Sequence[int], *, activation: str = "none", dtype: Any = np.float32) -> Launch:
    """Return a launcher of ``x, y, out``, for any shape; ``out`` may be one of the others."""
    return _prepare("add", shape, activation, True, dtype)


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

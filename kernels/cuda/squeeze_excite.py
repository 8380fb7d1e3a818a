"""Squeeze-and-excitation: a weight for every channel of an image, from its own means.

Three launches: the means, the two small matrix products between means and weights (the "gate"), and the product with
the image. An engine leaves the last one to the 1x1 convolution that follows, which multiplies what it loads.
"""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32

from npmobilenet.kernels import checks
from npmobilenet.kernels.cuda import device, launch
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.elementwise import prepare_multiply
from npmobilenet.kernels.cuda.launch import Call, Launch
from npmobilenet.kernels.cuda.pooling import prepare_global_average_pool
from npmobilenet.kernels.cuda.registers import activate, load, store
from npmobilenet.kernels.sharing import once


@once
def _gate(squeezed: int, threads: int, activation: int, gate: int) -> Any:
    THREADS, SQUEEZED, ACTIVATION, GATE = threads, squeezed, activation, gate
    WIDTH = min(squeezed, threads)  # squeezed values that are summed up at a time...
    SLICES = threads // WIDTH  # ... by so many threads each

    def gates(means, reduce_weight, reduce_bias, expand_weight, expand_bias, out, channels):
        # A block for every image.
        partial = cuda.shared.array(THREADS, float32)
        reduced = cuda.shared.array(SQUEEZED, float32)
        value = cuda.local.array(1, float32)
        thread, begin = cuda.threadIdx.x, cuda.blockIdx.x * channels
        column, slice_ = thread % WIDTH, thread // WIDTH
        for first in range(0, SQUEEZED, WIDTH):
            r = first + column
            total = float32(0)
            if slice_ < SLICES and r < SQUEEZED:
                for c in range(slice_, channels, SLICES):
                    total += load(means, begin + c) * load(reduce_weight, c * SQUEEZED + r)
            partial[thread] = total
            cuda.syncthreads()
            if slice_ == 0 and r < SQUEEZED:
                value[0] = load(reduce_bias, r)
                for s in range(SLICES):
                    value[0] += partial[s * WIDTH + column]
                activate(value, 1, ACTIVATION)
                reduced[r] = value[0]
            cuda.syncthreads()
        for c in range(thread, channels, THREADS):
            value[0] = load(expand_bias, c)
            for r in range(SQUEEZED):
                value[0] += reduced[r] * load(expand_weight, r * channels + c)
            activate(value, 1, GATE)
            store(out, begin + c, value[0])

    return device.kernel(gates)


def prepare_gate(
    n: int, channels: int, squeezed: int, *, activation: str = "relu", gate: str = "sigmoid", dtype: Any = np.float32
) -> Launch:
    """Return a launcher of ``means, reduce_weight, reduce_bias, expand_weight, expand_bias, out``: (N, C) -> (N, C)."""
    threads = launch.CONFIGURATION["threads"]
    return Launch(
        "gate",
        (n, channels),
        _gate(squeezed, threads, checks.code(activation), checks.code(gate, "gate")),
        (n, 1, 1),
        (threads, 1, 1),
        (channels,),
        (0, 1, 2, 3, 4, 5),
        launch.storage(dtype),
    )


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
    call = Call(x)
    weights = [call.see(each) for each in (reduce_weight, reduce_bias, expand_weight, expand_bias)]
    checks.squeeze_excite(call.see(x), *weights, activation=activation, gate=gate)
    n, _, _, channels = shape = tuple(x.shape)
    squeezed = reduce_weight.shape[1]
    x = call.flat(x)
    means, factors = (cuda.device_array(n * channels, call.dtype) for _ in range(2))
    prepare_global_average_pool(shape, dtype=call.dtype)(0, x, means)
    parameters = reduce_weight, call.bias(reduce_bias, squeezed), expand_weight, call.bias(expand_bias, channels)
    gates = prepare_gate(n, channels, squeezed, activation=activation, gate=gate, dtype=call.dtype)
    gates(0, means, *(call.flat(each) for each in parameters), factors)
    return call(prepare_multiply(shape, (n, channels), dtype=call.dtype), out, x, factors)

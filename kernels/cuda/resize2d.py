"""Feature maps at another size: which pixels each one lies between is looked up in tables."""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import float32

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.cuda import device, launch
from npmobilenet.kernels.cuda.device import cuda
from npmobilenet.kernels.cuda.launch import Call, Launch, divided, stand_in
from npmobilenet.kernels.cuda.registers import blend, quotient, read, write
from npmobilenet.kernels.sharing import once


@once
def _kernel(lanes: int, bilinear: bool) -> Any:
    LANES, BILINEAR = lanes, bilinear

    def resize(x, out, pixels, weights, height, width, channels, out_height, out_width, blocks):
        # The tables hold all rows, then all columns; of pixels the first ones, then the second ones that follow them.
        # Block x: columns, and blocks of channels, which change first; block y: rows; block z: images.
        values = cuda.local.array(LANES, float32)
        lower = cuda.local.array(LANES, float32)
        other = cuda.local.array(LANES, float32)
        block = quotient(cuda.blockIdx.x, blocks)
        c = ((cuda.blockIdx.x - block * blocks) * cuda.blockDim.x + cuda.threadIdx.x) * LANES
        q = block * cuda.blockDim.y + cuda.threadIdx.y
        p = cuda.blockIdx.y * cuda.blockDim.z + cuda.threadIdx.z
        if c < channels and q < out_width and p < out_height:
            image, column = cuda.blockIdx.z * height, out_height + q
            upper_row, left = (image + pixels[p]) * width, pixels[column]
            read(values, x, (upper_row + left) * channels + c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
            if BILINEAR:
                second = out_height + out_width
                lower_row, right = (image + pixels[second + p]) * width, pixels[second + column]
                read(other, x, (upper_row + right) * channels + c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
                blend(values, other, weights[column], LANES)
                read(lower, x, (lower_row + left) * channels + c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
                read(other, x, (lower_row + right) * channels + c, 1, 0, 0, 1, 1, 0, 0, 0, 1, LANES)
                blend(lower, other, weights[column], LANES)
                blend(values, lower, weights[p], LANES)
            place = ((cuda.blockIdx.z * out_height + p) * out_width + q) * channels + c
            write(out, place, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, values, LANES)

    return device.kernel(resize)


def prepare_resize2d(
    x_shape: Sequence[int],
    size: Size | None = None,
    *,
    scale: float | Sequence[float] | None = None,
    mode: str = "bilinear",
    coordinates: str = "half_pixel",
    dtype: Any = np.float32,
) -> Launch:
    """Return a launcher of ``x, out``: (N, H, W, C) -> (N, P, Q, C)."""
    g = checks.resize2d(stand_in(x_shape), size, scale=scale, mode=mode, coordinates=coordinates)
    (_, height, width, channels), (n, p, q, _) = x_shape, g.shape
    lanes = launch.lanes(channels)
    block = launch.block_of(channels, lanes, q, p)
    blocks = divided(channels, lanes * block[0])
    first, second, weight = zip(*g.taps[0], *g.taps[1], strict=True)
    return Launch(
        f"resize_{mode}",
        g.shape,
        _kernel(lanes, mode == "bilinear"),
        (blocks * divided(q, block[1]), divided(p, block[2]), n),
        block,
        (height, width, channels, p, q, blocks),
        (0, 1),
        launch.storage(dtype),
        (np.array(first + second, np.int32), np.array(weight, np.float32)),
    )


def resize2d(
    x: np.ndarray,
    size: Size | None = None,
    *,
    like: np.ndarray | None = None,
    scale: float | Sequence[float] | None = None,
    mode: str = "bilinear",
    coordinates: str = "half_pixel",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """The image at another size: (N, H, W, C) -> (N, P, Q, C)."""
    call = Call(x)
    options = {"scale": scale, "mode": mode, "coordinates": coordinates}
    checks.resize2d(call.see(x), size, like=like if like is None else stand_in(like.shape), **options)
    size = size if like is None else like.shape[1:3]
    return call(prepare_resize2d(x.shape, size, **options, dtype=call.dtype), out, x)

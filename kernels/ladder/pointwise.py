"""The ladder of the pointwise convolution: its lower rungs; :data:`~npmobilenet.kernels.ladder.LADDERS` has all."""

from __future__ import annotations

from typing import Any

import numpy as np

from npmobilenet.kernels.blocked import pointwise as blocked
from npmobilenet.kernels.blocked.tiles import Tile, tiles
from npmobilenet.kernels.checks import Array, Geometry
from npmobilenet.kernels.jit import jit
from npmobilenet.kernels.ladder.rung import rung_of
from npmobilenet.kernels.prepared import Prepared, prepared
from npmobilenet.kernels.vector.target import host


def _loops(x: Array, weight: Array, out: Array) -> None:
    n_out, h_out, w_out, channels = out.shape
    for n in range(n_out):
        for h in range(h_out):
            for w in range(w_out):
                for o in range(channels):
                    total = np.float32(0)
                    for c in range(weight.shape[0]):
                        total += x[n, h, w, c] * weight[c, o]
                    out[n, h, w, o] = total


_compiled = jit(_loops)


@rung_of("pointwise_conv2d")
def python(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """Five nested Python loops: (N, H, W, C_in) @ (C_in, C_out) -> (N, H, W, C_out)."""
    _loops(x, weight, out)


@rung_of("pointwise_conv2d")
def njit_loops(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """The five nested loops, compiled: (N, H, W, C_in) @ (C_in, C_out) -> (N, H, W, C_out)."""
    _compiled(x, weight, out)


@rung_of("pointwise_conv2d")
def matmul(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """NumPy's matrix product: (N, H, W, C_in) @ (C_in, C_out) -> (N, H, W, C_out)."""
    pixels = x.reshape(-1, weight.shape[0])  # one large product instead of one for each line
    np.matmul(pixels, weight, out=out.reshape(-1, weight.shape[1]))


@prepared("pointwise_conv2d")
def simd_vector(*arguments: Any, **options: Any) -> Prepared:
    """Explicit vectors, one sum at a time: (N, H, W, C_in) @ (C_in, C_out) -> (N, H, W, C_out)."""
    return blocked.pointwise_conv2d.prepare(*arguments, **options, tile=Tile(1, 1))


@prepared("pointwise_conv2d")
def simd_pixels(*arguments: Any, **options: Any) -> Prepared:
    """Explicit vectors, one for each of many pixels: (N, H, W, C_in) @ (C_in, C_out) -> (N, H, W, C_out)."""
    return blocked.pointwise_conv2d.prepare(*arguments, **options, tile=tiles(host()).narrow)

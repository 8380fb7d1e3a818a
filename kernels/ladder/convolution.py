"""The ladder of the dense convolution: its lower rungs; :data:`~npmobilenet.kernels.ladder.LADDERS` has all."""

from __future__ import annotations

from typing import Any

import numpy as np

from npmobilenet.kernels.blocked import stem as blocked
from npmobilenet.kernels.blocked.tiles import Tile
from npmobilenet.kernels.checks import Array, Geometry
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.jit import jit
from npmobilenet.kernels.ladder.rung import rung_of
from npmobilenet.kernels.prepared import Prepared, prepared


def _loops(x: Array, weight: Array, stride: Pair, start: Pair, dilation: Pair, out: Array) -> None:
    n_out, p_out, q_out, c_out = out.shape
    k_h, k_w, c_in, _ = weight.shape
    for n in range(n_out):
        for p in range(p_out):
            for q in range(q_out):
                for o in range(c_out):
                    total = np.float32(0)
                    for i in range(k_h):
                        for j in range(k_w):
                            h = p * stride[0] + i * dilation[0] - start[0]
                            w = q * stride[1] + j * dilation[1] - start[1]
                            if 0 <= h < x.shape[1] and 0 <= w < x.shape[2]:
                                for c in range(c_in):
                                    total += x[n, h, w, c] * weight[i, j, c, o]
                    out[n, p, q, o] = total


_compiled = jit(_loops)


@rung_of("conv2d")
def python(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """Seven nested Python loops: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out)."""
    _loops(x, weight, g.stride, g.start, g.dilation, out)


@rung_of("conv2d")
def numpy_taps(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """A matrix product for each tap: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out)."""
    padded = g.padded(x)
    out[:] = 0
    for i, j in np.ndindex(g.kernel):
        out += g.tap(padded, i, j) @ weight[i, j]


@rung_of("conv2d")
def im2col(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """One matrix product of copied windows: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out)."""
    padded, c_out = g.padded(x), weight.shape[3]
    windows = np.concatenate([g.tap(padded, i, j) for i, j in np.ndindex(g.kernel)], axis=3)
    np.matmul(windows.reshape(-1, weight[..., 0].size), weight.reshape(-1, c_out), out=out.reshape(-1, c_out))


@rung_of("conv2d")
def njit_loops(x: Array, weight: Array, g: Geometry, out: Array) -> None:
    """The seven nested loops, compiled: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out)."""
    _compiled(x, weight, g.stride, g.start, g.dilation, out)


@prepared("conv2d")
def simd_vector(*arguments: Any, **options: Any) -> Prepared:
    """Explicit vectors, one sum at a time: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out)."""
    return blocked.conv2d.prepare(*arguments, **options, tile=Tile(1, 1))

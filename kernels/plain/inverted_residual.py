"""A block as one kernel: expand, filter, project row by row, the expanded tensor never whole (1801.04381, 5.1).

Of the expanded image only the rows under one window are kept, in a ring: row h stands at ``h % K_h``, where it
takes the place of a row that no window needs any more. The ring and one filtered row stay in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.jit import inlined, parallel_loop
from npmobilenet.kernels.plain.activation import activate
from npmobilenet.kernels.plain.depthwise import taps_inside
from npmobilenet.kernels.plain.pointwise import accumulate, accumulate4


@inlined
def product_row(x: Array, weight: Array, bias: Array, activation: int, y: Array) -> None:
    """``y = activation(x @ weight + bias)`` for the pixels of a row, four at a time."""
    pixels, channels = y.shape
    whole = pixels - pixels % 4
    for pixel in range(pixels):
        for c in range(channels):
            y[pixel, c] = bias[c]
    for pixel in range(0, whole, 4):
        accumulate4(
            x[pixel], x[pixel + 1], x[pixel + 2], x[pixel + 3], weight,
            y[pixel], y[pixel + 1], y[pixel + 2], y[pixel + 3],
        )  # fmt: skip
    for pixel in range(whole, pixels):
        accumulate(x[pixel], weight, y[pixel])
    activate(y.reshape(-1), activation)


@inlined
def filter_row(
    ring: Array,
    weight: Array,
    bias: Array,
    h: int,
    i0: int,
    i1: int,
    stride: int,
    left: int,
    activation: int,
    y: Array,
) -> None:
    """One row of the depthwise convolution: the window begins at row ``h``, its taps [i0, i1) are in the image."""
    kernel_h, kernel_w, channels = weight.shape
    for q in range(y.shape[0]):
        w = q * stride - left
        j0, j1 = taps_inside(w, 1, kernel_w, ring.shape[1])
        sums = y[q]
        for c in range(channels):
            sums[c] = bias[c]
        for i in range(i0, i1):
            row = ring[(h + i) % kernel_h]
            triples = max(j1 - j0, 0) // 3
            for j in range(j0, j0 + 3 * triples, 3):  # the sums are loaded and stored once for three taps
                a0, a1, a2 = row[w + j], row[w + j + 1], row[w + j + 2]
                t0, t1, t2 = weight[i, j], weight[i, j + 1], weight[i, j + 2]
                for c in range(channels):
                    sums[c] = sums[c] + a0[c] * t0[c] + a1[c] * t1[c] + a2[c] * t2[c]
            for j in range(j0 + 3 * triples, j1):
                a, t = row[w + j], weight[i, j]
                for c in range(channels):
                    sums[c] += a[c] * t[c]
    activate(y.reshape(-1), activation)


@parallel_loop
def _strips(
    x: Array,
    expand: tuple[Array, Array],
    depthwise: tuple[Array, Array],
    project: tuple[Array, Array],
    stride: Pair,
    start: Pair,
    residual: bool,
    activations: tuple[int, int, int],
    strips: int,
    out: Array,
) -> None:
    n_out, p_out, q_out, c_out = out.shape
    kernel_h, _, expanded = depthwise[0].shape
    for item in prange(n_out * strips):
        n, strip = item // strips, item % strips
        ring = np.empty((kernel_h, x.shape[2], expanded), np.float32)
        filtered = np.empty((q_out, expanded), np.float32)
        fresh = 0  # the first row that is not expanded yet: a strip begins with those it shares with the one above
        for p in range(strip * p_out // strips, (strip + 1) * p_out // strips):
            h = p * stride[0] - start[0]
            i0, i1 = taps_inside(h, 1, kernel_h, x.shape[1])
            for row in range(max(fresh, h + i0), h + i1):
                product_row(x[n, row], expand[0], expand[1], activations[0], ring[row % kernel_h])
            fresh = max(fresh, h + i1)
            filter_row(ring, depthwise[0], depthwise[1], h, i0, i1, stride[1], start[1], activations[1], filtered)
            product_row(filtered, project[0], project[1], activations[2], out[n, p])
            if residual:
                for q in range(q_out):
                    for c in range(c_out):
                        out[n, p, q, c] += x[n, p, q, c]


def inverted_residual(
    x: np.ndarray,
    expand_weight: np.ndarray,
    expand_bias: np.ndarray | None,
    weight: np.ndarray,
    bias: np.ndarray | None,
    project_weight: np.ndarray,
    project_bias: np.ndarray | None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    residual: bool = False,
    expand_activation: str = "relu6",
    depthwise_activation: str = "relu6",
    project_activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Inverted residual row by row, expanded rows in a ring: (N, H, W, C_in) -> (N, P, Q, C_out)."""
    g = checks.inverted_residual(
        x, expand_weight, expand_bias, weight, bias, project_weight, project_bias, stride=stride, padding=padding,
        residual=residual, expand_activation=expand_activation, depthwise_activation=depthwise_activation,
        project_activation=project_activation,
    )  # fmt: skip
    out = checks.output(out, g.shape)
    expanded = weight.shape[2]
    _strips(
        threads,
        checks.float32(x),
        (checks.float32(expand_weight), checks.bias(expand_bias, expanded)),
        (checks.float32(weight), checks.bias(bias, expanded)),
        (checks.float32(project_weight), checks.bias(project_bias, g.shape[3])),
        g.stride,
        g.start,
        bool(residual),
        tuple(checks.code(name) for name in (expand_activation, depthwise_activation, project_activation)),
        _strips_of(g.shape, threads),
        out,
    )
    return out


def _strips_of(shape: checks.Shape, threads: int) -> int:
    """How many strips an image is cut into: as few as give every thread one, for each expands some rows again."""
    n, rows, *_ = shape
    return max(1, min(rows, -(-threads // max(n, 1))))


def between(x: np.ndarray, weight: np.ndarray, *, threads: int = 1, **others: Any) -> int:
    """Bytes that lie between input and result, every thread's ring and row: arguments as for the operation."""
    g = checks.inverted_residual(x=x, weight=weight, **others)
    working = min(threads, len(x) * _strips_of(g.shape, threads))
    return 4 * working * weight.shape[2] * (len(weight) * x.shape[2] + g.shape[2])


inverted_residual.between = between

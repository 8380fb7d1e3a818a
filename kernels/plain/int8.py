"""8-bit operations: sums of integers, and what becomes of them, with the bits of the definitions.

A row of sums (one pixel, all channels) is computed in int32 and finished by :func:`finish`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import prange

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Array, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.jit import inlined, jit, parallel_loop
from npmobilenet.kernels.plain.depthwise import taps_inside
from npmobilenet.kernels.plain.exact import activate, fma, saturated

NO_FLOATS, NO_BYTES = np.empty(0, np.float32), np.empty(0, np.uint8)
TINY, LARGEST = np.float32(2.0**-100), np.finfo(np.float32).max


@jit
def finish(
    acc: Array,
    scale: Array,
    factor: np.float32,
    bias: Array,
    activation: int,
    out_steps: Array,
    out_zero_point: Array,
    row: Array,
    floats: Array,
    bytes_: Array,
) -> None:
    """From the sums of a pixel to its result, in the one of the last two arrays that is not empty; ``row`` is scratch.

    ``factor`` is the pixel's own scale, or 1.
    """
    channels = acc.shape[0]
    for c in range(channels):
        row[c] = fma(np.float32(acc[c]), np.float32(scale[c] * factor), bias[c])
    if out_steps.shape[0] > 0 or floats.shape[0] > 0:
        activate(row, activation)
    if out_steps.shape[0] > 0:
        for c in range(channels):
            row[c] = fma(row[c], out_steps[c], np.float32(out_zero_point[c]))
    if floats.shape[0] > 0:
        for c in range(channels):
            floats[c] = row[c]
    else:
        for c in range(channels):
            bytes_[c] = saturated(row[c])


@parallel_loop
def _pointwise(
    x: Array,
    weight: Array,
    scale: Array,
    bias: Array,
    zero_point: Array,
    pixel_scale: Array,
    activation: int,
    residual: Array,
    out_steps: Array,
    out_zero_point: Array,
    floats: Array,
    bytes_: Array,
) -> None:
    groups, c_in, c_out = weight.shape
    for pixel in prange(x.shape[0]):
        acc, row = np.zeros(groups * c_out, np.int32), np.empty(groups * c_out, np.float32)
        for g in range(groups):
            part = acc[g * c_out : (g + 1) * c_out]
            for k in range(c_in):
                value = np.int32(x[pixel, g * c_in + k]) - zero_point[g * c_in + k]
                for c in range(c_out):
                    part[c] += value * np.int32(weight[g, k, c])
        factor = pixel_scale[pixel] if pixel_scale.shape[0] > 0 else np.float32(1)
        finish(
            acc, scale, factor, bias, activation, out_steps, out_zero_point, row, floats[pixel], bytes_[pixel]
        )  # fmt: skip
        if residual.shape[0] > 0:
            for c in range(acc.shape[0]):
                floats[pixel, c] += residual[pixel, c]


@inlined
def sum_window(
    x: Array,
    weight: Array,
    zero_point: Array,
    first: int,
    n: int,
    h: int,
    w: int,
    dilation: Pair,
    acc: Array,
) -> None:
    """Add one window of a depthwise convolution, of the channels from ``first`` on; outside the image are zeros."""
    i0, i1 = taps_inside(h, dilation[0], weight.shape[0], x.shape[1])
    j0, j1 = taps_inside(w, dilation[1], weight.shape[1], x.shape[2])
    for i in range(i0, i1):
        for j in range(j0, j1):
            pixel, taps = x[n, h + i * dilation[0], w + j * dilation[1]], weight[i, j]
            for c in range(taps.shape[0]):
                acc[c] += (np.int32(pixel[first + c]) - zero_point[first + c]) * np.int32(taps[c])


@parallel_loop
def _depthwise(
    x: Array,
    weight: Array,
    first: int,
    scale: Array,
    bias: Array,
    zero_point: Array,
    stride: Pair,
    start: Pair,
    dilation: Pair,
    activation: int,
    out_steps: Array,
    out_zero_point: Array,
    size: Pair,
    floats: Array,
    bytes_: Array,
) -> None:
    channels = weight.shape[2]
    stop = first + channels
    for line in prange(x.shape[0] * size[0]):
        n, p = line // size[0], line % size[0]
        acc, row = np.empty(channels, np.int32), np.empty(channels, np.float32)
        for q in range(size[1]):
            for c in range(channels):
                acc[c] = 0
            h, w = p * stride[0] - start[0], q * stride[1] - start[1]
            sum_window(x, weight, zero_point, first, n, h, w, dilation, acc)
            at = line * size[1] + q
            finish(
                acc, scale[first:stop], np.float32(1), bias[first:stop], activation, out_steps[first:stop],
                out_zero_point[first:stop], row, floats[at, first:stop], bytes_[at, first:stop],
            )  # fmt: skip


@parallel_loop
def _convolution(
    x: Array,
    weight: Array,
    groups: int,
    scale: Array,
    bias: Array,
    zero_point: Array,
    stride: Pair,
    start: Pair,
    dilation: Pair,
    activation: int,
    out_steps: Array,
    out_zero_point: Array,
    size: Pair,
    floats: Array,
    bytes_: Array,
) -> None:
    kernel_h, kernel_w, c_in, channels = weight.shape
    c_out = channels // groups
    for line in prange(x.shape[0] * size[0]):
        n, p = line // size[0], line % size[0]
        acc, row = np.empty(channels, np.int32), np.empty(channels, np.float32)
        for q in range(size[1]):
            for c in range(channels):
                acc[c] = 0
            h, w = p * stride[0] - start[0], q * stride[1] - start[1]
            i0, i1 = taps_inside(h, dilation[0], kernel_h, x.shape[1])
            j0, j1 = taps_inside(w, dilation[1], kernel_w, x.shape[2])
            for i in range(i0, i1):
                for j in range(j0, j1):
                    pixel = x[n, h + i * dilation[0], w + j * dilation[1]]
                    for g in range(groups):
                        for k in range(c_in):
                            value = np.int32(pixel[g * c_in + k]) - zero_point[g * c_in + k]
                            for c in range(g * c_out, (g + 1) * c_out):
                                acc[c] += value * np.int32(weight[i, j, k, c])
            at = line * size[1] + q
            finish(
                acc, scale, np.float32(1), bias, activation, out_steps, out_zero_point, row, floats[at], bytes_[at]
            )  # fmt: skip


@parallel_loop
def _quantize_pixels(x: Array, zero_point: np.float32, levels: np.float32, q: Array, scale: Array) -> None:
    for pixel in prange(x.shape[0]):
        m = TINY
        for c in range(x.shape[1]):
            magnitude = abs(x[pixel, c])
            m = m if magnitude <= m or m != m else magnitude  # a NaN stays
        steps = np.float32(levels / m)
        for c in range(x.shape[1]):
            q[pixel, c] = saturated(fma(x[pixel, c], steps, zero_point))
        scale[pixel] = np.float32(m * np.float32(np.float32(1) / levels)) if m <= LARGEST else np.float32(np.nan)


@jit
def _quantize_image(x: Array, steps: np.float32, low: np.float32, high: np.float32, q: Array) -> None:
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            y = np.rint(np.float32(x[row, i] * steps))
            q[row, i] = np.int16(min(y, high) if y > low else low)


@parallel_loop
def _quantize(x: Array, steps: Array, zero_point: Array, activation: int, out: Array) -> None:
    for pixel in prange(x.shape[0]):
        row = x[pixel].copy()
        activate(row, activation)
        for c in range(row.shape[0]):
            out[pixel, c] = saturated(fma(row[c], steps[c], np.float32(zero_point[c])))


@parallel_loop
def _dequantize(x: Array, factor: Array, zero_point: Array, pixels: int, out: Array) -> None:
    for pixel in prange(x.shape[0]):
        row = factor[pixel // pixels]
        for c in range(x.shape[1]):
            out[pixel, c] = np.float32(np.int32(x[pixel, c]) - zero_point[c]) * row[c]


@parallel_loop
def _add(x: Array, y: Array, scale: Array, other_scale: Array, bias: Array, out: Array) -> None:
    for pixel in prange(x.shape[0]):
        for c in range(x.shape[1]):
            inner = fma(np.float32(y[pixel, c]), other_scale[c], bias[c])
            out[pixel, c] = saturated(fma(np.float32(x[pixel, c]), scale[c], inner))


@jit
def _global_average(x: Array, scale: Array, zero_point: Array, out: Array) -> None:
    pixels, channels = x.shape[1:]
    for n in range(x.shape[0]):
        total = np.zeros(channels, np.int64)
        for pixel in range(pixels):
            for c in range(channels):
                total[c] += x[n, pixel, c]
        for c in range(channels):
            exact = total[c] - np.int64(pixels) * zero_point[c]
            out[n, c] = np.float32(exact) * np.float32(scale[c] / np.float32(pixels))


@jit
def _chained(x: Array, weight: Array, bias: Array, activation: int, out: Array) -> None:
    for n in range(x.shape[0]):
        y = out[n]
        for c in range(y.shape[0]):
            y[c] = bias[c]
        for k in range(x.shape[1]):
            for c in range(y.shape[0]):
                y[c] = fma(x[n, k], weight[k, c], y[c])
        activate(y, activation)


def quantize(
    x: np.ndarray,
    steps: np.ndarray,
    zero_point: np.ndarray,
    *,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """8 bits with a step for each channel: float32 (N, ..., C) -> uint8 (N, ..., C)."""
    g = checks.quantize(x, steps, zero_point, activation=activation)
    out = checks.output(out, g.shape, np.dtype(np.uint8))
    x, rows = checks.float32(x), out.reshape(-1, g.shape[-1])
    _quantize(threads, x.reshape(rows.shape), checks.float32(steps), _plain(zero_point), checks.code(activation), rows)
    return out


def dequantize(
    x: np.ndarray,
    scale: np.ndarray,
    zero_point: np.ndarray,
    *,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """``(x - zero_point) * scale``, rounded once: uint8 (N, ..., C) -> float32 (N, ..., C)."""
    out = checks.output(out, checks.dequantize(x, scale, zero_point).shape)
    c = x.shape[-1]
    rows = _plain(x).reshape(-1, c)
    zeros = _zero_points(zero_point, c)
    _dequantize(threads, rows, checks.float32(scale)[None], zeros, max(len(rows), 1), out.reshape(-1, c))
    return out


def add_int8(
    x: np.ndarray,
    y: np.ndarray,
    scale: np.ndarray,
    other_scale: np.ndarray,
    bias: np.ndarray,
    *,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Sum of two of 8 bits, in the steps of the result: uint8 (N, ..., C), twice -> uint8 (N, ..., C)."""
    g = checks.add_int8(x, y, scale, other_scale, bias)
    out = checks.output(out, g.shape, np.dtype(np.uint8))
    rows = (_plain(each).reshape(-1, g.shape[-1]) for each in (x, y))
    _add(threads, *rows, *map(checks.float32, (scale, other_scale, bias)), out.reshape(-1, g.shape[-1]))
    return out


def quantize_pixels(x: np.ndarray, *, zero_point: int = 128, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """8 bits with a scale for each pixel: float32 (N, H, W, C) -> uint8 (N, H, W, C) and float32 (N, H, W)."""
    checks.quantize_pixels(x, zero_point=zero_point)
    q, scale = np.empty(x.shape, np.uint8), np.empty(x.shape[:3], np.float32)
    levels = np.float32(127 if zero_point else 255)
    c = x.shape[3]
    rows = checks.float32(x).reshape(-1, c)
    _quantize_pixels(threads, rows, np.float32(zero_point), levels, q.reshape(-1, c), scale.reshape(-1))
    return q, scale


def quantize_image(x: np.ndarray, steps: float, limits: Pair | None = None) -> np.ndarray:
    """16 bits: float32 (N, H, W, C) -> int16."""
    checks.quantize_image(x, steps, limits)
    q = np.empty(x.shape, np.int16)
    low, high = limits or (-checks.LARGEST_HALF, checks.LARGEST_HALF)
    rows = (len(x) * x.shape[1], x.shape[2] * x.shape[3])
    about = map(np.float32, (steps, low, high))
    _quantize_image(checks.float32(x).reshape(rows), *about, q.reshape(rows))
    return q


def pointwise_conv2d_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    pixel_scale: np.ndarray | None = None,
    groups: int = 1,
    activation: str = "none",
    residual: np.ndarray | None = None,
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """1x1 convolution of integers: uint8 (N, H, W, C_in) @ int8 (C_in/G, C_out) -> (N, H, W, C_out)."""
    g = checks.pointwise_conv2d_int8(
        x, weight, scale, bias, zero_point=zero_point, pixel_scale=pixel_scale, groups=groups, activation=activation,
        residual=residual, dtype=dtype, out_steps=out_steps, out_zero_point=out_zero_point,
    )  # fmt: skip
    out = checks.output(out, g.shape, np.dtype(dtype))
    c_in, c_out = x.shape[3], weight.shape[1]
    if x.dtype.kind == "f":
        x, pixel_scale = quantize_pixels(x, zero_point=zero_point, threads=threads)
    residual = np.empty((0, c_out), np.float32) if residual is None else checks.float32(residual).reshape(-1, c_out)
    matrices = _plain(weight).reshape(c_in // groups, groups, c_out // groups).transpose(1, 0, 2)
    _pointwise(
        threads,
        _plain(x).reshape(-1, c_in),
        np.ascontiguousarray(matrices),
        checks.float32(scale),
        checks.float32(bias),
        _zero_points(zero_point, c_in),
        NO_FLOATS if pixel_scale is None else checks.float32(pixel_scale).reshape(-1),
        checks.code(activation),
        residual,
        *_ends(out_steps, out_zero_point),
        *_results(out),
    )
    return out


def depthwise_conv2d_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    activation: str = "none",
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Depthwise convolution of integers: uint8 (N, H, W, C) * int8 or int16 (K_h, K_w, C) -> (N, P, Q, C)."""
    g = checks.depthwise_conv2d_int8(
        x, weight, scale, bias, zero_point=zero_point, stride=stride, padding=padding, dilation=dilation,
        activation=activation, dtype=dtype, out_steps=out_steps, out_zero_point=out_zero_point,
    )  # fmt: skip
    out = checks.output(out, g.shape, np.dtype(dtype))
    return _windows((g,), x, (weight,), scale, bias, zero_point, activation, out_steps, out_zero_point, out, threads)


def mixed_depthwise_conv2d_int8(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    stride: Size = 1,
    padding: PaddingSpec = "symmetric",
    dilation: Size | list[Size] = 1,
    activation: str = "none",
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Mixed convolution of integers, one group of channels after the other: uint8 (N, H, W, C) -> (N, P, Q, C)."""
    g = checks.mixed_depthwise_conv2d_int8(
        x, weights, scale, bias, zero_point=zero_point, stride=stride, padding=padding, dilation=dilation,
        activation=activation, dtype=dtype, out_steps=out_steps, out_zero_point=out_zero_point,
    )  # fmt: skip
    out = checks.output(out, g.shape, np.dtype(dtype))
    return _windows(g.groups, x, weights, scale, bias, zero_point, activation, out_steps, out_zero_point, out, threads)


def conv2d_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    steps: float | None = None,
    limits: Pair | None = None,
    zero_point: int | np.ndarray = 0,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str = "none",
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Convolution of integers: uint8 * int8, or int16 * int16 -> (N, P, Q, C_out)."""
    g = checks.conv2d_int8(
        x, weight, scale, bias, steps=steps, limits=limits, zero_point=zero_point, stride=stride, padding=padding,
        dilation=dilation, groups=groups, activation=activation, dtype=dtype, out_steps=out_steps,
        out_zero_point=out_zero_point,
    )  # fmt: skip
    out = checks.output(out, g.shape, np.dtype(dtype))
    x = quantize_image(x, steps, limits) if x.dtype.kind == "f" else _plain(x)
    _convolution(
        threads,
        x,
        _plain(weight),
        groups,
        checks.float32(scale),
        checks.float32(bias),
        _zero_points(zero_point, x.shape[3]),
        g.stride,
        g.start,
        g.dilation,
        checks.code(activation),
        *_ends(out_steps, out_zero_point),
        g.shape[1:3],
        *_results(out),
    )
    return out


def linear_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int = 128,
    activation: str = "none",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Fully connected layer of integers: float32 (N, C_in) @ int8 (C_in, C_out) -> float32 (N, C_out)."""
    g = checks.linear_int8(x, weight, scale, bias, zero_point=zero_point, activation=activation)
    out = checks.output(out, g.shape)
    pointwise_conv2d_int8(
        x[:, None, None], weight, scale, bias, zero_point=zero_point, activation=activation, dtype="float32",
        out=out[:, None, None], threads=threads,
    )  # fmt: skip
    return out


def global_average_pool_int8(
    x: np.ndarray,
    scale: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Mean over all pixels: uint8 (N, H, W, C) -> float32 (N, C)."""
    g = checks.global_average_pool_int8(x, scale, zero_point=zero_point)
    out = checks.output(out, g.shape)
    n, h, w, c = x.shape
    _global_average(_plain(x).reshape(n, h * w, c), checks.float32(scale), _zero_points(zero_point, c), out)
    return out


def squeeze_excite_int8(
    x: np.ndarray,
    scale: np.ndarray,
    reduce_weight: np.ndarray,
    reduce_bias: np.ndarray,
    expand_weight: np.ndarray,
    expand_bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    activation: str = "relu",
    gate: str = "sigmoid",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Squeeze-and-excitation of 8 bits, (C, R) and (R, C) in float32: uint8 (N, H, W, C) -> float32 (N, H, W, C)."""
    g = checks.squeeze_excite_int8(
        x, scale, reduce_weight, reduce_bias, expand_weight, expand_bias, zero_point=zero_point, activation=activation,
        gate=gate,
    )  # fmt: skip
    out = checks.output(out, g.shape)
    n, h, w, c = x.shape
    y = global_average_pool_int8(x, scale, zero_point=zero_point, threads=threads)
    for weight, bias, function in ((reduce_weight, reduce_bias, activation), (expand_weight, expand_bias, gate)):
        vectors, result = y, np.empty((n, weight.shape[1]), np.float32)
        _chained(vectors, checks.float32(weight), checks.float32(bias), checks.code(function), result)
        y = result
    factor = checks.float32(scale) * y
    rows = _plain(x).reshape(-1, c)
    _dequantize(threads, rows, factor, _zero_points(zero_point, c), h * w, out.reshape(-1, c))
    return out


def _windows(
    groups: Sequence[checks.Geometry],
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    scale: np.ndarray,
    bias: np.ndarray,
    zero_point: int | np.ndarray,
    activation: str,
    out_steps: np.ndarray | None,
    out_zero_point: np.ndarray | None,
    out: np.ndarray,
    threads: int,
) -> np.ndarray:
    """Depthwise convolution of one group of channels after the other, each with a window of its own."""
    x, first = _plain(x), 0
    for g, weight in zip(groups, weights, strict=True):
        _depthwise(
            threads,
            x,
            _plain(weight),
            first,
            checks.float32(scale),
            checks.float32(bias),
            _zero_points(zero_point, x.shape[3]),
            g.stride,
            g.start,
            g.dilation,
            checks.code(activation),
            *_ends(out_steps, out_zero_point),
            g.shape[1:3],
            *_results(out),
        )
        first += weight.shape[2]
    return out


def _plain(x: np.ndarray) -> np.ndarray:
    """C-contiguous, aligned and writeable, as Numba has compiled for."""
    return checks.contiguous(x)


def _zero_points(zero_point: int | np.ndarray, channels: int) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(np.asarray(zero_point, np.int32), channels))


def _ends(out_steps: np.ndarray | None, out_zero_point: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    if out_steps is None:
        return NO_FLOATS, NO_BYTES
    return checks.float32(out_steps), checks.contiguous(out_zero_point)


def _results(out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The result as rows of float32 and of uint8; of the type that it has not, rows without values."""
    rows = out.reshape(-1, out.shape[-1])
    if out.dtype == np.uint8:
        return np.empty((len(rows), 0), np.float32), rows
    return rows, np.empty((len(rows), 0), np.uint8)

"""Operators whose windows slide over images of any number of axes, and products of matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from math import ceil, prod
from typing import Literal

import numpy as np

from npmobilenet.onnx.elementwise import same_type
from npmobilenet.onnx.operator import Ints, as_large, axis_of, of_channels, operator
from npmobilenet.onnx.room import room

AutoPad = Literal["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]
Pads = list[tuple[int, int]]
COLUMNS = 1 << 22  # values of a matrix of windows
EXACT_PRODUCTS = 2**24 // 255**2  # of bytes without their zero points, whose sum float32 holds whatever they are


def window_pads(
    auto_pad: str, pads: Sequence[int], size: Sequence[int], kernel: Sequence[int], strides: Sequence[int],
    dilations: Sequence[int],
) -> Pads:  # fmt: skip
    """Return what is added before and after every axis of an image of this size."""
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        axes = zip(size, kernel, strides, dilations, strict=True)
        totals = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in axes]
        halves = [(total // 2, total - total // 2) for total in totals]
        return halves if auto_pad == "SAME_UPPER" else [(after, before) for before, after in halves]
    if auto_pad == "VALID" or not pads:
        return [(0, 0)] * len(size)
    return list(zip(pads[: len(size)], pads[len(size) :], strict=True))


def _filled(values: Sequence[int], axes: int, what: str, least: int = 1) -> tuple[int, ...]:
    values = tuple(values) or (1,) * axes
    if len(values) != axes or any(value < least for value in values):
        raise ValueError(f"attribute {what!r} must be {axes} integers >= {least}, got {values}")
    return values


def _positions(size: Sequence[int], pads: Pads, kernel: Ints, strides: Ints, dilations: Ints, up: int = 0) -> Ints:
    """How many places a window has on every axis; with ``up`` the last one may reach beyond the end."""
    counts = []
    for n, (before, after), k, s, d in zip(size, pads, kernel, strides, dilations, strict=True):
        room = n + before + after - ((k - 1) * d + 1)
        count = (ceil(room / s) if up else room // s) + 1
        if count < 1:
            raise ValueError(f"a window of {(k - 1) * d + 1} does not fit into {n} + padding {before} + {after}")
        if up and (count - 1) * s >= n + before:  # it would begin in the padding after the image
            count -= 1
        counts.append(count)
    return tuple(counts)


def _padded(x: np.ndarray, pads: Pads, value: float) -> np.ndarray:
    """With negative pads cut off."""
    cut = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape[2:], pads, strict=True))
    added = [(max(a, 0), max(b, 0)) for a, b in pads]
    room(tuple(n + a + b for n, (a, b) in zip(x.shape, [(0, 0), (0, 0), *added], strict=True)))
    x = x[(..., *cut)]
    return np.pad(x, [(0, 0), (0, 0), *added], constant_values=value) if np.any(added) else x


def _taps(x: np.ndarray, counts: Ints, kernel: Ints, strides: Ints, dilations: Ints) -> np.ndarray:
    """A view of every window: (N, C, *counts, *kernel)."""
    n, c, *steps = x.strides
    steps = [*[step * s for step, s in zip(steps, strides, strict=True)],
             *[step * d for step, d in zip(steps, dilations, strict=True)]]  # fmt: skip
    return np.lib.stride_tricks.as_strided(x, (*x.shape[:2], *counts, *kernel), (n, c, *steps), writeable=False)


def _convolved(
    x: np.ndarray, weight: np.ndarray, kernel_shape: Ints, strides: Ints, pads: Ints, dilations: Ints, group: int,
    auto_pad: str, dtype: np.dtype, multiply: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.matmul,
) -> np.ndarray:  # fmt: skip
    axes = x.ndim - 2
    if axes < 1 or weight.ndim != x.ndim or group < 1 or x.shape[1] != weight.shape[1] * group or len(weight) % group:
        raise ValueError(f"a weight of shape {weight.shape} in {group} groups does not fit an input of {x.shape}")
    kernel = weight.shape[2:]
    if kernel_shape and kernel_shape != kernel:
        raise ValueError(f"attribute 'kernel_shape' is {kernel_shape}, and the weight's is {kernel}")
    strides, dilations = _filled(strides, axes, "strides"), _filled(dilations, axes, "dilations")
    if len(pads) not in (0, 2 * axes):
        raise ValueError(f"attribute 'pads' must be {2 * axes} integers, got {pads}")
    edges = window_pads(auto_pad, pads, x.shape[2:], kernel, strides, dilations)
    counts = _positions(x.shape[2:], edges, kernel, strides, dilations)
    taps = _taps(_padded(x, edges, 0), counts, kernel, strides, dilations)
    rows = weight.reshape(group, len(weight) // group, prod(weight.shape[1:]))
    y = np.empty(room((len(x), len(weight), *counts)), dtype)
    step = max(1, COLUMNS // (prod(weight.shape[1:]) * group * prod(counts[1:])))
    for image, windows in enumerate(taps):  # a matrix of all windows takes memory: of some rows at a time
        for begin in range(0, counts[0], step):
            some, part = windows[:, begin : begin + step], y[image, :, begin : begin + step]
            columns = np.moveaxis(some, range(1, 1 + axes), range(-axes, 0)).reshape(group, rows.shape[2], -1)
            part[...] = multiply(rows, columns).reshape(part.shape)
    return y


@operator("Conv", "windows")
def conv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: Ints = (),
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    group: int = 1,
) -> np.ndarray:
    """Convolution, with groups."""
    weight = weight.astype(x.dtype, copy=False)
    y = _convolved(x, weight, kernel_shape, strides, pads, dilations, group, auto_pad, x.dtype)
    return y if bias is None else y + of_channels(y, bias)[0]


@operator("ConvInteger", "windows")
def conv_integer(
    x: np.ndarray,
    weight: np.ndarray,
    x_zero: np.ndarray | None = None,
    weight_zero: np.ndarray | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: Ints = (),
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    group: int = 1,
) -> np.ndarray:
    """Convolution of integers, minus their zero points, which are what stands around the image."""
    geometry = (kernel_shape, strides, pads, dilations, group, auto_pad)
    return _integers_convolved(x, x_zero, weight, weight_zero, geometry)


@operator("QLinearConv", "windows")
def qlinear_conv(
    x: np.ndarray,
    x_scale: np.ndarray,
    x_zero: np.ndarray,
    weight: np.ndarray,
    weight_scale: np.ndarray,
    weight_zero: np.ndarray,
    y_scale: np.ndarray,
    y_zero: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: Ints = (),
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    group: int = 1,
) -> np.ndarray:
    """Convolution of integers, whose sums become integers of 8 bits again."""
    geometry = (kernel_shape, strides, pads, dilations, group, auto_pad)
    sums = _integers_convolved(x, x_zero, weight, weight_zero, geometry)
    sums = sums if bias is None else sums + of_channels(sums, bias)[0]
    scale = x_scale.astype(np.float64) * weight_scale / y_scale
    return requantised(sums * (scale.reshape(()) if scale.size == 1 else of_channels(sums, scale)[0]), y_zero)


def _integers_convolved(
    x: np.ndarray, x_zero: np.ndarray | None, weight: np.ndarray, weight_zero: np.ndarray | None, geometry: tuple
) -> np.ndarray:
    x, weight = centred(x, _along_axis(x_zero, x, 1)), centred(weight, _along_axis(weight_zero, weight, 0))
    return _convolved(x, weight, *geometry, np.dtype(np.int32), products)


def products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Product of integer matrices, or of stacks of them, as `centred` returns them: int32.

    Bytes are multiplied as float32, which is much faster, so few at a time that their sums are exact.
    """
    if not left.dtype == right.dtype == np.int16:
        return np.matmul(left, right)

    def exact(begin: int) -> np.ndarray:
        some = slice(begin, begin + EXACT_PRODUCTS)
        rows = right[..., some, :] if right.ndim > 1 else right[some]
        return np.matmul(left[..., some].astype(np.float32), rows.astype(np.float32)).astype(np.int32)

    return reduce(np.add, map(exact, range(0, max(left.shape[-1], 1), EXACT_PRODUCTS)))


def requantised(real: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Return the nearest entries, ties to even, of the type that the zero point has."""
    limits = np.iinfo(zero.dtype)
    as_large(zero, real.shape)
    whole = np.asarray(np.rint(real) + zero)
    return np.clip(whole, limits.min, limits.max, out=whole).astype(zero.dtype)


def centred(x: np.ndarray, zero: np.ndarray | None) -> np.ndarray:
    """Return integers minus their zero points: int16 if they are bytes.

    Raises
    ------
    ValueError
        If there are more zero points than integers.
    """
    dtype = np.int16 if x.itemsize == 1 and (zero is None or zero.itemsize == 1) else np.int32
    x = x.astype(dtype)
    if zero is None:
        return x
    zero = as_large(zero.astype(dtype), x.shape)
    return x - zero if zero.any() else x


def _along_axis(zero: np.ndarray | None, x: np.ndarray, axis: int) -> np.ndarray | None:
    """Zero points, of which there is one, or one for each place of an axis, as they broadcast."""
    if zero is None or zero.size == 1:
        return zero if zero is None else zero.reshape(())
    if zero.size != x.shape[axis]:
        raise ValueError(f"{zero.size} zero points do not fit a tensor of {x.shape}")
    return zero.reshape([-1 if at == axis else 1 for at in range(x.ndim)])


@operator("ConvTranspose", "windows")
def conv_transpose(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: Ints = (),
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    group: int = 1,
    output_padding: Ints = (),
    output_shape: Ints = (),
) -> np.ndarray:
    """Transposed convolution: each value adds its window to a larger image."""
    axes = x.ndim - 2
    if axes < 1 or weight.ndim != x.ndim or group < 1 or x.shape[1] != len(weight) or len(weight) % group:
        raise ValueError(f"a weight of shape {weight.shape} in {group} groups does not fit an input of {x.shape}")
    kernel = weight.shape[2:]
    strides, dilations = _filled(strides, axes, "strides"), _filled(dilations, axes, "dilations")
    more = _filled(output_padding or (0,) * axes, axes, "output_padding", 0)
    edges = transposed_pads(auto_pad, pads, x.shape[2:], kernel, strides, dilations, more, output_shape)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    whole = [(n - 1) * s + e + o for n, s, e, o in zip(x.shape[2:], strides, extents, more, strict=True)]
    y = np.zeros(room((len(x), weight.shape[1] * group, *whole)), x.dtype)
    inputs, outputs = len(weight) // group, weight.shape[1]
    for g in range(group if len(x) else 0):
        part, into = x[:, g * inputs : (g + 1) * inputs], y[:, g * outputs : (g + 1) * outputs]
        own = weight[g * inputs : (g + 1) * inputs]
        for tap in product(*map(range, kernel)):
            places = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, dilations, x.shape[2:], strides, strict=True)
            )
            into[(..., *places)] += np.moveaxis(np.tensordot(part, own[(..., *tap)], ((1,), (0,))), -1, 1)
    y = _padded(y, [(-a, -b) for a, b in edges], 0)
    return y if bias is None else y + of_channels(y, bias)[0]


def transposed_pads(
    auto_pad: str, pads: Ints, size: Ints, kernel: Ints, strides: Ints, dilations: Ints, more: Ints, shape: Ints
) -> Pads:
    """Return what is cut off before and after every axis of what a transposed convolution makes; below 0: added."""
    if not shape and auto_pad in ("NOTSET", "VALID"):
        return window_pads(auto_pad, pads, size, kernel, strides, dilations)
    wanted = shape[-len(size) :] if shape else [n * s for n, s in zip(size, strides, strict=True)]
    axes = zip(size, kernel, strides, dilations, more, wanted, strict=True)
    totals = [s * (n - 1) + o + (k - 1) * d + 1 - w for n, k, s, d, o, w in axes]
    befores = [(max(total, 0) + (auto_pad != "SAME_UPPER")) // 2 for total in totals]
    return [(before, total - before) for before, total in zip(befores, totals, strict=True)]


@operator("MaxPool", "windows")
def max_pool(
    x: np.ndarray,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: Ints,
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    ceil_mode: int = 0,
    storage_order: int = 0,
    results: int,
) -> tuple[np.ndarray, ...]:
    """The largest of every window, and where in the tensor it is."""
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    taps, _, (edges, strides, dilations) = _pooled(
        x, auto_pad, kernel_shape, strides, pads, dilations, ceil_mode, least
    )
    axes = x.ndim - 2
    if results < 2:
        return (taps.max(axis=tuple(range(2 + axes, 2 + 2 * axes))),)
    room(taps.shape)
    flat = taps.reshape(*taps.shape[: 2 + axes], prod(kernel_shape))
    best = np.unravel_index(flat.argmax(axis=-1), kernel_shape)
    places = [
        (np.arange(count) * s - before).reshape([-1 if at == axis else 1 for at in range(axes)]) + tap * d
        for axis, (count, s, d, (before, _), tap) in enumerate(
            zip(taps.shape[2 : 2 + axes], strides, dilations, edges, best, strict=True)
        )
    ]
    size = x.shape[2:]
    steps = [prod(size[axis + 1 :]) if not storage_order else prod(size[:axis]) for axis in range(axes)]
    inside = sum(place * step for place, step in zip(places, steps, strict=True))
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * axes) * prod(size)
    return flat.max(axis=-1), (planes + inside).astype(np.int64)


@operator("AveragePool", "windows")
def average_pool(
    x: np.ndarray,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: Ints,
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> np.ndarray:
    """The mean of every window, in which the zeros around the image count or not; what lies beyond them never."""
    geometry = (kernel_shape, strides, pads, dilations, ceil_mode)
    taps, beyond, (edges, *_) = _pooled(x, auto_pad, *geometry, 0)
    letters = tuple(range(x.ndim, 2 * x.ndim - 2))
    inside = np.ones((1, 1, *x.shape[2:]))
    counted = _padded(inside, edges, float(bool(count_include_pad)))
    counted = np.pad(counted, [(0, 0), (0, 0), *[(0, more) for more in beyond]])
    strides, dilations = (_filled(each, x.ndim - 2, "strides") for each in (strides, dilations))
    numbers = _taps(counted, taps.shape[2 : x.ndim], tuple(kernel_shape), strides, dilations).sum(letters)
    return same_type(x, taps.sum(letters, dtype=np.float64) / numbers)


@operator("LpPool", "windows")
def lp_pool(
    x: np.ndarray,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: Ints,
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    ceil_mode: int = 0,
    p: int = 2,
) -> np.ndarray:
    """The norm of every window."""
    taps, _, _ = _pooled(x, auto_pad, kernel_shape, strides, pads, dilations, ceil_mode, 0)
    letters = tuple(range(x.ndim, 2 * x.ndim - 2))
    room(taps.shape)
    return same_type(x, (np.abs(taps).astype(np.float64) ** p).sum(letters) ** (1 / p))


def _pooled(
    x: np.ndarray, auto_pad: str, kernel: Ints, strides: Ints, pads: Ints, dilations: Ints, up: int, fill: float
) -> tuple[np.ndarray, list[int], tuple[Pads, Ints, Ints]]:
    """Every window; how far the last ones reach beyond the padding; and the padding, strides and dilations."""
    axes = x.ndim - 2
    if axes < 1 or len(kernel) != axes:
        raise ValueError(f"attribute 'kernel_shape' is {kernel}, and the image has {axes} axes")
    kernel = _filled(kernel, axes, "kernel_shape")
    strides, dilations = _filled(strides, axes, "strides"), _filled(dilations, axes, "dilations")
    edges = window_pads(auto_pad, pads, x.shape[2:], kernel, strides, dilations)
    counts = _positions(x.shape[2:], edges, kernel, strides, dilations, up)
    needed = [(c - 1) * s + (k - 1) * d + 1 for c, s, k, d in zip(counts, strides, kernel, dilations, strict=True)]
    beyond = [max(need - (n + a + b), 0) for need, n, (a, b) in zip(needed, x.shape[2:], edges, strict=True)]
    padded = _padded(x, edges, fill)
    padded = np.pad(padded, [(0, 0), (0, 0), *[(0, more) for more in beyond]], constant_values=fill)
    return _taps(padded, counts, kernel, strides, dilations), beyond, (edges, strides, dilations)


@operator("GlobalAveragePool", "windows")
def global_average_pool(x: np.ndarray) -> np.ndarray:
    """The mean of every channel."""
    return same_type(x, x.mean(axis=tuple(range(2, x.ndim)), keepdims=True, dtype=np.float64))


@operator("GlobalMaxPool", "windows")
def global_max_pool(x: np.ndarray) -> np.ndarray:
    """The maximum of every channel."""
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)


@operator("Gemm")
def gemm(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    broadcast: int = 0,
) -> np.ndarray:
    """Product of two matrices, and a sum."""
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"takes two matrices, got {a.shape} and {b.shape}")
    y = matmul(a.T if transA else a, b.T if transB else b)
    y = y if alpha == 1 else same_type(a, alpha * y)
    return y if c is None else same_type(a, y + as_large(c if beta == 1 else beta * c, y.shape))


@operator("MatMul")
def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of matrices, or of stacks of them."""
    room_for_product(a, b)
    return np.matmul(a, b)


def room_for_product(a: np.ndarray, b: np.ndarray) -> None:
    """Refuse two matrices, or stacks of them, whose product is too large."""
    if a.ndim and b.ndim:
        stacks = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        room((*stacks, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ())))


@operator("Softmax", "along")
def softmax(x: np.ndarray, *, axis: int | None = None, opset: int) -> np.ndarray:
    """Exponentials that add up to 1."""
    return _along(x, axis, opset, lambda powers, _: powers / powers.sum(-1, keepdims=True))


@operator("LogSoftmax", "along")
def log_softmax(x: np.ndarray, *, axis: int | None = None, opset: int) -> np.ndarray:
    """Their logarithms."""
    return _along(x, axis, opset, lambda powers, shifted: shifted - np.log(powers.sum(-1, keepdims=True)))


def _along(x: np.ndarray, axis: int | None, opset: int, function: object) -> np.ndarray:
    """Of one axis; before opset 13 of all from it on, which was the second one unless said."""
    axis = axis_of((1 if opset < 13 else -1) if axis is None else axis, x.ndim)
    if opset < 13:
        rows = x.reshape(prod(x.shape[:axis]), -1)
    else:
        rows = np.moveaxis(x, axis, -1)
    shifted = rows - rows.max(-1, keepdims=True) if rows.size else rows
    y = same_type(x, function(np.exp(shifted), shifted))
    return y.reshape(x.shape) if opset < 13 else np.ascontiguousarray(np.moveaxis(y, -1, axis))

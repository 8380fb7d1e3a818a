"""Operators between numbers with a fraction and integers of 8 bits."""

from __future__ import annotations

import numpy as np

from npmobilenet.onnx.elementwise import converted
from npmobilenet.onnx.narrow import NARROW
from npmobilenet.onnx.operator import as_large, axis_of, operator
from npmobilenet.onnx.tensors import COMPUTED_IN, TYPES
from npmobilenet.onnx.windows import centred, products, requantised, room_for_product


def per_axis(values: np.ndarray, rank: int, axis: int, length: int, block_size: int) -> np.ndarray:
    """Return numbers of a whole tensor, of each place of an axis, or of blocks along it, as they broadcast."""
    if block_size:
        axis = axis_of(axis, rank)
        if not 0 < block_size <= length:
            raise ValueError(f"attribute 'block_size' is {block_size}, and the axis has {length}")
        return np.repeat(values, block_size, axis).take(np.arange(length), axis)
    if values.size == 1:
        return values.reshape(())
    if values.size != length:
        raise ValueError(f"{values.size} scales or zero points do not fit an axis of {length}")
    return values.reshape([-1 if at == axis_of(axis, rank) else 1 for at in range(rank)])


@operator("QuantizeLinear", "along")
def quantize_linear(
    x: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> np.ndarray:
    """``x / scale + zero``, rounded to the nearest entry, ties to even."""
    name = TYPES.get(output_dtype, "") if output_dtype else ""
    if zero is None:
        zero = np.zeros(scale.shape, COMPUTED_IN.get(name, name) or np.uint8)
    length = x.shape[axis] if x.ndim and scale.size > 1 else 1
    steps, zeros = (per_axis(each, x.ndim, axis, length, block_size) for each in (scale, zero))
    real = (x / steps).astype(np.float32)
    if name in NARROW:
        if zero.dtype.kind in "iu":
            return np.clip(np.rint(real) + zeros, *NARROW[name].limits).astype(zero.dtype)
        return converted(real + zeros, name, bool(saturate))
    if zero.dtype.kind not in "iu":
        raise ValueError(f"quantises to {zero.dtype}, which is not supported")
    return requantised(real, zeros)


@operator("DequantizeLinear", "along")
def dequantize_linear(
    x: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> np.ndarray:
    """``(x - zero) * scale``."""
    length = x.shape[axis] if x.ndim and scale.size > 1 else 1
    steps = per_axis(scale, x.ndim, axis, length, block_size)
    whole = x.astype(np.int64) if x.dtype.kind in "iu" else x
    if zero is not None:
        whole = whole - per_axis(zero.astype(whole.dtype), x.ndim, axis, length, block_size)
    return (whole * steps).astype(np.float32)


@operator("DynamicQuantizeLinear", "along")
def dynamic_quantize_linear(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes for the range of a tensor, with 0 in it."""
    low, high = min(float(x.min(initial=0)), 0.0), max(float(x.max(initial=0)), 0.0)
    scale = np.float32((high - low) / 255)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255)) if scale else np.uint8(0)
    return requantised(x / scale if scale else x, np.asarray(zero)), np.asarray(scale), np.asarray(zero)


@operator("MatMulInteger")
def matmul_integer(
    a: np.ndarray, b: np.ndarray, a_zero: np.ndarray | None = None, b_zero: np.ndarray | None = None
) -> np.ndarray:
    """Product of matrices of integers, minus their zero points."""
    rows = None if a_zero is None else a_zero.reshape(() if a_zero.size == 1 else (-1, 1))
    return _multiplied(centred(a, rows), centred(b, b_zero))


@operator("QLinearMatMul")
def qlinear_matmul(
    a: np.ndarray,
    a_scale: np.ndarray,
    a_zero: np.ndarray,
    b: np.ndarray,
    b_scale: np.ndarray,
    b_zero: np.ndarray,
    y_scale: np.ndarray,
    y_zero: np.ndarray,
) -> np.ndarray:
    """The same, whose sums become integers of 8 bits again."""
    sums = _multiplied(centred(a, a_zero), centred(b, b_zero))
    return requantised(sums * as_large(a_scale.astype(np.float64) * b_scale / y_scale, sums.shape), y_zero)


def _multiplied(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    room_for_product(left, right)
    return products(left, right)

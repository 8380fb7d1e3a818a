"""Resize and Upsample: every axis by itself, each value a sum of some around its place."""

from __future__ import annotations

from math import floor, prod
from typing import Literal

import numpy as np

from npmobilenet.onnx.elementwise import same_type
from npmobilenet.onnx.operator import Decides, Floats, Ints, as_ints, axes_of, operator
from npmobilenet.onnx.room import room

VALUES = 1 << 20  # of images that are resized together

Coordinates = Literal[
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
]  # fmt: skip
Nearest = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


@operator("Resize", decides=(1, 2, 3))
def resize(
    x: np.ndarray,
    roi: Decides | None = None,
    scales: Decides | None = None,
    sizes: Decides | None = None,
    *,
    antialias: int = 0,
    axes: Ints | None = None,
    coordinate_transformation_mode: Coordinates = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: Literal["stretch", "not_larger", "not_smaller"] = "stretch",
    mode: Literal["nearest", "linear", "cubic"] = "nearest",
    nearest_mode: Nearest = "round_prefer_floor",
    opset: int,
) -> np.ndarray:
    """The tensor at another size, as PyTorch, TensorFlow or Pillow would."""
    if opset < 11:  # the second input are the scales
        roi, scales, coordinate_transformation_mode, nearest_mode = None, roi, "asymmetric", "floor"
    chosen = tuple(range(x.ndim)) if axes is None else axes_of(axes, x.ndim)
    factors, lengths = resized_to(x.shape, scales, sizes, chosen, keep_aspect_ratio_policy)
    whole = np.asarray(roi, np.float64) if roi is not None and roi.size else np.repeat([0.0, 1.0], len(chosen))
    crops = coordinate_transformation_mode == "tf_crop_and_resize"
    counts: dict[int, np.ndarray] = {}  # by axis
    outside = np.zeros([1] * x.ndim, bool)
    for number, axis in enumerate(chosen):
        length, out, factor = x.shape[axis], lengths[number], factors[number]
        region = whole[number], whole[len(chosen) + number]
        places = coordinates(length, out, factor, coordinate_transformation_mode, region)
        if not crops and length == out and factor == 1:
            continue
        if crops:
            beyond = (places < 0) | (places > length - 1)
            outside = outside | beyond.reshape([-1 if at == axis else 1 for at in range(x.ndim)])
        counts[axis] = _weights(places, length, factor, mode, nearest_mode, cubic_coeff_a, exclude_outside, antialias)

    y = np.empty([len(counts[axis]) if axis in counts else length for axis, length in enumerate(x.shape)], x.dtype)
    kept = min(
        counts, default=x.ndim
    )  # axes before these are those of whole images: some at a time, for sums take memory
    images, results = x.reshape(-1, *x.shape[kept:]), y.reshape(-1, *y.shape[kept:])
    step = max(1, VALUES // max(1, *(prod(one.shape[1:]) for one in (images, results))))
    for begin in range(0, len(images), step):
        sums = images[begin : begin + step].astype(np.float64)
        for axis in chosen:
            if axis in counts:
                sums = np.moveaxis(np.tensordot(counts[axis], sums, ((1,), (1 + axis - kept,))), 0, 1 + axis - kept)
        results[begin : begin + step] = _of_type(x, sums)
    if outside.any():
        y[np.broadcast_to(outside, y.shape)] = _of_type(x, np.float64(extrapolation_value))
    return y


def _of_type(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values as a tensor has them."""
    if x.dtype.kind in "iu":
        limits = np.iinfo(x.dtype)
        y = np.clip(np.trunc(y), limits.min, limits.max)
    return same_type(x, y)


@operator("Upsample", decides=(1,))
def upsample(
    x: np.ndarray,
    scales: Decides | None = None,
    *,
    mode: Literal["nearest", "linear", "bilinear"] = "nearest",
    scales_given: Floats | None = None,
    height_scale: float | None = None,
    width_scale: float | None = None,
) -> np.ndarray:
    """Resize as it was before: places counted from the first value."""
    if scales is None:
        scales = np.array(scales_given or (1.0, 1.0, height_scale or 1.0, width_scale or 1.0), np.float32)
    how = "nearest" if mode == "nearest" else "linear"
    return resize(
        x, None, scales, coordinate_transformation_mode="asymmetric", mode=how, nearest_mode="floor", opset=11
    )


def resized_to(
    shape: tuple[int, ...], scales: np.ndarray | None, sizes: np.ndarray | None, axes: Ints, policy: str
) -> tuple[list[float], list[int]]:
    """Return by how much each axis grows, and to which length.

    Raises
    ------
    ValueError
        If not just one of scales and sizes is given, or the result would be huge.
    """
    lengths = [shape[axis] for axis in axes]
    if sizes is not None and sizes.size:
        wanted = list(as_ints(sizes))
        factors = [out / length for out, length in zip(wanted, lengths, strict=True)]
        if policy != "stretch":
            one = min(factors) if policy == "not_larger" else max(factors)
            factors, wanted = [one] * len(axes), [floor(length * one + 0.5) for length in lengths]
    elif scales is not None and scales.size:
        factors = [float(str(scale)) if scales.dtype == np.float32 else float(scale) for scale in scales.reshape(-1)]
        if len(factors) != len(lengths) or not all(0 < factor < 1e6 for factor in factors):
            raise ValueError(f"scales {factors} do not fit {len(lengths)} axes")
        wanted = [floor(length * factor) for length, factor in zip(lengths, factors, strict=True)]
    else:
        raise ValueError("has neither scales nor sizes")
    if len(wanted) != len(lengths) or min(wanted, default=1) < 1:
        raise ValueError(f"cannot resize {tuple(lengths)} to {tuple(wanted)}")
    whole = list(shape)
    for axis, length, out in zip(axes, lengths, wanted, strict=True):
        room((out, length))  # the weights
        whole[axis] = max(length, out)
    room(whole)
    return factors, wanted


def coordinates(length: int, out: int, factor: float, mode: str, region: tuple[float, float]) -> np.ndarray:
    """Return where each value of the result lies in the tensor."""
    at, exact = np.arange(out, dtype=np.float64), length * factor  # which the scale may not make a whole number
    if mode == "align_corners":
        return at * (length - 1) / (exact - 1) if out > 1 else np.zeros(out)
    if mode == "asymmetric":
        return at / factor
    if mode == "tf_crop_and_resize":
        first, last = region
        if out > 1:
            return first * (length - 1) + at * (last - first) * (length - 1) / (exact - 1)
        return np.full(out, 0.5 * (first + last) * (length - 1))
    if mode == "pytorch_half_pixel" and out == 1:
        return np.zeros(out)
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / factor
    places = (at + 0.5) / factor - 0.5
    if mode == "half_pixel_symmetric":  # the middle of what was cut off lies in the middle
        places += length / 2 * (1 - out / exact)
    return places


def _weights(
    places: np.ndarray, length: int, factor: float, mode: str, nearest: str, a: float, exclude: int, antialias: int
) -> np.ndarray:
    """What each value of the tensor counts in each of the result: (out, length)."""
    weights = np.zeros((len(places), length))
    rows = np.arange(len(places))
    if mode == "nearest":
        weights[rows, np.clip(_nearest(places, nearest), 0, length - 1).astype(int)] = 1
        return weights
    wide = max(1 / factor, 1.0) if antialias else 1.0
    reach = (1 if mode == "linear" else 2) * wide
    first = np.floor(places - reach).astype(int) + 1
    for tap in range(int(np.ceil(2 * reach)) + 1):
        at = first + tap
        distance = np.abs(places - at) / wide
        share = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, a)
        if exclude:  # what is outside counts for nothing, else for the last value
            share = np.where((at >= 0) & (at < length), share, 0)
        np.add.at(weights, (rows, np.clip(at, 0, length - 1)), share)
    return weights / weights.sum(1, keepdims=True)


def _nearest(places: np.ndarray, mode: str) -> np.ndarray:
    if mode == "round_prefer_floor":
        return np.ceil(places - 0.5)
    if mode == "round_prefer_ceil":
        return np.floor(places + 0.5)
    return np.floor(places) if mode == "floor" else np.ceil(places)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))

"""Operators that make one value of many, or choose among them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npmobilenet.onnx.elementwise import same_type
from npmobilenet.onnx.operator import Decides, Ints, as_ints, axes_of, axis_of, operator


def _enter(name: str, function: Callable[..., np.ndarray]) -> None:
    """Axes are an attribute at first, and an input later; none are all, or with ``noop_with_empty_axes`` none."""

    @operator(name, decides=(1,))
    def reduced(
        x: np.ndarray,
        axes: Decides | None = None,
        *,
        axes_given: Ints | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> np.ndarray:
        chosen = axes_given if axes is None else as_ints(axes)
        if not chosen:
            chosen = () if noop_with_empty_axes else tuple(range(x.ndim))
        return same_type(x, function(x, axis=axes_of(chosen, x.ndim), keepdims=bool(keepdims)))


def _sum_type(x: np.ndarray) -> type | None:
    return np.float64 if x.dtype.kind == "f" else None


def _sum(x: np.ndarray, **how: object) -> np.ndarray:
    return np.sum(x, dtype=_sum_type(x), **how)


def _log_sum_exp(x: np.ndarray, **how: object) -> np.ndarray:
    highest = x.max(axis=how["axis"], keepdims=True, initial=_least(x))
    highest = np.where(np.isfinite(highest), highest, 0)
    sums = np.log(_sum(np.exp(x - highest), **how))
    return sums + (highest if how["keepdims"] else highest.squeeze(how["axis"]))


for _name, _function in {
    "ReduceMean": lambda x, **how: np.mean(x, dtype=_sum_type(x), **how),
    "ReduceSum": _sum,
    "ReduceMax": lambda x, **how: np.max(x, initial=_least(x), **how),
    "ReduceMin": lambda x, **how: np.min(x, initial=_most(x), **how),
    "ReduceProd": lambda x, **how: np.prod(x, dtype=_sum_type(x), **how),
    "ReduceL1": lambda x, **how: _sum(np.abs(x), **how),
    "ReduceL2": lambda x, **how: np.sqrt(_sum(np.square(x.astype(np.float64)), **how)),
    "ReduceSumSquare": lambda x, **how: _sum(np.square(x), **how),
    "ReduceLogSum": lambda x, **how: np.log(_sum(x, **how)),
    "ReduceLogSumExp": _log_sum_exp,
}.items():
    _enter(_name, _function)


def _least(x: np.ndarray) -> float | int:
    return -np.inf if x.dtype.kind == "f" else False if x.dtype.kind == "b" else np.iinfo(x.dtype).min


def _most(x: np.ndarray) -> float | int:
    return np.inf if x.dtype.kind == "f" else True if x.dtype.kind == "b" else np.iinfo(x.dtype).max


def _extreme(name: str, function: Callable[..., np.ndarray]) -> None:
    @operator(name)
    def place(x: np.ndarray, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> np.ndarray:
        axis = axis_of(axis, x.ndim)
        if select_last_index:
            found = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
        else:
            found = function(x, axis=axis)
        return np.asarray(np.expand_dims(found, axis) if keepdims else found, np.int64)


_extreme("ArgMax", np.argmax)
_extreme("ArgMin", np.argmin)


@operator("TopK", decides=(1,))
def top_k(
    x: np.ndarray,
    k: Decides | None = None,
    *,
    k_given: int | None = None,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The largest or least values of an axis and where they are, the first of equal ones first."""
    axis = axis_of(axis, x.ndim)
    count = k_given if k is None else as_ints(k)[0]
    if count is None or not 0 <= count <= x.shape[axis]:
        raise ValueError(f"asks for {count} of {x.shape[axis]} values")
    if largest:
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    chosen = order.take(np.arange(count), axis).astype(np.int64)
    return np.take_along_axis(x, chosen, axis), chosen


@operator("CumSum", "like")
def cum_sum(x: np.ndarray, axis: np.ndarray, *, exclusive: int = 0, reverse: int = 0) -> np.ndarray:
    """Sums of all values up to each."""
    along = axis_of(as_ints(axis)[0], x.ndim)
    y = np.flip(x, along) if reverse else x
    sums = np.cumsum(y, axis=along, dtype=x.dtype)
    if exclusive:
        sums = sums - y
    return np.flip(sums, along) if reverse else sums


@operator("NonMaxSuppression", "dynamic")
def non_max_suppression(
    boxes: np.ndarray,
    scores: np.ndarray,
    most: np.ndarray | None = None,
    overlap: np.ndarray | None = None,
    least: np.ndarray | None = None,
    *,
    center_point_box: int = 0,
) -> np.ndarray:
    """Boxes of each image and class, without those that a better one overlaps: (image, class, box)."""
    if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.ndim != 3 or scores.shape[2] != boxes.shape[1]:
        raise ValueError(f"takes boxes (N, B, 4) and scores (N, C, B), got {boxes.shape} and {scores.shape}")
    most_boxes = 0 if most is None else as_ints(most)[0]
    limit = 0.0 if overlap is None else float(overlap.reshape(-1)[0])
    threshold = None if least is None else float(least.reshape(-1)[0])
    corners = boxes.astype(np.float64)
    if center_point_box:
        middle, half = corners[..., :2], corners[..., 2:] / 2
        corners = np.concatenate([middle - half, middle + half], axis=-1)
    low, high = np.minimum(corners[..., :2], corners[..., 2:]), np.maximum(corners[..., :2], corners[..., 2:])
    found = []
    for image in range(len(scores)):
        for kind in range(scores.shape[1]):
            order = np.argsort(-scores[image, kind], kind="stable")
            if threshold is not None:
                order = order[scores[image, kind][order] > threshold]
            kept: list[int] = []
            for box in order:
                if len(kept) >= most_boxes:
                    break
                if not kept or _overlaps(low[image], high[image], int(box), kept).max() <= limit:
                    kept.append(int(box))
            found += [(image, kind, box) for box in kept]
    return np.array(found, np.int64).reshape(-1, 3)


def _overlaps(low: np.ndarray, high: np.ndarray, box: int, others: list[int]) -> np.ndarray:
    """Intersection over union of a box with others."""
    sides = np.minimum(high[box], high[others]) - np.maximum(low[box], low[others])
    common = np.clip(sides, 0, None).prod(-1)
    areas = (high - low).prod(-1)
    union = areas[box] + areas[others] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)

"""Operators that compute nothing: values in another order or shape, parts of tensors, and constants."""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np

from npmobilenet.onnx.operator import Decides, Floats, Ints, as_ints, axes_of, axis_of, operator
from npmobilenet.onnx.room import room


@operator("Constant")
def constant(
    *,
    value: np.ndarray | None = None,
    value_float: float | None = None,
    value_floats: Floats | None = None,
    value_int: int | None = None,
    value_ints: Ints | None = None,
) -> np.ndarray:
    """A tensor in the graph itself."""
    given = [
        (value, None),
        (value_float, np.float32),
        (value_floats, np.float32),
        (value_int, np.int64),
        (value_ints, np.int64),
    ]
    found = [np.asarray(each, dtype) for each, dtype in given if each is not None]
    if len(found) != 1:
        raise ValueError(f"has {len(found)} values, and must have one")
    return found[0]


@operator("ConstantOfShape", "view", (0,))
def constant_of_shape(shape: Decides, *, value: np.ndarray | None = None) -> np.ndarray:
    """A tensor of one number."""
    value = np.zeros(1, np.float32) if value is None else value
    if value.size != 1:
        raise ValueError(f"attribute 'value' must have one value, got {value.size}")
    return np.broadcast_to(value.reshape(()), room(as_ints(shape)))


@operator("Shape", "shape")
def shape(x: np.ndarray, *, start: int = 0, end: int | None = None) -> np.ndarray:
    """The lengths of the axes."""
    return np.array(x.shape[start:end], np.int64)


@operator("Size", "shape")
def size(x: np.ndarray) -> np.ndarray:
    """How many values there are."""
    return np.array(x.size, np.int64)


@operator("Reshape", "view", (1,))
def reshape(x: np.ndarray, shape: Decides | None = None, *, allowzero: int = 0, opset: int) -> np.ndarray:
    """Another shape; 0 is the length that was there, -1 what is left."""
    lengths = as_ints(shape)
    if lengths is None:
        raise ValueError("has no shape")
    if not allowzero:
        if any(size == 0 and axis >= x.ndim for axis, size in enumerate(lengths)):
            raise ValueError(f"shape {lengths} keeps an axis that {x.shape} does not have")
        lengths = tuple(size or x.shape[axis] for axis, size in enumerate(lengths))
    return x.reshape(lengths)


@operator("Flatten", "view")
def flatten(x: np.ndarray, *, axis: int = 1) -> np.ndarray:
    """Two axes: those before ``axis``, and the rest."""
    if not -x.ndim <= axis <= x.ndim:
        raise ValueError(f"attribute 'axis' is {axis}, and there are {x.ndim} axes")
    axis += x.ndim * (axis < 0)
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@operator("Squeeze", "view", (1,))
def squeeze(x: np.ndarray, axes: Decides | None = None, *, axes_given: Ints | None = None) -> np.ndarray:
    """Without axes of length 1."""
    chosen = axes_given if axes is None else as_ints(axes)
    if chosen is None:
        chosen = tuple(axis for axis, length in enumerate(x.shape) if length == 1)
    return x.squeeze(axes_of(chosen, x.ndim))


@operator("Unsqueeze", "view", (1,))
def unsqueeze(x: np.ndarray, axes: Decides | None = None, *, axes_given: Ints | None = None) -> np.ndarray:
    """With axes of length 1 added, counted in the result."""
    chosen = axes_given if axes is None else as_ints(axes)
    if chosen is None:
        raise ValueError("has no axes")
    return np.expand_dims(x, axes_of(chosen, x.ndim + len(chosen)))


@operator("Transpose", "view")
def transpose(x: np.ndarray, *, perm: Ints | None = None) -> np.ndarray:
    """The axes in another order."""
    return x.transpose(perm)


@operator("Concat", "joined")
def concat(*xs: np.ndarray, axis: int = 1) -> np.ndarray:
    """Several tensors one after the other."""
    axis = axis_of(axis, xs[0].ndim)
    if any(x.ndim != xs[0].ndim for x in xs):
        raise ValueError(f"tensors of {len({x.ndim for x in xs})} ranks cannot follow one another")
    room((*xs[0].shape[:axis], sum(x.shape[axis] for x in xs), *xs[0].shape[axis + 1 :]))
    return np.concatenate(xs, axis)


@operator("Split", "view", (1,))
def split(
    x: np.ndarray,
    lengths: Decides | None = None,
    *,
    axis: int = 0,
    split: Ints | None = None,
    num_outputs: int | None = None,
    results: int,
) -> tuple[np.ndarray, ...]:
    """Parts of given lengths, or as many of one length as there are outputs; the last may be shorter."""
    axis = axis_of(axis, x.ndim)
    parts = split if lengths is None else as_ints(lengths)
    if parts is None:
        parts_of = -(-x.shape[axis] // (num_outputs or results))
        ends = [min(parts_of * (number + 1), x.shape[axis]) for number in range(results)]
        parts = tuple(np.diff([0, *ends]).tolist())
    if sum(parts) != x.shape[axis] or min(parts, default=0) < 0 or len(parts) != results:
        raise ValueError(f"parts of {parts} for {results} outputs do not make {x.shape[axis]}")
    return tuple(np.split(x, np.cumsum(parts)[:-1], axis))


@operator("Slice", "view", (1, 2, 3, 4))
def slice_(
    x: np.ndarray,
    starts: Decides | None = None,
    ends: Decides | None = None,
    axes: Decides | None = None,
    steps: Decides | None = None,
    *,
    starts_given: Ints | None = None,
    ends_given: Ints | None = None,
    axes_given: Ints | None = None,
) -> np.ndarray:
    """A part: attributes before opset 10, inputs since."""
    first, last = starts_given if starts is None else as_ints(starts), ends_given if ends is None else as_ints(ends)
    if first is None or last is None:
        raise ValueError("has no starts and ends")
    chosen = axes_given if axes is None else as_ints(axes)
    chosen = axes_of(tuple(range(len(first))) if chosen is None else chosen, x.ndim)
    step = (1,) * len(first) if steps is None else as_ints(steps)
    parts: list[slice] = [slice(None)] * x.ndim
    for start, end, axis, by in zip(first, last, chosen, step, strict=True):
        length = x.shape[axis]
        if by < 0:  # an end before the first value is none to NumPy
            start = min(start + length * (start < 0), length - 1)
            end = end + length * (end < 0)
            parts[axis] = slice(max(start, -1), None if end < 0 else end, by) if start >= 0 else slice(0, 0)
        else:
            parts[axis] = slice(start, end, by)
    return x[tuple(parts)]


@operator("Gather")
def gather(x: np.ndarray, indices: np.ndarray, *, axis: int = 0) -> np.ndarray:
    """The entries of an axis at some places."""
    axis = axis_of(axis, x.ndim)
    if indices.size and not (-x.shape[axis] <= indices.min() and indices.max() < x.shape[axis]):
        raise ValueError(f"an index is outside of {x.shape[axis]}")
    room((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
    return x.take(indices, axis)


@operator("GatherElements")
def gather_elements(x: np.ndarray, indices: np.ndarray, *, axis: int = 0) -> np.ndarray:
    """Single values at some places of an axis."""
    axis = axis_of(axis, x.ndim)
    indices = np.where(indices < 0, indices + x.shape[axis], indices)
    parts = tuple(slice(0, length) if at != axis else slice(None) for at, length in enumerate(indices.shape))
    return np.take_along_axis(x[parts], indices, axis)


@operator("GatherND")
def gather_nd(x: np.ndarray, indices: np.ndarray, *, batch_dims: int = 0) -> np.ndarray:
    """Parts of a tensor, each at a place of its own."""
    batch = indices.shape[:batch_dims]
    room((*indices.shape[:-1], *x.shape[batch_dims + indices.shape[-1] :]))
    flat_x, flat = x.reshape(-1, *x.shape[batch_dims:]), indices.reshape(-1, *indices.shape[batch_dims:])
    parts = [one[tuple(np.moveaxis(where, -1, 0))] for one, where in zip(flat_x, flat, strict=True)]
    return np.stack(parts).reshape(*batch, *parts[0].shape)


@operator("Expand", "view", (1,))
def expand(x: np.ndarray, shape: Decides) -> np.ndarray:
    """The shape to which it broadcasts with another."""
    return np.broadcast_to(x, room(np.broadcast_shapes(x.shape, as_ints(shape))))


@operator("Tile", decides=(1, 2))
def tile(x: np.ndarray, repeats: Decides, axis: Decides | None = None) -> np.ndarray:
    """Repeated along every axis; before opset 6 along one."""
    times = as_ints(repeats)
    if axis is not None:
        times = tuple(times[0] if at == as_ints(axis)[0] else 1 for at in range(x.ndim))
    if len(times) != x.ndim:
        raise ValueError(f"has {len(times)} repeats for {x.ndim} axes")
    room(tuple(length * many for length, many in zip(x.shape, times, strict=True)))
    return np.tile(x, times)


@operator("Range", decides=(0, 1, 2))
def range_(start: Decides, limit: Decides, delta: Decides) -> np.ndarray:
    """Numbers at one distance."""
    first, last, step = (each.reshape(()).item() for each in (start, limit, delta))
    if step == 0 or not np.isfinite((last - first) / step):
        raise ValueError(f"asks for the numbers from {first} to {last} by {step}")
    room((max(int((last - first) / step), 0),))
    return np.arange(first, last, step).astype(start.dtype)


@operator("Pad", decides=(1, 3))
def pad(
    x: np.ndarray,
    pads: Decides | None = None,
    value: np.ndarray | None = None,
    axes: Decides | None = None,
    *,
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant",
    pads_given: Ints | None = None,
    value_given: float = 0.0,
) -> np.ndarray:
    """Something around it, or if negative less of it: attributes before opset 11, inputs since."""
    numbers = pads_given if pads is None else as_ints(pads)
    chosen = axes_of(tuple(range(x.ndim)) if axes is None else as_ints(axes), x.ndim)
    if numbers is None or len(numbers) != 2 * len(chosen):
        raise ValueError(f"pads must be {2 * len(chosen)} integers, got {numbers}")
    edges = [(0, 0)] * x.ndim
    for axis, before, after in zip(chosen, numbers[: len(chosen)], numbers[len(chosen) :], strict=True):
        edges[axis] = before, after
    cut = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, edges, strict=True))
    added = [(max(a, 0), max(b, 0)) for a, b in edges]
    room(tuple(n + a + b for n, (a, b) in zip(x.shape, added, strict=True)))
    if mode != "constant":
        return np.pad(x[cut], added, mode=mode)
    filling = value_given if value is None else value.reshape(()).item()
    return np.pad(x[cut], added, constant_values=np.asarray(filling).astype(x.dtype))


@operator("DepthToSpace", "view")
def depth_to_space(x: np.ndarray, *, blocksize: int, mode: Literal["DCR", "CRD"] = "DCR") -> np.ndarray:
    """Blocks of channels become squares of pixels."""
    n, c, h, w = x.shape
    b = blocksize
    if b < 1 or c % (b * b):
        raise ValueError(f"attribute 'blocksize' is {b}, and there are {c} channels")
    if mode == "DCR":
        return x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, -1, h * b, w * b)
    return x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, h * b, w * b)


@operator("SpaceToDepth", "view")
def space_to_depth(x: np.ndarray, *, blocksize: int, mode: Literal["DCR", "CRD"] = "DCR") -> np.ndarray:
    """Squares of pixels become blocks of channels."""
    n, c, h, w = x.shape
    b = blocksize
    if b < 1 or h % b or w % b:
        raise ValueError(f"attribute 'blocksize' is {b}, and the image {h}x{w}")
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.transpose(order).reshape(n, -1, h // b, w // b)


@operator("OneHot", decides=(1,))
def one_hot(indices: np.ndarray, depth: Decides, values: np.ndarray, *, axis: int = -1) -> np.ndarray:
    """One of two numbers at each place: the second where the index is."""
    (count,) = as_ints(depth.astype(np.int64))
    if values.shape != (2,):
        raise ValueError(f"takes two values, got {values.shape}")
    room((*indices.shape, count))
    axis = axis_of(axis, indices.ndim + 1)
    wrapped = np.expand_dims(np.where(indices < 0, indices + count, indices), axis)
    places = np.arange(count).reshape([-1 if at == axis else 1 for at in range(indices.ndim + 1)])
    return np.where(wrapped == places, values[1], values[0])


@operator("NonZero", "dynamic")
def non_zero(x: np.ndarray) -> np.ndarray:
    """Where values are not 0."""
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)

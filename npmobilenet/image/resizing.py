"""Resampling with the very bits of Pillow's."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from npmobilenet.image.arrays import rgb_array

Box = tuple[float, float, float, float]
Window = tuple[int, int, int, int]


class Filter(NamedTuple):
    """A kernel of ``Resample.c``.

    Attributes
    ----------
    support : float
        Half its width, in pixels of the smaller image.
    weight : callable
        Its value at such distances from the centre, unlimited to the support.
    """

    support: float
    weight: Callable[[np.ndarray], np.ndarray]


def _box(x: np.ndarray) -> np.ndarray:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _hamming(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    window = np.float64(np.float32(0.54)) + np.float64(np.float32(0.46)) * _by_libm(math.cos, x * math.pi)
    return np.where(x < 1.0, _sinc(x) * window, 0.0)


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: np.ndarray) -> np.ndarray:
    x = x * math.pi
    return np.where(x == 0.0, 1.0, _by_libm(math.sin, x) / np.where(x == 0.0, 1.0, x))


def _by_libm(function: Callable[[float], float], x: np.ndarray) -> np.ndarray:
    """As C computes it: NumPy's own sine has another last bit on some CPUs."""
    return np.array([function(value) for value in x.ravel().tolist()]).reshape(x.shape)


NEAREST = "nearest"
FILTERS: dict[str, Filter | None] = {
    "bilinear": Filter(1.0, _triangle),
    "bicubic": Filter(2.0, _cubic),
    NEAREST: None,
    "lanczos": Filter(3.0, _lanczos),
    "box": Filter(0.5, _box),
    "hamming": Filter(1.0, _hamming),
}
"""By Pillow's names; "nearest" is not a sum of pixels."""

MOST_ADDED_POSITIONS = 1 << 24
WEIGHTS_KEPT = 32  # sides of photographs, of which many are the same


def resize(image: np.ndarray, size: tuple[int, int], box: Box | None = None, filter: str = "bilinear") -> np.ndarray:
    """Resize an RGB image with the very bits of ``PIL.Image.Image.resize``.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    size : (height, width)
    box : (left, upper, right, lower), optional
        The part of the image that is scaled to ``size``; edges may be fractions of a pixel.
    filter : {"bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"}
        All but "nearest" are antialiased.

    Returns
    -------
    uint8 (height, width, 3)

    Notes
    -----
    The algorithm is that of Pillow's ``Resample.c``: a filter that widens as the image shrinks, with weights in fixed
    point; first along x, then along y, 8 bits in between. Where the height loses more than twice as many pixels as the
    width, y comes first: so does Pillow since version 13 (before, x always came first; a few values differ by 1).
    "nearest" is the affine transform of ``Geometry.c``: the pixel in which the centre of the output's pixel lies.
    """
    image = rgb_array(image)
    height, width = image.shape[:2]
    if not _is_size(tuple(size)):
        raise ValueError(f"size must be (height, width), two positive integers, got {size!r}")
    if filter not in FILTERS:
        raise ValueError(f"filter must be one of {', '.join(FILTERS)}, got {filter!r}")
    left, upper, right, lower = (0, 0, width, height) if box is None else box
    if not (0 <= left < right <= width and 0 <= upper < lower <= height):
        whole = (0, 0, width, height)
        raise ValueError(f"box must be (left, upper, right, lower) within {whole}, not empty, got {box!r}")
    return resized_window(image, size, (left, upper, right, lower), (0, 0, *size), filter)


def resized_window(
    image: np.ndarray, size: tuple[int, int], box: Box, window: Window, filter: str = "bilinear"
) -> np.ndarray:
    """Return rows ``top:bottom``, columns ``start:stop`` of the resized image, and compute no others."""
    height, width = image.shape[:2]
    left, upper, right, lower = box
    top, start, bottom, stop = window
    if filter == NEAREST:
        rows = _nearest(height, upper, lower, size[0], top, bottom)
        return image[rows[:, None], _nearest(width, left, right, size[1], start, stop)]
    kernel = FILTERS[filter]
    columns = _weights(kernel, width, left, right, size[1], start, stop)
    first, weights = _weights(kernel, height, upper, lower, size[0], top, bottom)
    if height > size[0] and height - size[0] > 2 * (width - size[1]):
        return _along_x(_along_y(image, first, weights), *columns)
    used = image[first[0] : first[-1] + weights.shape[1]]
    return _along_y(_along_x(used, *columns), first - first[0], weights)


def _along_x(image: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from npmobilenet.image.loops import run  # loads LLVM, which takes a while

    out = np.empty((image.shape[0], len(first), 3), np.uint8)
    run("horizontal", _with_gap(image), first, weights, out)
    return out


def _with_gap(image: np.ndarray) -> np.ndarray:
    """The image as a C-contiguous array of three channels; or of four, one of them a gap, where it is lent so."""
    height, width = image.shape[:2]
    if image.strides == (4 * width, 4, 1):
        return as_strided(image, (height, width, 4), writeable=False)
    return np.ascontiguousarray(image)


def _along_y(image: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from npmobilenet.image.loops import run

    rows = np.ascontiguousarray(image).reshape(len(image), -1)
    out = np.empty((len(first), rows.shape[1]), np.uint8)
    run("vertical", rows, first, weights, np.empty(rows.shape[1], np.int32), out)
    return out.reshape(len(first), *image.shape[1:])


@lru_cache(WEIGHTS_KEPT)
def _weights(
    kernel: Filter, length: int, low: float, high: float, size: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what outputs ``start:stop`` of ``size`` are made of, along one axis; not to be written to.

    Parameters
    ----------
    kernel : Filter
    length : int
        Input pixels.
    low, high : float
        The part of them that is scaled to ``size`` pixels.

    Returns
    -------
    first : int64 (stop - start,)
        First input pixel of each output.
    weights : int32 (stop - start, taps)
        Fixed-point weights of ``first`` and its successors, all of them within the input.
    """
    from npmobilenet.image.loops import PRECISION_BITS

    low, scale = _scale(low, high, size)
    widened = max(scale, 1.0)
    support = kernel.support * widened
    centre = low + (np.arange(start, stop) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), length)
    taps = (last - first).max()
    shifted = np.minimum(first, length - taps)  # every row has as many taps: at the end they begin earlier
    pixel = shifted[:, None] + np.arange(taps)
    weights = kernel.weight((pixel - centre[:, None] + 0.5) * (1.0 / widened))
    weights[(pixel < first[:, None]) | (pixel >= last[:, None])] = 0.0
    # `cumsum` adds one by one as Pillow does; `sum` adds pairwise, with another last bit.
    total = weights.cumsum(axis=1)[:, -1:]
    weights /= np.where(total == 0.0, 1.0, total)
    return shifted, (np.copysign(0.5, weights) + weights * (1 << PRECISION_BITS)).astype(np.int32)


def _nearest(length: int, low: float, high: float, size: int, start: int, stop: int) -> np.ndarray:
    """Return the input pixel of each of the outputs ``start:stop`` of ``size``, along one axis."""
    low, scale = _scale(low, high, size)
    if stop <= MOST_ADDED_POSITIONS:
        steps = np.full(stop, scale)
        steps[0] = low + scale * 0.5
        position = steps.cumsum()[start:]  # added one by one, as Pillow does
    else:  # of so long a side Pillow has no memory for all of it, nor we
        position = low + (np.arange(start, stop) + 0.5) * scale
    return np.minimum(position.astype(np.int64), length - 1)


def _scale(low: float, high: float, size: int) -> tuple[float, float]:
    """Return where the part begins and how many input pixels an output has, as Pillow keeps its box: in float32."""
    low, high = np.float32(low), np.float32(high)
    return float(low), float(high - low) / size


def _is_size(size: tuple) -> bool:
    """Whether these are two positive integers; without the limits of what metadata may ask for."""
    return len(size) == 2 and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in size)

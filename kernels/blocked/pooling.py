"""Means and maxima of windows, and of the whole image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Geometry, Size
from npmobilenet.kernels.geometry import PaddingSpec, Pads, Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

POOL = Fields("x x_plane out out_plane pixels reciprocal")  # at `reciprocal` is 1 / pixels
GLOBAL_MAX = Fields("x x_row x_plane out rows columns")
# `row_taps` and `column_taps` have for each row and column of the output where its window begins inside the image
# (bytes from the first row, or column) and how many taps of it lie there (`TAPS`). From column `whole` on, and before
# `cut`, all of them do; such windows are `stride_column` bytes apart. A sum is multiplied by what stands for its row
# at `row_factors` and for its column at `column_factors`. A work item is one row of one channel block.
WINDOWS = Fields(
    "x x_row x_plane out out_row out_plane rows columns row_taps column_taps whole cut stride_column "
    "row_factors column_factors"
)
TAPS = Fields("first count")


def call(target: Target, x: Tensor, out: Tensor) -> Call:
    """Compute ``out``, the means of an image without frame: a vector, or an image of one pixel in its frame."""
    kernel = library.common(target).address("pool")
    return POOL.call(kernel, x.blocks, x=x, out=out.inner, pixels=x.pixels, reciprocal=reciprocal(x))


def global_max(target: Target, x: Tensor, out: Tensor) -> Call:
    """Compute the vector ``out``, the maxima of an image, which may have a frame."""
    kernel = library.windows(target).address("global_max_pool")
    return GLOBAL_MAX.call(kernel, x.blocks, x=x.inner, out=out, rows=x.height, columns=x.width)


def maxima(target: Target, x: Tensor, out: Tensor, kernel: Pair, stride: Pair, pads: Pads) -> Call:
    """Compute ``out``, the maxima of windows that end where the image does; both may have a frame."""
    return _slide("max_pool2d", target, x, out, kernel, stride, pads)


def means(
    target: Target, x: Tensor, out: Tensor, kernel: Pair, stride: Pair, pads: Pads, count_include_pad: bool = True
) -> Call:
    """Compute ``out``, the means of windows, in which the padding's zeros count or not; both may have a frame."""
    return _slide("average_pool2d", target, x, out, kernel, stride, pads, count_include_pad)


def _slide(
    name: str,
    target: Target,
    x: Tensor,
    out: Tensor,
    kernel: Pair,
    stride: Pair,
    pads: Pads,
    count_include_pad: bool = True,
) -> Call:
    checks.pool_pads(pads, kernel)
    axes = zip((x.height, x.width), (out.height, out.width), kernel, stride, pads, strict=True)
    (rows, row_counts), (columns, column_counts) = (_inside(*axis) for axis in axes)
    whole = np.flatnonzero(column_counts == kernel[1])
    factors = [
        np.full(len(counts), 1 / taps, np.float32) if count_include_pad else (1 / counts).astype(np.float32)
        for counts, taps in zip((row_counts, column_counts), kernel, strict=True)
    ]
    return WINDOWS.call(
        library.windows(target).address(name), out.blocks * out.height,
        x=x.inner, out=out.inner, rows=out.height, columns=out.width,
        row_taps=np.stack([rows * x.row_bytes, row_counts], 1),
        column_taps=np.stack([columns * x.pixel_bytes, column_counts], 1),
        whole=whole[0] if len(whole) else out.width, cut=whole[-1] + 1 if len(whole) else out.width,
        stride_column=stride[1] * x.pixel_bytes, row_factors=factors[0], column_factors=factors[1],
    )  # fmt: skip


def _inside(size: int, positions: int, kernel: int, stride: int, pads: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The first pixel of the image that each window meets along one axis, and how many."""
    starts = np.arange(positions, dtype=np.int64) * stride - pads[0]
    firsts = np.clip(starts, 0, size)
    return firsts, np.clip(starts + kernel, 0, size) - firsts


def reciprocal(x: Tensor) -> np.ndarray:
    """What a sum over all pixels is multiplied by."""
    return np.array([1 / x.pixels], np.float32)


@prepared("global_average_pool")
def global_average_pool(x: np.ndarray, *, keepdims: bool = False, threads: int = 1) -> Images:
    """Mean over all pixels, one vector of channels at a time: (N, H, W, C) -> (N, C), or (N, 1, 1, C)."""
    images = Images(checks.global_average_pool(x, keepdims=keepdims).shape, threads)
    for image in images.inputs(x):
        images.add(call(images.target, image, images.output()))
    return images


@prepared("global_max_pool")
def global_max_pool(x: np.ndarray, *, threads: int = 1) -> Images:
    """Maximum of all pixels, one vector of channels at a time: (N, H, W, C) -> (N, C)."""
    images = Images(checks.global_max_pool(x).shape, threads)
    for image in images.inputs(x):
        images.add(global_max(images.target, image, images.output()))
    return images


@prepared("max_pool2d")
def max_pool2d(
    x: np.ndarray, kernel_size: Size, *, stride: Size | None = None, padding: PaddingSpec = 0, threads: int = 1
) -> Images:
    """Maximum of every window, one vector of channels at a time: (N, H, W, C) -> (N, P, Q, C)."""
    g = checks.max_pool2d(x, kernel_size, stride=stride, padding=padding)
    return _windows(x, g, threads, maxima)


@prepared("average_pool2d")
def average_pool2d(
    x: np.ndarray,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: PaddingSpec = 0,
    count_include_pad: bool = True,
    threads: int = 1,
) -> Images:
    """Mean of every window, one vector of channels at a time: (N, H, W, C) -> (N, P, Q, C)."""
    g = checks.average_pool2d(x, kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad)
    return _windows(x, g, threads, means, count_include_pad=count_include_pad)


def _windows(x: np.ndarray, g: Geometry, threads: int, call: Callable[..., Call], **options: bool) -> Images:
    images = Images(g.shape, threads)
    for image in images.inputs(x):
        images.add(call(images.target, image, images.output(), g.kernel, g.stride, g.pads, **options))
    return images

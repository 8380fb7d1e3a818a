"""The first launch of a plan: images as the caller has them become the tensor that the kernels read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

from npmobilenet.cuda_arrays import DeviceArray
from npmobilenet.graph import Shape
from npmobilenet.kernels.cuda.device import cuda, kernel

THREADS = 256


def _copy_pixels(x, images, channels, rows, columns, height, width, pixels, depth, out):  # noqa: ANN001
    """Copy pixels of ``x``, at such distances between neighbours, to (N, H, W, C); a thread for each pixel."""
    pixel = cuda.grid(1)
    if pixel < pixels:
        row = pixel // width
        start = row // height * images + row % height * rows + pixel % width * columns
        for channel in range(depth):
            out[pixel * depth + channel] = x[start + channel * channels]


@cache
def _kernel() -> Any:
    return kernel(_copy_pixels)


def channels_last(shape: Shape) -> Callable[[Any, DeviceArray, Any], None]:
    """Return the launch that copies a batch to a flat array, as (N, H, W, C) of this shape.

    It takes the stream, the batch (N, C, H, W), of any float type and strides, and the array.
    """
    pixels, (_, height, width, depth) = prod(shape[:3]), shape
    grid = -(-pixels // THREADS)

    def launch(stream: Any, x: DeviceArray, out: Any) -> None:
        distances = (stride // x.dtype.itemsize for stride in x.strides)
        _kernel()[grid, THREADS, stream](x.flat, *distances, height, width, pixels, depth, out)

    return launch

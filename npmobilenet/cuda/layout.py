"""The first launch of a plan: images as the caller has them become the tensor that the kernels read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import float32

from npmobilenet.cuda.arrays import DeviceArray
from npmobilenet.graph import Shape
from npmobilenet.kernels.cuda.device import SIMULATED, cuda, kernel
from npmobilenet.kernels.cuda.registers import quotient
from npmobilenet.kernels.sharing import once

THREADS = 8 if SIMULATED else 256  # the simulator runs each as a thread of Python


def _copy_pixels(x, images, channels, rows, columns, width, pixels, depth, out):  # noqa: ANN001
    """Copy ``x``, at such distances between neighbours, to (N, H, W, C): a thread a pixel, a row of blocks an image."""
    pixel, image = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
    if pixel < pixels:
        row = quotient(pixel, width)
        start = image * images + row * rows + (pixel - row * width) * columns
        place = (image * pixels + pixel) * depth
        for channel in range(depth):
            out[place + channel] = float32(x[start + channel * channels])


@once
def _kernel() -> Any:
    return kernel(_copy_pixels)


def channels_last(shape: Shape) -> Callable[[Any, DeviceArray, Any], None]:
    """Return the launch that copies a batch to a flat array, as (N, H, W, C) of this shape.

    It takes the stream, the batch (N, C, H, W), of any float type and strides, and the array.
    """
    n, height, width, depth = shape
    pixels = height * width
    grid = (-(-pixels // THREADS), n)

    def launch(stream: Any, x: DeviceArray, out: Any) -> None:
        distances = (stride // x.dtype.itemsize for stride in x.strides)
        _kernel()[grid, THREADS, stream](x.flat, *distances, width, pixels, depth, out)

    return launch

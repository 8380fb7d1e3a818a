"""Functions of every value: of the value alone, with parameters, or with the value of another tensor in its place."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels, tail_mask
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# Distances in bytes. `y` is what the function takes beside x: a distance of 0 repeats it. `masks` has the bits that
# every result keeps, and those of the last of `blocks`, whose lanes beyond the channels become zeros. A work item is
# one row of one block.
ELEMENTWISE = Fields("x x_row x_plane y y_pixel y_row y_plane out out_row out_plane blocks rows columns masks")
OPERATIONS = (
    *(*checks.ACTIVATIONS[1:], "tanh", "leaky_relu", "elu"),
    *("prelu", "batch_norm", "add", "broadcast_add", "multiply"),
)
KERNELS = {"leaky_relu": "prelu", "broadcast_add": "add"}  # of operations that are computed as another
RUN = 1024  # pixels up to which an image without frame is one row: a shorter row is not worth its beginning


@dataclass(frozen=True)
class Elementwise(Packed):
    """A function, and its parameters as it reads them.

    Attributes
    ----------
    kernel : str
    values : float32 array
        Empty if it has none.
    pixel_bytes, plane_bytes : int
        How far the parameters of a pixel are from those of the next, and those of a block from those of the next.
    """

    target: Target
    kernel: str
    values: np.ndarray
    pixel_bytes: int = 0
    plane_bytes: int = 0


def pack(
    target: Target,
    operation: str,
    *,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    mean: np.ndarray | None = None,
    variance: np.ndarray | None = None,
    eps: float = 1e-5,
    slope: float = 0.01,
    alpha: float = 1.0,
) -> Elementwise:
    """Pack the parameters of one of `OPERATIONS`, or of "copy", as kernels take them."""
    kernel, pixel, plane, values = KERNELS.get(operation, operation), 0, 0, np.empty(0, np.float32)
    if operation in ("leaky_relu", "elu"):
        values = np.full(target.lanes, slope if operation == "leaky_relu" else alpha, np.float32)
    elif operation == "batch_norm":
        scale = weight / np.sqrt(np.float64(variance) + eps)
        values, plane = pack_channels(target, np.stack([mean, scale, bias])), 3 * target.bytes
    elif operation == "prelu" and weight.shape == (1,):
        values = np.full(target.lanes, weight[0], np.float32)
    elif operation == "prelu":
        pixels, pixel = prod(weight.shape[:-1]), target.bytes if weight.ndim > 1 else 0
        values, plane = pack_channels(target, weight.reshape(pixels, -1)), pixels * target.bytes
    return Elementwise(target, kernel, values, pixel, plane)


def call(weights: Elementwise, x: Tensor, out: Tensor, y: Tensor | None = None) -> Call:
    """Compute ``out``, which may be ``x`` or ``y``; all may have frames, and ``y`` length 1 where ``x`` has more."""
    kernel = weights.kernel
    if y is None:
        address, plane, pixel = weights.values, weights.plane_bytes, weights.pixel_bytes
        row = pixel * x.width
    else:
        address, kernel = y.inner.address, kernel + "_repeated" * (y.channels < x.channels)
        plane = y.plane_bytes * (y.channels == x.channels)
        row, pixel = y.row_bytes * (y.height == x.height), y.pixel_bytes * (y.width == x.width)
    rows, columns = x.height, x.width
    if x.pixels <= RUN and not x.padded and not out.padded and row == columns * pixel:
        rows, columns = 1, x.pixels
    return ELEMENTWISE.call(
        library.between(weights.target, "elementwise").address(kernel), x.blocks * rows,
        x=x.inner, y=address, y_pixel=pixel, y_row=row, y_plane=plane, out=out.inner,
        blocks=x.blocks, rows=rows, columns=columns, masks=tail_mask(weights.target, x.channels), keep=weights,
    )  # fmt: skip


# Single operations --------------------------------------------------------------------------------------------------


def _images(operation: str, x: np.ndarray, threads: int, y: np.ndarray | None = None, **parameters: Any) -> Images:
    images = Images(x.shape, threads)
    packed, inputs = pack(images.target, operation, **parameters), images.inputs(x)
    others = [None] * len(inputs) if y is None else images.inputs(y)
    for image, other in zip(inputs, others, strict=True):
        images.add(call(packed, image, images.output(), other))
    return images


@prepared("relu")
def relu(x: np.ndarray, *, threads: int = 1) -> Images:
    """``max(x, 0)`` in vectors, any shape."""
    checks.relu(x)
    return _images("relu", x, threads)


@prepared("relu6")
def relu6(x: np.ndarray, *, threads: int = 1) -> Images:
    """``min(max(x, 0), 6)`` in vectors, any shape."""
    checks.relu6(x)
    return _images("relu6", x, threads)


@prepared("hard_swish")
def hard_swish(x: np.ndarray, *, threads: int = 1) -> Images:
    """``x * relu6(x + 3) / 6`` in vectors, any shape."""
    checks.hard_swish(x)
    return _images("hard_swish", x, threads)


@prepared("swish")
def swish(x: np.ndarray, *, threads: int = 1) -> Images:
    """``x * sigmoid(x)`` in vectors, any shape."""
    checks.swish(x)
    return _images("swish", x, threads)


@prepared("sigmoid")
def sigmoid(x: np.ndarray, *, threads: int = 1) -> Images:
    """``1 / (1 + exp(-x))`` in vectors, any shape."""
    checks.sigmoid(x)
    return _images("sigmoid", x, threads)


@prepared("hard_sigmoid")
def hard_sigmoid(x: np.ndarray, *, threads: int = 1) -> Images:
    """``relu6(x + 3) / 6`` in vectors, any shape."""
    checks.hard_sigmoid(x)
    return _images("hard_sigmoid", x, threads)


@prepared("tanh")
def tanh(x: np.ndarray, *, threads: int = 1) -> Images:
    """Hyperbolic tangent in vectors, any shape."""
    checks.tanh(x)
    return _images("tanh", x, threads)


@prepared("leaky_relu")
def leaky_relu(x: np.ndarray, *, slope: float = 0.01, threads: int = 1) -> Images:
    """``x`` where it is positive, ``slope * x`` elsewhere, in vectors, any shape."""
    checks.leaky_relu(x, slope=slope)
    return _images("leaky_relu", x, threads, slope=slope)


@prepared("elu")
def elu(x: np.ndarray, *, alpha: float = 1.0, threads: int = 1) -> Images:
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere, in vectors, any shape."""
    checks.elu(x, alpha=alpha)
    return _images("elu", x, threads, alpha=alpha)


@prepared("prelu")
def prelu(x: np.ndarray, weight: np.ndarray, *, threads: int = 1) -> Images:
    """``x`` where it is positive, ``weight * x`` elsewhere, in vectors: (N, ..., C) -> (N, ..., C)."""
    checks.prelu(x, weight)
    return _images("prelu", x, threads, weight=checks.float32(weight))


@prepared("batch_norm")
def batch_norm(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    *,
    eps: float = 1e-5,
    threads: int = 1,
) -> Images:
    """Batch normalisation with stored statistics, a vector of channels at a time: (N, H, W, C) -> (N, H, W, C)."""
    checks.batch_norm(x, weight, bias, mean, variance, eps=eps)
    statistics = {"weight": weight, "bias": bias, "mean": mean, "variance": variance}
    return _images("batch_norm", x, threads, eps=eps, **statistics)


@prepared("add")
def add(x: np.ndarray, y: np.ndarray, *, activation: str = "none", threads: int = 1) -> Images:
    """Sum of two arrays of one shape in vectors, and after it an activation in place."""
    checks.add(x, y, activation=activation)
    images = _images("add", x, threads, y)
    if activation != "none":
        function = pack(images.target, activation)
        images.add(*(call(function, out, out) for out in images.outputs))
    return images


@prepared("broadcast_add")
def broadcast_add(x: np.ndarray, y: np.ndarray, *, threads: int = 1) -> Images:
    """Sum in which ``y`` stands for an array of the shape of ``x``: (N, H, W, C) + (N, C) -> (N, H, W, C)."""
    checks.broadcast_add(x, y)
    return _images("broadcast_add", x, threads, y)


@prepared("multiply")
def multiply(x: np.ndarray, y: np.ndarray, *, threads: int = 1) -> Images:
    """Product in which ``y`` is as in :func:`broadcast_add`: (N, H, W, C) * (N, C) -> (N, H, W, C)."""
    checks.multiply(x, y)
    return _images("multiply", x, threads, y)

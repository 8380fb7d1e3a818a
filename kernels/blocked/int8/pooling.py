"""Global average of an 8-bit tensor, in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

POOL = Fields("x x_plane out pixels start factor")  # a sum begins at `start`, and is multiplied by `factor`


@dataclass(frozen=True)
class Pool(Packed):
    """What each channel's bytes stand for."""

    ARGUMENTS = ()

    target: Target
    zero_point: np.ndarray
    scale: np.ndarray


def pack(target: Target, scale: np.ndarray, zero_point: int | np.ndarray = 0) -> Pool:
    """Pack the scale and the zero point of each channel."""
    points = np.broadcast_to(zero_point, np.shape(scale)).astype(np.int32)
    return Pool(target, pack_channels(target, points), pack_channels(target, np.float32(scale)))


def call(x: Tensor, out: Tensor, weights: Pool) -> Call:
    """Compute the vector ``out``, the means of an image without frame."""
    kernel = library.int8(weights.target).address("int8_pool")
    start = -(weights.zero_point.astype(np.int64) * x.pixels).astype(np.int32)
    factor = weights.scale / np.float32(x.pixels)
    return POOL.call(kernel, x.blocks, x=x, out=out, pixels=x.pixels, start=start, factor=factor)


@prepared("global_average_pool_int8")
def global_average_pool_int8(
    x: np.ndarray, scale: np.ndarray, *, zero_point: int | np.ndarray = 0, threads: int = 1
) -> Images:
    """Mean over all pixels, four at a time: uint8 (N, H, W, C) -> float32 (N, C)."""
    images = Images(checks.global_average_pool_int8(x, scale, zero_point=zero_point).shape, threads)
    packed = pack(images.target, scale, zero_point)
    for image in images.inputs(x):
        images.add(call(image, images.output(), packed))
    return images

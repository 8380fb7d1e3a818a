"""Global average pooling."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

POOL = Fields("x x_plane out out_plane pixels reciprocal")  # at `reciprocal` is 1 / pixels


def call(target: Target, x: Tensor, out: Tensor) -> Call:
    """Compute ``out``, the means of an image without frame: a vector, or an image of one pixel in its frame."""
    kernel = library.common(target).address("pool")
    return POOL.call(kernel, x.blocks, x=x, out=out.inner, pixels=x.pixels, reciprocal=reciprocal(x))


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

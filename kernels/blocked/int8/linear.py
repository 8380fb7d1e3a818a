"""The classifier: a vector is quantised as an image of one pixel, and multiplied by the pointwise kernel."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8 import entry, pointwise
from npmobilenet.kernels.blocked.int8.ending import Ending
from npmobilenet.kernels.prepared import prepared


@prepared("linear_int8")
def linear_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int = 128,
    activation: str = "none",
    threads: int = 1,
) -> Images:
    """Fully connected layer of integers: float32 (N, C_in) @ int8 (C_in, C_out) -> float32 (N, C_out)."""
    g = checks.linear_int8(x, weight, scale, bias, zero_point=zero_point, activation=activation)
    images = Images(g.shape, threads)
    packed = pointwise.pack(images.target, weight, scale, bias, zero_point, ending=Ending(activation))
    for row, each in zip(*entry.pixels(images, images.inputs(x), zero_point), strict=True):
        images.add(pointwise.call(row, images.output(), packed, pixel_scale=each))
    return images

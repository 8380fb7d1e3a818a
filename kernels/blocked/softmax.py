"""Softmax over the channels of each pixel."""

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

# Distances in bytes. What stands at `beyond` is added to the last of `blocks`: 0 to its channels, minus infinity to the
# lanes that are none, so that these are never the largest and become 0. A work item is one row.
SOFTMAX = Fields("x x_row x_plane out out_row out_plane blocks columns beyond")


def call(target: Target, x: Tensor, out: Tensor) -> Call:
    """Compute ``out``, which may be ``x``; both may have frames."""
    channels = np.arange((x.blocks - 1) * target.lanes, x.blocks * target.lanes)
    beyond = np.where(channels < x.channels, 0, -np.inf).astype(np.float32)
    return SOFTMAX.call(
        library.between(target, "softmax").address("softmax"), x.height,
        x=x.inner, out=out.inner, blocks=x.blocks, columns=x.width, beyond=beyond,
    )  # fmt: skip


@prepared("softmax")
def softmax(x: np.ndarray, *, threads: int = 1) -> Images:
    """``exp(x) / sum of exp(x)`` over the channels of each pixel, in vectors: (N, ..., C) -> (N, ..., C)."""
    images = Images(checks.softmax(x).shape, threads)
    for image in images.inputs(x):
        images.add(call(images.target, image, images.output()))
    return images

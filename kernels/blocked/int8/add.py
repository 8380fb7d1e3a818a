"""Sum of two 8-bit tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8.layout import BYTE
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# A vector for each block at `scale`, `other_scale` and `bias`; an item is a row of a block, the first `rows` those of
# the first block.
ADD = Fields("x x_row x_plane y y_row y_plane out out_row out_plane rows columns scale other_scale bias")


@dataclass(frozen=True)
class Add(Packed):
    """What a step of each is in those of the result."""

    ARGUMENTS = ("scale", "other_scale", "bias")

    target: Target
    scale: np.ndarray
    other_scale: np.ndarray
    bias: np.ndarray


def pack(target: Target, scale: np.ndarray, other_scale: np.ndarray, bias: np.ndarray) -> Add:
    """Pack float32 numbers of each channel."""
    return Add(target, *(pack_channels(target, np.float32(array)) for array in (scale, other_scale, bias)))


def call(x: Tensor, y: Tensor, out: Tensor, weights: Add) -> Call:
    """Compute ``out``; all may have frames."""
    return ADD.call(
        library.int8_add(weights.target).address("int8_add"), out.blocks * out.height, keep=weights,
        x=x.inner, y=y.inner, out=out.inner, rows=out.height, columns=out.width, **weights.arguments(),
    )  # fmt: skip


@prepared("add_int8")
def add_int8(
    x: np.ndarray, y: np.ndarray, scale: np.ndarray, other_scale: np.ndarray, bias: np.ndarray, *, threads: int = 1
) -> Images:
    """Sum in the steps of the result, four pixels at once: uint8 (N, ..., C), twice -> uint8 (N, ..., C)."""
    images = Images(checks.add_int8(x, y, scale, other_scale, bias).shape, threads, BYTE)
    packed = pack(images.target, scale, other_scale, bias)
    for one, other in zip(images.inputs(x), images.inputs(y), strict=True):
        images.add(call(one, other, images.output(), packed))
    return images

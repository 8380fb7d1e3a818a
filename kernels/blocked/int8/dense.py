"""Dense convolution of an 8-bit tensor: a pointwise one of the pixels under its window.

These are written as more channels, a strip of rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8 import ending as endings
from npmobilenet.kernels.blocked.int8 import pointwise
from npmobilenet.kernels.blocked.int8.depthwise import framed
from npmobilenet.kernels.blocked.int8.ending import NOTHING, Ending
from npmobilenet.kernels.blocked.int8.layout import BYTE
from npmobilenet.kernels.blocked.int8.pointwise import Pointwise
from npmobilenet.kernels.blocked.layout import Fields, Packed
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# Distances in bytes: stride_row and stride_column from one window to the next, tap_row and tap_column from one tap to
# the next, of which a row has `tap_columns`. An item is one of `rows` of a plane of `out`: `blocks` for each tap.
UNFOLD = Fields(
    "x x_plane stride_row stride_column tap_row tap_column tap_columns blocks out out_row out_plane rows columns"
)
STRIP_BYTES = 256 * 1024  # of a strip with its taps, which stays in the second-level cache
LEAST_PIXELS = 64  # of a strip


@dataclass(frozen=True)
class Dense(Packed):
    """Packed weights: those of a pointwise convolution, and how the window slides."""

    ARGUMENTS = ()

    product: Pointwise
    kernel: Pair
    stride: Pair
    dilation: Pair


def pack(
    target: Target,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    zero_point: int | np.ndarray,
    stride: Pair,
    dilation: Pair,
    ending: Ending = NOTHING,
) -> Dense:
    """Pack int8 (K_h, K_w, C_in, C_out), the taps one after the other, each with whole blocks of channels."""
    *kernel, c_in, c_out = weight.shape
    more = -c_in % target.lanes
    filled = np.pad(weight.reshape(-1, c_in, c_out), ((0, 0), (0, more), (0, 0)))
    points = np.tile(np.pad(np.broadcast_to(np.uint8(zero_point), c_in), (0, more)), len(filled))
    product = pointwise.pack(target, filled.reshape(-1, c_out), scale, bias, points, 1, ending)
    return Dense(product, tuple(kernel), stride, dilation)


def unfolded(target: Target, channels: int, kernel: Pair, size: Pair) -> Tensor:
    """The tensor, without memory, of a strip of a result of ``(P, Q)`` with the taps of its windows."""
    planes = kernel[0] * kernel[1] * -(-channels // target.lanes)
    row = planes * target.lanes * size[1]
    rows = max(STRIP_BYTES // row, -(-LEAST_PIXELS // size[1]))
    return Tensor(planes * target.lanes, min(rows, size[0]), size[1], dtype=BYTE, lanes=target.lanes)


def calls(x: Tensor, out: Tensor, strip: Tensor, weights: Dense) -> Iterator[Call]:
    """Compute ``out``, of bytes or float32, which may have a frame, from ``x``, whose frame is the padding."""
    kernel = library.int8_unfold(weights.product.target).address("int8_unfold")
    for top in range(0, out.height, strip.height):
        part = replace(strip, height=min(strip.height, out.height - top))
        (above, below), beside = out.frame
        rest = out.height - top - part.height
        rows = replace(out, height=part.height, frame=((above + top, below + rest), beside))
        yield UNFOLD.call(
            kernel, part.blocks * part.height, keep=weights,
            x=x.at(x.address + top * weights.stride[0] * x.row_bytes), out=part, blocks=x.blocks, rows=part.height,
            columns=part.width, tap_columns=weights.kernel[1],
            stride_row=weights.stride[0] * x.row_bytes, stride_column=weights.stride[1] * x.pixel_bytes,
            tap_row=weights.dilation[0] * x.row_bytes, tap_column=weights.dilation[1] * x.pixel_bytes,
        )  # fmt: skip
        yield pointwise.call(part, rows, weights.product)


@prepared("conv2d_int8")
def conv2d_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str = "none",
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
    threads: int = 1,
) -> Images:
    """Dense convolution of bytes, without groups: uint8 (N, H, W, C_in) * int8 -> (N, P, Q, C_out)."""
    g = checks.conv2d_int8(
        x, weight, scale, bias, zero_point=zero_point, stride=stride, padding=padding, dilation=dilation,
        groups=groups, activation=activation, dtype=dtype, out_steps=out_steps, out_zero_point=out_zero_point,
    )  # fmt: skip
    if groups != 1 or x.dtype != np.uint8:
        raise ValueError(f"groups must be 1 and x of uint8 in this kernel, got {groups} and {x.dtype}")
    images = Images(g.shape, threads, np.dtype(dtype))
    ending = endings.pack(images.target, activation, out_steps, out_zero_point)
    packed = pack(images.target, weight, scale, bias, zero_point, g.stride, g.dilation, ending)
    for image in framed(images, x, g.pads, zero_point):
        strip = images.take(unfolded(images.target, x.shape[3], packed.kernel, g.shape[1:3]))
        images.add(*calls(image, images.output(), strip, packed))
    return images

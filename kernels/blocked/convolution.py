"""Dense convolution of a blocked tensor inside its frame of zeros: any window, stride, dilation and groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels, panels, wide_panels
from npmobilenet.kernels.blocked.pointwise import pack_grouped
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# Distances in bytes: x_plane, out_row, out_column and out_plane; stride_row and stride_column from one window to the
# next in the input, tap_row and tap_column from one tap of a window to the next. The window has tap_rows x tap_columns.
# Of these only such are computed as meet the image: rows image_top up to image_bottom of what stands in the frame, and
# columns image_left up to image_right; stride_y, dilation_x and so on are the same distances, in rows and columns.
# `wide` counts the panels of the wide tile; `inputs` tells which inputs each panel reads (`pointwise.INPUTS`). With an
# activation, pixels of the output follow one another. A work item is one row of one panel of the output.
CONVOLUTION = Fields(
    "x x_plane stride_row stride_column tap_rows tap_columns tap_row tap_column weights bias inputs wide "
    "out out_row out_column out_plane rows columns clamp activate "
    "image_top image_bottom image_left image_right stride_y stride_x dilation_y dilation_x"
)


@dataclass(frozen=True)
class Convolution(Packed):
    """Packed weights, and how their window slides."""

    ARGUMENTS = ("weights", "bias", "inputs", "wide")

    target: Target
    kernel: Pair
    stride: Pair
    dilation: Pair
    weights: np.ndarray
    bias: np.ndarray
    inputs: np.ndarray
    """Rows of `pointwise.INPUTS`."""
    wide: int
    panels: int


def pack(
    target: Target,
    weight: np.ndarray,
    bias: np.ndarray,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Convolution:
    """Pack (K_h, K_w, C_in / G, C_out) as ``[panel][K_h][K_w][C_in of the panel][blocks of the panel][L]``."""
    c_out = weight.shape[3]
    weights, inputs = pack_grouped(target, weight, groups)
    return Convolution(
        target,
        weight.shape[:2],
        stride,
        dilation,
        weights,
        pack_channels(target, bias),
        inputs,
        wide_panels(target, c_out),
        len(panels(target, c_out)),
    )


def call(x: Tensor, out: Tensor, weights: Convolution, *, activation: str = "none") -> Call:
    """Compute ``out``, which may have a frame, from ``x``, whose frame is the padding."""
    (tap_rows, tap_columns), stride, dilation = weights.kernel, weights.stride, weights.dilation
    (top, _), (left, _) = x.frame
    return CONVOLUTION.call(
        library.convolution(weights.target).address("convolution"), out.height * weights.panels,
        x=x, out=out.inner, out_column=out.pixel_bytes, rows=out.height, columns=out.width,
        tap_rows=tap_rows, tap_columns=tap_columns,
        stride_row=stride[0] * x.row_bytes, stride_column=stride[1] * x.pixel_bytes,
        tap_row=dilation[0] * x.row_bytes, tap_column=dilation[1] * x.pixel_bytes,
        image_top=top, image_bottom=top + x.height, image_left=left, image_right=left + x.width,
        stride_y=stride[0], stride_x=stride[1], dilation_y=dilation[0], dilation_x=dilation[1],
        **weights.arguments(), **activations.ends(weights.target, activation),
    )  # fmt: skip


@prepared("conv2d")
def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str = "none",
    threads: int = 1,
) -> Images:
    """Dense convolution between blocked tensors: (N, H, W, C_in) * (K_h, K_w, C_in / G, C_out) -> (N, P, Q, C_out).

    With groups, an infinity or NaN may make NaN of its window in the group beside its own, too.
    """
    g = checks.conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, activation=activation
    )
    activations.check(activation)
    images = Images(g.shape, threads)
    sums = checks.bias(bias, g.shape[3])
    packed = pack(images.target, checks.float32(weight), sums, g.stride, g.dilation, groups)
    for image in images.inputs(x, g.pads):
        images.add(call(image, images.output(), packed, activation=activation))
    return images

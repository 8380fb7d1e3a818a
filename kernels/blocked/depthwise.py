"""Depthwise convolution of a padded tensor: one channel block at a time, several pixels of a row at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels
from npmobilenet.kernels.blocked.tiles import Tiling
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.library import Library

# Distances in bytes: x_row, x_plane, out_row, out_plane and tap_column (from one tap of the window to the next:
# dilation); tap_row is the vertical dilation, in rows.
DEPTHWISE = Fields("x x_row x_plane weights bias out out_row out_plane rows columns clamp activate tap_row tap_column")


@dataclass(frozen=True)
class Depthwise(Packed):
    """Packed weights, and the kernel that slides them over an image."""

    target: Target
    functions: Library
    name: str
    """Of the kernel; with "_blocks", of the function that computes channel blocks."""
    stride: Pair
    reach: int
    """Rows of its padded input that a row of the output depends on."""
    weights: np.ndarray
    bias: np.ndarray
    tap_row: int = 0
    tap_column: int = 0
    keep: object = None
    """What the weights lead to."""

    @property
    def blocks_function(self) -> int:
        """The address of the function that computes channel blocks."""
        return self.functions.address(f"{self.name}_blocks")


def pack(
    target: Target,
    weight: np.ndarray,
    bias: np.ndarray,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    tiling: Tiling | None = None,
) -> Depthwise:
    """Pack (K_h, K_w, C) as ``[C / L][K_h][K_w][L]``."""
    kernel = weight.shape[:2]
    return Depthwise(
        target,
        library.window(kernel, stride, target, tiling),
        library.window_name(kernel, stride),
        stride,
        (kernel[0] - 1) * dilation[0] + 1,
        pack_channels(target, weight),
        pack_channels(target, bias),
        dilation[0],
        dilation[1] * target.bytes,
    )


def call(x: Tensor, out: Tensor, weights: Depthwise, *, activation: str = "none") -> Call:
    """Compute ``out``, which may have a frame, from ``x``, whose frame is the padding."""
    return DEPTHWISE.call(
        weights.functions.address(weights.name), out.blocks, keep=weights,
        x=x, out=out.inner, rows=out.height, columns=out.width, **weights.arguments(),
        **activations.ends(weights.target, activation), tap_row=weights.tap_row, tap_column=weights.tap_column,
    )  # fmt: skip


@prepared("depthwise_conv2d")
def depthwise_conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    activation: str = "none",
    threads: int = 1,
    tiling: Tiling | None = None,
) -> Images:
    """Depthwise convolution, one vector of channels at a time: (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    g = checks.depthwise_conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, activation=activation
    )
    activations.check(activation)
    images = Images(g.shape, threads)
    sums = checks.bias(bias, g.shape[3])
    packed = pack(images.target, checks.float32(weight), sums, g.stride, g.dilation, tiling)
    for image in images.inputs(x, g.pads):
        images.add(call(image, images.output(), packed, activation=activation))
    return images

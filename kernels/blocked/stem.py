"""The first convolution: dense, from the planar image inside its frame of zeros."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels, pack_panels, wide_panels
from npmobilenet.kernels.blocked.tiles import Tile
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# Distances in bytes: x_row and x_plane in the planar image; out_row, out_plane in the output, whose first
# pixel is at `out`. `k_units` are the image's channels; `wide` counts the panels of the wide tile. A work item is one
# row of the output.
STEM = Fields("x x_row x_plane k_units weights bias out out_row out_plane columns clamp activate wide blocks")

MOST_TAPS = 11 * 11  # of a window in a network: all are written out, and each takes its time to compile


@dataclass(frozen=True)
class Stem(Packed):
    """Packed weights."""

    ARGUMENTS = ("weights", "bias", "k_units", "wide")

    target: Target
    kernel: Pair
    stride: Pair
    tile: Tile | None
    weights: np.ndarray
    bias: np.ndarray
    k_units: int
    wide: int


def pack(target: Target, weight: np.ndarray, bias: np.ndarray, stride: Pair, tile: Tile | None = None) -> Stem:
    """Pack (K_h, K_w, C_in, C_out) as ``[panel][C_in][K_h][K_w][blocks of the panel][L]``."""
    *kernel, c_in, c_out = weight.shape
    widest = tile.blocks if tile else 0
    weights = pack_panels(target, weight.transpose(2, 0, 1, 3), widest)
    wide = wide_panels(target, c_out, widest)
    return Stem(target, tuple(kernel), stride, tile, weights, pack_channels(target, bias), c_in, wide)


def call(x: Tensor, out: Tensor, weights: Stem, *, activation: str = "none") -> Call:
    """Compute ``out``, which may have a frame, from the planar image ``x``, whose frame is the padding."""
    functions = library.stem_window(weights.kernel, weights.stride, weights.target, weights.tile)
    ends = activations.ends(weights.target, activation)
    return STEM.call(
        functions.address(library.stem_name(weights.kernel, weights.stride)), out.height,
        x=x, out=out.inner, columns=out.width, blocks=out.blocks, **weights.arguments(), **ends,
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
    tile: Tile | None = None,
) -> Images:
    """Dense convolution, without groups and dilation: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out)."""
    g = checks.conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, activation=activation
    )
    if groups != 1 or g.dilation != (1, 1):
        raise ValueError(f"groups and dilation must be 1 in this kernel, got {groups} and {g.dilation}")
    activations.check(activation)
    images = Images(g.shape, threads)
    packed = pack(images.target, checks.float32(weight), checks.bias(bias, g.shape[3]), g.stride, tile)
    for image in images.inputs(x, g.pads, lanes=1):
        images.add(call(image, images.output(), packed, activation=activation))
    return images

"""The first convolution: dense, from the planar image, wherever that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels, pack_panels, wide_panels
from npmobilenet.kernels.blocked.tiles import Tile
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pads, Pair
from npmobilenet.kernels.memory import aligned_bytes
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import NO_FRAME, Tensor
from npmobilenet.kernels.vector.target import Target

# Distances in bytes: x_row and x_plane in the planar image, of which `image` tells more (`IMAGE`); out_row, out_plane
# in the output, whose first pixel is at `out`. `k_units` are the image's channels; `wide` counts the panels of the wide
# tile. A work item is one row of the output.
STEM = Fields("x x_row x_plane image k_units weights bias out out_row out_plane columns clamp activate wide blocks")
# The image's size, the zeros above it and on its left, and how many windows of a row reach beyond its sides. What they
# see a thread's scratch holds, at `staged`: rows of `staged_row` bytes, of which `begin` are before the image.
IMAGE = Fields("height width top left beyond_left beyond_right staged staged_row begin")

MOST_TAPS = 11 * 11  # of a window in a network: all are written out, and each takes its time to compile


@dataclass(frozen=True)
class Stem(Packed):
    """Packed weights, and the zeros around the image."""

    ARGUMENTS = ("weights", "bias", "k_units", "wide")

    target: Target
    kernel: Pair
    stride: Pair
    tile: Tile | None
    weights: np.ndarray
    bias: np.ndarray
    k_units: int
    wide: int
    pads: Pads = NO_FRAME

    def fitted(self, pads: Sequence[Pads]) -> Stem:
        """The same with zeros around the image."""
        return replace(self, pads=pads[0])


def pack(target: Target, weight: np.ndarray, bias: np.ndarray, stride: Pair, tile: Tile | None = None) -> Stem:
    """Pack (K_h, K_w, C_in, C_out) as ``[panel][C_in][K_h][K_w][blocks of the panel][L]``."""
    *kernel, c_in, c_out = weight.shape
    widest = tile.blocks if tile else 0
    weights = pack_panels(target, weight.transpose(2, 0, 1, 3), widest)
    wide = wide_panels(target, c_out, widest)
    return Stem(target, tuple(kernel), stride, tile, weights, pack_channels(target, bias), c_in, wide)


def image(x: Tensor, columns: int, weights: Stem, scratch_bytes: int = 0) -> tuple[np.ndarray, int]:
    """The row of `IMAGE` for so many columns of the output, behind so much scratch; and how much that makes with it."""
    (top, _), (left, _) = weights.pads
    kernel, stride = weights.kernel, weights.stride[1]
    reach = max(x.width, (columns - 1) * stride + kernel[1] - left)
    staged, begin = aligned_bytes(scratch_bytes), aligned_bytes(left * x.pixel_bytes)
    row = begin + aligned_bytes(reach * x.pixel_bytes)
    inside = max(0, (x.width + left - kernel[1]) // stride + 1)  # windows that end in the image
    about = IMAGE.pack(
        height=x.height, width=x.width, top=top, left=left, staged=staged, staged_row=row, begin=begin,
        beyond_left=min(columns, -(-left // stride)), beyond_right=max(0, columns - inside),
    )  # fmt: skip
    return np.array(about, np.int64), staged + x.channels * kernel[0] * row


def call(x: Tensor, out: Tensor, weights: Stem, *, activation: str = "none") -> Call:
    """Compute ``out``, which may have a frame, from the planar image ``x``, which has none."""
    functions = library.stem_window(weights.kernel, weights.stride, weights.target, weights.tile)
    ends = activations.ends(weights.target, activation)
    about, scratch_bytes = image(x, out.width, weights)
    return STEM.call(
        functions.address(library.stem_name(weights.kernel, weights.stride)), out.height, scratch_bytes=scratch_bytes,
        x=x, image=about, out=out.inner, columns=out.width, blocks=out.blocks, **weights.arguments(), **ends,
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
    packed = pack(images.target, checks.float32(weight), checks.bias(bias, g.shape[3]), g.stride, tile).fitted([g.pads])
    for planes in images.inputs(x, lanes=1):
        images.add(call(planes, images.output(), packed, activation=activation))
    return images

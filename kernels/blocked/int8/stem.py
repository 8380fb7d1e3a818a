"""The first convolution: 16 bits by 16, dense, from an image whose channels lie in pairs inside a frame of zeros."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8 import ending as endings
from npmobilenet.kernels.blocked.int8 import entry
from npmobilenet.kernels.blocked.int8.ending import NOTHING, ONE, Ending
from npmobilenet.kernels.blocked.int8.layout import magnitudes, words
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import FLOAT32, Tensor
from npmobilenet.kernels.vector.target import Target

# Where the image stands, with the distances of a plane of one channel (`entry.paired`). A work item is one row of the
# output, the first of them row `first` of the whole. `floats` is 1 if the result is float32, `clamp` 0 if it has no
# bounds, `bounded` 1 if all results are below 2**31.
STEM = Fields(
    "x x_row x_plane channels first weights scale bias out out_row out_plane columns blocks clamp steps offset bounded "
    "floats"
)


@dataclass(frozen=True)
class Stem(Packed):
    """Packed weights."""

    ARGUMENTS = ("weights", "scale", "bias", "channels", "bounded")

    target: Target
    kernel: Pair
    stride: Pair
    weights: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    channels: int
    bounded: bool
    ending: Ending


def pack(
    target: Target,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    stride: Pair,
    ending: Ending = NOTHING,
) -> Stem:
    """Pack int16 (K_h, K_w, C_in, C_out).

    As ``[C_out / L][C_in / 2][K_h][K_w][L][2]``, the pairs of channels; where one is left, ``[K_h][K_w / 2][L][2]``
    follow, of that, in each block.
    """
    *kernel, c_in, c_out = weight.shape
    paired, odd = weight[:, :, : c_in // 2 * 2], weight[:, :, c_in // 2 * 2 :]
    pairs = np.moveaxis(words(paired), 2, 0), words(odd.transpose(2, 0, 1, 3))
    weights = pack_channels(target, np.concatenate([part.reshape(-1, c_out) for part in pairs]))
    ends = (pack_channels(target, np.float32(each)) for each in (scale, bias))
    bounded = ending.limit(2.0**15 * magnitudes(weight), scale, bias) >= ONE
    return Stem(target, tuple(kernel), stride, weights, *ends, c_in, bounded, ending)


def call(x: Tensor, out: Tensor, weights: Stem) -> Call:
    """Compute ``out``, which may have a frame, from the image ``x`` of 16 bits, whose frame is the padding."""
    functions = library.int8_stem(weights.kernel, weights.stride, weights.target, weights.ending.end)
    return STEM.call(
        functions.address(library.int8_stem_name(weights.kernel, weights.stride)), out.height, keep=weights,
        x=x, out=out.inner, columns=out.width, blocks=out.blocks, floats=out.dtype == FLOAT32, first=0,
        **weights.arguments(), **weights.ending.arguments(),
    )  # fmt: skip


@prepared("conv2d_int8")
def conv2d_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    steps: float | None = None,
    limits: Pair | None = None,
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
    """Dense convolution of 16 bits, without groups and dilation: (N, H, W, C_in) * int16 -> (N, P, Q, C_out)."""
    g = checks.conv2d_int8(
        x, weight, scale, bias, steps=steps, limits=limits, zero_point=zero_point, stride=stride, padding=padding,
        dilation=dilation, groups=groups, activation=activation, dtype=dtype, out_steps=out_steps,
        out_zero_point=out_zero_point,
    )  # fmt: skip
    if groups != 1 or g.dilation != (1, 1) or x.dtype == np.uint8:
        raise ValueError(f"groups and dilation must be 1 and x of 16 bits or float32 in this kernel, got {groups}, "
                         f"{g.dilation} and {x.dtype}")  # fmt: skip
    images = Images(g.shape, threads, np.dtype(dtype))
    ending = endings.pack(images.target, activation, out_steps, out_zero_point)
    packed = pack(images.target, weight, scale, bias, g.stride, ending)
    for image in images.inputs(x, lanes=1) if steps else x:
        size = (image.height, image.width) if steps else image.shape[:2]
        halves = images.take(entry.halves(Tensor(x.shape[3], *size, g.pads)))
        if steps:
            images.add(entry.image_call(images.target, image.address, halves, steps, limits))
        else:
            images.write(entry.paired(halves), image)
        images.add(call(halves, images.output(), packed))
    return images

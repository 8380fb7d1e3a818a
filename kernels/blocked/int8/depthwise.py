"""Depthwise convolution of an 8-bit tensor inside its frame: four pixels of a channel block make one register."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8.layout import BYTE, start, words
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pads, Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import FLOAT32, Tensor
from npmobilenet.kernels.vector.target import Target

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.library import Library

# As `DEPTHWISE`; a work item is `strip` rows of a block, the first `strips` items those of the first block. `floats` is
# 1 if the result is float32.
DEPTHWISE = Fields(
    "x x_row x_plane weights start scale bias out out_row out_plane rows columns clamp floats strip strips "
    "tap_row tap_column"
)
STRIPS = 4  # of an image, so that a few blocks are work for several threads
LEAST_STRIP = 16  # rows, or all
LOW_BITS = 7  # of weights of 15 bits: 128 * high + low, both signed bytes


@dataclass(frozen=True)
class Depthwise(Packed):
    """Packed weights, and the kernel that slides them over an image."""

    ARGUMENTS = ("weights", "start", "scale", "bias", "tap_row", "tap_column")

    target: Target
    functions: Library
    name: str
    stride: Pair
    reach: int
    """Rows of its padded input that a row of the output depends on."""
    weights: np.ndarray
    start: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    tap_row: int
    tap_column: int


def pack(
    target: Target,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    zero_point: int | np.ndarray = 0,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> Depthwise:
    """Pack int8 or int16 (K_h, K_w, C) as ``[C / L][K_h][K_w / 4][L][4]``, of int16 high bytes before low ones."""
    kernel, wide = weight.shape[:2], weight.dtype.itemsize > 1
    return Depthwise(
        target,
        library.int8_window(kernel, stride, wide, target),
        library.int8_window_name(kernel, stride, wide),
        stride,
        (kernel[0] - 1) * dilation[0] + 1,
        pack_channels(target, _taps(weight)),
        *(pack_channels(target, each) for each in (start(weight, zero_point), np.float32(scale), np.float32(bias))),
        dilation[0],
        dilation[1] * target.lanes,
    )


def _taps(weight: np.ndarray) -> np.ndarray:
    """Return (K_h, K_w, C) as 32-bit integers (K_h, K_w / 4, parts, C), each four taps of a row."""
    if weight.dtype.itemsize == 1:
        return words(weight)[:, :, None]
    low = (weight & (2**LOW_BITS - 1)).astype(np.int8)
    return np.stack([words((weight >> LOW_BITS).astype(np.int8)), words(low)], axis=2)


def call(x: Tensor, out: Tensor, weights: Depthwise, *, activation: str = "none") -> Call:
    """Compute ``out``, of bytes or float32, which may have a frame, from ``x``, whose frame is the padding."""
    strip = min(out.height, max(LEAST_STRIP, -(-out.height // STRIPS)))
    strips = -(-out.height // strip)
    return DEPTHWISE.call(
        weights.functions.address(weights.name), out.blocks * strips, keep=weights,
        x=x, out=out.inner, rows=out.height, columns=out.width, floats=out.dtype == FLOAT32,
        clamp=activations.clamp(activation), strip=strip, strips=strips, **weights.arguments(),
    )  # fmt: skip


def framed(images: Images, x: np.ndarray, pads: Pads, zero_point: int | np.ndarray) -> list[Tensor]:
    """Return a tensor for each image of a batch, whose frame holds the zero point."""
    size = x.shape[1] + sum(pads[0]), x.shape[2] + sum(pads[1])
    whole = np.empty((len(x), *size, x.shape[3]), np.uint8)
    whole[...] = zero_point
    whole[:, pads[0][0] : pads[0][0] + x.shape[1], pads[1][0] : pads[1][0] + x.shape[2]] = x
    # The same memory: what was the frame of an image is now a part of it.
    return [Tensor(x.shape[3], *x.shape[1:3], pads, BYTE, each.lanes).at(each.address) for each in images.inputs(whole)]


@prepared("depthwise_conv2d_int8")
def depthwise_conv2d_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    dilation: Size = 1,
    activation: str = "none",
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
    threads: int = 1,
) -> Images:
    """Depthwise convolution of integers, four taps at once: uint8 (N, H, W, C) * (K_h, K_w, C) -> (N, P, Q, C)."""
    g = checks.depthwise_conv2d_int8(
        x, weight, scale, bias, zero_point=zero_point, stride=stride, padding=padding, dilation=dilation,
        activation=activation, dtype=dtype, out_steps=out_steps, out_zero_point=out_zero_point,
    )  # fmt: skip
    activations.check(activation, tuple(activations.CLAMPS))
    images = Images(g.shape, threads, np.dtype(dtype))
    packed = pack(images.target, weight, scale, bias, zero_point, g.stride, g.dilation)
    for image in framed(images, x, g.pads, zero_point):
        images.add(call(image, images.output(), packed, activation=activation))
    return images

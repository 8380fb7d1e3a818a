"""Where float32 becomes bytes: a scale for each pixel, or steps for each channel; and an image 16 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8.ending import NOTHING, Ending
from npmobilenet.kernels.blocked.int8.layout import BYTE
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.library import Library

# `levels` of a pixel's largest magnitude around `zero_point`, both float32 at their addresses; `strip` pixels are an
# item. At `scale` is where each pixel's goes. Bytes stand for `(x + start) * factor`, a vector of both for each block.
PIXELS = Fields("x x_plane start factor out out_plane scale blocks pixels strip levels")
# A plain array (C, H, W) becomes 16 bits (`paired`), `rows` with the frame of zeros, which is written, too; an item is
# a row of all channels. At `steps` three float32: these, the lowest result, the highest. The array may be `GIVEN`.
IMAGE = Fields("x out out_row out_plane channels rows height width top left steps")
# A vector for each block at `factor` and at `offset`; `rows` of `columns` pixels, as far as frames tell them apart.
CHANNELS = Fields("x x_row x_plane out out_row out_plane rows columns factor offset clamp")
STRIP_PIXELS = 196
HALF = np.dtype(np.int16)
LEVELS = {128: np.float32([127, 128]), 0: np.float32([255, 0])}  # by zero point: levels, and that


def quantize_call(target: Target, x: Tensor, out: Tensor, scale: Tensor, zero_point: int = 128) -> Call:
    """Quantise the pixels of ``x``, of float32, to ``out`` and their scales; none has a frame."""
    return pixels_call(library.int8(target), x, out, scale, zero_point)


def pixels_call(
    functions: Library,
    x: Tensor,
    out: Tensor,
    scale: Tensor,
    zero_point: int,
    start: np.ndarray | None = None,
    factor: Tensor | None = None,
) -> Call:
    """The same with the kernel of a library."""
    strip = min(x.pixels, STRIP_PIXELS)
    return PIXELS.call(
        functions.address("int8_quantize_pixels"), -(-x.pixels // strip), x=x, start=start, factor=factor, out=out,
        scale=scale.address, blocks=x.blocks, pixels=x.pixels, strip=strip, levels=LEVELS[zero_point],
    )  # fmt: skip


def quantized(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """The tensors, without memory, of the bytes of ``x`` and of its pixels' scales."""
    return Tensor(x.channels, x.height, x.width, dtype=BYTE, lanes=target.lanes), Tensor(1, x.height, x.width)


@dataclass(frozen=True)
class Channels(Packed):
    """A factor and an offset for each channel: steps and zero point, or scale and minus the zero point."""

    ARGUMENTS = ("factor", "offset")

    target: Target
    name: str
    factor: np.ndarray
    offset: np.ndarray
    ending: Ending = NOTHING


def pack_quantize(target: Target, steps: np.ndarray, zero_point: np.ndarray, activation: str = "none") -> Channels:
    """Pack what makes bytes of float32, after an activation."""
    arrays = (pack_channels(target, np.float32(array)) for array in (steps, zero_point))
    return Channels(target, "int8_quantize", *arrays, Ending(activation))


def pack_dequantize(target: Target, scale: np.ndarray, zero_point: np.ndarray) -> Channels:
    """Pack what makes float32 of bytes."""
    arrays = np.float32(scale), -zero_point.astype(np.int32)
    return Channels(target, "int8_dequantize", *(pack_channels(target, array) for array in arrays))


def channels_call(x: Tensor, out: Tensor, weights: Channels, factor: Tensor | None = None) -> Call:
    """Make bytes of float32, or float32 of bytes, with other factors if so told; both may have frames."""
    return CHANNELS.call(
        library.int8(weights.target, weights.ending.end).address(weights.name), out.blocks, keep=weights,
        x=x.inner, out=out.inner, rows=out.height, columns=out.width,
        clamp=activations.clamp(weights.ending.bounds), **weights.arguments() | ({"factor": factor} if factor else {}),
    )  # fmt: skip


def image_call(target: Target, x: int, out: Tensor, steps: float, limits: Pair | None = None) -> Call:
    """Make 16 bits, inside a frame of zeros, of the array at an address, at so many steps to a unit, within limits."""
    low, high = limits or (-checks.LARGEST_HALF, checks.LARGEST_HALF)
    return IMAGE.call(
        library.int8(target).address("int8_quantize_image"), out.rows, x=x, out=out, channels=out.channels,
        rows=out.rows, height=out.height, width=out.width, top=out.frame[0][0], left=out.frame[1][0],
        steps=np.array([steps, low, high], np.float32),
    )  # fmt: skip


def halves(x: Tensor) -> Tensor:
    """The tensor, without memory, of a planar image in 16 bits; how its channels lie there, `paired` says."""
    return replace(x, dtype=HALF, address=0)


def paired(x: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts of an image in 16 bits: blocks of two channels, and a plane of the one that may be left."""
    pairs = replace(x, channels=x.channels // 2 * 2, lanes=2)
    return pairs, replace(x, channels=x.channels % 2, address=x.address + pairs.bytes)


def pixels(images: Images, inputs: Sequence[Tensor], zero_point: int) -> tuple[list[Tensor], list[Tensor]]:
    """Quantise images; return their bytes and their pixels' scales."""
    made = []
    for x in inputs:
        out, scale = (images.take(tensor) for tensor in quantized(images.target, x))
        images.add(quantize_call(images.target, x, out, scale, zero_point))
        made.append((out, scale))
    return [out for out, _ in made], [scale for _, scale in made]


def quantize_pixels(x: np.ndarray, *, zero_point: int = 128, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """8 bits with a scale for each pixel: float32 (N, H, W, C) -> uint8 (N, H, W, C) and float32 (N, H, W)."""
    shape = checks.quantize_pixels(x, zero_point=zero_point).shape
    images = Images(shape, threads, BYTE)
    bytes_, scales = pixels(images, images.inputs(x), zero_point)
    images.table.run()
    empty = np.empty(shape, np.uint8), np.empty(shape[:3], np.float32)
    for tensors, result in zip((bytes_, scales), empty, strict=True):
        for tensor, image in zip(tensors, result, strict=True):
            image[...] = images.read(tensor).reshape(image.shape)
    return empty


@prepared("quantize")
def quantize(
    x: np.ndarray, steps: np.ndarray, zero_point: np.ndarray, *, activation: str = "none", threads: int = 1
) -> Images:
    """8 bits with a step for each channel: float32 (N, ..., C) -> uint8 (N, ..., C)."""
    images = Images(checks.quantize(x, steps, zero_point, activation=activation).shape, threads, BYTE)
    packed = pack_quantize(images.target, steps, zero_point, activation)
    for image in images.inputs(x):
        images.add(channels_call(image, images.output(), packed))
    return images


@prepared("dequantize")
def dequantize(x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, *, threads: int = 1) -> Images:
    """``(x - zero_point) * scale``: uint8 (N, ..., C) -> float32 (N, ..., C)."""
    images = Images(checks.dequantize(x, scale, zero_point).shape, threads)
    packed = pack_dequantize(images.target, scale, zero_point)
    for image in images.inputs(x):
        images.add(channels_call(image, images.output(), packed))
    return images

"""Where float32 becomes bytes: a scale for each pixel, or steps for each channel; and an image 16 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8.layout import BYTE
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# `levels` of a pixel's largest magnitude around `zero_point`, both float32 at their addresses; `strip` pixels are an
# item. At `scale` is where each pixel's goes.
PIXELS = Fields("x x_plane out out_plane scale blocks pixels strip levels")
# `values` of an image, whose frame of zeros is converted too; an item is `strip` of them. A float32 at `steps`.
IMAGE = Fields("x out values strip steps")
STRIP_PIXELS = 196
STRIP_VALUES = 1 << 14
HALF = np.dtype(np.int16)
LEVELS = {128: np.float32([127, 128]), 0: np.float32([255, 0])}  # by zero point: levels, and that


def quantize_call(target: Target, x: Tensor, out: Tensor, scale: Tensor, zero_point: int = 128) -> Call:
    """Quantise the pixels of ``x``, of float32, to ``out`` and their scales; none has a frame."""
    strip = min(x.pixels, STRIP_PIXELS)
    return PIXELS.call(
        library.int8(target).address("int8_quantize_pixels"), -(-x.pixels // strip),
        x=x, out=out, scale=scale.address, blocks=x.blocks, pixels=x.pixels, strip=strip, levels=LEVELS[zero_point],
    )  # fmt: skip


def quantized(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """The tensors, without memory, of the bytes of ``x`` and of its pixels' scales."""
    return Tensor(x.channels, x.height, x.width, dtype=BYTE, lanes=target.lanes), Tensor(1, x.height, x.width)


def image_call(target: Target, x: Tensor, out: Tensor, steps: float) -> Call:
    """Make 16 bits of a planar image, at so many steps to a unit."""
    strip = min(x.values, STRIP_VALUES)
    return IMAGE.call(
        library.int8(target).address("int8_quantize_image"), -(-x.values // strip),
        x=x, out=out, values=x.values, strip=strip, steps=np.array([steps], np.float32),
    )  # fmt: skip


def halves(x: Tensor) -> Tensor:
    """The tensor, without memory, of an image in 16 bits."""
    return replace(x, dtype=HALF, address=0)


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

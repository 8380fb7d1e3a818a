"""Transposed convolution, as dense convolutions that take turns at the pixels of the result.

Along an axis of stride s, every s-th pixel of the result is met by the same taps of the window: every s-th of them.
Those pixels are an ordinary convolution of the input with these taps, in reverse order, at stride 1; so s_h x s_w calls
of the dense kernel write the result, each its own pixels. No product is computed that is not needed, and nothing is
added up in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.convolution import CONVOLUTION
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Packed, pack_channels, panels, wide_panels
from npmobilenet.kernels.blocked.pointwise import INPUTS, pack_grouped
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pads, Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import NO_FRAME, Tensor
from npmobilenet.kernels.vector.target import Target


@dataclass(frozen=True)
class Turn:
    """Every so many pixels of the result along one axis.

    Attributes
    ----------
    tap : int
        The first of the window's that meet them; the others are a stride apart.
    taps : int
    out : int
        The first pixel, in the result.
    x : int
        The first that they read, in the input; below zero where that is padding.
    """

    tap: int
    taps: int
    out: int
    x: int

    @classmethod
    def all(cls, kernel: int, stride: int, cut: int) -> Iterator[Turn]:
        """The turns along an axis of whose result ``cut`` pixels are missing at the beginning."""
        for tap in range(stride):
            taps = len(range(tap, kernel, stride))
            out = (tap - cut) % stride
            yield cls(tap, taps, out, (out + cut - tap) // stride - (taps - 1))

    def pixels(self, size: int, stride: int) -> int:
        """How many, of a result so long."""
        return len(range(self.out, size, stride))

    def frame(self, size: int, out: int, stride: int) -> Pair:
        """The zeros that it reads before and after an input of this size, for a result of that."""
        last = self.x + self.pixels(out, stride) - 1 + self.taps - 1
        return (max(0, -self.x), max(0, last - (size - 1))) if self.taps and self.pixels(out, stride) else (0, 0)


@dataclass(frozen=True)
class ConvTranspose(Packed):
    """Packed weights, a part for each pair of turns."""

    target: Target
    kernel: Pair
    stride: Pair
    cut: Pair
    weights: np.ndarray
    bias: np.ndarray
    inputs: tuple[np.ndarray, ...]
    """Rows of `pointwise.INPUTS`, of each pair of turns."""
    wide: int
    panels: int

    @property
    def turns(self) -> list[tuple[Turn, Turn]]:
        """Those of rows and of columns, in the order of ``inputs``."""
        rows, columns = (list(Turn.all(*axis)) for axis in zip(self.kernel, self.stride, self.cut, strict=True))
        return [(down, across) for down in rows for across in columns]


def frame(size: Pair, out: Pair, kernel: Pair, stride: Pair, pads: Pads) -> Pads:
    """The zeros around an input of ``(H, W)`` that a result of ``out`` is computed from, ``pads`` less at its sides."""
    frames = []
    for length, longer, k, step, (cut, _) in zip(size, out, kernel, stride, pads, strict=True):
        each = [turn.frame(length, longer, step) for turn in Turn.all(k, step, cut)]
        frames.append((max(before for before, _ in each), max(after for _, after in each)))
    return tuple(frames)


def pack(
    target: Target,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Pair = (1, 1),
    pads: Pads = NO_FRAME,
) -> ConvTranspose:
    """Pack (K_h, K_w, C_in, C_out), each pair of turns as a dense convolution's weights."""
    (k_h, k_w, _, c_out), cut = weight.shape, (pads[0][0], pads[1][0])
    parts, inputs, size = [], [], 0
    for i in range(stride[0]):
        for j in range(stride[1]):
            part, own = pack_grouped(target, weight[i :: stride[0], j :: stride[1]][::-1, ::-1], 1)
            own[:, INPUTS.names.index("weights_at")] += size
            parts.append(part)
            inputs.append(own)
            size += part.nbytes
    return ConvTranspose(
        target,
        (k_h, k_w),
        stride,
        cut,
        np.concatenate(parts),
        pack_channels(target, checks.bias(bias, c_out)),
        tuple(inputs),
        wide_panels(target, c_out),
        len(panels(target, c_out)),
    )


def calls(x: Tensor, out: Tensor, weights: ConvTranspose) -> Iterator[Call]:
    """Compute ``out``, which may have a frame, from ``x``, whose frame is `frame`."""
    source, result, stride = x.inner, out.inner, weights.stride
    for (down, across), inputs in zip(weights.turns, weights.inputs, strict=True):
        rows, columns = down.pixels(out.height, stride[0]), across.pixels(out.width, stride[1])
        if not rows or not columns:
            continue
        yield CONVOLUTION.call(
            library.convolution(weights.target).address("convolution"), rows * weights.panels, keep=weights,
            x=source.address + down.x * x.row_bytes + across.x * x.pixel_bytes, x_plane=x.plane_bytes,
            stride_row=x.row_bytes, stride_column=x.pixel_bytes, tap_rows=down.taps, tap_columns=across.taps,
            tap_row=x.row_bytes, tap_column=x.pixel_bytes,
            out=result.address + down.out * out.row_bytes + across.out * out.pixel_bytes,
            out_row=stride[0] * out.row_bytes, out_column=stride[1] * out.pixel_bytes, out_plane=out.plane_bytes,
            rows=rows, columns=columns, weights=weights.weights, bias=weights.bias, inputs=inputs, wide=weights.wide,
            image_top=0, image_bottom=rows + down.taps, image_left=0, image_right=columns + across.taps,
            stride_y=1, stride_x=1, dilation_y=1, dilation_x=1,
            **activations.ends(weights.target, "none"),
        )  # fmt: skip


@prepared("conv_transpose2d")
def conv_transpose2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Size = 1,
    padding: PaddingSpec = 0,
    threads: int = 1,
) -> Images:
    """Transposed convolution between blocked tensors: (N, H, W, C_in) * (K_h, K_w, C_in, C_out) -> (N, P, Q, C_out)."""
    g = checks.conv_transpose2d(x, weight, bias, stride=stride, padding=padding)
    images = Images(g.shape, threads)
    packed = pack(images.target, checks.float32(weight), bias, g.stride, g.pads)
    for image in images.inputs(x, frame(x.shape[1:3], g.shape[1:3], g.kernel, g.stride, g.pads)):
        images.add(*calls(image, images.output(), packed))
    return images

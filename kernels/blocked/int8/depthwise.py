"""Depthwise convolution of an 8-bit tensor inside its frame: four pixels of a channel block make one register."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8 import ending as endings
from npmobilenet.kernels.blocked.int8.ending import NOTHING, ONE, Ending
from npmobilenet.kernels.blocked.int8.layout import BYTE, are_small, magnitudes, start, words
from npmobilenet.kernels.blocked.layout import Fields, Packed, pack_channels
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import PaddingSpec, Pads, Pair
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import FLOAT32, Tensor
from npmobilenet.kernels.vector.target import Target

# As `DEPTHWISE`; a work item is `strip` rows of a block, the first `strips` items those of the first block. `floats` is
# 1 if the result is float32, `clamp` 0 if it has no bounds, `bounded` 1 if all results are below 2**31.
DEPTHWISE = Fields(
    "x x_row x_plane weights start scale bias out out_row out_plane rows columns clamp steps offset bounded floats "
    "strip strips tap_row tap_column"
)
STRIPS = 4  # of an image, so that a few blocks are work for several threads
LEAST_STRIP = 16  # rows, or all
LOW_BITS = 7  # of weights of 15 bits: 128 * high + low, both signed bytes


@dataclass(frozen=True)
class Run(Packed):
    """Channel blocks ``begin`` up to ``end``, over which one window slides."""

    begin: int
    end: int
    kernel: Pair
    wide: bool
    """Whether its weights have 15 bits."""
    small: bool
    """Whether there is a shorter way to multiply them."""
    corner: Pair
    """Where the window begins, counted from where the image's frame does: rows and columns."""
    dilation: Pair
    weights: np.ndarray
    row_by_row: bool = False
    """Whether rows of the result share nothing: a rung of the ladder."""

    @classmethod
    def pack(cls, target: Target, begin: int, corner: Pair, weight: np.ndarray, dilation: Pair) -> Run:
        """Pack int8 or int16 (K_h, K_w, C) as ``[C / L][K_h][K_w / 4][L][4]``, of int16 high bytes before low ones."""
        end = begin + -(-weight.shape[2] // target.lanes)
        about = weight.dtype.itemsize > 1, are_small(target, weight), corner, dilation
        return cls(begin, end, weight.shape[:2], *about, pack_channels(target, _taps(weight)))

    @property
    def reach(self) -> int:
        """Rows from the beginning of the frame to the window's end."""
        return self.corner[0] + (self.kernel[0] - 1) * self.dilation[0] + 1

    def kernel_address(self, weights: Depthwise) -> int:
        """Where the kernel is that slides the window."""
        window = self.kernel, weights.stride, self.wide
        about = weights.target, weights.ending.end, self.small, self.row_by_row
        functions = library.int8_window(*window, *about)
        return functions.address(library.int8_window_name(*window))


def _taps(weight: np.ndarray) -> np.ndarray:
    """Return (K_h, K_w, C) as 32-bit integers (K_h, K_w / 4, parts, C), each four taps of a row."""
    if weight.dtype.itemsize == 1:
        return words(weight)[:, :, None]
    low = (weight & (2**LOW_BITS - 1)).astype(np.int8)
    return np.stack([words((weight >> LOW_BITS).astype(np.int8)), words(low)], axis=2)


@dataclass(frozen=True)
class Depthwise(Packed):
    """Packed weights.

    Attributes
    ----------
    runs : tuple of Run
        One, or several in a mixed convolution.
    start, scale, bias : array
        Of all channels.
    zero_point : uint8 array
        What stands around the image.
    bounded : bool
        Whether all results are below 2**31.
    """

    target: Target
    stride: Pair
    runs: tuple[Run, ...]
    start: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    zero_point: np.ndarray
    bounded: bool
    ending: Ending

    @property
    def reach(self) -> int:
        """Rows of its padded input that a row of the output depends on."""
        return max(run.reach for run in self.runs)


def pack(
    target: Target,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    zero_point: int | np.ndarray = 0,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    ending: Ending = NOTHING,
) -> Depthwise:
    """Pack int8 or int16 (K_h, K_w, C)."""
    channels = pack_ends(target, [weight], scale, bias, zero_point, ending)
    return Depthwise(target, stride, (Run.pack(target, 0, (0, 0), weight, dilation),), *channels)


def pack_ends(
    target: Target,
    weights: Sequence[np.ndarray],
    scale: np.ndarray,
    bias: np.ndarray,
    zero_point: int | np.ndarray,
    ending: Ending,
) -> tuple[np.ndarray | bool | Ending, ...]:
    """Pack where sums begin, scale, bias, zero point and what follows, of parts (K_h, K_w, C_group) of the channels."""
    ends = np.cumsum([weight.shape[2] for weight in weights])
    points = np.broadcast_to(np.uint8(zero_point), ends[-1])
    parts = zip(weights, np.split(points, ends[:-1]), strict=True)
    first = np.concatenate([start(weight, point) for weight, point in parts])
    largest = 255 * np.concatenate([magnitudes(weight) for weight in weights])
    bounded = ending.limit(largest, scale, bias) >= ONE
    packed = (pack_channels(target, each) for each in (first, np.float32(scale), np.float32(bias), points))
    return *packed, bounded, ending


def calls(x: Tensor, out: Tensor, weights: Depthwise) -> Iterator[Call]:
    """Compute ``out``, of bytes or float32, which may have a frame, from ``x``, whose frame is the padding."""
    strip = min(out.height, max(LEAST_STRIP, -(-out.height // STRIPS)))
    strips = -(-out.height // strip)
    inner, lanes = out.inner, weights.target.lanes
    for run in weights.runs:
        corner = run.corner[0] * x.row_bytes + run.corner[1] * x.pixel_bytes
        channels = {"start": weights.start, "scale": weights.scale, "bias": weights.bias}
        channels |= weights.ending.arguments()
        clamp = channels.pop("clamp")
        yield DEPTHWISE.call(
            run.kernel_address(weights), (run.end - run.begin) * strips, keep=weights,
            x=x.at(x.address + run.begin * x.plane_bytes + corner),
            out=inner.at(inner.address + run.begin * inner.plane_bytes), rows=out.height, columns=out.width,
            floats=out.dtype == FLOAT32, bounded=weights.bounded, clamp=clamp, strip=strip, strips=strips,
            weights=run.weights, tap_row=run.dilation[0], tap_column=run.dilation[1] * lanes,
            **{name: array if array is None else array[run.begin * lanes :] for name, array in channels.items()},
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
    images = Images(g.shape, threads, np.dtype(dtype))
    ending = endings.pack(images.target, activation, out_steps, out_zero_point)
    packed = pack(images.target, weight, scale, bias, zero_point, g.stride, g.dilation, ending)
    for image in framed(images, x, g.pads, zero_point):
        images.add(*calls(image, images.output(), packed))
    return images

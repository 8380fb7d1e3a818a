"""Pointwise (1x1) convolution of 8-bit tensors: a matrix product of pixels and channels, in register tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8 import ending as endings
from npmobilenet.kernels.blocked.int8 import entry
from npmobilenet.kernels.blocked.int8.ending import NOTHING, Ending
from npmobilenet.kernels.blocked.int8.layout import are_small, magnitudes, quads, start
from npmobilenet.kernels.blocked.layout import (
    Fields,
    Packed,
    halved_panel,
    k_unit,
    pack_channels,
    pack_panels,
    panels,
    wide_panels,
)
from npmobilenet.kernels.blocked.pointwise import pack_grouped
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import FLOAT32, Tensor
from npmobilenet.kernels.vector.target import Target

# As `POINTWISE`, but images are told by rows and columns: x_row, out_row and residual_row lead from one row to the
# next. A work item is `strip` rows of `panels_each` panels, the first `parts` items those of the first rows. At
# `pixel_scale`, where it is not 0, is a float32 for each pixel; `limit` the largest, in bits, with which results in
# bytes are below 2**31 before they are saturated. `halved` is the panel that may end with half a vector. `floats` is 1
# if the result is float32; `clamp` is 0 if it has no bounds.
POINTWISE = Fields(
    "x x_row x_plane weights start scale bias pixel_scale residual residual_row residual_plane out out_row out_plane "
    "rows columns k_units inputs wide panels halved clamp steps offset limit floats strip parts panels_each"
)
STRIP_BYTES = 96 * 1024  # of weights, up to which each item may read all of them: they stay in the second-level cache
STRIP_PIXELS = 392  # of an item
NO_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Pointwise(Packed):
    """Packed weights."""

    ARGUMENTS = ("weights", "start", "scale", "bias", "inputs", "k_units", "wide", "panels", "halved", "limit")

    target: Target
    weights: np.ndarray
    start: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    inputs: np.ndarray | None
    k_units: int
    wide: int
    panels: int
    halved: int
    limit: int
    small: bool
    ending: Ending


def pack(
    target: Target,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    zero_point: int | np.ndarray = 0,
    groups: int = 1,
    ending: Ending = NOTHING,
) -> Pointwise:
    """Pack int8 (C_in / G, C_out) as ``[panel][C_in / 4, filled up to `k_unit`][blocks of the panel][L][4]``."""
    (c_in, c_out), unit = weight.shape, k_unit(target)
    if groups == 1:
        weights = pack_panels(target, quads(target, np.pad(weight, ((0, -c_in % unit), (0, 0)))))
        inputs = None
    else:
        weights, inputs = pack_grouped(target, weight, groups, order=lambda part: quads(target, part).ravel())
    points = np.broadcast_to(zero_point, c_in * groups).reshape(groups, c_in, 1)
    parts = zip(np.split(weight, groups, axis=1), points, strict=True)
    first = np.concatenate([start(part, point) for part, point in parts])
    return Pointwise(
        target,
        weights,
        *(pack_channels(target, array) for array in (first, np.float32(scale), np.float32(bias))),
        inputs,
        -(-c_in * groups // unit),
        wide_panels(target, c_out),
        len(panels(target, c_out)),
        halved_panel(target, c_out),
        ending.limit(255 * magnitudes(weight), scale, bias),
        are_small(target, weight),
        ending,
    )


def call(
    x: Tensor,
    out: Tensor,
    weights: Pointwise,
    *,
    pixel_scale: Tensor | None = None,
    residual: Tensor | None = None,
) -> Call:
    """Compute ``out``, of bytes or float32, which may have a frame; a residual is added after the activation."""
    light = weights.weights.nbytes <= STRIP_BYTES
    strip = max(1, min(out.height, STRIP_PIXELS // out.width)) if light else out.height
    parts = 1 if light else weights.panels
    functions = library.int8(weights.target, weights.ending.end, weights.small)
    floats = out.dtype == FLOAT32
    arguments = weights.arguments() | ({"limit": NO_LIMIT} if floats else {}) | weights.ending.arguments()
    inner = {"x": x.inner, "out": out.inner, "residual": residual and residual.inner}
    return POINTWISE.call(
        functions.address("int8_pointwise"), -(-out.height // strip) * parts, **inner,
        pixel_scale=pixel_scale and pixel_scale.address, rows=out.height, columns=out.width,
        floats=floats, strip=strip, parts=parts, panels_each=weights.panels // parts, keep=weights, **arguments,
    )  # fmt: skip


@prepared("pointwise_conv2d_int8")
def pointwise_conv2d_int8(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    pixel_scale: np.ndarray | None = None,
    groups: int = 1,
    activation: str = "none",
    residual: np.ndarray | None = None,
    dtype: str = "uint8",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
    threads: int = 1,
) -> Images:
    """1x1 convolution of integers in register tiles: uint8 (N, H, W, C_in) @ int8 -> (N, H, W, C_out)."""
    g = checks.pointwise_conv2d_int8(
        x, weight, scale, bias, zero_point=zero_point, pixel_scale=pixel_scale, groups=groups, activation=activation,
        residual=residual, dtype=dtype, out_steps=out_steps, out_zero_point=out_zero_point,
    )  # fmt: skip
    images = Images(g.shape, threads, np.dtype(dtype))
    ending = endings.pack(images.target, activation, out_steps, out_zero_point)
    packed = pack(images.target, weight, scale, bias, zero_point, groups, ending)
    inputs, scales = images.inputs(x), [None] * len(x)
    if pixel_scale is not None:
        scales = images.inputs(pixel_scale[..., None], lanes=1)
    elif x.dtype.kind == "f":
        inputs, scales = entry.pixels(images, inputs, zero_point)
    others = [None] * len(x) if residual is None else images.inputs(residual)
    for image, each, other in zip(inputs, scales, others, strict=True):
        images.add(call(image, images.output(), packed, pixel_scale=each, residual=other))
    return images

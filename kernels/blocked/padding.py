"""The frame around the image of a padded tensor: zeros, so that no window needs to know where it ends."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.layout import Fields, Value, pack_channels
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# `rows` and `columns` count the frame; top, bottom, left and right are its widths in pixels. Around bytes, zeros are
# those that stand at `pixel`: the zero points of each block's channels.
FRAME = "rows columns top bottom left right"
CLEAR = Fields(f"out out_plane pixel {FRAME}")
PAD = Fields(f"x x_plane out out_plane pixel {FRAME}")


def prefix(of_bytes: bool) -> str:
    """Of the kernels' names in their library."""
    return "int8_" * of_bytes


def _address(target: Target, name: str, tensor: Tensor) -> int:
    of_bytes = tensor.dtype.itemsize == 1
    functions = library.int8(target) if of_bytes else library.common(target)
    return functions.address(f"{prefix(of_bytes)}{name}")


def clear(target: Target, out: Tensor, zero_point: np.ndarray | None = None) -> Call:
    """Write the zeros around the image; those of bytes are their zero point, uint8 (C,)."""
    return CLEAR.call(_address(target, "clear", out), out.blocks, out=out, **_frame(target, out, zero_point))


def pad(target: Target, x: Tensor, out: Tensor, zero_point: np.ndarray | None = None) -> Call:
    """Copy an image without frame into one with."""
    return PAD.call(_address(target, "pad", out), x.blocks, x=x, out=out, **_frame(target, out, zero_point))


def _frame(target: Target, out: Tensor, zero_point: np.ndarray | None) -> dict[str, Value]:
    sizes = dict(zip(FRAME.split(), (out.rows, out.columns, *out.frame[0], *out.frame[1]), strict=True))
    return {**sizes, "pixel": zero_point if zero_point is None else pack_channels(target, zero_point)}

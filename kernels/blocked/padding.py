"""The frame of zeros around the image of a padded tensor, so that no window needs to know where it ends."""

from __future__ import annotations

from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# `rows` and `columns` count the frame; top, bottom, left and right are its widths in pixels.
FRAME = "rows columns top bottom left right"
CLEAR = Fields(f"out out_plane {FRAME}")
PAD = Fields(f"x x_plane out out_plane {FRAME}")


def prefix(of_bytes: bool) -> str:
    """Of the kernels' names in their library."""
    return "int8_" * of_bytes


def _address(target: Target, name: str, tensor: Tensor) -> int:
    of_bytes = tensor.dtype.itemsize == 1
    functions = library.int8(target) if of_bytes else library.common(target)
    return functions.address(f"{prefix(of_bytes)}{name}")


def clear(target: Target, out: Tensor) -> Call:
    """Write the zeros around the image."""
    return CLEAR.call(_address(target, "clear", out), out.blocks, out=out, **_frame(out))


def pad(target: Target, x: Tensor, out: Tensor) -> Call:
    """Copy an image without frame into one with."""
    return PAD.call(_address(target, "pad", out), x.blocks, x=x, out=out, **_frame(out))


def _frame(out: Tensor) -> dict[str, int]:
    return dict(zip(FRAME.split(), (out.rows, out.columns, *out.frame[0], *out.frame[1]), strict=True))

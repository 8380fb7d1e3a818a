"""The frame of zeros around the image of a padded tensor, so that no window needs to know where it ends."""

from __future__ import annotations

from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# `rows` and `row_vectors` count the frame; top, bottom, left and right are its widths in pixels.
FRAME = "rows row_vectors top bottom left right"
CLEAR = Fields(f"out out_plane {FRAME}")
PAD = Fields(f"x x_plane out out_plane {FRAME}")


def clear(target: Target, out: Tensor) -> Call:
    """Write the zeros around the image."""
    return CLEAR.call(library.common(target).address("clear"), out.blocks, out=out, **_frame(out))


def pad(target: Target, x: Tensor, out: Tensor) -> Call:
    """Copy an image without frame into one with."""
    return PAD.call(library.common(target).address("pad"), x.blocks, x=x, out=out, **_frame(out))


def _frame(out: Tensor) -> dict[str, int]:
    return dict(zip(FRAME.split(), (out.rows, out.columns, *out.frame[0], *out.frame[1]), strict=True))

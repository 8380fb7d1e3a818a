"""Plain float32 arrays (C, H, W), such as users have, at the borders of a network: copied in, copied out."""

from __future__ import annotations

from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import GIVEN, Call
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# `x` and `out` are the first pixel of the image; distances in bytes. The plain array is `GIVEN`.
COPY_IN = Fields("x out out_row out_plane channels rows columns")
COPY_OUT = Fields("x x_row x_plane out channels rows columns")


def copy_in(target: Target, out: Tensor) -> Call:
    """Fill a planar tensor, rows at a time, with the array that is `GIVEN`."""
    return COPY_IN.call(
        library.common(target).address("copy_in"), out.height, x=GIVEN, out=out.inner, channels=out.channels,
        rows=out.height, columns=out.width,
    )  # fmt: skip


def copy_out(target: Target, x: Tensor) -> Call:
    """Copy a blocked tensor, blocks at a time, to the array that is `GIVEN`."""
    rows, columns = (x.height, x.width) if x.padded else (1, x.pixels)  # without a frame rows follow one another
    return COPY_OUT.call(
        library.common(target).address("copy_out"), x.blocks, x=x.inner, out=GIVEN, channels=x.channels, rows=rows,
        columns=columns,
    )  # fmt: skip

"""Feature maps at another size: every pixel between four, or the nearest one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.checks import Size
from npmobilenet.kernels.geometry import Tap
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

# `row_taps` has two distances in bytes for each row of the output: of the rows of the image that it lies between.
# `used` has those of the `used_columns` columns that any pixel needs, and `column_taps` two for each column of the
# output: of those that it lies between, in a row of just the used ones. Weights are float32, two for each tap.
# A work item is one row of one channel block.
BILINEAR = Fields(
    "x x_plane out out_row out_plane rows columns row_taps row_weights used used_columns column_taps column_weights"
)
NEAREST = Fields("x x_plane out out_row out_plane rows columns row_taps column_taps")  # one for each row and column


def call(target: Target, x: Tensor, out: Tensor, taps: Sequence[Sequence[Tap]], mode: str) -> Call:
    """Compute ``out`` between the rows and columns of ``x`` that `geometry.resize_taps` says; both may have a frame."""
    kernel, items = library.resize2d(target).address(mode), out.blocks * out.height
    rows, columns = ([tap[:2] for tap in axis] for axis in taps)
    about = {"x": x.inner, "out": out.inner, "rows": out.height, "columns": out.width}
    row_taps, column_taps = np.array(rows, np.int64) * x.row_bytes, np.array(columns, np.int64) * x.pixel_bytes
    if mode == "nearest":
        about |= {"row_taps": row_taps[:, 0].copy(), "column_taps": column_taps[:, 0].copy()}
        return NEAREST.call(kernel, items, **about)
    used, places = np.unique(column_taps, return_inverse=True)
    return BILINEAR.call(
        kernel, items, scratch_bytes=len(used) * x.pixel_bytes, **about,
        row_taps=row_taps, row_weights=_weights(taps[0]),
        used=used, used_columns=len(used),
        column_taps=places.reshape(-1, 2).astype(np.int64) * x.pixel_bytes, column_weights=_weights(taps[1]),
    )  # fmt: skip


def _weights(taps: Sequence[Tap]) -> np.ndarray:
    second = np.array([weight for _, _, weight in taps], np.float32)
    return np.stack([1 - second, second], axis=1)


@prepared("resize2d")
def resize2d(
    x: np.ndarray,
    size: Size | None = None,
    *,
    like: np.ndarray | None = None,
    scale: float | Sequence[float] | None = None,
    mode: str = "bilinear",
    coordinates: str = "half_pixel",
    threads: int = 1,
) -> Images:
    """The image at another size, one vector of channels at a time: (N, H, W, C) -> (N, P, Q, C)."""
    g = checks.resize2d(x, size, like=like, scale=scale, mode=mode, coordinates=coordinates)
    images = Images(g.shape, threads)
    for image in images.inputs(x):
        images.add(call(images.target, image, images.output(), g.taps, mode))
    return images

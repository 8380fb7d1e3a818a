"""Resizing as networks resize their tensors: between the four pixels around a place, never over an area."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.geometry import resize_taps

SAMPLED = {"sampled": "half_pixel", "sampled_corner": "asymmetric", "sampled_ends": "align_corners"}
"""Filters, and where each has its pixels (:func:`npmobilenet.kernels.geometry.resize_taps`)."""


def sampled_window(
    image: np.ndarray, size: tuple[int, int], window: tuple[int, int, int, int], filter: str
) -> np.ndarray:
    """Return the window (top, left, bottom, right) of an image as it is at another size: float32 (H, W, 3).

    Parameters
    ----------
    image : uint8 (height, width, 3)
    size : (height, width)
        Of the whole.
    filter : str
        One of `SAMPLED`.
    """
    top, left, bottom, right = window
    taps = resize_taps(image.shape[:2], size, None, "bilinear", SAMPLED[filter])
    (above, below, down), (before, after, along) = (
        (np.array(values) for values in zip(*part, strict=True)) for part in (taps[0][top:bottom], taps[1][left:right])
    )
    down, along = down.astype(np.float32)[:, None, None], along.astype(np.float32)[:, None]

    def row(places: np.ndarray) -> np.ndarray:
        lines = image[places]
        first = lines[:, before].astype(np.float32)
        return first + (lines[:, after] - first) * along

    upper = row(above)
    return upper + (row(below) - upper) * down

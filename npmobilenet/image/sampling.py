"""Resizing as networks resize their tensors: between the four pixels around a place, never over an area."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npmobilenet.kernels.geometry import resize_taps

SAMPLED = {"sampled": "half_pixel", "sampled_corner": "asymmetric", "sampled_ends": "align_corners"}
"""Filters, and where each has its pixels (:func:`npmobilenet.kernels.geometry.resize_taps`)."""


class Square(NamedTuple):
    """A square around an image: its side, and where the image's top left pixel is in it."""

    side: int
    top: int
    left: int


def square_around(height: int, width: int, place: str) -> Square:
    """Return the smallest square that holds an image: at its corner, or in its middle."""
    side = max(height, width)
    return Square(side, 0, 0) if place == "corner" else Square(side, (side - height) // 2, (side - width) // 2)


def sampled_window(
    image: np.ndarray,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    filter: str,
    square: Square | None = None,
    border: tuple[int, int, int] = (0, 0, 0),
) -> np.ndarray:
    """Return the window (top, left, bottom, right) of an image as it is at another size: float32 (H, W, 3).

    Parameters
    ----------
    image : uint8 (height, width, 3)
    size : (height, width)
        Of the whole.
    filter : str
        One of `SAMPLED`.
    square : Square, optional
        Of the colour ``border``, with the image in it; the whole is this then.
    """
    top, left, bottom, right = window
    height, width = image.shape[:2]
    whole, offset = ((square.side, square.side), square[1:]) if square else ((height, width), (0, 0))
    taps = resize_taps(whole, size, None, "bilinear", SAMPLED[filter])
    (above, below, down), (before, after, along) = (
        (np.array(values) for values in zip(*part, strict=True)) for part in (taps[0][top:bottom], taps[1][left:right])
    )
    down, along = down.astype(np.float32)[:, None, None], along.astype(np.float32)[:, None]

    def pixels(lines: np.ndarray, inside: np.ndarray, columns: np.ndarray) -> np.ndarray:
        columns = columns - offset[1]
        found = lines[:, columns.clip(0, width - 1)].astype(np.float32)
        if square:
            found[~(inside[:, None] & (columns >= 0) & (columns < width))] = border
        return found

    def row(places: np.ndarray) -> np.ndarray:
        places = places - offset[0]
        lines, inside = image[places.clip(0, height - 1)], (places >= 0) & (places < height)
        first = pixels(lines, inside, before)
        return first + (pixels(lines, inside, after) - first) * along

    upper = row(above)
    return upper + (row(below) - upper) * down

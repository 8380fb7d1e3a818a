"""uint8 arrays as pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from npmobilenet.errors import ImageError

BLOCK_PIXELS = 1 << 16
"""Pixels converted together: few beside those of a large picture, so that temporary copies cost little memory."""

_EXPECTED = "expected a uint8 array (height, width, 3), RGB"


def rgb_array(array: np.ndarray, decode: str = "viewer") -> np.ndarray:
    """Return uint8 (H, W, 3), itself if it is that already; ``decode`` as for :func:`read_image`."""
    shape = array.shape
    if array.dtype != np.uint8:
        hint = ""
        if array.dtype.kind == "f":
            hint = ": for values from 0 to 1 use (array * 255).round().astype('uint8')"
        elif array.dtype == np.uint16:
            hint = ": for values from 0 to 65535 use (array / 257).round().astype('uint8')"
        raise ImageError(f"{_EXPECTED}, got dtype {array.dtype}{hint}")
    if array.ndim == 4:
        raise ImageError(f"{_EXPECTED}, got shape {shape}: give the images of a batch one by one")
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 3 and shape[0] in (1, 3, 4) and shape[2] > 4:
            hint = ": the channels come first; use array.transpose(1, 2, 0)"
        raise ImageError(f"{_EXPECTED}, got shape {shape}{hint}")
    if 0 in shape:
        raise ImageError(f"{_EXPECTED}, got an empty array of shape {shape}")
    if array.ndim == 2 or shape[2] == 1:
        return np.repeat(array.reshape(*shape[:2], 1), 3, axis=2)
    if shape[2] == 3:
        return array
    if decode == "torchvision":
        return np.ascontiguousarray(array[:, :, :3])
    out = np.empty((*shape[:2], 3), np.uint8)
    for block in blocks(*shape[:2]):
        out[block] = over_white(array[block])
    return out


def over_white(rgba: np.ndarray) -> np.ndarray:
    """Lay uint8 (H, W, 4) over white: ``colour * a + white * (1 - a)``, rounded."""
    if rgba[:, :, 3].min() == 255:
        return rgba[:, :, :3]
    alpha = rgba[:, :, 3:].astype(np.uint16)
    total = rgba[:, :, :3] * alpha
    total += 255 * (255 - alpha) + 128
    total += total >> 8  # with the next line: division by 255, rounded
    return (total >> 8).astype(np.uint8)


def blocks(height: int, width: int, columns: int = BLOCK_PIXELS) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of parts of a picture, of `BLOCK_PIXELS` at most, and so many columns at most."""
    columns = min(width, columns)
    rows = max(1, BLOCK_PIXELS // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))

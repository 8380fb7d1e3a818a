"""Resampling of 8-bit RGB images: the two inner loops of :func:`npmobilenet.image.resize`.

Weights are fixed-point integers and additions of integers are exact, so the result does not depend on the
order in which the compiler adds.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.jit import jit

# A weight of 1 is 2**22: 32 bits, less 8 of the pixel, less 2 that Pillow keeps for filters with negative
# lobes.
PRECISION_BITS = 32 - 8 - 2
HALF = 1 << (PRECISION_BITS - 1)


@jit
def horizontal(image: np.ndarray, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Give every output column its weighted sum of neighbouring input columns.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    first : int64 (w,)
        First input column of each output column.
    weights : int32 (w, taps)
        Weights of the columns from ``first`` on.
    out : uint8 (H, w, 3)
    """
    columns, taps = weights.shape
    for y in range(image.shape[0]):
        for x in range(columns):
            start = first[x]
            red = green = blue = np.int32(HALF)
            for k in range(taps):
                weight = weights[x, k]
                red = np.int32(red + weight * image[y, start + k, 0])
                green = np.int32(green + weight * image[y, start + k, 1])
                blue = np.int32(blue + weight * image[y, start + k, 2])
            # Rounded weights of very many taps can add up to a little more than 1: hence the limit.
            out[y, x, 0] = min(red >> PRECISION_BITS, 255)
            out[y, x, 1] = min(green >> PRECISION_BITS, 255)
            out[y, x, 2] = min(blue >> PRECISION_BITS, 255)


@jit
def vertical(image: np.ndarray, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Give every output row its weighted sum of neighbouring input rows.

    Parameters
    ----------
    image : uint8 (H, values)
        Rows of the image; columns and channels need no distinction here.
    first : int64 (h,)
        First input row of each output row.
    weights : int32 (h, taps)
    out : uint8 (h, values)
    """
    rows, taps = weights.shape
    values = image.shape[1]
    total = np.empty(values, np.int32)
    for y in range(rows):
        total[:] = HALF
        for k in range(taps):
            weight = weights[y, k]
            line = image[first[y] + k]  # a view of one row: with the index in the loop, it is 13 times slower
            for i in range(values):
                total[i] += weight * line[i]
        target = out[y]
        for i in range(values):
            target[i] = min(total[i] >> PRECISION_BITS, 255)

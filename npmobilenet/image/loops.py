"""Loops over the pixels of 8-bit RGB images: two of :func:`npmobilenet.image.resize`, and those before and after it.

Weights are fixed-point integers and additions of integers are exact, so the result does not depend on the
order in which the compiler adds.

A photograph is resized in every process that names one, and starting Numba would take it longer than all the rest:
so the loops are linked into a library of their own, which Numba is needed to compile, but not to run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector import lookup
from npmobilenet.kernels.vector.functions import Functions, numba_array
from npmobilenet.kernels.vector.target import Target, host
from npmobilenet.machine import numba_is_on

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.library import Library

# A weight of 1 is 2**22: 32 bits, less 8 of the pixel, less 2 that Pillow keeps for filters with negative
# lobes.
PRECISION_BITS = 32 - 8 - 2
HALF = 1 << (PRECISION_BITS - 1)


def horizontal(image: np.ndarray, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Give every output column its weighted sum of neighbouring input columns.

    Parameters
    ----------
    image : uint8 (H, W, 3 or more)
    first : int64 (w,)
        First input column of each output column.
    weights : int32 (w, taps)
        Weights of the columns from ``first`` on.
    out : uint8 (H, w, 3)
    """
    columns, taps = weights.shape
    for y in range(image.shape[0]):
        line = image[y]
        for x in range(columns):
            start, factors = first[x], weights[x]
            red = green = blue = np.int32(HALF)
            for k in range(taps):
                weight = factors[k]
                red = np.int32(red + weight * line[start + k, 0])
                green = np.int32(green + weight * line[start + k, 1])
                blue = np.int32(blue + weight * line[start + k, 2])
            red, green, blue = red >> PRECISION_BITS, green >> PRECISION_BITS, blue >> PRECISION_BITS
            # Rounded weights of very many taps can add up to a little more than 1, and some filters have negative ones.
            if (red | green | blue) & ~255:
                red, green, blue = max(min(red, 255), 0), max(min(green, 255), 0), max(min(blue, 255), 0)
            out[y, x, 0] = red
            out[y, x, 1] = green
            out[y, x, 2] = blue


def vertical(image: np.ndarray, first: np.ndarray, weights: np.ndarray, total: np.ndarray, out: np.ndarray) -> None:
    """Give every output row its weighted sum of neighbouring input rows.

    Parameters
    ----------
    image : uint8 (H, values)
        Rows of the image; columns and channels need no distinction here.
    first : int64 (h,)
        First input row of each output row.
    weights : int32 (h, taps)
    total : int32 (values,)
        Room for the sums of a row.
    out : uint8 (h, values)
    """
    rows, taps = weights.shape
    values = image.shape[1]
    for y in range(rows):
        total[:] = HALF
        for k in range(taps):
            weight = weights[y, k]
            line = image[first[y] + k]  # a view of one row: with the index in the loop, it is 13 times slower
            for i in range(values):
                total[i] += weight * line[i]
        target = out[y]
        for i in range(values):
            target[i] = max(min(total[i] >> PRECISION_BITS, 255), 0)


def without_fourth(image: np.ndarray, out: np.ndarray) -> None:
    """Copy three of four channels.

    Parameters
    ----------
    image : uint8 (H, W, 4)
    out : uint8 (H, W, 3)
    """
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            out[y, x, 0] = image[y, x, 0]
            out[y, x, 1] = image[y, x, 1]
            out[y, x, 2] = image[y, x, 2]


def looked_up(image: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """Give every value what a table has for it.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    table : float32 (3, 256)
        Of each channel.
    out : float32 (3, H, W)
    """
    for y in range(image.shape[0]):
        for channel in range(3):
            for x in range(image.shape[1]):
                out[channel, y, x] = table[channel, image[y, x, channel]]


LOOPS = {
    "horizontal": (horizontal, ("uint8[3]", "int64[1]", "int32[2]", "uint8[3]")),
    "vertical": (vertical, ("uint8[2]", "int64[1]", "int32[2]", "int32[1]", "uint8[2]")),
    "without_fourth": (without_fourth, ("uint8[3]", "uint8[3]")),
    "looked_up": (looked_up, ("uint8[3]", "float32[2]", "float32[3]")),
}
"""The functions, and the arrays that they take."""


def run(name: str, *arrays: np.ndarray) -> None:
    """Run one of `LOOPS` on C-contiguous arrays, compiled unless Numba is switched off."""
    if not numba_is_on():
        LOOPS[name][0](*arrays)
        return
    numbers = [number for array in arrays for number in numba_array(array)]
    _compiled(name, len(numbers))(*numbers)


@once
def _compiled(name: str, integers: int) -> Callable[..., None]:
    return library(host()).callable(name, integers)


@once
def library(target: Target) -> Functions:
    """Return the loops, for a CPU."""
    return lookup.library("resize", target, __name__, _define)


def _define(library: Library) -> None:
    for name, (function, arguments) in LOOPS.items():
        library.add_numba(name, function, arguments)

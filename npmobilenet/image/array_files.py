"""Pictures in NumPy's own files (``.npy``), which need no image library."""

from __future__ import annotations

import os
from math import prod
from typing import BinaryIO

import numpy as np

from npmobilenet.errors import ImageError

BEGINNING = b"\x93NUMPY"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_array(file: BinaryIO, name: str, most_pixels: int) -> np.ndarray:
    """Return the array in a file that can seek, if it may be a picture: nothing is read that the file has not.

    Raises
    ------
    ImageError
        If it is damaged, or no array of a picture's size.
    ValueError
        If its header cannot be read.
    """
    file.seek(0)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ImageError(f"{name}: an array file of version {version[0]}.{version[1]}, expected 1.0 or 2.0")
    shape, in_columns, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ImageError(f"{name}: an array of Python objects is no picture: nothing is unpickled here")
    begin = file.tell()
    if prod(shape[:2]) > most_pixels or prod(shape) * dtype.itemsize > file.seek(0, os.SEEK_END) - begin:
        raise ImageError(f"{name}: its shape {shape} is larger than the file, or than {most_pixels} pixels")
    file.seek(begin)
    array = np.frombuffer(file.read(prod(shape) * dtype.itemsize), dtype)
    return array.reshape(shape[::-1]).T if in_columns else array.reshape(shape)

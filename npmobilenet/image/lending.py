"""Pillow's pixels where they lie: without a copy, and so without Python's lock, which Pillow holds while it copies.

Pillow lends them as an array of Apache Arrow's C data interface (``ArrowArray`` of its ``abi.h``), since version 11.2.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


class _Array(ctypes.Structure):
    """A lent array: of pixels as lists of four bytes, which are its child."""


_Array._fields_ = (
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
)


class _Described:
    """What NumPy takes for an array: it keeps this, and this the capsule that keeps the memory."""

    def __init__(self, capsule: object, address: int, shape: tuple[int, ...]) -> None:
        self.capsule = capsule
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": shape, "data": (address, True)}


_content = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def lent_pixels(image: Image) -> np.ndarray | None:
    """Return an RGB image as uint8 (H, W, 4), read-only, whose fourth channel means nothing; None if it is not lent.

    It is not if it is of another mode, or so large that Pillow keeps it in pieces.
    """
    lend = getattr(image, "__arrow_c_array__", None)
    if lend is None or image.mode != "RGB":
        return None
    try:
        _, capsule = lend()
    except (ValueError, MemoryError):
        return None
    array = _Array.from_address(_content(capsule, b"arrow_array"))
    pixels = image.width * image.height
    if array.length != pixels or array.n_children != 1 or array.offset:
        return None
    child = array.children[0].contents
    if child.length != 4 * pixels or child.n_buffers != 2 or child.offset:
        return None
    return np.asarray(_Described(capsule, child.buffers[1], (image.height, image.width, 4)))

"""Memory for tensors and tables: at the beginning of a cache line, and given back to the system when it is much."""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress

import numpy as np

ALIGNMENT = 64  # bytes: a cache line
MAPPED_FROM = 1 << 20  # bytes: from here on memory is taken from the system itself
HUGE_FROM = 1 << 22  # bytes: from here on in huge pages, as NumPy does


def aligned(values: int, dtype: type = np.float32) -> np.ndarray:
    """Return zeros whose address is a multiple of `ALIGNMENT`; much memory goes back to the system when it is freed.

    Kernels may read a cache line beyond the end, but nothing depends on what stands there.
    """
    item = np.dtype(dtype).itemsize
    size = values * item
    raw = _mapped(size) if size >= MAPPED_FROM else np.zeros(size + 2 * ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + values * item].view(dtype)


def aligned_bytes(size: int) -> int:
    """So many bytes or a little more: whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _mapped(size: int) -> np.ndarray:
    """Return so many bytes in pages of their own: freed, they leave the process; malloc would often keep them."""
    # Private, so that a forked child writes to a copy; Windows has neither forks nor these flags.
    flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        pages = mmap.mmap(-1, size + 2 * ALIGNMENT, **flags)
    except (OSError, OverflowError):
        raise MemoryError(f"the system has no {size / 2**20:,.0f} MiB of memory left for a network's tensors") from None
    if size >= HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


def _header() -> int:
    array, header = np.empty(1), object.__basicsize__
    known = sys.implementation.name == "cpython"
    return header if known and ctypes.c_void_p.from_address(id(array) + header).value == array.ctypes.data else 0


HEADER = _header()
"""In CPython an array is an object's header of so many bytes and then the address of its values: part of NumPy's binary
interface, which compiled extensions rely on. 0 where a look at an array does not find it so."""

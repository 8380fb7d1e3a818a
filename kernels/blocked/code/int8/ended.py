"""Convolutions of 8-bit tensors that end with an activation that is more than a clamp, or have small weights."""

from __future__ import annotations

from npmobilenet.kernels.blocked.code.int8 import depthwise, entry, pointwise, stem
from npmobilenet.kernels.blocked.library import INT8_WINDOWS, STEM_WINDOW
from npmobilenet.kernels.vector.library import Library


def define(library: Library, end: str, small: bool) -> None:
    """Add the kernels; those of 15 and 13 bits, and of float32, have no other way for ``small`` weights."""
    pointwise.define(library, end, small)
    for kernel, stride, wide in INT8_WINDOWS:
        if not (small and wide):
            depthwise.define(library, kernel, stride, wide, end, small)
    if not small:
        entry.define_quantize(library, end)
        stem.define(library, *STEM_WINDOW, end)

"""Convolutions of 8-bit tensors that end with an activation that is more than a clamp: a library for each."""

from __future__ import annotations

from npmobilenet.kernels.blocked.code.int8 import depthwise, entry, pointwise, stem
from npmobilenet.kernels.blocked.library import INT8_WINDOWS, STEM_WINDOW
from npmobilenet.kernels.vector.library import Library


def define(library: Library, end: str) -> None:
    """Add the kernels."""
    entry.define_quantize(library, end)
    pointwise.define(library, end)
    for window in INT8_WINDOWS:
        depthwise.define(library, *window, end)
    stem.define(library, *STEM_WINDOW, end)

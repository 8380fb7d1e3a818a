"""What int8 MobileNets need, in one library."""

from __future__ import annotations

from npmobilenet.kernels.blocked.code import padding
from npmobilenet.kernels.blocked.code.int8 import depthwise, entry, inverted_residual, pointwise, pooling, stem
from npmobilenet.kernels.blocked.library import INT8_WINDOWS, STEM_WINDOW
from npmobilenet.kernels.vector.library import Library


def define(library: Library) -> None:
    """Add the kernels."""
    padding.define(library, of_bytes=True)
    entry.define(library)
    pointwise.define(library)
    for window in INT8_WINDOWS:
        depthwise.define(library, *window)
    stem.define(library, *STEM_WINDOW)
    pooling.define(library)
    inverted_residual.define(library)

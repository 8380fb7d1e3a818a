"""What int8 MobileNets need, in one library."""

from __future__ import annotations

from npmobilenet.kernels.blocked.code.int8 import depthwise, entry, pointwise
from npmobilenet.kernels.blocked.library import INT8_WINDOWS
from npmobilenet.kernels.vector.library import Library


def define(library: Library) -> None:
    """Add the kernels."""
    entry.define(library)
    pointwise.define(library)
    for window in INT8_WINDOWS:
        depthwise.define(library, *window)

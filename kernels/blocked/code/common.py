"""What MobileNets need, in one library."""

from __future__ import annotations

from npmobilenet.kernels.blocked.code import (
    activation,
    depthwise,
    inverted_residual,
    linear,
    mixed,
    padding,
    planes,
    pointwise,
    pooling,
    stem,
)
from npmobilenet.kernels.blocked.library import COMMON_WINDOWS, STEM_WINDOW
from npmobilenet.kernels.vector.library import Library


def define(library: Library) -> None:
    """Add the kernels."""
    activation.define(library)
    padding.define(library)
    planes.define(library)
    pointwise.define(library)
    for window in COMMON_WINDOWS:
        depthwise.define(library, *window)
    mixed.define(library)
    stem.define(library, *STEM_WINDOW)
    pooling.define(library)
    inverted_residual.define(library, STEM_WINDOW)
    linear.define(library)

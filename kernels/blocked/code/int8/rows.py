"""How a row of a result is cut into runs of pixels that are computed at once: the last overlaps the one before it."""

from __future__ import annotations

from collections.abc import Sequence

from npmobilenet.kernels.vector.simd import Code, Integer

OVERHEAD = 2  # of a run, in pixels


def best_width(code: Code, columns: Integer, widths: Sequence[int], bounded: Integer) -> Integer:
    """The cheapest of these widths for a row of so many pixels; 1, which bounds results itself, if these are not."""
    chosen, least = code.integer(1), code.integer(1 << 40)
    for pixels in widths:
        cost = (columns + (pixels - 1)) // pixels * (pixels + OVERHEAD)
        cost = code.select(columns >= pixels, cost, code.integer(1 << 41))
        chosen = code.select(cost < least, code.integer(pixels), chosen)
        least = cost.minimum(least)
    return code.select(bounded > 0, chosen, code.integer(1))

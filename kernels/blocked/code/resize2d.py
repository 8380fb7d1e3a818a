"""Feature maps at another size: a row of the result is made of two of the image, then of its own neighbours.

Rows come first: of the columns of the image that any pixel needs, each is computed once, however many pixels lie beside
it. The row of them stays in the first cache.
"""

from __future__ import annotations

from npmobilenet.kernels.blocked.resize2d import BILINEAR, NEAREST
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector


def define(library: Library) -> None:
    """Add the kernels."""
    library.add("bilinear", bilinear)
    library.add("nearest", nearest)


def bilinear(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: rows ``first`` up to ``last`` of a resized image (fields `BILINEAR`), all of a block before the next."""
    a = BILINEAR.read(arguments)
    size = code.target.bytes
    used, column_taps, column_weights = (a.at(name) for name in ("used", "column_taps", "column_weights"))

    def between(near: Pointer, far: Pointer, weights: list[Vector]) -> Vector:
        return (near.vector() * weights[0]).fma(far.vector(), weights[1])

    def at_item(item: Integer) -> None:
        block, row = item // a["rows"], item % a["rows"]
        x, out = a.at("x") + a["x_plane"] * block, a.at("out") + a["out_plane"] * block + a["out_row"] * row
        upper, lower = _two(a.at("row_taps"), row)
        weights = _weights(a.at("row_weights"), row)

        def down(column: Integer) -> None:
            place = used.integer(column * 8)
            (scratch + column * size).store(between(x + upper + place, x + lower + place, weights))

        def across(column: Integer) -> None:
            left, right = _two(column_taps, column)
            y = between(scratch + left, scratch + right, _weights(column_weights, column))
            (out + column * size).store(y)

        code.loop(a["used_columns"], down)
        code.loop(a["columns"], across)

    code.loop(last, at_item, start=first)


def _two(taps: Pointer, number: Integer) -> list[Integer]:
    return [taps.integer(number * 16 + each) for each in (0, 8)]


def _weights(weights: Pointer, number: Integer) -> list[Vector]:
    return [weights.splat(number * 8 + each) for each in (0, 4)]


def nearest(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: rows ``first`` up to ``last`` of a resized image (fields `NEAREST`), all of a block before the next."""
    a = NEAREST.read(arguments)
    size, column_taps = code.target.bytes, a.at("column_taps")

    def at_item(item: Integer) -> None:
        block, row = item // a["rows"], item % a["rows"]
        line = a.at("x") + a["x_plane"] * block + a.at("row_taps").integer(row * 8)
        out = a.at("out") + a["out_plane"] * block + a["out_row"] * row

        def at(column: Integer) -> None:
            (out + column * size).store((line + column_taps.integer(column * 8)).vector())

        code.loop(a["columns"], at)

    code.loop(last, at_item, start=first)

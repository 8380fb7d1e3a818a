"""Softmax over the channels of each pixel: the largest, the sum of the exponentials, the division, in three passes."""

from __future__ import annotations

from collections.abc import Callable

from npmobilenet.kernels.blocked.code.activation import exponential
from npmobilenet.kernels.blocked.softmax import SOFTMAX
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector


def define(library: Library) -> None:
    """Add the kernel."""
    library.add("softmax", softmax)


def softmax(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: rows ``first`` up to ``last`` (fields `SOFTMAX`). A pixel's sum is always taken in the same order."""
    a, size = SOFTMAX.read(arguments), code.target.bytes
    x, out, beyond = a.at("x"), a.at("out"), a.at("beyond").vector()
    x_row, x_plane, out_row, out_plane = (a[name] for name in ("x_row", "x_plane", "out_row", "out_plane"))
    columns, last_block = a["columns"], a["blocks"] - 1

    def over_blocks(source: Pointer, step: Callable[[Integer, Vector, Vector], Vector], total: Vector) -> Vector:
        """Hand a total from block to block, the last of which has lanes that are no channels."""

        def at_block(block: Integer, total: Vector) -> list[Vector]:
            return [step(block, (source + block * x_plane).vector(), total)]

        (total,) = code.loop(last_block, at_block, [total])
        return step(last_block, (source + last_block * x_plane).vector() + beyond, total)

    def at_row(row: Integer) -> None:
        def at_pixel(column: Integer) -> None:
            source, place = x + row * x_row + column * size, out + row * out_row + column * size
            largest = over_blocks(source, lambda _, value, most: most.maximum(value), code.splat(float("-inf")))
            largest = largest.across(Vector.maximum)

            def exponentiate(block: Integer, value: Vector, total: Vector) -> Vector:
                power = exponential(code, largest - value)
                (place + block * out_plane).store(power)
                return total + power

            total = over_blocks(source, exponentiate, code.splat(0.0)).across(Vector.__add__)

            def divide(block: Integer) -> None:
                here = place + block * out_plane
                here.store(here.vector() / total)

            code.loop(last_block + 1, divide)

        code.loop(columns, at_pixel)

    code.loop(last, at_row, start=first)

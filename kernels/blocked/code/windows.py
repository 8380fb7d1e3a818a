"""Maxima and means of windows, and the maximum of all pixels.

A window is a few rows of a few pixels, each a whole vector: several windows of a row are under way at once. Where the
image ends windows are narrower, and taken one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from npmobilenet.kernels.blocked.pooling import GLOBAL_MAX, TAPS, WINDOWS
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector

TILES = (8, 4, 1)  # windows under way at once: rows that have so many whole ones
PARTIAL_MAXIMA = 4


@dataclass(frozen=True)
class Pooling:
    """How a window becomes one value."""

    name: str
    start: float
    more: Callable[[Vector, Vector], Vector]
    is_mean: bool


MAXIMUM = Pooling("max_pool2d", float("-inf"), Vector.maximum, False)
MEAN = Pooling("average_pool2d", 0.0, Vector.__add__, True)


def define(library: Library) -> None:
    """Add the kernels."""
    library.add("global_max_pool", global_max_pool)
    for pooling in (MAXIMUM, MEAN):
        for tile in TILES:
            library.add(_name(pooling, tile), _run(pooling, tile))
        library.add(pooling.name, _whole(pooling))


def _name(pooling: Pooling, tile: int) -> str:
    return f"{pooling.name}_{tile}"


def _run(pooling: Pooling, tile: int):
    """Windows of one shape beside one another; at least as many as the tile has."""

    def write(
        code: Code,
        x: Pointer,
        x_row: Integer,
        rows: Integer,
        columns: Integer,
        stride: Integer,
        row_factor: Pointer,
        column_factors: Pointer,
        out: Pointer,
        windows: Integer,
    ) -> None:
        size = code.target.bytes

        def at_tile(index: Integer) -> None:
            window = (index * tile).minimum(windows - tile)
            corners = [x + (window + m) * stride for m in range(tile)]

            def at_row(i: Integer, *values: Vector) -> list[Vector]:
                def at_tap(j: Integer, *values: Vector) -> list[Vector]:
                    tap = i * x_row + j * size
                    return [pooling.more(y, corner.vector(tap)) for y, corner in zip(values, corners, strict=True)]

                return code.loop(columns, at_tap, values)

            values = code.loop(rows, at_row, [code.splat(pooling.start)] * tile)
            if pooling.is_mean:
                row = row_factor.splat()
                values = [y * (row * column_factors.splat((window + m) * 4)) for m, y in enumerate(values)]
            for m, y in enumerate(values):
                (out + window * size).store(y, m * size)

        code.loop((windows + (tile - 1)) // tile, at_tile)

    return write


def _whole(pooling: Pooling):
    def kernel(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: rows ``first`` up to ``last`` of a layer (fields `WINDOWS`), all of a block before the next."""
        a = WINDOWS.read(arguments)
        size, whole, cut = code.target.bytes, a["whole"], a["cut"]

        def at_item(item: Integer) -> None:
            block, row = item // a["rows"], item % a["rows"]
            down = TAPS.read(a.at("row_taps") + row * TAPS.bytes)
            line = a.at("x") + a["x_plane"] * block + down["first"]
            out = a.at("out") + a["out_plane"] * block + a["out_row"] * row

            def run(tile: int, column: Integer, windows: Integer) -> None:
                right = TAPS.read(a.at("column_taps") + column * TAPS.bytes)
                code.call(
                    _name(pooling, tile),
                    *(line + right["first"], a["x_row"], down["count"], right["count"], a["stride_column"]),
                    *(a.at("row_factors") + row * 4, a.at("column_factors") + column * 4),
                    *(out + column * size, windows),
                )

            def alone(column: Integer) -> None:
                run(1, column, code.integer(1))

            code.loop(whole, alone)
            most = code.integer(1 << 40)
            for tile in TILES:
                least = code.integer(tile)
                fits = code.builder.and_(cut - whole >= least, cut - whole < most)
                with code.when(fits):
                    run(tile, whole, cut - whole)
                most = least
            code.loop(a["columns"], alone, start=cut)

        code.loop(last, at_item, start=first)

    return kernel


def global_max_pool(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: blocks ``first`` up to ``last`` of a maximum over all pixels (fields `GLOBAL_MAX`)."""
    a = GLOBAL_MAX.read(arguments)
    size, columns = code.target.bytes, a["columns"]
    whole = (columns // PARTIAL_MAXIMA) * PARTIAL_MAXIMA

    def at_block(block: Integer) -> None:
        plane = a.at("x") + a["x_plane"] * block

        def at_row(row: Integer, *largest: Vector) -> list[Vector]:
            line = plane + a["x_row"] * row

            def group(pixel: Integer, *largest: Vector) -> list[Vector]:
                return [y.maximum((line + pixel * size).vector(i * size)) for i, y in enumerate(largest)]

            def single(pixel: Integer, y: Vector) -> list[Vector]:
                return [y.maximum((line + pixel * size).vector())]

            first, *others = code.loop(whole, group, largest, step=PARTIAL_MAXIMA)
            return code.loop(columns, single, [first], start=whole) + others

        largest = code.loop(a["rows"], at_row, [code.splat(float("-inf"))] * PARTIAL_MAXIMA)
        y = largest[0].maximum(largest[1]).maximum(largest[2].maximum(largest[3]))
        (a.at("out") + block * size).store(y)

    code.loop(last, at_block, start=first)

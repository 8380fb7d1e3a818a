"""Dense convolution of a blocked tensor, of any window: pointwise products for every tap of the window, in one tile.

A tile is pixels of one output row x channel blocks, whose sums stay in registers from the bias to the activation,
while three loops run over the window's rows, its columns and the input channels. Each step loads a vector of weights
per block and, for each pixel, one input value into all lanes. What a window is like (size, stride, dilation) are
arguments: it only sets the addresses apart.

Taps that meet nothing but the frame's zeros are left out: rows of the window for a row of the output, columns for a
tile. In a pyramid of atrous convolutions most of them do (1706.05587, section 3.3, whose features are 33 pixels wide
and whose taps lie up to 36 apart).

The last tile of a row overlaps the one before it instead of being narrower, and writes the same values again.
"""

from __future__ import annotations

from functools import partial

from npmobilenet.kernels.blocked.code import activation
from npmobilenet.kernels.blocked.code.pointwise import steps
from npmobilenet.kernels.blocked.convolution import CONVOLUTION
from npmobilenet.kernels.blocked.layout import k_unit
from npmobilenet.kernels.blocked.pointwise import INPUTS
from npmobilenet.kernels.blocked.tiles import Tile, tiles
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector

HEIGHTS = (1, 4 / 5, 1 / 2, 1 / 4, 0)  # of tiles, as parts of the full one: a row takes the one that wastes least
REACH = 3  # pixels whose addresses are made of one register: its own, and those one and two strides on


def define(library: Library) -> None:
    """Add the kernels."""
    fastest = tiles(library.target)
    wide, narrow = fastest.row, fastest.narrow
    for tile in dict.fromkeys((wide, narrow)):
        for shape in _shapes(tile):
            library.add(_name(shape), _row(library, shape))
    library.add("convolution", _whole(library, wide, narrow))


def _shapes(tile: Tile) -> list[Tile]:
    return list(dict.fromkeys(Tile(max(1, int(tile.pixels * part)), tile.blocks) for part in HEIGHTS))


def _name(tile: Tile) -> str:
    return f"convolution_{tile.pixels}x{tile.blocks}"


def _taps_before(place: Integer, dilation: Integer) -> Integer:
    """How many taps of a window's row or column lie before a place; of one that lies before the window none."""
    return (place.maximum(0) + (dilation - 1)) // dilation


def _row(library: Library, tile: Tile):
    """One row of one panel; at least as many pixels as the tile has."""
    target, size, unit = library.target, library.target.bytes, k_unit(library.target)
    per_block = target.lanes // unit

    def write(
        code: Code,
        x: Pointer,
        x_plane: Integer,
        weights: Pointer,
        bias: Pointer,
        out: Pointer,
        out_column: Integer,
        out_plane: Integer,
        columns: Integer,
        units: Integer,
        first_row: Integer,
        last_row: Integer,
        tap_columns: Integer,
        tap_row: Integer,
        tap_column: Integer,
        stride: Integer,
        left: Integer,
        right: Integer,
        stride_x: Integer,
        dilation_x: Integer,
        clamp: Pointer,
    ) -> None:
        low, high = clamp.splat(0), clamp.splat(4)
        tap_weights = units * (unit * tile.blocks * size)

        def step(k: Integer, source: Pointer, panel: Pointer, sums: list[Vector]) -> list[Vector]:
            source = source + (k // per_block) * x_plane + (k % per_block) * (4 * unit)
            panel = panel + k * (unit * tile.blocks * size)
            anchors = [source + stride * m for m in range(0, tile.pixels, REACH)]
            pixels = [anchors[m // REACH] + stride * (m % REACH) for m in range(tile.pixels)]
            for j in range(unit):
                w = [panel.vector((j * tile.blocks + v) * size) for v in range(tile.blocks)]
                for m, pixel in enumerate(pixels):
                    value = pixel.splat(4 * j)
                    for v in range(tile.blocks):
                        sums[m * tile.blocks + v] = sums[m * tile.blocks + v].fma(value, w[v])
            return sums

        def at_tile(index: Integer) -> None:
            pixel = (index * tile.pixels).minimum(columns - tile.pixels)
            first = x + pixel * stride
            column = pixel * stride_x
            first_column = _taps_before(left - column - (tile.pixels - 1) * stride_x, dilation_x)
            last_column = _taps_before(right - column, dilation_x).minimum(tap_columns)

            def at_tap(i: Integer, j: Integer, sums: list[Vector]) -> list[Vector]:
                source = first + i * tap_row + j * tap_column
                panel = weights + (i * tap_columns + j) * tap_weights
                return code.loop(units, lambda k, *sums: step(k, source, panel, list(sums)), sums)

            def at_tap_row(i: Integer, *sums: Vector) -> list[Vector]:
                return code.loop(last_column, lambda j, *sums: at_tap(i, j, list(sums)), sums, start=first_column)

            sums = [bias.vector(v * size) for _ in range(tile.pixels) for v in range(tile.blocks)]
            sums = code.loop(last_row, at_tap_row, sums, start=first_row)
            for m in range(tile.pixels):
                place = out + (pixel + m) * out_column
                for v in range(tile.blocks):
                    place.store(sums[m * tile.blocks + v].clamp(low, high), out_plane * v)

        code.loop((columns + (tile.pixels - 1)) // tile.pixels, at_tile)

    return write


def _whole(library: Library, wide_tile: Tile, narrow_tile: Tile):
    size = library.target.bytes

    def convolution(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: rows ``first`` up to ``last`` of a layer (fields `CONVOLUTION`), all of a panel before the next."""
        a = CONVOLUTION.read(arguments)
        columns, wide, activate = a["columns"], a["wide"], a.at("activate")

        def least(shapes: list[Tile]) -> Integer:
            """The pixels of the shape that takes a row in the fewest steps; of equals the lower: it is faster."""
            best, fewest = code.integer(1), steps(columns, Tile(1, shapes[0].blocks))
            for shape in reversed(shapes[:-1]):
                needed = code.select(columns >= shape.pixels, steps(columns, shape), code.integer(1 << 41))
                better = needed < fewest
                best = code.select(better, code.integer(shape.pixels), best)
                fewest = code.select(better, needed, fewest)
            return best

        chosen = {tile: least(_shapes(tile)) for tile in dict.fromkeys((wide_tile, narrow_tile))}

        def row_of(tile: Tile, number: Integer, row: Integer) -> None:
            narrow_before = (number - wide).maximum(0)
            block = (number - narrow_before) * wide_tile.blocks + narrow_before
            own = INPUTS.read(a.at("inputs") + number * INPUTS.bytes)
            out = a.at("out") + a["out_plane"] * block + a["out_row"] * row
            run = (
                a.at("x") + own["first_block"] * a["x_plane"] + row * a["stride_row"],
                a["x_plane"],
                a.at("weights") + own["weights_at"],
                a.at("bias") + block * size,
                out,
                a["out_column"],
                a["out_plane"],
                columns,
                own["units"],
                _taps_before(a["image_top"] - row * a["stride_y"], a["dilation_y"]),
                _taps_before(a["image_bottom"] - row * a["stride_y"], a["dilation_y"]).minimum(a["tap_rows"]),
                *(a["tap_columns"], a["tap_row"], a["tap_column"], a["stride_column"]),
                *(a["image_left"], a["image_right"], a["stride_x"], a["dilation_x"]),
                a.at("clamp"),
            )
            for shape in _shapes(tile):
                with code.when(chosen[tile].equals(shape.pixels)):
                    code.call(_name(shape), *run)
            for v in range(tile.blocks):
                activation.apply(code, activate, out + a["out_plane"] * v, columns)

        def at(tile: Tile, item: Integer) -> None:
            row_of(tile, item // a["rows"], item % a["rows"])

        between = wide * a["rows"]
        code.loop(last.minimum(between), partial(at, wide_tile), start=first)
        code.loop(last, partial(at, narrow_tile), start=first.maximum(between))

    return convolution

"""The first convolution: dense, from the planar image (C_in, H, W).

The image is read where it is. What windows see that reach beyond it is copied among zeros first, for one row of windows
at a time: that stays in the nearest cache, where a copy of the whole image would not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from npmobilenet.kernels.blocked.code import activation, planes
from npmobilenet.kernels.blocked.library import stem_name
from npmobilenet.kernels.blocked.stem import IMAGE, STEM
from npmobilenet.kernels.blocked.tiles import Tile, tiles
from npmobilenet.kernels.memory import ALIGNMENT as LINE
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector
from npmobilenet.kernels.vector.target import Target

if TYPE_CHECKING:
    from llvmlite import ir


def stem_tile(target: Target, kernel: tuple[int, int], blocks: int) -> Tile:
    """Sums, as many as are best, or as find room beside the taps of one row of the window and one input value."""
    sums = min(tiles(target).stem_sums, target.registers - 1 - kernel[1] * blocks)
    return Tile(max(1, sums // blocks), blocks)


def define(
    library: Library, kernel: tuple[int, int], stride: tuple[int, int], tiling: tuple[Tile, Tile] | None = None
) -> None:
    """Add the kernels for one window; ``tiling`` are other tiles than the best, for the panels and for the rest."""
    own = stem_name(kernel, stride)
    most = tiles(library.target).wide.blocks
    wide, narrow = tiling or (stem_tile(library.target, kernel, blocks) for blocks in (most, 1))
    for tile in dict.fromkeys((wide, narrow)):
        for shape in {tile, Tile(1, tile.blocks)}:
            library.add(f"{own}_{shape.pixels}x{shape.blocks}", _row(library, kernel, stride, shape))
    library.add(f"{own}_rows", _rows(library, kernel, stride, wide, narrow))
    library.add(own, _whole(own))


def _row(library: Library, kernel: tuple[int, int], stride: tuple[int, int], tile: Tile):
    """One row of one panel; at least as many pixels as the tile has."""
    size = library.target.bytes
    k_h, k_w = kernel

    def write(
        code: Code,
        x: Pointer,
        x_row: Integer,
        x_plane: Integer,
        channels: Integer,
        weights: Pointer,
        bias: Pointer,
        out: Pointer,
        out_plane: Integer,
        columns: Integer,
        clamp: Pointer,
    ) -> None:
        low, high = clamp.splat(0), clamp.splat(4)

        # By input columns, so that a value is loaded once for all windows it is in, and is gone after them:
        # by pixels and taps LLVM keeps shared values for later, and runs out of registers.
        span = (tile.pixels - 1) * stride[1] + k_w

        def step(channel: Integer, pixel: Integer, sums: list[Vector]) -> list[Vector]:
            source = x + channel * x_plane + pixel * (4 * stride[1])
            panel = weights + channel * (k_h * k_w * tile.blocks * size)
            for i in range(k_h):
                taps = [panel.vector((i * k_w * tile.blocks + at) * size) for at in range(k_w * tile.blocks)]
                for column in range(span):
                    value = (source + x_row * i).splat(4 * column)
                    for m in range(tile.pixels):
                        j = column - m * stride[1]
                        if 0 <= j < k_w:
                            for v in range(tile.blocks):
                                at = m * tile.blocks + v
                                sums[at] = sums[at].fma(value, taps[j * tile.blocks + v])
            return sums

        def at_tile(index: Integer) -> None:
            pixel = (index * tile.pixels).minimum(columns - tile.pixels)
            sums = [bias.vector(v * size) for _ in range(tile.pixels) for v in range(tile.blocks)]
            sums = code.loop(channels, lambda c, *sums: step(c, pixel, list(sums)), sums)
            for m in range(tile.pixels):
                for v in range(tile.blocks):
                    y = sums[m * tile.blocks + v].clamp(low, high)
                    (out + out_plane * v + pixel * size).store(y, m * size)

        code.loop((columns + (tile.pixels - 1)) // tile.pixels, at_tile)

    return write


def _rows(library: Library, kernel: tuple[int, int], stride: tuple[int, int], wide_tile: Tile, narrow_tile: Tile):
    """All panels of a run of rows, from row ``first`` on, whose first pixel is at ``out``."""
    size = library.target.bytes
    own = stem_name(kernel, stride)
    taps = kernel[0] * kernel[1] * size

    def write(
        code: Code,
        x: Pointer,
        x_row: Integer,
        x_plane: Integer,
        image: Pointer,
        scratch: Pointer,
        first: Integer,
        channels: Integer,
        weights: Pointer,
        bias: Pointer,
        out: Pointer,
        out_row: Integer,
        out_plane: Integer,
        columns: Integer,
        clamp: Pointer,
        activate: Pointer,
        wide: Integer,
        blocks: Integer,
        rows: Integer,
    ) -> None:
        a, zero = IMAGE.read(image), code.splat(0.0)
        staged, line_bytes = scratch + a["staged"], a["staged_row"]
        copied = staged + (a["begin"] - a["left"] * 4), line_bytes, line_bytes * kernel[0]

        # Of a row of windows that sees no row beyond the image, those in the middle read the image; at both ends as
        # many read the copy as reach beyond it, but whole tiles.
        most = max(wide_tile.pixels, narrow_tile.pixels)
        beyond = (a["beyond_left"], a["beyond_right"])
        left, right = (code.select(n > 0, n.maximum(most), code.integer(0)) for n in beyond)
        middle = columns - left - right

        def clear(line: Pointer, lines: Integer | int = 1) -> None:
            code.loop(line_bytes * lines // size, lambda at: (line + at * size).store(zero))

        def stage(begin: Integer, ends: ir.Value) -> None:
            """Copy the rows of the image that windows see, from ``begin`` on, between the zeros that stand there.

            All of them, or what those at both ends see.
            """
            seen = (left * stride[1] + (kernel[1] - stride[1]) - a["left"]).minimum(a["width"])
            unseen = (columns - right) * stride[1] - a["left"]

            def at_channel(channel: Integer) -> None:
                for i in range(kernel[0]):
                    row, line = begin + i, staged + (channel * kernel[0] + i) * line_bytes
                    inside = code.builder.and_(row >= 0, row < a["height"])
                    source, place = x + x_plane * channel + x_row * row, line + a["begin"]
                    with code.when(code.builder.and_(inside, ends)):
                        planes.copy_line(code, source, place, seen)
                        planes.copy_line(code, source + unseen * 4, place + unseen * 4, a["width"] - unseen)
                    with code.when(code.builder.and_(inside, code.builder.not_(ends))):
                        planes.copy_line(code, source, place, a["width"])
                    with code.when(code.builder.not_(inside)):
                        clear(line)
                    if i >= kernel[0] - stride[0]:  # what the next windows see that these do not
                        ahead = source + x_row * stride[0]
                        code.loop(a["width"] * 4, lambda at, ahead=ahead: (ahead + at).prefetch(), step=LINE)

            code.loop(channels, at_channel)

        def panel(row: Integer, begin: Integer, ends: ir.Value, block: Integer, tile: Tile) -> None:
            place = out + out_row * row + out_plane * block
            panel_weights, panel_bias = weights + block * channels * taps, bias + block * size

            def windows(lines: tuple[Pointer, Integer, Integer], start: Integer | int, count: Integer) -> None:
                """So many of the row's pixels, from ``start`` on; ``lines`` are where the very first window is."""
                source, row_bytes, plane_bytes = lines
                arguments = (
                    *(source + start * (4 * stride[1]), row_bytes, plane_bytes, channels, panel_weights, panel_bias),
                    *(place + start * size, out_plane, count, clamp),
                )
                with code.when(count >= tile.pixels):
                    code.call(f"{own}_{tile.pixels}x{tile.blocks}", *arguments)
                with code.when(count < tile.pixels):
                    code.call(f"{own}_1x{tile.blocks}", *arguments)

            def from_image() -> None:
                windows(copied, 0, left)
                windows((x + x_row * begin - a["left"] * 4, x_row, x_plane), left, middle)
                windows(copied, columns - right, right)

            code.either(ends, from_image, lambda: windows(copied, 0, columns))
            for v in range(tile.blocks):
                activation.apply(code, activate, place + out_plane * v, columns)

        def at_row(row: Integer) -> None:
            begin = (first + row) * stride[0] - a["top"]
            inside = code.builder.and_(begin >= 0, begin + kernel[0] <= a["height"])
            ends = code.builder.and_(inside, middle >= most)
            stage(begin, ends)
            code.loop(wide, lambda number: panel(row, begin, ends, number * wide_tile.blocks, wide_tile))
            code.loop(blocks, lambda block: panel(row, begin, ends, block, narrow_tile), start=wide * wide_tile.blocks)

        clear(staged, channels * kernel[0])
        code.loop(rows, at_row)

    return write


def _whole(own: str):
    def stem(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: rows ``first`` up to ``last`` of the layer (fields `STEM`)."""
        a = STEM.read(arguments)
        code.call(
            f"{own}_rows",
            *(a.at("x"), a["x_row"], a["x_plane"], a.at("image"), scratch, first, a["k_units"]),
            *(a.at("weights"), a.at("bias"), a.at("out") + a["out_row"] * first, a["out_row"], a["out_plane"]),
            *(a["columns"], a.at("clamp"), a.at("activate"), a["wide"], a["blocks"], last - first),
        )

    return stem

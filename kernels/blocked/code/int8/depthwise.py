"""Depthwise convolution of an 8-bit tensor inside its frame: four taps of a row are one product of each lane.

A register that is loaded holds four pixels of a channel block; transposed, it has the four of each channel in a lane.
Windows that are wider take several, and a pixel's register serves all windows that begin or go on there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from npmobilenet.kernels.blocked.code.int8.ending import (
    either_floats,
    end_floats,
    store_bytes,
    store_floats,
    then_bytes,
    then_floats,
)
from npmobilenet.kernels.blocked.int8.depthwise import DEPTHWISE, LOW_BITS
from npmobilenet.kernels.blocked.int8.layout import QUAD, is_one_instruction
from npmobilenet.kernels.blocked.library import CLAMP, int8_window_name
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Integers, Pointer
from npmobilenet.kernels.vector.target import Target

UNROLLED_ROWS = 5  # of a window; more become a loop
PIXELS = 4  # of a tile: what they become is one register of bytes
WIDE_PIXELS = 8  # of one that is a single row of the result
MOST_ROWS = 4  # of a tile
OVERHEAD = 2  # of a tile, in pixels


def _rows_together(target: Target, kernel: Pair, wide: bool) -> int:
    """How many rows of the result are computed at once, so that what they share of the image is transposed once.

    Their sums find room in registers beside the window's weights.
    """
    weights = kernel[0] * -(-kernel[1] // QUAD) * (1 + wide)
    room = _room(target) - 2 - weights
    return max(1, min(MOST_ROWS, room // (PIXELS * (1 + wide)))) if 1 < kernel[0] <= UNROLLED_ROWS else 1


def _room(target: Target) -> int:
    """Registers, less where a product takes several instructions."""
    return target.registers if is_one_instruction(target) else target.registers // 2


def _widths(target: Target, kernel: Pair, wide: bool) -> tuple[int, ...]:
    """How many pixels of a row are computed at once, falling."""
    if _rows_together(target, kernel, wide) > 1 or 2 * WIDE_PIXELS * (1 + wide) > _room(target):
        return PIXELS, 1
    return WIDE_PIXELS, PIXELS, 1


def define(library: Library, kernel: Pair, stride: Pair, wide: bool, end: str = CLAMP, small: bool = False) -> None:
    """Add the kernels for one window, with weights of 15 bits if ``wide``, whose results end so (`int8.ending`)."""
    name = int8_window_name(kernel, stride, wide)
    for dilated in (False, True):
        for pixels in _widths(library.target, kernel, wide):
            row = _rows(library, kernel, stride, wide, pixels, dilated, end, small)
            library.add(_row_name(name, pixels, dilated), row)
    library.add(name, _whole(library, name, kernel, stride, wide))


def _row_name(window: str, pixels: int, dilated: bool) -> str:
    return f"{window}_row_{pixels}{'_dilated' * dilated}"


def _rows(library: Library, kernel: Pair, stride: Pair, wide: bool, pixels: int, dilated: bool, end: str, small: bool):
    """Rows of one block, of at least so many pixels."""
    size, lanes = library.target.bytes, library.target.lanes
    quads, parts = -(-kernel[1] // QUAD), 1 + wide
    # What is read for several windows is read once, unless taps stand apart: by pixels, which windows and which taps.
    most = 1 if dilated else _rows_together(library.target, kernel, wide)
    uses: dict[int, list[tuple[int, int]]] = {}
    for m in range(pixels):
        for quad in range(quads):
            uses.setdefault(m * stride[1] + QUAD * quad, []).append((m, quad))

    def write(
        code: Code,
        x: Pointer,
        x_row: Integer,
        weights: Pointer,
        start: Pointer,
        scale: Pointer,
        bias: Pointer,
        out: Pointer,
        out_row: Integer,
        rows: Integer,
        columns: Integer,
        clamp: Pointer,
        out_steps: Pointer,
        out_offset: Pointer,
        floats: Integer,
        tap_row: Integer,
        tap_column: Integer,
    ) -> None:
        def registers(source: Pointer) -> list[tuple[Integers, list[tuple[int, int]]]]:
            if not dilated:
                return ((code.transposed((source + at * lanes).integers()), users) for at, users in uses.items())
            return (
                ((source + m * stride[1] * lanes).transposed_bytes(_distances(tap_column, quad)), [(m, quad)])
                for quad in range(quads)
                for m in range(pixels)
            )

        def _distances(tap_column: Integer, quad: int) -> list[Integer]:
            return [tap_column * tap for tap in range(QUAD * quad, min(QUAD * (quad + 1), kernel[1]))]

        def taps(i: int | Integer, source: Pointer, sums: list[Integers]) -> list[Integers]:
            """Add a row of the window's products."""
            w = weights_of(i)
            for values, users in registers(source + tap_row * i * x_row):
                for m, quad in users:
                    add(sums, 0, m, quad, values, w)
            return sums

        def weights_of(i: int | Integer) -> list[Integers]:
            row = weights + i * (quads * parts * size)
            return [row.integers(at * size) for at in range(quads * parts)]

        def add(sums: list[Integers], row: int, m: int, quad: int, values: Integers, w: list[Integers]) -> None:
            for part in range(parts):
                at = (row * parts + part) * pixels + m
                sums[at] = sums[at].dot4(values, w[quad * parts + part], small)

        def begin() -> list[Integers]:
            high = [code.splat_integers(0)] if wide else []
            return [each for each in (*high, start.integers()) for _ in range(pixels)]

        def finish(sums: list[Integers], place: Pointer) -> None:
            """Write the results of rows, from their sums, row after row."""
            if wide:
                rows = [sums[at : at + 2 * pixels] for at in range(0, len(sums), 2 * pixels)]
                pairs = (pair for row in rows for pair in zip(row[:pixels], row[pixels:], strict=True))
                sums = [(high << LOW_BITS) + low for high, low in pairs]
            channels, offset = scale.vector(), bias.vector()

            def as_bytes() -> None:
                then, distance = then_bytes(code, end, out_steps, out_offset), out_row if len(sums) > pixels else 0
                together = min(PIXELS, pixels)
                store_bytes(sums, lambda m: channels, offset, then, place, pixels > 1, together, distance)

            def bare() -> None:
                for at in range(0, len(sums), pixels):
                    row = place + out_row * (at // pixels)
                    store_floats(sums[at : at + pixels], lambda m: channels, offset, row)

            def ended() -> None:
                bare()
                then = then_floats(code, end, clamp)
                for row in range(len(sums) // pixels):
                    end_floats(code, then, place + out_row * row, pixels)

            code.either(floats.equals(0), as_bytes, lambda: either_floats(code, end, clamp, bare, ended))

        def each_tile(row: Integer, compute: Callable[[Pointer, Pointer], None]) -> None:
            pixel_bytes = code.select(floats.equals(0), code.integer(lanes), code.integer(size))

            def at_tile(index: Integer) -> None:
                pixel = (index * pixels).minimum(columns - pixels)
                source = x + row * stride[0] * x_row + pixel * (stride[1] * lanes)
                compute(source, out + row * out_row + pixel * pixel_bytes)

            code.loop((columns + (pixels - 1)) // pixels, at_tile)

        def single(source: Pointer, place: Pointer) -> None:
            sums = begin()
            if kernel[0] <= UNROLLED_ROWS:
                for i in range(kernel[0]):
                    sums = taps(i, source, sums)
            else:
                sums = code.loop(kernel[0], lambda i, *sums: taps(i, source, list(sums)), sums)
            finish(sums, place)

        def several(together: int, source: Pointer, place: Pointer) -> None:
            """Rows of the result whose windows share rows of the image."""
            sums, w = begin() * together, [weights_of(i) for i in range(kernel[0])]
            for line in range((together - 1) * stride[0] + kernel[0]):
                for values, users in registers(source + x_row * line):
                    for row in range(together):
                        if 0 <= (i := line - row * stride[0]) < kernel[0]:
                            for m, quad in users:
                                add(sums, row, m, quad, values, w[i])
            finish(sums, place)

        done = code.integer(0)
        for together in dict.fromkeys((most, min(2, most), 1)):
            compute = single if together == 1 else partial(several, together)
            until = done + (rows - done) // together * together
            code.loop(until, lambda row, compute=compute: each_tile(row, compute), start=done, step=together)
            done = until

    return write


def _whole(library: Library, name: str, kernel: Pair, stride: Pair, wide: bool):
    size, lanes = library.target.bytes, library.target.lanes
    block_weights = kernel[0] * -(-kernel[1] // QUAD) * (1 + wide) * size

    def depthwise(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: items ``first`` up to ``last`` of a layer (fields `DEPTHWISE`)."""
        a = DEPTHWISE.read(arguments)
        columns, tap_column = a["columns"], a["tap_column"]
        chosen, least = code.integer(1), code.integer(1 << 40)
        for pixels in _widths(library.target, kernel, wide):
            cost = (columns + (pixels - 1)) // pixels * (pixels + OVERHEAD)
            cost = code.select(columns >= pixels, cost, code.integer(1 << 41))
            chosen = code.select(cost < least, code.integer(pixels), chosen)
            least = cost.minimum(least)
        chosen = code.select(a["bounded"] > 0, chosen, code.integer(1))  # which bounds results itself

        def at_item(item: Integer) -> None:
            block, top = item // a["strips"], item % a["strips"] * a["strip"]
            arguments = (
                a.at("x") + a["x_plane"] * block + a["x_row"] * (top * stride[0]),
                a["x_row"],
                a.at("weights") + block * block_weights,
                *(a.at(name) + block * size for name in ("start", "scale", "bias")),
                a.at("out") + a["out_plane"] * block + a["out_row"] * top,
                a["out_row"],
                a["strip"].minimum(a["rows"] - top),
                columns,
                a.at("clamp"),
                *(a.at(name) + block * size for name in ("steps", "offset")),
                *(a["floats"], a["tap_row"], tap_column),
            )
            for dilated in (False, True):
                for pixels in _widths(library.target, kernel, wide):
                    apart = tap_column > lanes if dilated else tap_column.equals(lanes)
                    with code.when(code.builder.and_(chosen.equals(pixels), apart)):
                        code.call(_row_name(name, pixels, dilated), *arguments)

        code.loop(last, at_item, start=first)

    return depthwise

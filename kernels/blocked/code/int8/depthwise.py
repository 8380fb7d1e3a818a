"""Depthwise convolution of an 8-bit tensor inside its frame: four taps of a row are one product of each lane.

A register that is loaded holds four pixels of a channel block; transposed, it has the four of each channel in a lane.
Windows that are wider take several, and a pixel's register serves all windows that begin or go on there.
"""

from __future__ import annotations

from collections.abc import Callable

from npmobilenet.kernels.blocked.code.int8.ending import (
    end_floats,
    store_bytes,
    store_floats,
    then_bytes,
    then_floats,
    when_more,
)
from npmobilenet.kernels.blocked.code.int8.rows import best_width
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


def _begun(kernel: Pair, stride: Pair) -> int:
    """How many rows of the result have begun when one is complete: windows share what is between them."""
    return (kernel[0] - 1) // stride[0]


def _rolls(target: Target, kernel: Pair, stride: Pair, wide: bool) -> bool:
    """Whether a tile rolls down the image: a row of it is read and transposed once, for all windows that it is in.

    The sums of all rows that have begun find room in registers beside the window's weights.
    """
    weights = kernel[0] * -(-kernel[1] // QUAD) * (1 + wide)
    sums = PIXELS * (1 + wide) * (1 + _begun(kernel, stride))
    return kernel[0] <= UNROLLED_ROWS and weights + sums + 2 <= _room(target)


def _room(target: Target) -> int:
    """Registers, less where a product takes several instructions."""
    return target.registers if is_one_instruction(target) else target.registers // 2


def _widths(target: Target, rolls: bool, wide: bool) -> tuple[int, ...]:
    """How many pixels of a row are computed at once, falling."""
    if rolls or 2 * WIDE_PIXELS * (1 + wide) > _room(target):
        return PIXELS, 1
    return WIDE_PIXELS, PIXELS, 1


def define(
    library: Library,
    kernel: Pair,
    stride: Pair,
    wide: bool,
    end: str = CLAMP,
    small: bool = False,
    row_by_row: bool = False,
) -> None:
    """Add the kernels for one window, with weights of 15 bits if ``wide``, whose results end so (`int8.ending`).

    ``row_by_row`` they are computed whatever the registers have room for: a rung of the ladder.
    """
    name = int8_window_name(kernel, stride, wide)
    rolls = _rolls(library.target, kernel, stride, wide) and not row_by_row
    for dilated in (False, True):
        for pixels in _widths(library.target, rolls, wide):
            row = _rows(library, kernel, stride, wide, pixels, dilated, end, small, rolls and not dilated)
            library.add(_row_name(name, pixels, dilated), row)
    library.add(name, _whole(library, name, kernel, stride, wide, rolls))


def _row_name(window: str, pixels: int, dilated: bool) -> str:
    return f"{window}_row_{pixels}{'_dilated' * dilated}"


def _rows(
    library: Library,
    kernel: Pair,
    stride: Pair,
    wide: bool,
    pixels: int,
    dilated: bool,
    end: str,
    small: bool,
    rolls: bool,
):
    """Rows of one block, of at least so many pixels."""
    size, lanes = library.target.bytes, library.target.lanes
    quads, parts = -(-kernel[1] // QUAD), 1 + wide
    # What is read for several windows is read once, unless taps stand apart: by pixels, which windows and which taps.
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
                    add(sums, m, quad, values, w)
            return sums

        def weights_of(i: int | Integer) -> list[Integers]:
            row = weights + i * (quads * parts * size)
            return [row.integers(at * size) for at in range(quads * parts)]

        def add(sums: list[Integers], m: int, quad: int, values: Integers, w: list[Integers]) -> None:
            for part in range(parts):
                at = part * pixels + m
                sums[at] = sums[at].dot4(values, w[quad * parts + part], small)

        def begin() -> list[Integers]:
            high = [code.splat_integers(0)] if wide else []
            return [each for each in (*high, start.integers()) for _ in range(pixels)]

        def finish(sums: list[Integers], place: Pointer) -> None:
            """Write a row's results."""
            if wide:
                sums = [(high << LOW_BITS) + low for high, low in zip(sums[:pixels], sums[pixels:], strict=True)]
            channels = scale.vector()
            about = sums, lambda m: channels, bias.vector()

            def as_bytes() -> None:
                then = then_bytes(code, end, out_steps, out_offset)
                store_bytes(*about, then, place, bounded=pixels > 1)

            def follow() -> None:
                end_floats(code, then_floats(code, end, clamp), place, pixels)

            def as_floats() -> None:
                store_floats(*about, place)
                when_more(code, end, clamp, follow)

            code.either(floats.equals(0), as_bytes, as_floats)

        def each_tile(compute: Callable[[Pointer, Pointer], None], row: Integer | int = 0) -> None:
            pixel_bytes = code.select(floats.equals(0), code.integer(lanes), code.integer(size))

            def at_tile(index: Integer) -> None:
                pixel = (index * pixels).minimum(columns - pixels)
                source = x + x_row * (row * stride[0]) + pixel * (stride[1] * lanes)
                compute(source, out + out_row * row + pixel * pixel_bytes)

            code.loop((columns + (pixels - 1)) // pixels, at_tile)

        def single(source: Pointer, place: Pointer) -> None:
            sums = begin()
            if kernel[0] <= UNROLLED_ROWS:
                for i in range(kernel[0]):
                    sums = taps(i, source, sums)
            else:
                sums = code.loop(kernel[0], lambda i, *sums: taps(i, source, list(sums)), sums)
            finish(sums, place)

        def roll(source: Pointer, place: Pointer) -> None:
            """A column of tiles: each new line of the image goes into all rows of the result that have begun."""
            w, each = [weights_of(i) for i in range(kernel[0])], parts * pixels

            def line(number: int, begins: Pointer, results: list[list[Integers]]) -> None:
                """Add that line, counted from where the first window of the results begins."""
                if number % stride[0] == 0 and number < kernel[0]:
                    results.append(begin())
                for values, users in registers(begins + x_row * number):
                    for row, sums in enumerate(results):
                        if 0 <= (i := number - row * stride[0]) < kernel[0]:
                            for m, quad in users:
                                add(sums, m, quad, values, w[i])

            def at_row(row: Integer, *carried: Integers) -> list[Integers]:
                results = [list(carried[at : at + each]) for at in range(0, len(carried), each)]
                for number in range(max(0, kernel[0] - stride[0]), kernel[0]):
                    line(number, source + x_row * (row * stride[0]), results)
                finish(results.pop(0), place + out_row * row)
                return [sums for result in results for sums in result]

            results: list[list[Integers]] = []
            for number in range(kernel[0] - stride[0]):
                line(number, source, results)
            code.loop(rows, at_row, [sums for result in results for sums in result])

        if rolls:
            each_tile(roll)
        else:
            code.loop(rows, lambda row: each_tile(single, row))

    return write


def _whole(library: Library, name: str, kernel: Pair, stride: Pair, wide: bool, rolls: bool):
    size, lanes = library.target.bytes, library.target.lanes
    block_weights = kernel[0] * -(-kernel[1] // QUAD) * (1 + wide) * size

    def depthwise(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: items ``first`` up to ``last`` of a layer (fields `DEPTHWISE`)."""
        a = DEPTHWISE.read(arguments)
        columns, tap_column = a["columns"], a["tap_column"]
        chosen = best_width(code, columns, _widths(library.target, rolls, wide), a["bounded"])

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
                for pixels in _widths(library.target, rolls, wide):
                    apart = tap_column > lanes if dilated else tap_column.equals(lanes)
                    with code.when(code.builder.and_(chosen.equals(pixels), apart)):
                        code.call(_row_name(name, pixels, dilated), *arguments)

        code.loop(last, at_item, start=first)

    return depthwise

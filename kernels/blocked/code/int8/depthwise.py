"""Depthwise convolution of an 8-bit tensor inside its frame: four taps of a row are one product of each lane.

A register that is loaded holds four pixels of a channel block; transposed, it has the four of each channel in a lane.
Windows that are wider take several, and a pixel's register serves all windows that begin or go on there.
"""

from __future__ import annotations

from npmobilenet.kernels.blocked.code.int8.ending import store_bytes, store_floats
from npmobilenet.kernels.blocked.int8.depthwise import DEPTHWISE, LOW_BITS
from npmobilenet.kernels.blocked.int8.layout import QUAD
from npmobilenet.kernels.blocked.library import int8_window_name
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Integers, Pointer
from npmobilenet.kernels.vector.target import Target

UNROLLED_ROWS = 3  # of a window; more become a loop
OVERHEAD = 2  # of a tile, in pixels


def widths(target: Target, wide: bool) -> tuple[int, ...]:
    """How many pixels of a row are computed at once, falling; 7 and 14 divide MobileNet's image sizes."""
    room = target.registers // (2 if wide else 1)
    if target.dot not in ("vnni", "usdot", "sdot"):
        room //= 2
    return tuple(width for width in (14, 7, 4, 1) if 2 * width <= max(room, 2))


def define(library: Library, kernel: Pair, stride: Pair, wide: bool) -> None:
    """Add the kernels for one window, with weights of 15 bits if ``wide``."""
    name = int8_window_name(kernel, stride, wide)
    for dilated in (False, True):
        for pixels in widths(library.target, wide):
            library.add(_row_name(name, pixels, dilated), _rows(library, kernel, stride, wide, pixels, dilated))
    library.add(name, _whole(library, name, kernel, stride, wide))


def _row_name(window: str, pixels: int, dilated: bool) -> str:
    return f"{window}_row_{pixels}{'_dilated' * dilated}"


def _rows(library: Library, kernel: Pair, stride: Pair, wide: bool, pixels: int, dilated: bool):
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
            row = weights + i * (quads * parts * size)
            w = [row.integers(at * size) for at in range(quads * parts)]
            for values, users in registers(source + tap_row * i * x_row):
                for m, quad in users:
                    for part in range(parts):
                        at = part * pixels + m
                        sums[at] = sums[at].dot4(values, w[quad * parts + part])
            return sums

        def at_row(row: Integer) -> None:
            def at_tile(index: Integer) -> None:
                pixel = (index * pixels).minimum(columns - pixels)
                source = x + row * stride[0] * x_row + pixel * (stride[1] * lanes)
                high = code.splat_integers(0) if wide else start.integers()
                sums = [high] * pixels + [start.integers()] * (pixels * wide)
                if kernel[0] <= UNROLLED_ROWS:
                    for i in range(kernel[0]):
                        sums = taps(i, source, sums)
                else:
                    sums = code.loop(kernel[0], lambda i, *sums: taps(i, source, list(sums)), sums)
                if wide:
                    sums = [(high << LOW_BITS) + low for high, low in zip(sums[:pixels], sums[pixels:], strict=True)]
                channels, offset, place = scale.vector(), bias.vector(), out + row * out_row

                def as_bytes() -> None:
                    store_bytes(sums, lambda m: channels, offset, place + pixel * lanes)

                def as_floats() -> None:
                    bounds = clamp.splat(0), clamp.splat(4)
                    store_floats(sums, lambda m: channels, offset, bounds, place + pixel * size)

                code.either(floats.equals(0), as_bytes, as_floats)

            code.loop((columns + (pixels - 1)) // pixels, at_tile)

        code.loop(rows, at_row)

    return write


def _whole(library: Library, name: str, kernel: Pair, stride: Pair, wide: bool):
    size, lanes = library.target.bytes, library.target.lanes
    block_weights = kernel[0] * -(-kernel[1] // QUAD) * (1 + wide) * size

    def depthwise(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: items ``first`` up to ``last`` of a layer (fields `DEPTHWISE`)."""
        a = DEPTHWISE.read(arguments)
        columns, tap_column = a["columns"], a["tap_column"]
        chosen, least = code.integer(1), code.integer(1 << 40)
        for pixels in widths(library.target, wide):
            cost = (columns + (pixels - 1)) // pixels * (pixels + OVERHEAD)
            cost = code.select(columns >= pixels, cost, code.integer(1 << 41))
            chosen = code.select(cost < least, code.integer(pixels), chosen)
            least = cost.minimum(least)

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
                *(a.at("clamp"), a["floats"], a["tap_row"], tap_column),
            )
            for dilated in (False, True):
                for pixels in widths(library.target, wide):
                    apart = tap_column > lanes if dilated else tap_column.equals(lanes)
                    with code.when(code.builder.and_(chosen.equals(pixels), apart)):
                        code.call(_row_name(name, pixels, dilated), *arguments)

        code.loop(last, at_item, start=first)

    return depthwise

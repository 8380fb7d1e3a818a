"""The first convolution, 16 bits by 16: two channels of a pixel, or two taps of a row, are one product of each lane."""

from __future__ import annotations

from npmobilenet.kernels.blocked.code.int8.ending import (
    end_floats,
    store_bytes,
    store_floats,
    then_bytes,
    then_floats,
    when_more,
)
from npmobilenet.kernels.blocked.code.int8.rows import best_width
from npmobilenet.kernels.blocked.int8.stem import STEM
from npmobilenet.kernels.blocked.library import CLAMP, int8_stem_name
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Integers, Pointer
from npmobilenet.kernels.vector.target import Target

HALF, TOGETHER = 2, 2  # bytes of a value; values that a lane multiplies and adds
Uses = dict[int, list[tuple[int, int]]]
SMALL = 4  # pixels of a lower tile: as many as a register of bytes holds


def widths(target: Target, kernel: Pair) -> tuple[int, ...]:
    """How many pixels of a row are computed at once, falling: sums, a row of the window, and one value fill registers.

    One channel block at a time: a value that is read serves the windows it lies in.
    """
    most = max(1, target.registers - kernel[1] - 1)
    return tuple(dict.fromkeys((most, max(1, most // 2), min(SMALL, most), 1)))


def define(library: Library, kernel: Pair, stride: Pair, end: str = CLAMP) -> None:
    """Add the kernels for one window, whose results end so (`int8.ending`)."""
    own = int8_stem_name(kernel, stride)
    for pixels in widths(library.target, kernel):
        library.add(f"{own}_row_{pixels}", _row(library, kernel, stride, pixels, end))
    library.add(own, _whole(library, own, kernel, stride))


def _uses(pixels: int, stride: int, taps: range) -> Uses:
    """By the column of an input value: which windows of a row it lies in, and at which of such taps."""
    uses: Uses = {}
    for m in range(pixels):
        for number, tap in enumerate(taps):
            uses.setdefault(m * stride + tap, []).append((m, number))
    return dict(sorted(uses.items()))


def _row(library: Library, kernel: Pair, stride: Pair, pixels: int, end: str):
    """A row of one block, of at least so many pixels."""
    size, lanes = library.target.bytes, library.target.lanes
    by_channels = _uses(pixels, stride[1], range(kernel[1]))
    by_taps = _uses(pixels, stride[1], range(0, kernel[1], TOGETHER))
    halves = -(-kernel[1] // TOGETHER)  # of the taps of a row

    def write(
        code: Code,
        x: Pointer,
        x_row: Integer,
        x_plane: Integer,
        channels: Integer,
        top: Integer,
        weights: Pointer,
        scale: Pointer,
        bias: Pointer,
        out: Pointer,
        columns: Integer,
        clamp: Pointer,
        out_steps: Pointer,
        out_offset: Pointer,
        floats: Integer,
    ) -> None:
        def add(source: Pointer, pixel_bytes: int, taps: Pointer, uses: Uses, sums: list[Integers]) -> list[Integers]:
            """The products of a row of the window."""
            w = [taps.integers(number * size) for number in range(kernel[1] if uses is by_channels else halves)]
            for column, windows in uses.items():
                value = source.splat_integers(column * pixel_bytes)
                for m, number in windows:
                    sums[m] = sums[m].dot2(value, w[number])
            return sums

        pairs = channels // TOGETHER * kernel[0]  # rows of windows

        def pair(row: Integer, pixel: Integer, sums: list[Integers]) -> list[Integers]:
            plane = x + x_plane * (row // kernel[0] * TOGETHER)
            line = plane + x_row * TOGETHER * (top + row % kernel[0])
            source = line + pixel * (stride[1] * TOGETHER * HALF)
            return add(source, TOGETHER * HALF, weights + row * (kernel[1] * size), by_channels, sums)

        def single(row: Integer, pixel: Integer, sums: list[Integers]) -> list[Integers]:
            line = x + x_plane * (channels - 1) + x_row * (top + row)
            taps = weights + pairs * (kernel[1] * size) + row * (halves * size)
            return add(line + pixel * (stride[1] * HALF), HALF, taps, by_taps, sums)

        def at_tile(index: Integer) -> None:
            pixel = (index * pixels).minimum(columns - pixels)
            sums = [code.splat_integers(0)] * pixels
            sums = code.loop(pairs, lambda row, *sums: pair(row, pixel, list(sums)), sums)
            rest = channels % TOGETHER * kernel[0]
            sums = code.loop(rest, lambda row, *sums: single(row, pixel, list(sums)), sums)
            factor = scale.vector()
            about = sums, lambda m: factor, bias.vector()

            def as_bytes() -> None:
                then = then_bytes(code, end, out_steps, out_offset)
                store_bytes(*about, then, out + pixel * lanes, bounded=pixels > 1)

            def follow() -> None:
                end_floats(code, then_floats(code, end, clamp), out + pixel * size, pixels)

            def as_floats() -> None:
                store_floats(*about, out + pixel * size)
                when_more(code, end, clamp, follow)

            code.either(floats.equals(0), as_bytes, as_floats)

        code.loop((columns + (pixels - 1)) // pixels, at_tile)

    return write


def _whole(library: Library, own: str, kernel: Pair, stride: Pair):
    size = library.target.bytes

    def stem(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: rows ``first`` up to ``last`` of the layer (fields `STEM`)."""
        a = STEM.read(arguments)
        columns, channels = a["columns"], a["channels"]
        taps = channels // TOGETHER * (kernel[0] * kernel[1])
        taps = taps + channels % TOGETHER * (kernel[0] * -(-kernel[1] // TOGETHER))
        chosen = best_width(code, columns, widths(library.target, kernel), a["bounded"])

        def block(row: Integer, number: Integer) -> None:
            arguments = (
                *(a.at("x"), a["x_row"], a["x_plane"], channels, (row + a["first"]) * stride[0]),
                a.at("weights") + number * taps * size,
                *(a.at(name) + number * size for name in ("scale", "bias")),
                a.at("out") + a["out_row"] * row + a["out_plane"] * number,
                *(columns, a.at("clamp")),
                *(a.at(name) + number * size for name in ("steps", "offset")),
                a["floats"],
            )
            for pixels in widths(library.target, kernel):
                with code.when(chosen.equals(pixels)):
                    code.call(f"{own}_row_{pixels}", *arguments)

        code.loop(last, lambda row: code.loop(a["blocks"], lambda number: block(row, number)), start=first)

    return stem

"""Depthwise convolution of a padded tensor: one channel block at a time, several pixels of a row at once.

The sums of the pixels stay in registers, and so does a row of the window's weights where both find room: then an
input vector is loaded once for all the windows it lies in, unless dilation sets them apart. Of a wider window
one weight at a time meets the pixels.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from npmobilenet.kernels.blocked.code import activation
from npmobilenet.kernels.blocked.depthwise import DEPTHWISE
from npmobilenet.kernels.blocked.library import window_name
from npmobilenet.kernels.blocked.tiles import Tiling
from npmobilenet.kernels.memory import ALIGNMENT as LINE
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector

# The functions below also know a ring: the image is the last `ring` rows of a longer one, row r standing at
# r mod `ring`; the first window begins at row `start`.
NO_RING = 1 << 40
AHEAD = 2  # blocks whose weights are asked for before they are needed
UNROLLED_ROWS = 3  # rows of a window that are written out; more become a loop
UNROLLED_PIXELS = 7  # for which the taps of a row are written out where weights find no room


def define(library: Library, kernel: tuple[int, int], stride: tuple[int, int], tiling: Tiling | None = None) -> None:
    """Add the kernels for one window."""
    name, tiling = window_name(kernel, stride), tiling or Tiling.of(library.target, kernel)
    for dilated in (False, True):
        for pixels in tiling.widths:
            weights_stay = tiling.weights_stay and not dilated and Tiling.fits(library.target, kernel, pixels)
            library.add(_row_name(name, pixels, dilated), _row(library, kernel, stride, pixels, weights_stay))
    library.add(f"{name}_blocks", _blocks(library, kernel, stride, tiling.widths))
    library.add(name, whole(name))


def _row_name(window: str, pixels: int, dilated: bool) -> str:
    return f"{window}_row_{pixels}{'_dilated' * dilated}"


def _row(library: Library, kernel: tuple[int, int], stride: tuple[int, int], pixels: int, weights_stay: bool):
    """All pixels of every output row of one block; at least ``pixels`` in a row. Dilated, weights cannot stay."""
    size = library.target.bytes
    k_h, k_w = kernel

    def write(
        code: Code,
        x: Pointer,
        x_row: Integer,
        weights: Pointer,
        bias: Pointer,
        out: Pointer,
        rows: Integer,
        columns: Integer,
        clamp: Pointer,
        tap_column: Integer,
        tap_row: Integer,
        out_row: Integer,
        start: Integer,
        ring: Integer,
    ) -> None:
        low, high = clamp.splat(0), clamp.splat(4)
        first = bias.vector()

        def taps(i: int | Integer, source: Pointer, sums: list[Vector]) -> list[Vector]:
            row = weights + i * (k_w * size)

            def at_tap(j: int | Integer, *sums: Vector) -> list[Vector]:
                weight, column = (row + j * size).vector(), source + tap_column * j
                return [y.fma(column.vector(m * stride[1] * size), weight) for m, y in enumerate(sums)]

            if not weights_stay:
                if pixels > UNROLLED_PIXELS:  # written out, it would share input vectors between taps, and run out
                    return code.loop(k_w, at_tap, sums)
                for j in range(k_w):
                    sums = at_tap(j, *sums)
                return sums
            w = [row.vector(j * size) for j in range(k_w)]
            for at in range((pixels - 1) * stride[1] + k_w):
                value = source.vector(at * size)
                for m in range(pixels):
                    j = at - m * stride[1]
                    if 0 <= j < k_w:
                        sums[m] = sums[m].fma(value, w[j])
            return sums

        def at_row(row: Integer) -> None:
            top = start + row * stride[0]

            def at_tile(index: Integer) -> None:
                pixel = (index * pixels).minimum(columns - pixels)
                left = pixel * (stride[1] * size)

                def at_tap_row(i: int | Integer, *sums: Vector) -> list[Vector]:
                    number = top + tap_row * i
                    number = code.select(number < ring, number, number - ring)
                    return taps(i, x + number * x_row + left, list(sums))

                sums = [first] * pixels
                if k_h <= UNROLLED_ROWS:
                    for i in range(k_h):
                        sums = at_tap_row(i, *sums)
                else:
                    sums = code.loop(k_h, at_tap_row, sums)
                for m in range(pixels):
                    (out + row * out_row + pixel * size).store(sums[m].clamp(low, high), m * size)

            code.loop((columns + (pixels - 1)) // pixels, at_tile)

        code.loop(rows, at_row)

    return write


def _blocks(library: Library, kernel: tuple[int, int], stride: tuple[int, int], widths: tuple[int, ...]):
    """Blocks ``first`` up to ``last``."""
    size = library.target.bytes
    name, window_bytes = window_name(kernel, stride), kernel[0] * kernel[1] * size

    def write(
        code: Code,
        x: Pointer,
        x_row: Integer,
        x_plane: Integer,
        weights: Pointer,
        bias: Pointer,
        out: Pointer,
        out_row: Integer,
        out_plane: Integer,
        rows: Integer,
        columns: Integer,
        clamp: Pointer,
        activate: Pointer,
        tap_row: Integer,
        tap_column: Integer,
        start: Integer,
        ring: Integer,
        first: Integer,
        last: Integer,
    ) -> None:
        main = _first(code, [(columns >= pixels, pixels) for pixels in widths], 1)
        rest = columns % main
        # What a row of whole tiles leaves over goes to the smallest tile that takes it at once.
        tail = _first(code, [(rest.equals(0), 0), *((rest <= pixels, pixels) for pixels in reversed(widths))], 0)
        whole = code.select(tail.equals(main), columns, columns - rest)

        def at_block(block: Integer) -> None:
            own = weights + block * window_bytes
            code.loop(window_bytes, lambda at: (own + at).prefetch(AHEAD * window_bytes), step=LINE)

            def strip(pixels: int, from_column: Integer, count: Integer) -> None:
                arguments = (
                    x + x_plane * block + from_column * (stride[1] * size),
                    x_row,
                    own,
                    bias + block * size,
                    out + out_plane * block + from_column * size,
                    rows,
                    count,
                    clamp,
                    tap_column,
                    tap_row,
                    out_row,
                    start,
                    ring,
                )
                with code.when(tap_column.equals(size)):
                    code.call(_row_name(name, pixels, False), *arguments)
                with code.when(tap_column > size):
                    code.call(_row_name(name, pixels, True), *arguments)

            for pixels in widths:
                with code.when(main.equals(pixels)):
                    strip(pixels, code.integer(0), whole)
            for pixels in widths[1:]:
                with code.when(code.builder.and_(tail.equals(pixels), tail < main)):
                    strip(pixels, columns - pixels, code.integer(pixels))
            activation.apply(code, activate, out + out_plane * block, (rows - 1) * out_row // size + columns)

        code.loop(last, at_block, start=first)

    return write


def _first(code: Code, cases: list[tuple[ir.Value, int]], otherwise: int) -> Integer:
    """The number of the first case that holds."""
    number = code.integer(otherwise)
    for condition, value in reversed(cases):
        number = code.select(condition, code.integer(value), number)
    return number


def whole(name: str) -> Callable[..., None]:
    """The kernel of a layer, whose blocks are computed by the function ``name`` + "_blocks"."""

    def depthwise(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: blocks ``first`` up to ``last`` of a layer (fields `DEPTHWISE`)."""
        a = DEPTHWISE.read(arguments)
        code.call(
            f"{name}_blocks",
            *(
                a.at("x"),
                a["x_row"],
                a["x_plane"],
                a.at("weights"),
                a.at("bias"),
                a.at("out"),
                a["out_row"],
                a["out_plane"],
            ),
            *(a["rows"], a["columns"], a.at("clamp"), a.at("activate"), a["tap_row"], a["tap_column"]),
            *(0, NO_RING, first, last),
        )

    return depthwise

"""Depthwise convolution of a padded tensor: one channel block at a time, several pixels of a row at once.

The 9 weights of a 3x3 window stay in registers; larger windows load theirs once per tap for a whole tile of
pixels. An input vector that several windows of the tile share is loaded once.
"""

from __future__ import annotations

from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.simd import Code, Integer, Library, Pointer, Vector

# Distances in bytes: x_row, x_plane, out_plane and tap_column (from one tap of the window to the next:
# dilation); tap_row is the vertical dilation, in rows. The functions below also know a ring: the image is the
# last `ring` rows of a longer one, row r standing at r mod `ring`; the first window begins at row `start`.
DEPTHWISE = Fields("x x_row x_plane weights bias out out_plane rows columns clamp tap_row tap_column")
NO_RING = 1 << 40


def define(library: Library, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    """Add the kernels for one window."""
    name = window_name(kernel, stride)
    tile = _tile_pixels(library, kernel, stride)
    for pixels in {tile, 1}:
        library.add(f"{name}_row_{pixels}", _row(library, kernel, stride, pixels))
    library.add(f"{name}_blocks", _blocks(library, kernel, stride, tile))
    library.add(name, _whole(name))


def window_name(kernel: tuple[int, int], stride: tuple[int, int]) -> str:
    """The kernel's name in its library."""
    return f"depthwise_{kernel[0]}x{kernel[1]}_s{stride[0]}x{stride[1]}"


def _holds_weights(library: Library, kernel: tuple[int, int]) -> bool:
    return kernel[0] * kernel[1] + 5 <= library.target.registers


def _tile_pixels(library: Library, kernel: tuple[int, int], stride: tuple[int, int]) -> int:
    if _holds_weights(library, kernel):
        return min(8, library.target.registers - kernel[0] * kernel[1] - 3)
    return 7 if library.target.registers >= 32 else 6


def _row(library: Library, kernel: tuple[int, int], stride: tuple[int, int], pixels: int):
    """All pixels of one output row of one block; at least ``pixels`` of them."""
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
        held = None
        if _holds_weights(library, kernel):
            held = [[weights.vector((i * k_w + j) * size) for j in range(k_w)] for i in range(k_h)]

        def taps(i: int | Integer, source: Pointer, sums: list[Vector]) -> list[Vector]:
            for j in range(k_w):
                w = held[i][j] if held else (weights + i * (k_w * size)).vector(j * size)
                column = source + tap_column * j
                for m in range(pixels):
                    sums[m] = sums[m].fma(column.vector(m * stride[1] * size), w)
            return sums

        def at_row(row: Integer) -> None:
            top = start + row * stride[0]

            def input_row(i: int | Integer) -> Pointer:
                number = top + tap_row * i
                return x + code.select(number < ring, number, number - ring) * x_row

            above = [input_row(i) for i in range(k_h)] if held else None

            def at_tile(index: Integer) -> None:
                pixel = (index * pixels).minimum(columns - pixels)
                left = pixel * (stride[1] * size)
                sums = [first] * pixels
                if held:
                    for i in range(k_h):
                        sums = taps(i, above[i] + left, sums)
                else:
                    sums = code.loop(k_h, lambda i, *sums: taps(i, input_row(i) + left, list(sums)), sums)
                for m in range(pixels):
                    (out + row * out_row + pixel * size).store(sums[m].clamp(low, high), m * size)

            code.loop((columns + (pixels - 1)) // pixels, at_tile)

        code.loop(rows, at_row)

    return write


def _blocks(library: Library, kernel: tuple[int, int], stride: tuple[int, int], tile: int):
    """Blocks ``first`` up to ``last``."""
    size = library.target.bytes
    name = window_name(kernel, stride)

    def write(
        code: Code,
        x: Pointer,
        x_row: Integer,
        x_plane: Integer,
        weights: Pointer,
        bias: Pointer,
        out: Pointer,
        out_plane: Integer,
        rows: Integer,
        columns: Integer,
        clamp: Pointer,
        tap_row: Integer,
        tap_column: Integer,
        start: Integer,
        ring: Integer,
        first: Integer,
        last: Integer,
    ) -> None:
        def at_block(block: Integer) -> None:
            arguments = (
                x + x_plane * block,
                x_row,
                weights + block * (kernel[0] * kernel[1] * size),
                bias + block * size,
                out + out_plane * block,
                rows,
                columns,
                clamp,
                tap_column,
                tap_row,
                columns * size,
                start,
                ring,
            )
            with code.when(columns >= tile):
                code.call(f"{name}_row_{tile}", *arguments)
            with code.when(columns < tile):
                code.call(f"{name}_row_1", *arguments)

        code.loop(last, at_block, start=first)

    return write


def _whole(name: str):
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
                a["out_plane"],
            ),
            *(a["rows"], a["columns"], a.at("clamp"), a["tap_row"], a["tap_column"]),
            *(0, NO_RING, first, last),
        )

    return depthwise

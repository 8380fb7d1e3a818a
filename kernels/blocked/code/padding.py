"""The frame around the image of a padded tensor: zeros, so that no window needs to know where it ends."""

from __future__ import annotations

from collections.abc import Callable

from npmobilenet.kernels.blocked.layout import Arguments
from npmobilenet.kernels.blocked.padding import CLEAR, FRAME, PAD, prefix
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer


def define(library: Library, of_bytes: bool = False) -> None:
    """Add the kernels, of tensors of float32 or of bytes."""
    own = prefix(of_bytes)
    if of_bytes:
        library.add(f"{own}fill_frame", _fill_frame)
    else:
        library.add("zero_frame", _zero_frame)
    library.add(f"{own}clear", _clear(of_bytes))
    library.add(f"{own}pad", _pad(of_bytes))


def _zero_frame(
    code: Code,
    plane: Pointer,
    rows: Integer,
    columns: Integer,
    top: Integer,
    bottom: Integer,
    left: Integer,
    right: Integer,
) -> None:
    """Write the zeros around one block's image."""
    zero = code.splat(0.0)

    def put(at: Integer) -> None:
        (plane + at * code.target.bytes).store(zero)

    _around(code, put, rows, columns, (top, bottom), (left, right))


def _fill_frame(
    code: Code,
    plane: Pointer,
    pixel: Pointer,
    rows: Integer,
    columns: Integer,
    top: Integer,
    bottom: Integer,
    left: Integer,
    right: Integer,
) -> None:
    """Write the bytes of a pixel around one block's image."""

    def put(at: Integer) -> None:
        (plane + at * code.target.lanes).fill_bytes(pixel)

    _around(code, put, rows, columns, (top, bottom), (left, right))


def _around(
    code: Code,
    put: Callable[[Integer], None],
    rows: Integer,
    columns: Integer,
    above: tuple[Integer, Integer],
    beside: tuple[Integer, Integer],
) -> None:
    """``put(number)`` for each pixel around an image; ``rows`` and ``columns`` count them."""
    (top, bottom), (left, right) = above, beside

    def fill(start: Integer, stop: Integer) -> None:
        code.loop(stop, put, start=start)

    fill(code.integer(0), top * columns)
    fill((rows - bottom) * columns, rows * columns)

    def sides(row: Integer) -> None:
        begin = row * columns
        fill(begin, begin + left)
        fill(begin + columns - right, begin + columns)

    code.loop(rows - bottom, sides, start=top)


def _frame(code: Code, a: Arguments, block: Integer, of_bytes: bool) -> None:
    """Write what stands around a block's image."""
    plane, frame = a.at("out") + a["out_plane"] * block, [a[name] for name in FRAME.split()]
    if of_bytes:
        code.call(f"{prefix(of_bytes)}fill_frame", plane, a.at("pixel") + block * code.target.lanes, *frame)
    else:
        code.call("zero_frame", plane, *frame)


def _clear(of_bytes: bool):
    def clear(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: write what is around blocks ``first`` up to ``last`` of a tensor (fields `CLEAR`)."""
        a = CLEAR.read(arguments)
        code.loop(last, lambda block: _frame(code, a, block, of_bytes), start=first)

    return clear


def _pad(of_bytes: bool):
    def pad(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: copy blocks ``first`` up to ``last`` of a tensor into a padded one (fields `PAD`)."""
        a = PAD.read(arguments)
        size = code.target.lanes if of_bytes else code.target.bytes
        columns = a["columns"] - a["left"] - a["right"]

        def at_block(block: Integer) -> None:
            source, target = a.at("x") + a["x_plane"] * block, a.at("out") + a["out_plane"] * block
            _frame(code, a, block, of_bytes)

            def at_row(row: Integer) -> None:
                line = source + row * columns * size
                place = target + ((row + a["top"]) * a["columns"] + a["left"]) * size

                def copy(at: Integer) -> None:
                    if of_bytes:
                        (place + at * size).fill_bytes(line + at * size)
                    else:
                        (place + at * size).store((line + at * size).vector())

                code.loop(columns, copy)

            code.loop(a["rows"] - a["top"] - a["bottom"], at_row)

        code.loop(last, at_block, start=first)

    return pad

"""The frame of zeros around the image of a padded tensor, so that no window needs to know where it ends."""

from __future__ import annotations

from npmobilenet.kernels.blocked.padding import CLEAR, FRAME, PAD
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer


def define(library: Library) -> None:
    """Add the kernels."""
    library.add("zero_frame", zero_frame)
    library.add("clear", clear)
    library.add("pad", pad)


def zero_frame(
    code: Code,
    plane: Pointer,
    rows: Integer,
    row_vectors: Integer,
    top: Integer,
    bottom: Integer,
    left: Integer,
    right: Integer,
) -> None:
    """Write the zeros around one block's image."""
    size = code.target.bytes
    zero = code.splat(0.0)

    def fill(start: Integer, stop: Integer) -> None:
        code.loop(stop, lambda at: plane.store(zero, at * size), start=start)

    fill(code.integer(0), top * row_vectors)
    fill((rows - bottom) * row_vectors, rows * row_vectors)

    def sides(row: Integer) -> None:
        begin = row * row_vectors
        fill(begin, begin + left)
        fill(begin + row_vectors - right, begin + row_vectors)

    code.loop(rows - bottom, sides, start=top)


def clear(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: write the zeros around blocks ``first`` up to ``last`` of a tensor (fields `CLEAR`)."""
    a = CLEAR.read(arguments)
    frame = [a[name] for name in FRAME.split()]
    code.loop(last, lambda block: code.call("zero_frame", a.at("out") + a["out_plane"] * block, *frame), start=first)


def pad(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: copy blocks ``first`` up to ``last`` of a tensor into a padded one (fields `PAD`)."""
    a = PAD.read(arguments)
    size = code.target.bytes
    frame = [a[name] for name in FRAME.split()]
    columns = a["row_vectors"] - a["left"] - a["right"]

    def at_block(block: Integer) -> None:
        source, target = a.at("x") + a["x_plane"] * block, a.at("out") + a["out_plane"] * block
        code.call("zero_frame", target, *frame)

        def at_row(row: Integer) -> None:
            line = source + row * columns * size
            place = target + ((row + a["top"]) * a["row_vectors"] + a["left"]) * size
            code.loop(columns, lambda at: (place + at * size).store((line + at * size).vector()))

        code.loop(a["rows"] - a["top"] - a["bottom"], at_row)

    code.loop(last, at_block, start=first)

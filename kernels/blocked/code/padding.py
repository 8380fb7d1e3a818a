"""The frame of zeros around the image of a padded tensor, so that no window needs to know where it ends."""

from __future__ import annotations

from npmobilenet.kernels.blocked.padding import CLEAR, FRAME, PAD, prefix
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer


def define(library: Library, of_bytes: bool = False) -> None:
    """Add the kernels, of tensors of float32 or of bytes."""
    own, size = prefix(of_bytes), library.target.lanes if of_bytes else library.target.bytes
    library.add(f"{own}zero_frame", _zero_frame(size, of_bytes))
    library.add(f"{own}clear", _clear(own))
    library.add(f"{own}pad", _pad(own, size, of_bytes))


def _zero_frame(size: int, of_bytes: bool):
    """Write the zeros around one block's image, whose pixels have so many bytes."""

    def write(
        code: Code,
        plane: Pointer,
        rows: Integer,
        columns: Integer,
        top: Integer,
        bottom: Integer,
        left: Integer,
        right: Integer,
    ) -> None:
        zero = code.splat(0.0)

        def clear(at: Integer) -> None:
            place = plane + at * size
            if of_bytes:
                place.fill_bytes()
            else:
                place.store(zero)

        def fill(start: Integer, stop: Integer) -> None:
            code.loop(stop, clear, start=start)

        fill(code.integer(0), top * columns)
        fill((rows - bottom) * columns, rows * columns)

        def sides(row: Integer) -> None:
            begin = row * columns
            fill(begin, begin + left)
            fill(begin + columns - right, begin + columns)

        code.loop(rows - bottom, sides, start=top)

    return write


def _clear(own: str):
    def clear(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: write the zeros around blocks ``first`` up to ``last`` of a tensor (fields `CLEAR`)."""
        a = CLEAR.read(arguments)
        frame = [a[name] for name in FRAME.split()]

        def at_block(block: Integer) -> None:
            code.call(f"{own}zero_frame", a.at("out") + a["out_plane"] * block, *frame)

        code.loop(last, at_block, start=first)

    return clear


def _pad(own: str, size: int, of_bytes: bool):
    def pad(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: copy blocks ``first`` up to ``last`` of a tensor into a padded one (fields `PAD`)."""
        a = PAD.read(arguments)
        frame = [a[name] for name in FRAME.split()]
        columns = a["columns"] - a["left"] - a["right"]

        def at_block(block: Integer) -> None:
            source, target = a.at("x") + a["x_plane"] * block, a.at("out") + a["out_plane"] * block
            code.call(f"{own}zero_frame", target, *frame)

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

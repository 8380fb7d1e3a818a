"""Plain float32 arrays (C, H, W) at the borders of a network."""

from __future__ import annotations

from npmobilenet.kernels.blocked.planes import COPY_IN, COPY_OUT
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer


def define(library: Library) -> None:
    """Add the kernels."""
    library.add("copy_line", copy_line)
    library.add("copy_in", copy_in)
    library.add("copy_out", copy_out)


def copy_line(code: Code, source: Pointer, place: Pointer, columns: Integer) -> None:
    """Copy so many values that follow one another: the last vector overlaps the one before."""
    lanes = code.target.lanes

    def vector(index: Integer) -> None:
        at = (index * lanes).minimum(columns - lanes) * 4
        (place + at).store((source + at).vector())

    with code.when(columns >= lanes):
        code.loop((columns + (lanes - 1)) // lanes, vector)
    with code.when(columns < lanes):
        code.loop(columns, lambda index: (place + index * 4).copy(source + index * 4))


def copy_in(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: copy rows ``first`` up to ``last`` of all channels into a planar tensor (fields `COPY_IN`)."""
    a = COPY_IN.read(arguments)
    row_bytes = a["columns"] * 4

    def at_channel(channel: Integer) -> None:
        plane = a.at("x") + row_bytes * a["rows"] * channel
        place = a.at("out") + a["out_plane"] * channel

        def at_row(row: Integer) -> None:
            code.call("copy_line", plane + row_bytes * row, place + a["out_row"] * row, a["columns"])

        code.loop(last, at_row, start=first)

    code.loop(a["channels"], at_channel)


def copy_out(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: copy blocks ``first`` up to ``last`` of a tensor into planes (fields `COPY_OUT`).

    As many pixels of a row at a time as there are lanes; the last ones overlap those before them.
    """
    a = COPY_OUT.read(arguments)
    lanes, size, columns = code.target.lanes, code.target.bytes, a["columns"]
    row_bytes = columns * 4
    out_plane = row_bytes * a["rows"]

    def at_block(block: Integer) -> None:
        channels = (a["channels"] - block * lanes).minimum(lanes)
        plane = a.at("x") + a["x_plane"] * block
        place = a.at("out") + out_plane * (block * lanes)

        def at_row(row: Integer) -> None:
            def at_square(index: Integer) -> None:
                column = (index * lanes).minimum(columns - lanes)
                source = plane + a["x_row"] * row + column * size
                target = place + row_bytes * row + column * 4
                for lane, vector in enumerate(code.columns_of([source.vector(size * at) for at in range(lanes)])):
                    with code.when(channels > lane):
                        (target + out_plane * lane).store(vector)

            def at_pixel(column: Integer) -> None:
                source = plane + a["x_row"] * row + column * size
                target = place + row_bytes * row + column * 4
                code.loop(channels, lambda lane: (target + out_plane * lane).copy(source + lane * 4))

            with code.when(columns >= lanes):
                code.loop((columns + (lanes - 1)) // lanes, at_square)
            with code.when(columns < lanes):
                code.loop(columns, at_pixel)

        code.loop(a["rows"], at_row)

    code.loop(last, at_block, start=first)

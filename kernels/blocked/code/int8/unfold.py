"""The taps of a window as channels: of every pixel of a result, the pixels that its window lies on."""

from __future__ import annotations

from npmobilenet.kernels.blocked.int8.dense import UNFOLD
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer


def define(library: Library) -> None:
    """Add the kernel."""
    library.add("int8_unfold", unfold)


def unfold(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: rows ``first`` up to ``last`` of all planes' (fields `UNFOLD`)."""
    a = UNFOLD.read(arguments)
    lanes = code.target.lanes

    def at_row(item: Integer) -> None:
        plane, row = item // a["rows"], item % a["rows"]
        tap, block = plane // a["blocks"], plane % a["blocks"]
        corner = a["tap_row"] * (tap // a["tap_columns"]) + a["tap_column"] * (tap % a["tap_columns"])
        source = a.at("x") + a["x_plane"] * block + a["stride_row"] * row + corner
        target = a.at("out") + a["out_plane"] * plane + a["out_row"] * row

        def pixel(at: Integer) -> None:
            (target + at * lanes).fill_bytes(source + a["stride_column"] * at)

        code.loop(a["columns"], pixel)

    code.loop(last, at_row, start=first)

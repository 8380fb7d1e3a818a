"""Hands out the channel blocks of a mixed depthwise convolution, each to the function of its window."""

from __future__ import annotations

from npmobilenet.kernels.blocked.code.depthwise import whole
from npmobilenet.kernels.blocked.mixed import RUN
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer


def define(library: Library) -> None:
    """Add the kernels."""
    library.add("mixed_blocks", _blocks)
    library.add("mixed", whole("mixed"))


def _blocks(
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
    """Blocks ``first`` up to ``last``; ``weights`` are runs (`RUN`), with their own dilations, after their number."""

    def at_run(number: Integer) -> None:
        run = RUN.read(weights + 8 + number * RUN.bytes)
        begin, end = run["begin"].maximum(first), run["end"].minimum(last)
        with code.when(begin < end):
            code.call(
                run.at("function"),
                *(x + run["column"], x_row, x_plane, run.at("weights"), bias, out, out_row, out_plane),
                *(rows, columns, clamp, activate, run["tap_row"], run["tap_column"]),
                *(start + run["row"], ring, begin, end),
            )

    code.loop(weights.integer(), at_run)

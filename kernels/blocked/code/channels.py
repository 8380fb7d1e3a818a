"""Channels put elsewhere. Blocks begin at multiples of the lanes, channels need not: they pass through a scratch."""

from __future__ import annotations

from npmobilenet.kernels.blocked.channels import CHANNEL, FLATTEN, GATHER, NEAR, PIXELS, SELECT, SOURCE
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer


def define(library: Library) -> None:
    """Add the kernels."""
    library.add("gather", gather)
    library.add("select", select)
    library.add("flatten", flatten)


def gather(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: rows ``first`` up to ``last`` of tensors one after the other (fields `GATHER`).

    Vectors are written to any address: what fills up a tensor's last block is overwritten, with zeros and by the next
    tensor. Many pixels are written before the first is read back, so that no load waits for a store just before it.
    """
    a, size = GATHER.read(arguments), code.target.bytes
    sources, count, out, out_row, out_plane = a.at("sources"), a["count"], a.at("out"), a["out_row"], a["out_plane"]
    blocks, columns, line = a["blocks"], a["columns"], a["line"]
    zero = code.splat(0.0)
    code.loop(line * PIXELS, lambda at: scratch.store(zero, at), step=size)

    def at_pixels(row: Integer, begin: Integer) -> None:
        pixels = (columns - begin).minimum(PIXELS)

        def at_source(number: Integer) -> None:
            own = SOURCE.read(sources + number * SOURCE.bytes)
            x, x_plane, end = own.at("x") + row * own["x_row"] + begin * size, own["x_plane"], scratch + own["end"]
            start = scratch + own["start"]

            def at_block(block: Integer) -> None:
                plane, place = x + block * x_plane, start + block * size
                code.loop(pixels, lambda pixel: (place + pixel * line).store((plane + pixel * size).vector()))

            code.loop(own["blocks"], at_block)
            code.loop(pixels, lambda pixel: (end + pixel * line).store(zero))

        def read_back(block: Integer) -> None:
            source, place = scratch + block * size, out + block * out_plane + row * out_row + begin * size
            code.loop(pixels, lambda pixel: (place + pixel * size).store((source + pixel * line).vector()))

        code.loop(count, at_source)
        code.loop(blocks, read_back)

    def at_row(row: Integer) -> None:
        code.loop(columns, lambda begin: at_pixels(row, begin), step=PIXELS)

    code.loop(last, at_row, start=first)


def select(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: rows of blocks whose channels are copies of any others (fields `SELECT`).

    One channel after the other, of so many pixels that the lines that are written to stay in the nearest cache.
    """
    a, size, lanes = SELECT.read(arguments), code.target.bytes, code.target.lanes
    sources, channels, out, out_row = a.at("sources"), a["channels"], a.at("out"), a["out_row"]
    out_plane, rows, columns, zero = a["out_plane"], a["rows"], a["columns"], code.splat(0.0)

    def at_pixels(block: Integer, row: Integer, begin: Integer) -> None:
        pixels, place = (columns - begin).minimum(NEAR), out + block * out_plane + row * out_row + begin * size
        channel = block * lanes
        used = (channels - channel).minimum(lanes)
        with code.when(used < lanes):
            code.loop(pixels, lambda pixel: (place + pixel * size).store(zero))

        def at_lane(lane: Integer) -> None:
            own = CHANNEL.read(sources + (channel + lane) * CHANNEL.bytes)
            source, to = own.at("x") + row * own["x_row"] + begin * size, place + lane * 4
            code.loop(pixels, lambda pixel: (to + pixel * size).copy(source + pixel * size))

        code.loop(used, at_lane)

    def at_item(item: Integer) -> None:
        code.loop(columns, lambda begin: at_pixels(item // rows, item % rows, begin), step=NEAR)

    code.loop(last, at_item, start=first)


def flatten(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: channels ``first`` up to ``last`` of an image as a vector (fields `FLATTEN`)."""
    a, size, lanes = FLATTEN.read(arguments), code.target.bytes, code.target.lanes
    x, x_row, x_plane, out = a.at("x"), a["x_row"], a["x_plane"], a.at("out")
    channels, rows, columns = a["channels"], a["rows"], a["columns"]
    pixels, end = rows * columns, a["end"]

    def at_channel(channel: Integer) -> None:
        source = x + channel // lanes * x_plane + channel % lanes * 4
        place = out + channel * pixels * 4

        def at_row(row: Integer) -> None:
            line, here = source + row * x_row, place + row * columns * 4
            code.loop(columns, lambda column: (here + column * 4).store_first((line + column * size).splat()))

        code.loop(rows, at_row)

    code.loop(last, at_channel, start=first)
    with code.when(last >= channels):  # what fills up the vector's last block
        code.loop(end, lambda at: out.store_first(code.splat(0.0), at), start=channels * pixels * 4, step=4)

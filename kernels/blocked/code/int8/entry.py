"""Where float32 becomes bytes: a pixel's largest magnitude over all channels decides its scale."""

from __future__ import annotations

from collections.abc import Callable

from npmobilenet.kernels.blocked.code.int8.ending import TOGETHER
from npmobilenet.kernels.blocked.int8.entry import CHANNELS, IMAGE, PIXELS
from npmobilenet.kernels.blocked.layout import Arguments
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Integers, Pointer

LARGEST_HALF = 32767.0
LEAST = 2.0**-100  # of a pixel's largest magnitude: zeros have a scale, too


def define(library: Library) -> None:
    """Add the kernels."""
    for pixels in (1, library.target.lanes):
        library.add(f"int8_quantize_{pixels}", _group(pixels))
    library.add("int8_quantize_pixels", quantize_pixels)
    library.add("int8_quantize_image", quantize_image)
    library.add("int8_quantize", quantize)
    library.add("int8_dequantize", dequantize)


def _group(pixels: int):
    """Runs of so many pixels: one, or as many as a vector has lanes, whose maxima are found together."""

    def write(
        code: Code,
        x: Pointer,
        x_plane: Integer,
        out: Pointer,
        out_plane: Integer,
        scale: Pointer,
        blocks: Integer,
        count: Integer,
        levels: Pointer,
    ) -> None:
        size, lanes = code.target.bytes, code.target.lanes
        most, zero_point = levels.splat(0), levels.splat(4)

        def at_group(index: Integer) -> None:
            pixel = (index * pixels).minimum(count - pixels)
            source, place = x + pixel * size, out + pixel * lanes

            def magnitudes(block: Integer, *largest: Integers) -> list[Integers]:
                plane = source + x_plane * block
                return [y.maximum(plane.vector(m * size).magnitude_bits()) for m, y in enumerate(largest)]

            found = code.loop(blocks, magnitudes, [code.splat_integers(0)] * pixels)
            largest = code.splat(LEAST).maximum(code.lane_maxima(found).as_float())
            factor = most / largest
            scales = largest * (code.splat(1.0) / most) + (largest - largest)  # NaN of what is not finite
            (scale + pixel * 4).store_lanes(scales, pixels)

            def at_block(block: Integer) -> None:
                plane, target = source + x_plane * block, place + out_plane * block
                target.store_bytes([zero_point.fused(plane.vector(m * size), factor.lane(m)) for m in range(pixels)])

            code.loop(blocks, at_block)

        code.loop((count + (pixels - 1)) // pixels, at_group)

    return write


def quantize_pixels(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: strips ``first`` up to ``last`` of an image (fields `PIXELS`)."""
    a = PIXELS.read(arguments)
    lanes = code.target.lanes

    def at_strip(item: Integer) -> None:
        begin = item * a["strip"]
        count = a["strip"].minimum(a["pixels"] - begin)
        arguments = (
            *(a.at("x") + begin * code.target.bytes, a["x_plane"], a.at("out") + begin * lanes, a["out_plane"]),
            *(a.at("scale") + begin * 4, a["blocks"], count, a.at("levels")),
        )
        with code.when(count >= lanes):
            code.call(f"int8_quantize_{lanes}", *arguments)
        with code.when(count < lanes):
            code.call("int8_quantize_1", *arguments)

    code.loop(last, at_strip, start=first)


def quantize_image(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: strips ``first`` up to ``last`` of an image, to 16 bits (fields `IMAGE`)."""
    a = IMAGE.read(arguments)
    lanes, steps = code.target.lanes, a.at("steps").splat()
    low, high = code.splat(-LARGEST_HALF), code.splat(LARGEST_HALF)

    def convert(at: Integer, count: int) -> None:
        y = ((a.at("x") + at * 4).vector() * steps).at_least(low).at_most(high)
        (a.at("out") + at * 2).store_halves(y.nearest(), count)

    def at_strip(item: Integer) -> None:
        begin = item * a["strip"]
        end = (begin + a["strip"]).minimum(a["values"])
        whole = begin + (end - begin) // lanes * lanes
        code.loop(whole, lambda at: convert(at, lanes), start=begin, step=lanes)
        code.loop(end, lambda at: convert(at, 1), start=whole)

    code.loop(last, at_strip, start=first)


def _each_row(code: Code, a: Arguments, first: Integer, last: Integer, compute: Callable[..., None]) -> None:
    """``compute(x, out, factor, offset, columns)`` for each row of blocks ``first`` up to ``last``."""
    size = code.target.bytes

    def at_block(block: Integer) -> None:
        factor, offset = (a.at(name) + block * size for name in ("factor", "offset"))

        def at_row(row: Integer) -> None:
            source = a.at("x") + a["x_plane"] * block + a["x_row"] * row
            compute(source, a.at("out") + a["out_plane"] * block + a["out_row"] * row, factor, offset, a["columns"])

        code.loop(a["rows"], at_row)

    code.loop(last, at_block, start=first)


def quantize(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: blocks ``first`` up to ``last``, float32 to bytes (fields `CHANNELS`)."""
    a = CHANNELS.read(arguments)
    low, high = a.at("clamp").splat(0), a.at("clamp").splat(4)

    def row(x: Pointer, out: Pointer, steps: Pointer, zero_point: Pointer, columns: Integer) -> None:
        factor, offset = steps.vector(), zero_point.vector()

        def pixels(at: Integer, count: int) -> None:
            values = [(x + at * code.target.bytes).vector(i * code.target.bytes) for i in range(count)]
            values = [offset.fused(value.clamp(low, high), factor) for value in values]
            (out + at * code.target.lanes).store_bytes(values)

        whole = columns // TOGETHER * TOGETHER
        code.loop(whole, lambda at: pixels(at, TOGETHER), step=TOGETHER)
        code.loop(columns, lambda at: pixels(at, 1), start=whole)

    _each_row(code, a, first, last, row)


def dequantize(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: blocks ``first`` up to ``last``, bytes to float32 (fields `CHANNELS`)."""

    def row(x: Pointer, out: Pointer, scale: Pointer, offset: Pointer, columns: Integer) -> None:
        factor, start, one = scale.vector(), offset.integers(), code.splat_integers(1)

        def pixel(at: Integer) -> None:
            value = start.dot4((x + at * code.target.lanes).transposed_bytes([0]), one)
            (out + at * code.target.bytes).store(value.to_float() * factor)

        code.loop(columns, pixel)

    _each_row(code, CHANNELS.read(arguments), first, last, row)

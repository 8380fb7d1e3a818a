"""Where float32 becomes bytes: a pixel's largest magnitude over all channels decides its scale."""

from __future__ import annotations

from npmobilenet.kernels.blocked.int8.entry import IMAGE, PIXELS
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
        y = ((a.at("x") + at * 4).vector() * steps).maximum(low).minimum(high)
        (a.at("out") + at * 2).store_halves(y.nearest(), count)

    def at_strip(item: Integer) -> None:
        begin = item * a["strip"]
        end = (begin + a["strip"]).minimum(a["values"])
        whole = begin + (end - begin) // lanes * lanes
        code.loop(whole, lambda at: convert(at, lanes), start=begin, step=lanes)
        code.loop(end, lambda at: convert(at, 1), start=whole)

    code.loop(last, at_strip, start=first)

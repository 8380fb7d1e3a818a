"""Where float32 becomes bytes: a pixel's largest magnitude over all channels decides its scale."""

from __future__ import annotations

from collections.abc import Callable

from npmobilenet.kernels.blocked.code.int8.ending import TOGETHER, then_floats
from npmobilenet.kernels.blocked.int8.entry import CHANNELS, IMAGE, PIXELS
from npmobilenet.kernels.blocked.layout import Arguments
from npmobilenet.kernels.blocked.library import CLAMP
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Integers, Pointer, Vector

HALF_BYTES = 2
LEAST = 2.0**-100  # of a pixel's largest magnitude: zeros have a scale, too


def define(library: Library) -> None:
    """Add the kernels."""
    define_pixels(library)
    define_quantize(library, CLAMP)
    library.add("int8_quantize_image", quantize_image)
    library.add("int8_dequantize", dequantize)


def define_pixels(library: Library, of_bytes: bool = False) -> None:
    """Add what quantises pixels, of float32 or of bytes that stand for ``(x + start) * factor``."""
    for pixels in (1, library.target.lanes):
        library.add(f"int8_quantize_{pixels}", _group(pixels, of_bytes))
    library.add("int8_quantize_pixels", _quantize_pixels(of_bytes))


def define_quantize(library: Library, end: str) -> None:
    """Add what quantises channels after an activation (`int8.ending`)."""
    library.add("int8_quantize", _quantize(end))


def _group(pixels: int, of_bytes: bool):
    """Runs of so many pixels: one, or as many as a vector has lanes, whose maxima are found together."""

    def write(
        code: Code,
        x: Pointer,
        x_plane: Integer,
        start: Pointer,
        factor: Pointer,
        out: Pointer,
        out_plane: Integer,
        scale: Pointer,
        blocks: Integer,
        count: Integer,
        levels: Pointer,
    ) -> None:
        size, lanes = code.target.bytes, code.target.lanes
        most, zero_point = levels.splat(0), levels.splat(4)

        def values(block: Integer, pixel: Integer) -> Callable[[int], Vector]:
            """A block's values of the group that begins with a pixel, by number."""
            if not of_bytes:
                plane = x + x_plane * block + pixel * size
                return lambda m: plane.vector(m * size)
            plane, first = x + x_plane * block + pixel * lanes, (start + block * size).integers()
            scale = (factor + block * size).vector()
            return lambda m: (plane.widened_bytes(m * lanes) + first).to_float() * scale

        def at_group(index: Integer) -> None:
            pixel = (index * pixels).minimum(count - pixels)
            place = out + pixel * lanes

            def magnitudes(block: Integer, *largest: Integers) -> list[Integers]:
                value = values(block, pixel)
                return [y.maximum(value(m).magnitude_bits()) for m, y in enumerate(largest)]

            found = code.loop(blocks, magnitudes, [code.splat_integers(0)] * pixels)
            largest = code.splat(LEAST).maximum(code.lane_maxima(found).as_float())
            steps = code.local(1)
            steps.store(most / largest)
            scales = largest * (code.splat(1.0) / most) + (largest - largest)  # NaN of what is not finite
            (scale + pixel * 4).store_lanes(scales, pixels)

            def at_block(block: Integer) -> None:
                value, target = values(block, pixel), place + out_plane * block
                # Where the largest is not finite, steps are 0 or no number; else 255 is the most, rounding apart.
                target.store_bytes(
                    [zero_point.fused(value(m), steps.splat(4 * m)) for m in range(pixels)], bounded=True
                )

            code.loop(blocks, at_block)

        code.loop((count + (pixels - 1)) // pixels, at_group)

    return write


def _quantize_pixels(of_bytes: bool):
    def quantize_pixels(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: strips ``first`` up to ``last`` of an image (fields `PIXELS`)."""
        a = PIXELS.read(arguments)
        lanes = code.target.lanes
        x_pixel = lanes if of_bytes else code.target.bytes

        def at_strip(item: Integer) -> None:
            begin = item * a["strip"]
            count = a["strip"].minimum(a["pixels"] - begin)
            arguments = (
                *(a.at("x") + begin * x_pixel, a["x_plane"], a.at("start"), a.at("factor")),
                *(a.at("out") + begin * lanes, a["out_plane"]),
                *(a.at("scale") + begin * 4, a["blocks"], count, a.at("levels")),
            )
            with code.when(count >= lanes):
                code.call(f"int8_quantize_{lanes}", *arguments)
            with code.when(count < lanes):
                code.call("int8_quantize_1", *arguments)

        code.loop(last, at_strip, start=first)

    return quantize_pixels


def quantize_image(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: rows ``first`` up to ``last`` of all channels of an image, to 16 bits (fields `IMAGE`)."""
    a = IMAGE.read(arguments)
    lanes = code.target.lanes
    steps, low, high = ((a.at("steps") + number * 4).splat() for number in range(3))
    width = a["width"]

    def each(count: Integer, put: Callable[[Integer, int], None]) -> None:
        """``put(first, how many)`` for so many values, a vector of them at a time."""
        whole = count // lanes * lanes
        code.loop(whole, lambda at: put(at, lanes), step=lanes)
        code.loop(count, lambda at: put(at, 1), start=whole)

    def at_row(item: Integer) -> None:
        row = item - a["top"]
        inside = code.builder.and_(row >= 0, row < a["height"])

        def converted(channel: Integer, at: Integer, count: int) -> Integers:
            place = a.at("x") + ((channel * a["height"] + row) * width + at) * 4
            value = place.vector() if count > 1 else place.splat()
            return (value * steps).at_least(low).at_most(high).nearest()

        def channels(first: Integer, together: int) -> None:
            """A row of one channel, or of a pair of them."""
            pixel_bytes, nothing = 2 * together, code.splat_integers(0)
            place = a.at("out") + a["out_plane"] * first + a["out_row"] * item * together

            def put(to: Pointer, count: int, values: list[Integers]) -> None:
                if together > 1:
                    to.store_lanes(values[0].paired(values[1]).as_float(), count)
                else:
                    to.store_halves(values[0], count)

            def clear(at: Integer, count: int) -> None:
                put(place + at * pixel_bytes, count, [nothing] * together)

            def convert(at: Integer, count: int) -> None:
                values = [converted(first + number, at, count) for number in range(together)]
                put(place + (a["left"] + at) * pixel_bytes, count, values)

            each(a["out_row"] // HALF_BYTES, clear)
            with code.when(inside):
                each(width, convert)

        even = a["channels"] // 2 * 2
        code.loop(even, lambda first: channels(first, 2), step=2)
        code.loop(a["channels"], lambda first: channels(first, 1), start=even)

    code.loop(last, at_row, start=first)


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


def _quantize(end: str):
    def quantize(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: blocks ``first`` up to ``last``, float32 to bytes (fields `CHANNELS`)."""
        a = CHANNELS.read(arguments)
        then = then_floats(code, end, a.at("clamp"))

        def row(x: Pointer, out: Pointer, steps: Pointer, zero_point: Pointer, columns: Integer) -> None:
            factor, offset = steps.vector(), zero_point.vector()

            def pixels(at: Integer, count: int) -> None:
                values = [(x + at * code.target.bytes).vector(i * code.target.bytes) for i in range(count)]
                values = [offset.fused(then(value), factor) for value in values]
                (out + at * code.target.lanes).store_bytes(values)

            whole = columns // TOGETHER * TOGETHER
            code.loop(whole, lambda at: pixels(at, TOGETHER), step=TOGETHER)
            code.loop(columns, lambda at: pixels(at, 1), start=whole)

        _each_row(code, a, first, last, row)

    return quantize


def dequantize(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: blocks ``first`` up to ``last``, bytes to float32 (fields `CHANNELS`)."""

    def row(x: Pointer, out: Pointer, scale: Pointer, offset: Pointer, columns: Integer) -> None:
        factor, start = scale.vector(), offset.integers()

        def pixel(at: Integer) -> None:
            value = (x + at * code.target.lanes).widened_bytes() + start
            (out + at * code.target.bytes).store(value.to_float() * factor)

        code.loop(columns, pixel)

    _each_row(code, CHANNELS.read(arguments), first, last, row)

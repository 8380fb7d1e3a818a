"""Global average pooling, and the scaling of channels by what squeeze-and-excitation makes of it."""

from __future__ import annotations

from npmobilenet.kernels.blocked.pooling import POOL
from npmobilenet.kernels.blocked.squeeze_excite import SCALE
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer

PARTIAL_SUMS = 4  # fixed: independent chains, always added in the same order


def define(library: Library) -> None:
    """Add the kernels."""
    library.add("mean_planes", mean_planes)
    library.add("pool", pool)
    library.add("scale", scale)


def mean_planes(
    code: Code,
    x: Pointer,
    x_plane: Integer,
    out: Pointer,
    out_plane: Integer,
    pixels: Integer,
    reciprocal: Pointer,
    first: Integer,
    last: Integer,
) -> None:
    """Write the mean of each of blocks ``first`` up to ``last``; at ``reciprocal`` is 1 / pixels."""
    size = code.target.bytes
    factor = reciprocal.splat()
    whole = (pixels // PARTIAL_SUMS) * PARTIAL_SUMS

    def at_block(block: Integer) -> None:
        plane = x + x_plane * block
        zeros = [code.splat(0.0)] * PARTIAL_SUMS

        def group(pixel: Integer, *sums) -> list:
            return [y + (plane + pixel * size).vector(i * size) for i, y in enumerate(sums)]

        sums = code.loop(whole, group, zeros, step=PARTIAL_SUMS)
        total = (sums[0] + sums[1]) + (sums[2] + sums[3])
        (total,) = code.loop(pixels, lambda pixel, y: [y + (plane + pixel * size).vector()], [total], start=whole)
        out.store(total * factor, out_plane * block)

    code.loop(last, at_block, start=first)


def pool(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: blocks ``first`` up to ``last`` of a global average (fields `POOL`)."""
    a = POOL.read(arguments)
    places = a.at("x"), a["x_plane"], a.at("out"), a["out_plane"]
    code.call("mean_planes", *places, a["pixels"], a.at("reciprocal"), first, last)


def scale(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: multiply blocks ``first`` up to ``last`` by their channels' gates, in place (fields `SCALE`)."""
    a = SCALE.read(arguments)
    size = code.target.bytes

    def at_block(block: Integer) -> None:
        x = a.at("x") + a["x_plane"] * block
        gate = (a.at("gate") + block * size).vector()

        def step(pixel: Integer) -> None:
            place = x + pixel * size
            place.store(place.vector() * gate)

        code.loop(a["pixels"], step)

    code.loop(last, at_block, start=first)

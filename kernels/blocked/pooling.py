"""Global average pooling, and the scaling of channels by what squeeze-and-excitation makes of it."""

from __future__ import annotations

from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.simd import Code, Integer, Library, Pointer

POOL = Fields("x x_plane out pixels scale")
SCALE = Fields("x x_plane gate pixels")
PARTIAL_SUMS = 4  # fixed: independent chains, always added in the same order


def define(library: Library) -> None:
    """Add the kernels."""
    library.add("pool", pool)
    library.add("scale", scale)


def pool(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: blocks ``first`` up to ``last`` of a global average (fields `POOL`)."""
    a = POOL.read(arguments)
    size = code.target.bytes
    scale = a.at("scale").splat()
    whole = (a["pixels"] // PARTIAL_SUMS) * PARTIAL_SUMS

    def at_block(block: Integer) -> None:
        x = a.at("x") + a["x_plane"] * block
        zeros = [code.splat(0.0)] * PARTIAL_SUMS

        def group(pixel: Integer, *sums) -> list:
            return [y + (x + pixel * size).vector(i * size) for i, y in enumerate(sums)]

        sums = code.loop(whole, group, zeros, step=PARTIAL_SUMS)
        total = (sums[0] + sums[1]) + (sums[2] + sums[3])
        (total,) = code.loop(a["pixels"], lambda pixel, y: [y + (x + pixel * size).vector()], [total], start=whole)
        a.at("out").store(total * scale, block * size)

    code.loop(last, at_block, start=first)


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

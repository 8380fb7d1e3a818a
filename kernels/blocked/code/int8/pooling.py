"""Global average of an 8-bit tensor: four pixels a product, with weights of one."""

from __future__ import annotations

from npmobilenet.kernels.blocked.int8.layout import QUAD
from npmobilenet.kernels.blocked.int8.pooling import POOL
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Integers, Pointer

ONES, ONE = 0x01010101, 0x00000001  # as bytes


def define(library: Library) -> None:
    """Add the kernel."""
    library.add("int8_pool", pool)


def pool(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: blocks ``first`` up to ``last`` of a global average (fields `POOL`)."""
    a = POOL.read(arguments)
    lanes, size = code.target.lanes, code.target.bytes
    whole = a["pixels"] // QUAD * QUAD

    def at_block(block: Integer) -> None:
        plane = a.at("x") + a["x_plane"] * block

        def four(pixel: Integer, total: Integers) -> list[Integers]:
            values = code.transposed((plane + pixel * lanes).integers())
            return [total.dot4(values, code.splat_integers(ONES))]

        def one(pixel: Integer, total: Integers) -> list[Integers]:
            return [total.dot4((plane + pixel * lanes).transposed_bytes([0]), code.splat_integers(ONE))]

        (total,) = code.loop(whole, four, [(a.at("start") + block * size).integers()], step=QUAD)
        (total,) = code.loop(a["pixels"], one, [total], start=whole)
        a.at("out").store(total.to_float() * (a.at("factor") + block * size).vector(), block * size)

    code.loop(last, at_block, start=first)

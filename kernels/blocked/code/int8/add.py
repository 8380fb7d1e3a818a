"""Sum of two 8-bit tensors, each in steps of the result."""

from __future__ import annotations

from npmobilenet.kernels.blocked.code.int8.ending import TOGETHER
from npmobilenet.kernels.blocked.int8.add import ADD
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer


def define(library: Library) -> None:
    """Add the kernel."""
    library.add("int8_add", add)


def add(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: rows ``first`` up to ``last`` of all blocks' (fields `ADD`)."""
    a = ADD.read(arguments)
    lanes, size = code.target.lanes, code.target.bytes

    def at_row(item: Integer) -> None:
        block, row = item // a["rows"], item % a["rows"]
        x, y, out = (a.at(name) + a[f"{name}_plane"] * block + a[f"{name}_row"] * row for name in ("x", "y", "out"))
        scale, other, bias = ((a.at(name) + block * size).vector() for name in ("scale", "other_scale", "bias"))

        def pixels(at: Integer, count: int) -> None:
            sums = []
            for number in range(count):
                one, two = ((z + (at + number) * lanes).widened_bytes().to_float() for z in (x, y))
                sums.append(bias.fused(two, other).fused(one, scale))
            (out + at * lanes).store_bytes(sums)

        whole = a["columns"] // TOGETHER * TOGETHER
        code.loop(whole, lambda at: pixels(at, TOGETHER), step=TOGETHER)
        code.loop(a["columns"], lambda at: pixels(at, 1), start=whole)

    code.loop(last, at_row, start=first)

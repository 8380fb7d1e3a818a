"""How sums of integers become a result: float32, one fused multiply-add, and bytes or float32.

Scales are a function of the pixel's number, called where its product is needed: what is written down early is held in
registers, of which there are none to spare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from npmobilenet.kernels.vector.simd import Integers, Pointer, Vector

TOGETHER = 4  # vectors that make a register of bytes


def store_bytes(sums: Sequence[Integers], scale: Callable[[int], Vector], bias: Vector, out: Pointer) -> None:
    """Write the results of one channel block for pixels that follow one another."""
    for at in range(0, len(sums), TOGETHER):
        some = [bias.fused(y.to_float(), scale(at + m)) for m, y in enumerate(sums[at : at + TOGETHER])]
        out.store_bytes(some, at * out.code.target.lanes)


def store_floats(
    sums: Sequence[Integers],
    scale: Callable[[int], Vector],
    bias: Vector,
    bounds: tuple[Vector, Vector],
    out: Pointer,
    residual: Pointer | None = None,
) -> None:
    """Write them as float32, between bounds, with a residual added."""
    for m, y in enumerate(sums):
        at = m * out.code.target.bytes
        value = bias.fused(y.to_float(), scale(m)).clamp(*bounds)
        out.store(value if residual is None else value + residual.vector(at), at)

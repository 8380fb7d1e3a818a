"""How sums of integers become a result: float32, one fused multiply-add, and bytes or float32."""

from __future__ import annotations

from npmobilenet.kernels.vector.simd import Integers, Pointer, Vector


def store_bytes(sums: list[Integers], scales: list[Vector], bias: Vector, out: Pointer) -> None:
    """Write the results of one channel block for pixels that follow one another, with a scale for each of them."""
    out.store_bytes([bias.fused(y.to_float(), scale) for y, scale in zip(sums, scales, strict=True)])


def store_floats(
    sums: list[Integers],
    scales: list[Vector],
    bias: Vector,
    bounds: tuple[Vector, Vector],
    out: Pointer,
    residual: Pointer | None = None,
) -> None:
    """Write them as float32, between bounds, with a residual added."""
    for m, (y, scale) in enumerate(zip(sums, scales, strict=True)):
        at = m * out.code.target.bytes
        value = bias.fused(y.to_float(), scale).clamp(*bounds)
        out.store(value if residual is None else value + residual.vector(at), at)

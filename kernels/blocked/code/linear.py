"""The classifier: one vector times a matrix that is read once. As many sums at once as hide the FMA's latency."""

from __future__ import annotations

from npmobilenet.kernels.blocked.code import activation
from npmobilenet.kernels.blocked.code.activation import MultiplyAdd
from npmobilenet.kernels.blocked.linear import LINEAR, UNROLL, panel_blocks
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector


def define(library: Library) -> None:
    """Add the kernel."""
    library.add("linear", linear)


def panel_sums(
    code: Code, x: Pointer, weights: Pointer, bias: Pointer, k: Integer, blocks: int, fma: MultiplyAdd = Vector.fma
) -> list[Vector]:
    """The outputs of one panel: the bias, and the products of ``k`` inputs with their weights, one after the other."""
    size = code.target.bytes

    def step(at: Integer, *sums: Vector) -> list[Vector]:
        results = list(sums)
        for j in range(UNROLL):
            value = (x + at * 4).splat(4 * j)
            row = weights + (at + j) * (blocks * size)
            results = [fma(y, value, row.vector(v * size)) for v, y in enumerate(results)]
        return results

    return code.loop(k, step, [bias.vector(v * size) for v in range(blocks)], step=UNROLL)


def linear(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: panels ``first`` up to ``last`` of a linear layer (fields `LINEAR`)."""
    a = LINEAR.read(arguments)
    size, blocks = code.target.bytes, panel_blocks(code.target)
    low, high = a.at("clamp").splat(0), a.at("clamp").splat(4)

    def panel(number: Integer) -> None:
        weights = a.at("weights") + number * a["k"] * (blocks * size)
        bias, out = (a.at(name) + number * (blocks * size) for name in ("bias", "out"))
        for v, y in enumerate(panel_sums(code, a.at("x"), weights, bias, a["k"], blocks)):
            out.store(y.clamp(low, high), v * size)
        activation.apply(code, a.at("activate"), out, code.integer(blocks))

    code.loop(last, panel, start=first)

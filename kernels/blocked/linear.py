"""The classifier: one vector times a matrix that is read once. As many sums at once as hide the FMA's latency."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.blocked import activation
from npmobilenet.kernels.blocked.layout import Fields
from npmobilenet.kernels.simd import Code, Integer, Library, Pointer, Target, Vector

LINEAR = Fields("x weights bias out k clamp activate")
UNROLL = 4


def panel_blocks(target: Target) -> int:
    """Blocks of outputs that one panel computes together."""
    return target.registers // 2


def pack_linear(target: Target, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pack (C_in, C_out) as ``[panel][C_in][outputs of the panel]``, and the bias, both filled up with zeros."""
    width = panel_blocks(target) * target.lanes
    c_in, c_out = weight.shape
    k, outputs = -(-c_in // UNROLL) * UNROLL, -(-c_out // width) * width
    full, full_bias = np.zeros((k, outputs), np.float32), np.zeros(outputs, np.float32)
    full[:c_in, :c_out], full_bias[:c_out] = weight, bias
    return np.ascontiguousarray(full.reshape(k, -1, width).transpose(1, 0, 2)).ravel(), full_bias


def define(library: Library) -> None:
    """Add the kernel."""
    library.add("linear", linear)


def linear(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
    """Kernel: panels ``first`` up to ``last`` of a linear layer (fields `LINEAR`)."""
    a = LINEAR.read(arguments)
    size, blocks = code.target.bytes, panel_blocks(code.target)
    low, high = a.at("clamp").splat(0), a.at("clamp").splat(4)
    x = a.at("x")

    def panel(number: Integer) -> None:
        weights = a.at("weights") + number * a["k"] * (blocks * size)
        bias, out = (a.at(name) + number * (blocks * size) for name in ("bias", "out"))

        def step(k: Integer, *sums: Vector) -> list[Vector]:
            results = list(sums)
            for j in range(UNROLL):
                value = (x + k * 4).splat(4 * j)
                row = weights + (k + j) * (blocks * size)
                results = [y.fma(value, row.vector(v * size)) for v, y in enumerate(results)]
            return results

        sums = code.loop(a["k"], step, [bias.vector(v * size) for v in range(blocks)], step=UNROLL)
        for v, y in enumerate(sums):
            out.store(y.clamp(low, high), v * size)
        activation.apply(code, a.at("activate"), out, code.integer(blocks))

    code.loop(last, panel, start=first)

"""Squeeze-and-excitation of an 8-bit tensor: its vectors are float32, with the same bits on every CPU."""

from __future__ import annotations

from npmobilenet.kernels.blocked.code.int8 import entry
from npmobilenet.kernels.blocked.code.int8.ending import ACTIVATIONS
from npmobilenet.kernels.blocked.code.linear import panel_sums
from npmobilenet.kernels.blocked.int8.squeeze_excite import VECTOR, vector_name, widths
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector


def define(library: Library) -> None:
    """Add the kernels."""
    entry.define_pixels(library, of_bytes=True)
    for activation in ("none", *ACTIVATIONS):
        for blocks in widths(library.target):
            library.add(vector_name(activation, blocks), _vector(activation, blocks))


def _vector(activation: str, blocks: int):
    def vector(code: Code, arguments: Pointer, first: Integer, last: Integer, scratch: Pointer) -> None:
        """Kernel: panels ``first`` up to ``last``, of so many blocks, of a linear layer (fields `VECTOR`)."""
        a, size = VECTOR.read(arguments), code.target.bytes
        function = ACTIVATIONS.get(activation, lambda code, y: y)

        def panel(number: Integer) -> None:
            weights = a.at("weights") + number * a["k"] * (blocks * size)
            bias, scale, out = (a.at(name) + number * (blocks * size) for name in ("bias", "scale", "out"))
            sums = panel_sums(code, a.at("x"), weights, bias, a["k"], blocks, Vector.fused)
            for v, y in enumerate(sums):
                out.store(function(code, y) * scale.vector(v * size), v * size)

        code.loop(last, panel, start=first)

    return vector

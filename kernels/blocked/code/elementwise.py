"""Functions of every value: kernels that differ in nothing but the function that they are written with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from npmobilenet.kernels.blocked.code.activation import ACTIVATIONS, exponential_less_one
from npmobilenet.kernels.blocked.elementwise import ELEMENTWISE
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector

SATURATED = 10.0  # of tanh: beyond, it is 1 in float32
LEAST = -80.0  # of an exponential less 1: below, it is -1 in float32


def relu(code: Code, x: Vector) -> Vector:
    """``max(x, 0)``."""
    return x.clamp(code.splat(0.0), code.splat(float("inf")))


def relu6(code: Code, x: Vector) -> Vector:
    """``min(max(x, 0), 6)``."""
    return x.clamp(code.splat(0.0), code.splat(6.0))


def tanh(code: Code, x: Vector) -> Vector:
    """``e / (e + 2)`` with ``e = exp(2 x) - 1``: near 0 as exact as e."""
    x = x.clamp(code.splat(-SATURATED), code.splat(SATURATED))
    e = exponential_less_one(code, x + x)
    return e / (e + code.splat(2.0))


def elu(code: Code, x: Vector, alpha: Vector) -> Vector:
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere."""
    return x.where_positive(alpha * exponential_less_one(code, x.clamp(code.splat(LEAST), code.splat(0.0))))


# By name, with how many parameters each takes.
FUNCTIONS: dict[str, tuple[Callable[..., Vector], int]] = {
    "copy": (lambda code, x: x, 0),
    "relu": (relu, 0),
    "relu6": (relu6, 0),
    **{name: (function, 0) for name, function in ACTIVATIONS.items()},
    "tanh": (tanh, 0),
    "elu": (elu, 1),
    "prelu": (lambda code, x, slope: x.where_positive(slope * x), 1),
    "batch_norm": (lambda code, x, mean, scale, bias: bias.fma(x - mean, scale), 3),
    "add": (lambda code, x, y: x + y, 1),
    "multiply": (lambda code, x, y: x * y, 1),
}
OF_TWO_TENSORS = ("add", "multiply")  # of which the second may have one channel for all


def define(library: Library) -> None:
    """Add the kernels."""
    for name, (function, parameters) in FUNCTIONS.items():
        library.add(name, partial(_rows, function, parameters, False))
    for name in OF_TWO_TENSORS:
        library.add(f"{name}_repeated", partial(_rows, FUNCTIONS[name][0], 1, True))


def _rows(
    function: Callable[..., Vector],
    parameters: int,
    repeated: bool,
    code: Code,
    arguments: Pointer,
    first: Integer,
    last: Integer,
    scratch: Pointer,
) -> None:
    """Kernel: rows ``first`` up to ``last``, block after block (fields `ELEMENTWISE`)."""
    a, size = ELEMENTWISE.read(arguments), code.target.bytes
    x, y, out, masks = (a.at(name) for name in ("x", "y", "out", "masks"))
    x_row, x_plane, out_row, out_plane = (a[name] for name in ("x_row", "x_plane", "out_row", "out_plane"))
    y_pixel, y_row, y_plane = a["y_pixel"], a["y_row"], a["y_plane"]
    rows, columns, last_block = a["rows"], a["columns"], a["blocks"] - 1

    def at_row(item: Integer) -> None:
        block, row = item // rows, item % rows
        source, place = x + block * x_plane + row * x_row, out + block * out_plane + row * out_row
        other = y + block * y_plane + row * y_row
        mask = code.select(block >= last_block, masks + size, masks).vector()

        def at_pixel(column: Integer) -> None:
            here = other + column * y_pixel
            given = [here.splat() if repeated else here.vector(number * size) for number in range(parameters)]
            value = function(code, (source + column * size).vector(), *given)
            (place + column * size).store(value.masked(mask))

        code.loop(columns, at_pixel)

    code.loop(last, at_row, start=first)

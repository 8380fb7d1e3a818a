"""Activations that are more than a clamp: a pass over values that a kernel has just written, still in the cache.

The exponential ends in infinity and in zero as it must, for it is computed as ``exp(-x) = (2**t)**2`` with
``t = -x / (2 ln 2)``, and ``2**t = 2**n * 2**f``: n is the integer nearest to t, and a polynomial in f gives the
rest.
"""

from __future__ import annotations

from collections.abc import Callable

from npmobilenet.kernels.blocked.activation import function_name
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector

MultiplyAdd = Callable[[Vector, Vector, Vector], Vector]  # `Vector.fma`, or `Vector.fused` for the same bits everywhere

# Minimax coefficients of 2**f = 1 + f * (...) for |f| <= 1/2, relative error 2e-8 (fitted by Lawson's algorithm).
POLYNOMIAL = (
    0.00015353258640971035,
    0.001339900423772633,
    0.00961843878030777,
    0.05550331994891167,
    0.24022647738456726,
    0.6931471824645996,
)
TO_HALF_BINARY = -0.5 / 0.6931471805599453
ROUND = 1.5 * 2**23  # added to a small number, it leaves the nearest integer in the low bits
LIMIT = 170.0  # of x: beyond, the square is infinity or zero


def exponential(code: Code, x: Vector, fma: MultiplyAdd = Vector.fma) -> Vector:
    """``exp(-x)``; NaN stays NaN."""
    x = x.clamp(code.splat(-LIMIT), code.splat(LIMIT))
    rounder, factor = code.splat(ROUND), code.splat(TO_HALF_BINARY)
    shifted = fma(rounder, x, factor)
    f = fma(rounder - shifted, x, factor)  # exact but for the factor's own rounding
    root = fma(code.splat(1.0), _series(code, f, fma), f).add_to_exponent(shifted)
    return root * root


def exponential_less_one(code: Code, x: Vector) -> Vector:
    """``exp(x) - 1`` for |x| <= 87, relatively exact near 0 too: ``(2**n - 1) + 2**n * (2**f - 1)``; NaN stays NaN."""
    rounder, factor = code.splat(ROUND), code.splat(-2 * TO_HALF_BINARY)
    shifted = rounder.fma(x, factor)
    f = (rounder - shifted).fma(x, factor)
    power = code.splat(1.0).add_to_exponent(shifted)
    return (power - code.splat(1.0)).fma(power, _series(code, f) * f)


def _series(code: Code, f: Vector, fma: MultiplyAdd = Vector.fma) -> Vector:
    """``(2**f - 1) / f``."""
    series = code.splat(POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        series = fma(code.splat(coefficient), series, f)
    return series


def swish(code: Code, x: Vector) -> Vector:
    """``x / (1 + exp(-x))``."""
    return x / (code.splat(1.0) + exponential(code, x))


def sigmoid(code: Code, x: Vector, fma: MultiplyAdd = Vector.fma) -> Vector:
    """``1 / (1 + exp(-x))``."""
    return code.splat(1.0) / (code.splat(1.0) + exponential(code, x, fma))


def hard_sigmoid(code: Code, x: Vector) -> Vector:
    """``relu6(x + 3) / 6``."""
    return (x + code.splat(3.0)).clamp(code.splat(0.0), code.splat(6.0)) * code.splat(1 / 6)


def hard_swish(code: Code, x: Vector) -> Vector:
    """``x * relu6(x + 3) / 6``."""
    return x * hard_sigmoid(code, x)


ACTIVATIONS: dict[str, Callable[[Code, Vector], Vector]] = {
    "hard_swish": hard_swish,
    "swish": swish,
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid,
}


def define(library: Library) -> None:
    """Add the functions."""
    for name, function in ACTIVATIONS.items():
        library.add(function_name(name), _pass(function))


def apply(code: Code, function: Pointer, x: Pointer, vectors: Integer) -> None:
    """Call one of these functions, unless its address is 0, on what has just been written.

    Zeros between the values, of a frame, may lie in the range: they stay zeros under all that a convolution ends
    with (`blocked.activation.ZERO_PRESERVING`).
    """
    with code.when(code.builder.not_(function.is_null())):
        code.call(function, x, vectors)


def _pass(function: Callable[[Code, Vector], Vector]):
    """Over ``vectors`` vectors from ``x`` on, in place."""

    def write(code: Code, x: Pointer, vectors: Integer) -> None:
        size = code.target.bytes

        def step(at: Integer) -> None:
            place = x + at * size
            place.store(function(code, place.vector()))

        code.loop(vectors, step)

    return write

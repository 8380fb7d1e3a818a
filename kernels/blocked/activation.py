"""Activations that are more than a clamp: a pass over values that a kernel has just written, still in the cache.

The exponential is computed as ``exp(y) = exp(y / 2)**2``, so that it ends in infinity and in zero as it must, with
``exp(y / 2) = 2**n * exp(r)``: n is the integer nearest to ``y / (2 ln 2)``, and a polynomial gives the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from npmobilenet.kernels.simd import Code, Integer, Library, Pointer, Vector

# ln 2 in two parts, the first so short that its multiples are exact (Cody and Waite, 1980), and minimax
# coefficients of exp(r) = 1 + r + r**2 * (...) for |r| <= ln(2) / 2, relative error 4e-9 (fitted by Lawson's
# algorithm).
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
POLYNOMIAL = (0.0013814468402415514, 0.008368780836462975, 0.04166839271783829, 0.1666651964187622, 0.4999999403953552)
ROUND = 1.5 * 2**23  # added to a small number, it leaves the nearest integer in the low bits
LIMIT = 64.0  # of y / 2: beyond, the square is infinity or zero anyway


def exponential(code: Code, half: Vector) -> Vector:
    """``exp(2 * half)``; NaN stays NaN."""
    half = half.clamp(code.splat(-LIMIT), code.splat(LIMIT))
    rounder = code.splat(ROUND)
    shifted = rounder.fma(half, code.splat(1 / 0.6931471805599453))
    n = shifted - rounder
    r = half.fma(n, code.splat(-LN2_HIGH)).fma(n, code.splat(-LN2_LOW))
    series = code.splat(POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        series = code.splat(coefficient).fma(series, r)
    root = (code.splat(1.0) + r.fma(series, r * r)).add_to_exponent(shifted)
    return root * root


def swish(code: Code, x: Vector) -> Vector:
    """``x / (1 + exp(-x))``."""
    return x / (code.splat(1.0) + exponential(code, x * code.splat(-0.5)))


def sigmoid(code: Code, x: Vector) -> Vector:
    """``1 / (1 + exp(-x))``."""
    return code.splat(1.0) / (code.splat(1.0) + exponential(code, x * code.splat(-0.5)))


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
ZERO_PRESERVING = ("hard_swish", "swish")


def function_name(activation: str) -> str:
    """The function's name in its library."""
    return f"activate_{activation}"


def define(library: Library) -> None:
    """Add the functions."""
    for name, function in ACTIVATIONS.items():
        library.add(function_name(name), _pass(function))


def apply(code: Code, function: Pointer, x: Pointer, vectors: Integer) -> None:
    """Call one of these functions, unless its address is 0, on what has just been written.

    Zeros between the values, of a frame, may lie in the range: they stay zeros under all that a convolution ends
    with (`ZERO_PRESERVING`).
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

"""How sums of integers become a result: float32, one fused multiply-add, and bytes or float32.

Scales are a function of the pixel's number, called where its product is needed: what is written down early is held in
registers, of which there are none to spare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from npmobilenet.kernels.blocked.code import activation
from npmobilenet.kernels.blocked.code.elementwise import relu, relu6
from npmobilenet.kernels.blocked.library import CLAMP
from npmobilenet.kernels.reference import SWISH_END, SWISH_POLYNOMIAL
from npmobilenet.kernels.vector.simd import Code, Integer, Integers, Pointer, Vector

TOGETHER = 4  # vectors that make a register of bytes


def swish(code: Code, x: Vector) -> Vector:
    """Near ``x / (1 + exp(-x))``, without a division: as `reference.activation_float32` has it."""
    end = code.splat(float(SWISH_END))
    a = x.magnitude_bits().as_float().at_most(end)
    rest = end - a
    square = rest * rest
    series = code.splat(float(SWISH_POLYNOMIAL[0]))
    for coefficient in SWISH_POLYNOMIAL[1:]:
        series = code.splat(float(coefficient)).fused(series, a)
    return x.raised_to(code.splat(0.0)).fused(-(a * (square * square)), series)


# With the bits of `reference.activation_float32` on every CPU.
ACTIVATIONS: dict[str, Callable[[Code, Vector], Vector]] = {
    "relu": relu,
    "relu6": relu6,
    "hard_swish": activation.hard_swish,
    "hard_sigmoid": activation.hard_sigmoid,
    "swish": swish,
    "sigmoid": partial(activation.sigmoid, fma=Vector.fused),
}

Then = Callable[[Vector], Vector]  # what follows the multiply-add


def then_bytes(code: Code, end: str, steps: Pointer, offset: Pointer) -> Then | None:
    """What makes steps of a result of a block whose sums end so, a multiply-add after its activation; None: nothing."""
    if end == CLAMP:
        return None
    factor, zero_point = steps.vector(), offset.vector()
    return lambda y: zero_point.fused(ACTIVATIONS[end](code, y), factor)


def then_floats(code: Code, end: str, clamp: Pointer) -> Then:
    """Its activation: the one that is told, or one whose bounds stand at an address."""
    if end == CLAMP:
        low, high = clamp.splat(0), clamp.splat(4)
        return lambda y: y.clamp(low, high)
    return partial(ACTIVATIONS[end], code)


def store_bytes(
    sums: Sequence[Integers],
    scale: Callable[[int], Vector],
    bias: Vector,
    then: Then | None,
    out: Pointer,
    bounded: bool,
) -> None:
    """Write the results of one channel block; ``bounded`` ones are below 2**31."""
    code, size = out.code, out.code.target.bytes
    together = TOGETHER * code.target.lanes
    whole, place = len(sums) // TOGETHER, code.local(len(sums)) if then else None
    for at in range(0, len(sums), TOGETHER):
        some = [bias.fused(y.to_float(), scale(at + m)) for m, y in enumerate(sums[at : at + TOGETHER])]
        if not then:
            out.store_bytes(some, at * code.target.lanes, bounded)
        for m, y in enumerate(some if then else ()):
            place.store(y, (at + m) * size)
    if not then:
        return

    def group(number: Integer, count: int) -> None:
        values = [(place + number * (TOGETHER * size)).vector(m * size) for m in range(count)]
        (out + number * together).store_bytes([then(y) for y in values], bounded=bounded)

    # An activation needs registers for itself: in a loop, it has all that the sums had.
    code.loop(whole, lambda number: group(number, TOGETHER))
    if len(sums) % TOGETHER:
        group(code.integer(whole), len(sums) % TOGETHER)


def store_floats(
    sums: Sequence[Integers],
    scale: Callable[[int], Vector],
    bias: Vector,
    out: Pointer,
    residual: Pointer | None = None,
) -> None:
    """Write them as float32, with a residual added, without an activation."""
    for m, y in enumerate(sums):
        at = m * out.code.target.bytes
        value = bias.fused(y.to_float(), scale(m))
        out.store(value if residual is None else value + residual.vector(at), at)


def when_more(code: Code, end: str, clamp: Pointer, follow: Callable[[], None]) -> None:
    """Do what follows the multiply-add of results of float32, if anything does."""
    if end == CLAMP:
        with code.when(code.builder.not_(clamp.is_null())):
            follow()
    else:
        follow()


def end_floats(code: Code, then: Then, out: Pointer, count: int, residual: Pointer | None = None) -> None:
    """Put so many pixels of a block through what follows, where they stand, and add a residual.

    Activations are few among results of float32: in a loop, their code is short.
    """

    def pixel(number: Integer) -> None:
        place = out + number * code.target.bytes
        value = then(place.vector())
        place.store(value if residual is None else value + (residual + number * code.target.bytes).vector())

    code.loop(count, pixel)

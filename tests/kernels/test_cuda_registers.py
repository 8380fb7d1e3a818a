"""What the CUDA kernels' vocabulary emits does what its NumPy meaning says.

No device is needed: the LLVM IR of an operation is compiled for the CPU and compared with its meaning. Only the
instructions of a device that are written out have stand-ins: two approximate ones, and the load with a condition.
What the compiler makes of those is executed in test_cuda_compiled.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numba
import numpy as np
import pytest
from llvmlite import ir

from npmobilenet.kernels.checks import ACTIVATIONS
from npmobilenet.kernels.cuda import registers

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT) or registers.types is not numba.types,
    reason="needs the compiler, and Numba's own types",
)


@dataclass(frozen=True)
class Constant:
    """An argument that the kernel's closure fixes."""

    value: int


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    def approximate(self, instruction, x):
        if instruction == "rcp":
            return self.builder.fdiv(self.number(1), x)
        return self.builder.call(self.builder.module.declare_intrinsic("llvm.exp2", [ir.FloatType()]), [x])

    def load_where(self, inside, index, lanes=1):
        select, zero = self.emit.builder.select, self.emit.number(0)
        index = select(inside, self.emit.long(index), self.emit.long(0))
        return [select(inside, value, zero) for value in self.load(index, lanes)]

    monkeypatch.setattr(registers.Emitter, "approximate", approximate)
    monkeypatch.setattr(registers.Memory, "load_where", load_where)


@cache
def emitted(name, call, places):
    """The operation, compiled for the CPU, with these constants in its call."""
    operation = numba.extending.intrinsic(prefer_literal=True)(registers.definition(*registers.OPERATIONS[name]))
    namespace = {"operation": operation}
    exec(f"def run({', '.join(places)}):\n    return operation({call})\n", namespace)
    return numba.njit(namespace["run"])


def check(name, *arguments):
    """Run an operation in both ways on copies of its arrays, and compare all of them and the result."""
    meaning, _ = registers.OPERATIONS[name]
    places = tuple(f"a{i}" for i, a in enumerate(arguments) if not isinstance(a, Constant))
    call = ", ".join(str(a.value) if isinstance(a, Constant) else f"a{i}" for i, a in enumerate(arguments))

    def copies():
        return [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]

    expected = copies()
    wanted = meaning(*(a.value if isinstance(a, Constant) else a for a in expected))
    given = copies()
    result = emitted(name, call, places)(*(a for a in given if not isinstance(a, Constant)))
    if wanted is not None:
        np.testing.assert_allclose(result, wanted, rtol=1e-6)
    for got, want in zip(given, expected, strict=True):
        if isinstance(want, np.ndarray):
            np.testing.assert_allclose(got.view(np.float32), want.view(np.float32), rtol=2e-6, atol=1e-6)


def numbers(*shape):
    return np.random.default_rng(math.prod(shape)).standard_normal(shape).astype(np.float32).ravel()


def shared(count):
    """Memory as kernels declare what a block shares."""
    return numbers(count).view(np.complex128)


C = Constant


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("first", [-2, 0, 3])
@pytest.mark.parametrize("row", [-1, 0, 1])
def test_read_and_write(lanes, first, row):
    # 2 rows of 4 pieces, some of which are outside of 2 rows and 5 columns.
    index = 32 + (row * 6 + first) * lanes
    places = C(2), 6 * lanes, row, 2, C(4), lanes
    check("read", numbers(8 * lanes), numbers(100), index, *places, first, C(1), 5, C(lanes))
    values = numbers(8 * lanes)
    check("write", numbers(100), index, *places, C(1), first, C(1), 5, values, C(lanes))
    check("write", shared(100), index, *places, C(1), first, C(1), 5, values, C(lanes))


def test_lanes_of_a_write_may_lie_apart():
    check("write", shared(100), 5, C(1), 0, 0, 1, C(3), 2, C(20), 0, C(1), 2, numbers(12), C(4))


def test_advancing_by_more_than_one():
    check("read", numbers(8), numbers(40), 4, C(1), 0, 0, 1, C(4), 8, 2, C(3), 9, C(2))


def test_whole_arrays():
    values, other = numbers(12), numbers(12) + 1
    check("fill", values, C(12), other, C(4))
    check("zero", values, C(6))
    check("add", values, other, C(12))
    check("scale", values, other, C(12), C(4))
    for inside in (True, False):
        check("mask", values, C(4), C(4), inside)


def test_single_values():
    check("load", numbers(5), 3)
    check("store", numbers(5), 3, np.float32(2.5))
    for count, size in ((0, 3), (17, 5), (2**31 + 5, 3), (4, 4)):
        check("quotient", count, size)
    for x in (-200.0, -87.0, -1.5, 0.0, 1e-8, 3.0, 88.5, 100.0, np.inf, -np.inf):
        if x > -87.5:
            check("exp", np.float32(x))


@pytest.mark.parametrize(("taps", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize("lanes", [1, 4])
def test_slide(taps, stride, dilation, lanes):
    outputs = 3
    row = numbers(((outputs - 1) * stride + (taps - 1) * dilation + 1) * lanes)
    sums, weights = numbers(2 * outputs * lanes), numbers(taps * lanes)
    for at in (0, outputs * lanes):
        check("slide", sums, C(at), row, weights, C(taps), C(outputs), C(stride), C(dilation), C(lanes))


@pytest.mark.parametrize(("rows", "columns", "lanes"), [(8, 8, 4), (4, 2, 2), (2, 4, 4), (1, 4, 4), (2, 3, 1)])
def test_multiply(rows, columns, lanes):
    a_step, b_step, gap = 12, 40, 8
    check(
        "multiply", numbers(rows * columns), shared(48), 4 if rows % 4 == 0 else rows, C(a_step),
        shared(160), lanes, C(b_step), C(gap), C(3), C(rows), C(columns), C(lanes),
    )  # fmt: skip
    check("multiply_outer", numbers(rows * columns), numbers(rows), numbers(columns), C(rows), C(columns))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activate(activation):
    code = Constant(ACTIVATIONS.index(activation))
    ends = [np.nan, np.inf, 0.0, -0.0, 1e-30, 5.9, 6.1, -3.1, -2.9, 2.9, 3.1, 20, 88.7, 1e4]
    ends += [-20, -1e4] + ([] if activation == "hard_swish" else [-87])
    with np.errstate(all="ignore"):
        check("activate", np.array(ends, np.float32), Constant(len(ends)), code)
        far = np.array([-np.inf, -1e38, np.nan], np.float32)
        check("activate", far, Constant(3), code)


@pytest.mark.parametrize("period", [1, 2])
def test_slopes_and_exponentials_below_zero(period):
    ends = np.array([np.nan, np.inf, 0, -0.0, 3, -1e-7, -0.499, -0.501, -3, -20, -87, -1e4], np.float32)
    factors = numbers(period)
    for name in ("rectify", "apply_elu"):
        check(name, ends, factors, C(len(ends)), C(period))
        check(name, np.full(2, -np.inf, np.float32), np.abs(factors), C(2), C(period))


def test_tanh():
    half = np.array([0, 1e-30, 1e-7, 1e-3, 0.2, 0.26, 1, 3, 9, 20, 1e4, np.inf], np.float32)
    check("apply_tanh", np.concatenate([half, -half, [np.float32(np.nan)]]), C(2 * len(half) + 1))


def test_the_larger_of_two():
    some = np.array([1, -1, np.nan, 2, -np.inf, np.inf, np.nan], np.float32)
    other = np.array([0, 3, 5, np.nan, -np.inf, 1, np.nan], np.float32)
    check("take_larger", some, other, C(7))


def test_between_two():
    for weight in (0.0, 0.3, 1.0):
        check("blend", numbers(4), numbers(4) + 1, np.float32(weight), C(4))


def test_normalise():
    statistics = [numbers(4) + place for place in range(3)]
    check("normalise", numbers(4), *statistics, np.abs(numbers(4)), np.float32(1e-3), C(4))

"""Vectors of small integers: exact, and the same bits however a CPU computes them."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import numba
import numpy as np
import pytest

from npmobilenet.kernels import reference
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer
from npmobilenet.kernels.vector.target import Target, host
from tests.kernels.test_simd import run

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="about machine code")

X86_64, AARCH64 = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
VNNI512 = "+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni"
DOTS = {  # by a CPU's name and its features: the instruction that multiplies bytes, and its register
    ("x86-64", "", X86_64): r"pmaddwd\s.*%xmm",
    ("sandybridge", "+avx", X86_64): r"vpmaddwd\s.*%xmm",
    ("haswell", "+avx,+avx2,+fma", X86_64): r"vpmaddwd\s.*%ymm",
    ("alderlake", "+avx,+avx2,+fma,+avxvnni", X86_64): r"(\{vex\} )?vpdpbusd\s.*%ymm",
    ("skylake-avx512", VNNI512.removesuffix(",+avx512vnni"), X86_64): r"vpmaddwd\s.*%zmm",
    ("cascadelake", VNNI512, X86_64): r"vpdpbusd\s.*%zmm",
    ("cortex-a72", "+neon", AARCH64): r"saddlp\s+v\d+\.4s|sadalp\s+v\d+\.4s",
    ("neoverse-n1", "+neon,+dotprod", AARCH64): r"sdot\s+v\d+\.4s",
    ("neoverse-v1", "+neon,+dotprod,+i8mm", AARCH64): r"usdot\s+v\d+\.4s",
}


def executable() -> dict[str, Target]:
    """Every way to compute that this CPU can execute, and plain arithmetic at the widths of all CPUs."""
    here = host()
    found = {f"plain{lanes}": replace(here, dot="plain", lanes=lanes) for lanes in (4, 8, 16)}
    found["without fma"] = replace(here, dot="plain", has_fma=False)
    if here.dot in ("vnni", "madd"):
        for dot, bits in product({here.dot, "madd"}, (128, 256, 512)):
            if bits <= here.integer_bits:
                for lanes in (4, 8, 16):
                    found[f"{dot}{bits}x{lanes}"] = replace(here, dot=dot, integer_bits=bits, lanes=lanes)
    return {**found, "host": here}


EXECUTABLE = executable()
every_way = pytest.mark.parametrize("target", EXECUTABLE.values(), ids=EXECUTABLE)


def columns(target: Target, *values) -> np.ndarray:
    """All combinations of values, filled up to whole registers: a row for each."""
    rows = np.array(list(product(*values)))
    return np.resize(rows, (-(-len(rows) // target.lanes) * target.lanes, rows.shape[1]))


@every_way
def test_products_of_bytes_are_exact(target):
    extremes = (0, 1, 127, 128, 255), (-128, -1, 127)
    grid = columns(target, *extremes, *extremes, (0, 255), (-128, 127), (0, 3, 255), (-128, 0))
    x = np.ascontiguousarray(grid[:, ::2].astype(np.uint8))
    w = np.ascontiguousarray(grid[:, 1::2].astype(np.int8))
    sums = np.resize(np.int32([0, -1, 2**31 - 1 - 4 * 255 * 127, -(2**31) + 4 * 255 * 128, 2**24 + 1]), len(grid))
    out = np.zeros(len(grid), np.int32)

    def compute(code: Code, sums: Pointer, x: Pointer, w: Pointer, out: Pointer, count: Integer) -> None:
        def step(i: Integer) -> None:
            at = i * code.target.bytes
            out.store(sums.integers(at).dot4(x.integers(at), w.integers(at)), at)

        code.loop(count, step)

    run(compute, sums, x, w, out, len(grid) // target.lanes, target=target)
    assert np.array_equal(out, sums + (x.astype(np.int64) * w).sum(axis=1))
    assert {255 * -128 * 4, 0} <= set((x.astype(np.int64) * w).sum(axis=1).tolist())


@every_way
def test_products_of_halves_are_exact(target):
    values = (-32767, -4096, 0, 5, 32767)
    grid = columns(target, values, values, values, values)
    a, b = (np.ascontiguousarray(grid[:, at::2].astype(np.int16)) for at in (0, 1))
    sums = np.resize(np.int32([0, -(10**6), 77]), len(grid))
    out = np.zeros(len(grid), np.int32)

    def compute(code: Code, sums: Pointer, a: Pointer, b: Pointer, out: Pointer, count: Integer) -> None:
        def step(i: Integer) -> None:
            at = i * code.target.bytes
            out.store(sums.integers(at).dot2(a.integers(at), b.integers(at)), at)

        code.loop(count, step)

    run(compute, sums, a, b, out, len(grid) // target.lanes, target=target)
    expected = sums + (a.astype(np.int64) * b).sum(axis=1)
    assert np.array_equal(out, expected.astype(np.int32))


NUMBERS = np.float32(
    [-np.inf, -1e30, -300, -1, -0.75, -0.5, -0.25, -0.0, 0, 0.25, 0.5, 0.75, 1.5, 2.5, 3.5, 100.5, 101.5, 126.49999]
    + [253.5, 254.5, 254.50002, 254.99998, 255, 255.5, 256, 70000, 2.0**31, 1e30, np.inf, np.nan]
)


@every_way
@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 5, 14])
def test_bytes_are_rounded_to_even_and_saturated(target, vectors):
    x = np.resize(NUMBERS, (vectors * target.lanes * 3,)).reshape(3, -1)
    out = np.full((3, vectors * target.lanes + 3), 7, np.uint8)

    def compute(code: Code, x: Pointer, out: Pointer) -> None:
        size = code.target.bytes
        values = [x.vector(i * size) for i in range(vectors)]
        out.store_bytes(values)

    for row, result in zip(x, out, strict=True):
        run(compute, np.ascontiguousarray(row), result, target=target)
    expected = np.clip(np.rint(np.where(np.isnan(x), 0, x)), 0, 255)
    assert np.array_equal(out[:, :-3], expected)
    assert np.all(out[:, -3:] == 7)


@every_way
def test_conversions(target):
    x = np.resize(np.float32([-3e6, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 12345.5, 4e6 + 0.5]), 2 * 16 * 9)
    numbers = np.resize(np.int32([-(2**31), -(2**24) - 1, -1, 0, 2**24 + 1, 2**24 + 3, 2**31 - 1, 4]), len(x))
    integers, halves, floats = np.zeros_like(numbers), np.zeros(len(x), np.int16), np.zeros_like(x)
    inputs = np.ascontiguousarray(np.clip(x, -32767, 32767))

    def compute(
        code: Code, x: Pointer, numbers: Pointer, integers: Pointer, halves: Pointer, floats: Pointer, small: Pointer
    ) -> None:
        size = code.target.bytes

        def step(i: Integer) -> None:
            integers.store((x + i * size).vector().nearest(), i * size)
            floats.store((numbers + i * size).integers().to_float(), i * size)
            (halves + i * (size // 2)).store_halves((small + i * size).vector().nearest(), code.target.lanes)

        code.loop(len(x_array) // code.target.lanes, step)

    x_array = x
    run(compute, x, numbers, integers, halves, floats, inputs, target=target)
    assert np.array_equal(integers, np.rint(x))
    assert np.array_equal(floats, numbers.astype(np.float32))
    assert np.array_equal(halves, np.rint(inputs))


@every_way
def test_fused_rounds_once(target):
    """Ties of the sum, of which the float64 has lost what breaks them, among numbers that are anything."""
    rng = np.random.default_rng(5)
    count = 16 * 200
    x, y, z = (
        rng.standard_normal(count).astype(np.float32) * np.float32(4) ** rng.integers(-9, 9, count) for _ in "xyz"
    )
    x, y, z = (np.float32(v) for v in (x, y, z))
    x[:4], y[:4], z[:4] = 1 + 2.0**-12, [1 + 2.0**-12, 1 - 2.0**-12, -1 - 2.0**-12, 2.0**-40], [2.0**-40, 0, 0, 1]
    x[16:20], y[16:20], z[16:20] = 2.0**24 + 2, [0.5 + 2.0**-24, 0.5, -0.5, 1], [2.0**-60, -(2.0**-60), 2.0**-60, 1]
    out = np.zeros_like(x)

    def compute(code: Code, x: Pointer, y: Pointer, z: Pointer, out: Pointer) -> None:
        def step(i: Integer) -> None:
            at = i * code.target.bytes
            out.store((z + at).vector().fused((x + at).vector(), (y + at).vector()), at)

        code.loop(count // code.target.lanes, step)

    run(compute, x, y, z, out, target=target)
    assert np.array_equal(out, reference.fma(x, y, z))
    assert np.any(out != x * y + z)


@every_way
def test_bytes_are_transposed(target):
    x, out = np.arange(64 * 4).astype(np.uint8), np.zeros((2, target.lanes, 4), np.uint8)

    def compute(code: Code, x: Pointer, out: Pointer) -> None:
        out.store(code.transposed(x.integers()))
        out.store((x + 1).transposed_bytes([0, 40, 80]), 4 * code.target.lanes)

    run(compute, x, out, target=target)
    assert np.array_equal(out[0], x[: 4 * target.lanes].reshape(4, -1).T)
    assert np.array_equal(
        out[1, :, :3], [[x[1 + lane + 40 * group] for group in range(3)] for lane in range(target.lanes)]
    )


@pytest.mark.parametrize("about", DOTS, ids=[cpu for cpu, _, _ in DOTS])
def test_every_cpu_multiplies_by_its_own_instruction(about):
    def compute(code: Code, sums: Pointer, x: Pointer, w: Pointer) -> None:
        sums.store(sums.integers().dot4(x.integers(), w.integers()))
        sums.store_bytes([sums.integers().to_float()] * 4, 64)

    library = Library("inspected", Target.of(*about), lambda library: library.add("kernel", compute), None)
    try:
        text = library.assembly()
    except RuntimeError as error:
        pytest.skip(f"this LLVM has no such target: {error}")
    assert re.search(DOTS[about], text), text
    assert "vpmaddubsw" not in text  # it saturates

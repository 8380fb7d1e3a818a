"""Kernels for CPUs other than this one: with fewer instructions, with other registers, and what LLVM makes of them."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.study import machine_code
from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.engine import Engine
from npmobilenet.kernels import reference, registry
from npmobilenet.kernels.blocked import images
from npmobilenet.kernels.blocked.code import (
    channels,
    common,
    convolution,
    depthwise,
    elementwise,
    pointwise,
    softmax,
    stem,
)
from npmobilenet.kernels.blocked.layout import k_unit
from npmobilenet.kernels.blocked.linear import panel_blocks
from npmobilenet.kernels.blocked.tiles import Tile, tiles
from npmobilenet.kernels.ladder.depthwise import ROW
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.target import Target, host
from tests.kernels.test_cpu_kernels import CASES
from tests.kernels.test_jit import python
from tests.kernels.tolerance import assert_close, tolerance

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="about machine code")
x86_only = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="about x86-64")

AVX512 = "+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl"
NEON = "+neon,+fp-armv8"
X86_64, AARCH64 = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
TARGETS = {
    "SSE2": Target.of("x86-64", "", X86_64),
    "AVX": Target.of("sandybridge", "+avx", X86_64),
    "AVX2": Target.of("haswell", "+avx,+avx2,+fma", X86_64),
    **{cpu: Target.of(cpu, AVX512, X86_64) for cpu in ("skylake-avx512", "sapphirerapids", "znver4")},
    **{cpu: Target.of(cpu, NEON, AARCH64) for cpu in ("cortex-a72", "neoverse-n1")},
}


def test_what_is_known_of_targets():
    known = {name: (target.lanes, target.registers, target.has_fma) for name, target in TARGETS.items()}
    assert known["SSE2"] == (4, 16, False)
    assert known["AVX"] == (8, 16, False)
    assert known["AVX2"] == (8, 16, True)
    assert known["sapphirerapids"] == (16, 32, True)
    assert known["neoverse-n1"] == (4, 32, True)


# Results --------------------------------------------------------------------------------------------------------


def compare_kernels() -> int:
    """Compare every case of every kernel of explicit vectors with the reference; returns how many there are."""
    compared = 0
    for kernel in registry.kernels(backend="blocked"):
        for case in CASES:
            if case.operation == kernel.operation and kernel.supports(**case.options):
                arrays = case.arrays()
                expected = getattr(reference, case.operation)(**arrays, **case.options)
                allowed = tolerance(case.operation, arrays, case.options, expected)
                assert_close(kernel.function(**arrays, **case.options, threads=2), expected, allowed, case)
                compared += 1
    return compared


def compare_network(target: Target | None = None) -> None:
    """Compare a small network, whose layers have tails, with the reference."""
    graph = get_architecture("mobilenet_v2").graph(0.25, 7)
    weights = random_weights(graph, 3)
    x = np.random.default_rng(8).standard_normal((3, 33, 47), np.float32)
    expected = Engine(graph, weights, "reference").run(x[None])[0]
    for threads in (1, 2):
        result = BlockedProgram(graph, weights, target).plan((33, 47), threads=threads).run(x)
        assert_close(result, expected, 1e-4 * np.abs(expected).max(), f"{threads} threads, {target}")


@pytest.fixture(scope="module")
def restricted() -> Iterator[dict[str, Future[str]]]:
    """What processes print that compare everything on a CPU with fewer instructions; most of it is compiling."""
    needs = {"SSE2": (), "AVX": ("avx",), "AVX2": ("avx2", "fma")}
    features = llvm.get_host_cpu_features()
    program = (
        "from npmobilenet.kernels.vector.target import host\n"
        "from tests.kernels.test_targets import compare_kernels, compare_network\n"
        "compare_network()\n"
        "print(host().cpu, host().lanes, host().has_fma, compare_kernels() > 100)"
    )
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: pool.submit(
                python, program, NUMBA_CPU_NAME=TARGETS[name].cpu, NUMBA_CPU_FEATURES=TARGETS[name].features
            )
            for name, needed in needs.items()
            if all(features[feature] for feature in needed)
        }


@x86_only
@pytest.mark.parametrize("name", ["SSE2", "AVX", "AVX2"])
def test_right_on_a_cpu_with_fewer_instructions(name, restricted):
    """Numba's settings restrict everything that is compiled."""
    if name not in restricted:
        pytest.skip("this CPU lacks the instructions")
    target = TARGETS[name]
    assert restricted[name].result() == f"{target.cpu} {target.lanes} {target.has_fma} True"


@pytest.mark.parametrize(("name", "lanes", "registers"), [("NEON", 4, 32), ("AVX-512", 16, 32)])
def test_right_with_the_layouts_of_other_cpus(monkeypatch, name, lanes, registers):
    """LLVM splits vectors that are too wide: the tiles and tails of any CPU can be computed on this one."""
    target = replace(host(), lanes=lanes, registers=registers)
    monkeypatch.setattr(images, "host", lambda: target)
    assert compare_kernels() > 100
    compare_network(target)


# Machine code ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assembly():
    """The functions of the common library for a target, each a list of lines."""
    made = {}

    def functions(target: Target) -> dict[str, list[str]]:
        if target not in made:
            try:
                text = Library("inspected", target, common.define, None).assembly()
            except RuntimeError as error:
                pytest.skip(f"this LLVM has no such target: {error}")
            made[target] = machine_code.functions(text)
        return made[target]

    return functions


def foreign_calls(functions: dict[str, list[str]]) -> set[str]:
    """What is called that is not in the library."""
    where = r"(?:call\w*|jmp\w*|movabsq|bl?|movz)\s+(?:x\d+, )?[$#]?(?::abs_g\d:)?"
    called = re.compile(where + r"(?!x\d+\b)([A-Za-z_]\w*)\b(?!\()")
    found = {match[1] for body in functions.values() for line in body if (match := called.match(line))}
    return found - functions.keys()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_mathematics_library_is_called(assembly, target):
    assert foreign_calls(assembly(target)) <= {"memset"}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nor_by_what_stands_between_convolutions(target):
    def define(kernels: Library) -> None:
        for module in (elementwise, softmax, channels):
            module.define(kernels)

    try:
        text = Library("inspected", target, define, None).assembly()
    except RuntimeError as error:
        pytest.skip(f"this LLVM has no such target: {error}")
    assert not foreign_calls(machine_code.functions(text))


def test_a_call_of_the_mathematics_library_would_be_found(assembly):
    """Without the instruction, a fused multiply-add is a function call for each lane."""
    assert "fmaf" in foreign_calls(assembly(replace(TARGETS["SSE2"], has_fma=True)))


def busiest_loop(body: list[str], multiply_add: str) -> tuple[int, int]:
    """Multiply-adds in the innermost loop that has most of them, and its vectors that come from or go to the stack."""
    stack = re.compile(r".*mm\d+.*\(%rsp\)|.*\(%rsp\).*mm\d+|(ldr|str|ldp|stp)\s+q.*\[sp")
    counts = []
    for loop in machine_code.inner_loops(body):
        lines = body[loop.start : loop.end + 1]
        instructions = [line for line in lines if re.match(multiply_add, line)]
        counts.append((len(instructions), sum(bool(stack.match(line)) for line in lines)))
    return max(counts)


def inner_products(assembly, target: Target, multiply_add: str) -> tuple[int, int]:
    """The loop over input channels of the wide tile: multiply-adds beyond those it needs, and stack traffic."""
    wide = tiles(target).wide
    count, stack = busiest_loop(assembly(target)[f"pointwise_{wide.pixels}x{wide.blocks}"], multiply_add)
    return count - wide.pixels * wide.blocks * k_unit(target), stack


def test_avx2_computes_in_registers(assembly):
    target = TARGETS["AVX2"]
    assert inner_products(assembly, target, r"vfmadd\w+ps\s.*%ymm") == (0, 0)
    assert busiest_loop(assembly(target)["linear"], r"vfmadd\w+ps\s.*%ymm") == (4 * panel_blocks(target), 0)


@pytest.mark.parametrize(("cpu", "spills"), [("skylake-avx512", 16), ("sapphirerapids", 0), ("znver4", 2)])
def test_avx512_computes_in_registers(assembly, cpu, spills):
    """Of Skylake's 28 sums LLVM keeps one on the stack, whose traffic hides behind 224 multiply-adds."""
    target = TARGETS[cpu]
    multiply_add = r"vfmadd\w+ps\s.*%zmm"
    superfluous, stack = inner_products(assembly, target, multiply_add)
    assert superfluous == 0
    assert stack <= spills
    assert busiest_loop(assembly(target)["depthwise_3x3_s1x1_row_14"], multiply_add) == (9 * 14, 0)
    assert busiest_loop(assembly(target)["linear"], multiply_add) == (4 * panel_blocks(target), 0)


def test_half_a_vector_is_computed_in_registers_with_its_values_from_memory(assembly):
    """Half of the multiply-adds are of eight lanes, and none of either width needs an instruction for its value."""
    target = TARGETS["znver4"]
    wide = tiles(target).wide
    assert wide.halves
    products = wide.pixels * k_unit(target)
    body = assembly(target)[f"pointwise_{wide.pixels}x{wide.blocks}_half"]
    for lanes in ("zmm", "ymm"):
        assert busiest_loop(body, rf"vfmadd\w+ps\s.*{{1to\d+}}.*%{lanes}") == (products, 0)


@pytest.mark.parametrize("cpu", ["cortex-a72", "neoverse-n1"])
def test_neon_multiplies_by_lanes_of_registers(assembly, cpu):
    target = TARGETS[cpu]
    assert inner_products(assembly, target, r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.") == (0, 0)
    wide = tiles(target).wide
    by_lane, _ = busiest_loop(assembly(target)[f"pointwise_{wide.pixels}x{wide.blocks}"], r"fmla\s.*\.s\[\d\]")
    assert by_lane >= (wide.pixels - 1) * wide.blocks * k_unit(target)  # one pixel comes as `ld1r`
    count, stack = busiest_loop(assembly(target)["depthwise_3x3_s1x1_row_14"], r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.4s")
    assert count == 9 * 14
    assert stack <= 3


@pytest.mark.parametrize(
    ("name", "multiply_add", "spills"),
    [
        ("AVX2", r"vfmadd\w+ps\s.*%ymm", 0),
        ("skylake-avx512", r"vfmadd\w+ps\s.*%zmm", 16),
        ("sapphirerapids", r"vfmadd\w+ps\s.*%zmm", 0),
        ("znver4", r"vfmadd\w+ps\s.*%zmm", 54),  # a quarter of a load for each of 224 products, which have half a one
        ("neoverse-n1", r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.", 4),
    ],
)
def test_dense_convolution_computes_in_registers(name, multiply_add, spills):
    target = TARGETS[name]
    wide = tiles(target).row
    try:
        text = Library("inspected", target, convolution.define, None).assembly()
    except RuntimeError as error:
        pytest.skip(f"this LLVM has no such target: {error}")
    functions = machine_code.functions(text)
    count, stack = busiest_loop(functions[f"convolution_{wide.pixels}x{wide.blocks}"], multiply_add)
    assert count == wide.pixels * wide.blocks * k_unit(target)
    assert stack <= spills
    assert not foreign_calls(functions)


# The ladder's lower rungs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_lower_tiles_compile_for_every_cpu(target):
    bodies = lower_tiles(target)
    assert {"depthwise_3x3_s1x1_row_1", "pointwise_1x1", "stem_3x3_s2x2_1x1"} <= bodies.keys()
    assert foreign_calls(bodies) <= {"memset"}


def test_lower_tiles_compute_in_registers_too():
    """They are slow for the reasons that their lessons give, and not because sums stand in memory."""
    bodies = lower_tiles(TARGETS["AVX2"])
    multiply_adds = {
        "depthwise_3x3_s1x1_row_1": 9,
        "depthwise_3x3_s1x1_row_7": 9 * 7,
        "pointwise_1x1": k_unit(TARGETS["AVX2"]),
        "pointwise_12x1": k_unit(TARGETS["AVX2"]) * 12,
        "stem_3x3_s2x2_1x1": 9,  # of each input channel
    }
    for name, count in multiply_adds.items():
        found, stack = busiest_loop(bodies[name], r"vfmadd\w+ps\s.*%ymm")
        assert found == count, name
        assert stack <= 4, name  # twelve sums leave LLVM no room for a constant or two


def lower_tiles(target: Target) -> dict[str, list[str]]:
    """The machine code of the tiles below the engine's, by function."""
    one, many = Tile(1, 1), tiles(target).narrow

    def define(kernels: Library) -> None:
        depthwise.define(kernels, (3, 3), (1, 1), ROW)
        stem.define(kernels, (3, 3), (2, 2), (one, one))
        pointwise.define(kernels, (many, many))

    return machine_code.functions(Library("lower", target, define, None).assembly())

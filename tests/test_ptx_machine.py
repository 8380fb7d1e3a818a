"""The machine that executes PTX: it must see what is wrong, or its silence means nothing. Needs no compiler."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx import arithmetic
from tests.ptx.machine import Machine
from tests.ptx.memory import Counts, Device, Findings
from tests.ptx.parser import PtxError, parse

HEADER = """
.version 9.0
.target sm_90
.shared .align 16 .b8 tile[512];
.visible .entry kernel(.param .u64 kernel_param_0, .param .u64 kernel_param_1)
{
    .reg .pred %p<9>;
    .reg .f32 %f<9>;
    .reg .b16 %rs<9>;
    .reg .b32 %r<9>;
    .reg .b64 %rd<9>;
    ld.param.u64 %rd1, [kernel_param_0];
    ld.param.u64 %rd2, [kernel_param_1];
    cvta.to.global.u64 %rd1, %rd1;
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
"""


def run(body, threads=32, x=None, size=32, check=True, blocks=1):
    """Run a kernel of ``x``, whose element is at rd4, and of a result that is not set, at rd5."""
    device = Device(Findings(), Counts(), check)
    x = np.arange(size, dtype=np.float32) if x is None else x
    out = np.full(size, np.nan, np.float32)
    places = [device.add(x, np.ones(len(x), bool), 0), device.add(out, np.zeros(size, bool), 0)]
    machine = Machine(parse(HEADER + body + "\nret;\n}\n"), places, (blocks, 1, 1), (threads, 1, 1), device, check)
    machine.run()
    return out, device.findings, device.counts


def test_a_kernel_without_fault():
    out, findings, counts = run(
        "ld.global.f32 %f1, [%rd4]; fma.rn.f32 %f2, %f1, 0f40000000, %f1; st.global.f32 [%rd5], %f2;"
    )
    assert np.array_equal(out, 3 * np.arange(32)) and not findings, str(findings)
    assert (counts.loads.requests, counts.loads.sectors, counts.loads.lines, counts.loads.bytes) == (1, 4, 1, 128)
    assert counts.instructions["fma"] == 1 and counts.instructions["global"] == 2


def test_ways_part_and_meet_again():
    body = """
        setp.lt.u32 %p1, %r1, 10;
        @%p1 bra $small;
        mov.f32 %f1, 0f3F800000;
        bra.uni $end;
    $small:
        mov.u32 %r2, %r1;
    $loop:
        add.s32 %r2, %r2, -1;
        setp.gt.s32 %p2, %r2, 0;
        @%p2 bra $loop;
        cvt.rn.f32.s32 %f1, %r2;
    $end:
        st.global.f32 [%rd5], %f1;
    """
    out, findings, counts = run(body)
    assert not findings
    assert out.tolist() == [-1.0] + [0.0] * 9 + [1.0] * 22
    assert counts.stores.requests == 1, "the threads of a warp have not met again"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("ld.global.f32 %f1, [%rd4+4];", "access outside of array 0, 1 times"),
        ("ld.global.f32 %f1, [%rd4+-4];", "access outside of array 0, 1 times"),
        ("ld.global.v2.f32 {%f1, %f2}, [%rd4];", "misaligned access, 16 times"),
        ("mov.u64 %rd6, 64; st.global.f32 [%rd6], 0f00000000;", "access to no array, 32 times"),
        ("ld.global.f32 %f1, [%rd5];", "read of what was never written, 32 times"),
        ("st.global.f32 [%rd2], 0f00000000;", "two threads write one element"),
        ("st.global.f32 [%rd5], 0f00000000; ld.global.f32 %f1, [%rd2];", "read of what another thread writes, 31"),
        ("mov.u32 %r2, tile; ld.shared.f32 %f1, [%r2];", "read of shared memory that was never written, 32 times"),
        ("shl.b32 %r2, %r1, 5; st.shared.f32 [%r2], 0f00000000;", "access outside of shared memory, 16 times"),
        ("st.shared.f32 [tile], 0f00000000;", "two threads write one word of shared memory, 31 times"),
        (
            "shl.b32 %r2, %r1, 2; st.shared.f32 [%r2], 0f00000000; xor.b32 %r2, %r2, 4; ld.shared.f32 %f1, [%r2];",
            "read of shared memory that another thread writes, 32 times",
        ),
        (
            "shl.b32 %r2, %r1, 2; st.shared.f32 [%r2], 0f00000000; bar.sync 0; xor.b32 %r3, %r2, 4;"
            "ld.shared.f32 %f1, [%r3]; st.shared.f32 [%r2], %f1;",
            "write to shared memory that another thread reads, 32 times",
        ),
        ("setp.lt.u32 %p1, %r1, 5; @%p1 bra $end; bar.sync 0; $end: ", "barrier that not all threads of a block"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(body, said):
    _, findings, _ = run(body)
    assert said in str(findings)


def test_a_barrier_makes_it_right():
    body = (
        "shl.b32 %r2, %r1, 2; cvt.rn.f32.u32 %f1, %r1; st.shared.f32 [%r2], %f1; bar.sync 0;"
        "xor.b32 %r2, %r2, 4; ld.shared.f32 %f1, [%r2]; st.global.f32 [%rd5], %f1;"
    )
    out, findings, _ = run(body, threads=40, size=40)
    assert not findings, str(findings)
    assert np.array_equal(out, np.arange(40) ^ 1)


@pytest.mark.parametrize(("stride", "passes"), [(4, 1), (8, 2), (16, 4), (12, 1), (0, 1)])
def test_banks_of_shared_memory(stride, passes):
    counts = run(f"mul.lo.s32 %r2, %r1, {stride}; ld.shared.f32 %f1, [%r2];", check=False)[2]
    assert (counts.shared.sectors, counts.shared.least) == (passes, 1)


@pytest.mark.parametrize(("stride", "sectors", "lines", "size"), [(0, 1, 1, 4), (4, 4, 1, 128), (32, 32, 8, 128)])
def test_sectors_of_a_request(stride, sectors, lines, size):
    body = f"mul.wide.u32 %rd6, %r1, {stride}; add.s64 %rd6, %rd6, %rd1; ld.global.f32 %f1, [%rd6];"
    loads = run(body, size=256)[2].loads
    assert (loads.sectors, loads.lines, loads.bytes, loads.threads) == (sectors, lines, size, 32)


def test_conditions_vectors_and_halves():
    body = """
        setp.lt.u32 %p1, %r1, 8;
        mul.wide.u32 %rd6, %r1, 16;
        add.s64 %rd6, %rd6, %rd1;
        mov.f32 %f1, 0f00000000; mov.f32 %f2, 0f00000000; mov.f32 %f3, 0f00000000; mov.f32 %f4, 0f00000000;
        @%p1 ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd6];
        {cvt.rn.f16.f32 %rs1, %f4;}
        {cvt.f32.f16 %f5, %rs1;}
        mov.b32 %r3, {%rs1, %rs1};
        mov.b32 {%rs2, %rs3}, %r3;
        cvt.f32.f16 %f6, %rs3;
        add.f32 %f7, %f5, %f6;
        st.global.f32 [%rd5], %f7;
    """
    x = np.linspace(0, 1, 32, dtype=np.float32)
    out, findings, _ = run(body, x=x)
    assert not findings, str(findings)
    assert np.array_equal(out[:8], 2 * x[3::4].astype(np.float16).astype(np.float32)) and not out[8:].any()


@pytest.mark.parametrize(
    ("op", "operands", "expected"),
    [
        ("mul.hi.s64", (-(2**62) + 5, 7), (-(2**62) + 5) * 7 >> 64),
        ("mul.hi.u64", (2**64 - 3, 2**64 - 9), (2**64 - 3) * (2**64 - 9) >> 64),
        ("mul.hi.s32", (-(2**31), 3), -(2**31) * 3 >> 32),
        ("mul.wide.s32", (-5, 2**31 - 1), -5 * (2**31 - 1)),
        ("div.s64", (-7, 2), -3),
        ("rem.s64", (-7, 2), -1),
        ("div.u32", (2**32 - 1, 10), (2**32 - 1) // 10),
        ("shl.b32", (3, 32), 0),
        ("shr.s32", (-8, 40), -1),
        ("mad.lo.s32", (2**30, 4, 9), 9),
        ("fma.rn.f32", (1 + 2.0**-12, 1 - 2.0**-12, -1.0), -(2.0**-24)),
        ("min.f32", (np.nan, 2.0), 2.0),
        ("setp.ne.f32", (np.nan, 1.0), False),
        ("setp.neu.f32", (np.nan, 1.0), True),
        ("setp.nan.f32", (np.nan, 1.0), True),
        ("setp.gt.and.s32", (3, 2, False), False),
        ("selp.f32", (1.0, 2.0, False), 2.0),
        ("cvt.s64.s32", (-1,), -1),
        ("cvt.u64.u32", (2**32 - 1,), 2**32 - 1),
        ("cvt.rzi.s32.f32", (-2.7,), -2),
    ],
)
def test_arithmetic(op, operands, expected):
    kinds, result, function = arithmetic.function(op)
    with np.errstate(all="ignore"):
        given = [np.full(3, value, arithmetic.DTYPES[kind]) for value, kind in zip(operands, kinds, strict=True)]
        found = np.asarray(function(*given), arithmetic.DTYPES[result])
    assert (found == expected).all(), found


@pytest.mark.parametrize(
    "body", ["sin.approx.f32 %f1, %f2;", "ld.const.f32 %f1, [%rd1];", "add.sat.s32 %r1, %r1, %r1;"]
)
def test_what_is_not_known_is_said(body):
    with pytest.raises(PtxError):
        run(body)

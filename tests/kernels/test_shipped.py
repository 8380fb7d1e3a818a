"""The machine code that the package brings: whole, up to date, made again byte by byte, enough without a compiler."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from npmobilenet import build_kernels
from npmobilenet.cli import doctor
from npmobilenet.kernels import compilers
from npmobilenet.kernels.blocked.code import channels, softmax
from npmobilenet.kernels.vector import lookup, shipped, target
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.link import LinkError, shared_object
from npmobilenet.kernels.vector.mapped import Mapped
from npmobilenet.kernels.vector.opening import opened
from npmobilenet.kernels.vector.target import LEVELS, Target, host
from tests.conftest import compiled_only, photo
from tests.kernels.test_jit import REPOSITORY, python

REMEDY = "make it again: python -m npmobilenet.build_kernels"
CONTENTS = {level: json.loads((build_kernels.FOLDER / level / shipped.CONTENTS).read_text()) for level in LEVELS}
linux_only = pytest.mark.skipif(host().level is None, reason="nothing is shipped for this CPU")


# What is there -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_it_is_whole(level):
    libraries = CONTENTS[level]["libraries"]
    assert libraries.keys() == CONTENTS["x86-64-v3"]["libraries"].keys()
    for name, entry in libraries.items():
        content = (build_kernels.FOLDER / entry["file"]).read_bytes()
        assert sha256(content).hexdigest() == entry["sha256"], name


def test_it_is_up_to_date():
    writers = {entry["writer"] for about in CONTENTS.values() for entry in about["libraries"].values()}
    table = json.loads((build_kernels.FOLDER / shipped.SOURCES).read_text())
    assert table == build_kernels.sources(writers), REMEDY


def test_there_is_nothing_else():
    named = {entry["file"] for about in CONTENTS.values() for entry in about["libraries"].values()}
    files = {file.relative_to(build_kernels.FOLDER).as_posix() for file in build_kernels.FOLDER.rglob("*.so")}
    assert files == named
    assert sum(file.stat().st_size for file in build_kernels.FOLDER.rglob("*")) < 3 << 20


@pytest.mark.parametrize("module", [softmax, channels], ids=["softmax", "channels"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_same_compilers_make_the_same_bytes(level, module):
    """Of two small libraries; ``python -m npmobilenet.build_kernels --check`` does it of all."""
    if others := build_kernels.other_compilers():
        pytest.skip(others)
    name = module.__name__.rpartition(".")[2]
    made = Library(name, LEVELS[level].target, module.define, None).shared_object()
    assert made == (build_kernels.FOLDER / CONTENTS[level]["libraries"][name]["file"]).read_bytes(), REMEDY


@pytest.mark.parametrize("writer", ["common", "int8.common"])
def test_what_writes_a_library_is_known(writer):
    """All modules of kernels that are imported by then; packages say only what is inside."""
    module = f"npmobilenet.kernels.blocked.code.{writer}"
    program = (
        "import sys\nfrom npmobilenet.kernels.vector.library import Library\n"
        "from npmobilenet.kernels.vector.target import LEVELS\n"
        f"import {module} as code; Library('any', LEVELS['x86-64-v3'].target, code.define, None).write_ir()\n"
        "print(*(name for name, module in sys.modules.items() if not hasattr(module, '__path__')))"
    )
    imported = {name for name in python(program).split() if name.startswith("npmobilenet.kernels.")}
    assert len(imported) > 20
    assert imported - build_kernels.KEEPING <= build_kernels.reached(module) | build_kernels.reached(
        build_kernels.COMPILING
    )


# What serves -------------------------------------------------------------------------------------------------------

FIND = """
from npmobilenet.kernels.vector import shipped
from npmobilenet.kernels.vector.target import LEVELS
found, why = shipped.find("softmax", LEVELS["{}"].target)
print(found.origin if found else why)
"""


@linux_only
def test_edited_sources_and_damaged_files_do_not_serve(tmp_path):
    for package in ("npmobilenet", "kernels"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=ignored)
    level, find = host().level, FIND.format(host().level)
    assert python(find, tmp_path) == f"shipped for {level}"
    assert python(find, tmp_path, NPMOBILENET_SHIPPED_KERNELS="0") == "NPMOBILENET_SHIPPED_KERNELS is 0"
    file = CONTENTS[level]["libraries"]["softmax"]["file"]
    content = (tmp_path / "kernels/shipped" / file).read_bytes()
    for damaged in (content[:-1], content[:700] + bytes([content[700] ^ 1]) + content[701:], b""):
        (tmp_path / "kernels/shipped" / file).write_bytes(damaged)
        assert python(find, tmp_path) == f"{file} is damaged: it has not the hash that it should have"
    (tmp_path / "kernels/shipped" / file).unlink()
    assert python(find, tmp_path).startswith(f"{file} cannot be opened: ")
    (tmp_path / "kernels/shipped" / file).write_bytes(content)
    for name in ("blocked/code/softmax.py", "vector/simd.py", "blocked/softmax.py"):
        source = tmp_path / "kernels" / name
        text = source.read_text()
        source.write_text(text.replace("0", "1", 1) if "0" in text else f"{text}# edited\n")
        module = f"npmobilenet.kernels.{name.removesuffix('.py').replace('/', '.')}"
        assert python(find, tmp_path) == f"{module} is not the source of which {level} was made"
        source.write_text(text)
    (tmp_path / "kernels/shipped/sources.json").rename(tmp_path / "sources.json")
    writer = CONTENTS[level]["libraries"]["softmax"]["writer"]
    assert python(find, tmp_path) == f"{writer} is not the source of which {level} was made"
    (tmp_path / "sources.json").rename(tmp_path / "kernels/shipped/sources.json")
    assert python(find, tmp_path) == f"shipped for {level}"
    (tmp_path / "kernels/shipped" / level / "contents.json").write_text("{")
    assert python(find, tmp_path) == f"not among what is shipped for {level}"


def test_nothing_is_shipped_for_other_targets():
    found, why = shipped.find("softmax", Target.of("haswell", "+avx,+avx2,+fma", "x86_64-unknown-linux-gnu"))
    assert found is None and why == "nothing is shipped for this CPU"


def content_of(name: str, level: str) -> bytes:
    """A library's shared object."""
    return (build_kernels.FOLDER / CONTENTS[level]["libraries"][name]["file"]).read_bytes()


@linux_only
def test_mapped_where_there_is_no_file():
    """As of a package in an archive. No page may be both written to and executed."""
    library = opened("elementwise", "archive", content_of("elementwise", host().level), "/absent.so")
    assert isinstance(library, Mapped)
    address = library.address("copy")
    pages = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    (allowed,) = (p[1] for p in pages if int(p[0].partition("-")[0], 16) <= address < int(p[0].partition("-")[2], 16))
    assert allowed == "r-xp"
    with pytest.raises(LookupError, match="the library 'elementwise' has no kernel 'nothing'"):
        library.address("nothing")


@linux_only
def test_nothing_is_mapped_for_another_machine():
    other = next(name for name, level in LEVELS.items() if level.target.triple[:3] != host().triple[:3])
    with pytest.raises(OSError, match="it is machine code for Linux on "):
        Mapped("softmax", "another", content_of("softmax", other))
    with pytest.raises(OSError, match="it is machine code for Linux on "):
        opened("softmax", "another", content_of("softmax", other))


@linux_only
def test_where_what_was_written_may_never_be_executed():
    """As services are run (systemd's MemoryDenyWriteExecute): from a file in memory."""
    file = build_kernels.FOLDER / CONTENTS[host().level]["libraries"]["softmax"]["file"]
    program = f"""
import ctypes
from npmobilenet.kernels.vector import mapped, opening
content = open({str(file)!r}, "rb").read()
refused = ctypes.CDLL(None).prctl(65, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3) == 0  # PR_SET_MDWE
try:
    mapped.Mapped("softmax", "test", content)
except OSError as error:
    print(error.strerror.partition(":")[0] if refused else error)
else:
    print("allowed" if refused else "old kernel")
library = opening.opened("softmax", "test", content)
print(type(library).__name__, library.address("softmax") > 0)
"""
    answers = python(program).split()
    if answers[0] == "old":
        pytest.skip("this kernel cannot refuse it")
    assert answers == ["mprotect", "Loaded", "True"]


CPUS = {
    "znver4": ("AuthenticAMD", 25, 17, f"{LEVELS['znver4'].needs} sse4a"),
    "x86-64-v4-vnni": ("GenuineIntel", 6, 143, f"{LEVELS['x86-64-v4-vnni'].needs} amx_tile"),
    "x86-64-v4": ("GenuineIntel", 6, 85, LEVELS["x86-64-v4"].needs),
    "x86-64-v3-vnni": ("GenuineIntel", 6, 151, f"{LEVELS['x86-64-v3'].needs} avx_vnni"),
    "x86-64-v3": ("AuthenticAMD", 25, 33, f"{LEVELS['x86-64-v3'].needs} sse4a"),
    "x86-64-v2": ("GenuineIntel", 6, 30, LEVELS["x86-64-v2"].needs),
    None: ("GenuineIntel", 6, 58, f"{LEVELS['x86-64-v2'].needs} avx f16c"),  # better served by its own code
}


@pytest.mark.parametrize(("level", "cpu"), CPUS.items(), ids=map(str, CPUS))
def test_the_level_of_a_cpu(level, cpu):
    vendor, family, model, flags = cpu
    said = {"vendor_id": vendor, "cpu family": str(family), "model": str(model), "flags": f"fpu {flags}"}
    assert next((name for name, one in LEVELS.items() if one.serves(said)), None) == level


def test_the_level_of_an_arm():
    for level, features in {"aarch64": "", "aarch64-dotprod": " asimddp i8mm"}.items():
        said = {"Features": f"fp asimd evtstrm{features}", "CPU implementer": "0x41"}
        assert next(name for name, one in LEVELS.items() if one.serves(said)) == level


def test_the_level_of_an_avx_without_avx2(monkeypatch):
    """LLVM knows it better; where there is none, its code is that of a lower level."""
    said = {"vendor_id": "GenuineIntel", "cpu family": "6", "model": "58", "flags": CPUS[None][3]}
    monkeypatch.setattr(target, "_cpu", lambda: said)
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        monkeypatch.delenv(name, raising=False)
    assert host.__wrapped__().level is None
    monkeypatch.setitem(sys.modules, compilers.LLVM, None)
    assert host.__wrapped__().level == "x86-64-v2"
    monkeypatch.setattr(target, "_cpu", dict)
    with pytest.raises(compilers.NoCompilerError, match=r"for this CPU alone must be compiled, .*: pip install numba"):
        host.__wrapped__()


def test_doctor_says_what_a_system_gets(monkeypatch):
    monkeypatch.setattr(target, "host", lambda: LEVELS["aarch64"].target)
    assert doctor._level() == "aarch64, for which machine code is shipped"
    monkeypatch.setattr(target, "host", lambda: Target.of("apple-m1", "+neon,+dotprod", "arm64-apple-darwin"))
    assert doctor._level() == "none that machine code is shipped for; compiled here for apple-m1, and kept"
    for platform, system in {"darwin": "macOS", "win32": "Windows"}.items():
        monkeypatch.setattr(doctor.sys, "platform", platform)
        assert doctor._level() == (
            "compiled here for apple-m1, and kept: what is shipped is for Linux; "
            f"on {system} this package was never tested"
        )


def test_doctor_says_what_served(monkeypatch):
    of, libraries = LEVELS["x86-64-v3"].target, {"common": "", "resize": "", "wide": "not among what is shipped"}
    served = {}
    for name, why in libraries.items():
        library = Library(name, of, None, None)
        library.origin = "compiled for x86-64-v3" if why else "shipped for x86-64-v3"
        served[name, of] = lookup.Served(library, "writer", None, why)
    monkeypatch.setattr(lookup, "served", served)
    shipped_ones, other = doctor._machine_code().split("; ")
    assert shipped_ones == "common, resize: shipped for x86-64-v3"
    assert other == "wide: compiled for x86-64-v3 (not among what is shipped)"


# Without a compiler ------------------------------------------------------------------------------------------------

SAMPLE = ("mobilenet_v2", "mobilenet_v3_small", "selfie_segmentation", "mobilenet_v2 int8")


@linux_only
@compiled_only
def test_shipped_networks_need_no_compiler():
    """And have the bits of those that are compiled; ``python -m tests.kernels.without_compilers`` does it of all."""
    program = "from tests.kernels.without_compilers import main; main({!r}, *{!r})"
    without = python(program.format("without, small", SAMPLE)).splitlines()
    compiled = python(program.format("compiled, small", SAMPLE), NPMOBILENET_SHIPPED_KERNELS="0").splitlines()
    for (case, served, origins), (_, expected, _) in zip(
        map(json.loads, without), map(json.loads, compiled), strict=True
    ):
        assert served == expected, case
        assert origins == [f"shipped for {host().level}"], REMEDY


@linux_only
@compiled_only
@pytest.mark.parametrize("options", [["classify", str(photo("coffee.png"))], ["doctor"]])
def test_what_must_be_compiled_says_so_in_a_line(options, tmp_path):
    program = (
        "import sys; sys.modules |= dict.fromkeys(('numba', 'llvmlite'))\n"
        f"from npmobilenet.cli import main; main({options!r})"
    )
    settings = {"NPMOBILENET_SHIPPED_KERNELS": "0", "NPMOBILENET_CACHE_DIR": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **settings}, capture_output=True, text=True)
    (said,) = (
        line
        for line in (run.stdout + run.stderr).splitlines()
        if "must be compiled, and " in line and "CUDA k" not in line
    )
    assert said.endswith(": pip install numba")
    assert f" for {host().level} must be compiled, and the compiler cannot be imported (" in said


LIBRARIES = """
import warnings; warnings.simplefilter("ignore")
from npmobilenet.architectures import ARCHITECTURES, random_weights
from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.image import IMAGENET
from npmobilenet.kernels.vector import lookup
from npmobilenet.quantisation import quantised
seen = set()
for name, architecture in ARCHITECTURES.items():
    windows = {(block.row.kind, kernel, block.stride) for block in architecture.blocks for kernel in block.row.kernels}
    if windows <= seen:
        continue
    seen |= windows
    graph = architecture.graph(0.25, 10)
    weights = random_weights(graph)
    size = 320 if "ssd" in name else 48 if architecture.conventions.pixel_slopes else 64
    BlockedProgram(graph, weights, strict=False).plan((size, size), threads=2)
    if name in ("mobilenet_v1", "mobilenet_v2"):
        int8 = quantised(graph, weights, IMAGENET)
        BlockedProgram(int8.graph, int8.weights, strict=False).plan((64, 64), threads=2)
print(len(seen), *(name for (name, _), served in lookup.served.items() if served.why))
"""


@linux_only
@compiled_only
def test_all_that_the_architectures_need_is_shipped():
    windows, *missing = python(LIBRARIES).split()
    assert int(windows) > 20 and not missing


# The linker --------------------------------------------------------------------------------------------------------


@linux_only
def test_functions_call_each_other_constants_and_the_c_library(tmp_path):
    from llvmlite import ir

    from npmobilenet.kernels.vector.simd import Integer, Pointer

    def define(library: Library) -> None:
        def inner(code, out: Pointer, count: Integer):
            out.store(code.splat(2.75))

        def outer(code, out: Pointer, count: Integer):
            yields = ir.Function(code.builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield")
            code.builder.call(yields, [])
            code.call("inner", out, count)

        library.add("inner", inner)
        library.add("outer", outer)

    content = Library("linked", host(), define, None).shared_object()
    (tmp_path / "linked.so").write_bytes(content)
    for file in (tmp_path / "linked.so", tmp_path / "absent.so"):
        address = opened("linked", "test", content, str(file)).address("outer")
        out = np.zeros(host().lanes, np.float32)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)(out.ctypes.data, 0)
        assert (out == 2.75).all()


def test_what_the_linker_refuses():
    from llvmlite import ir

    def define(library: Library) -> None:
        library.add("kernel", lambda code: code.builder.call(ir.Function(
            code.builder.module, ir.FunctionType(ir.VoidType(), []), "system"), []))  # fmt: skip

    with pytest.raises(LinkError, match="calls system"):
        Library("test", LEVELS["x86-64-v3"].target, define, None).shared_object()
    for content in (b"\x7fELF\1\1" + bytes(100), b"\x7fELF\2\1" + bytes(12) + struct.pack("<H", 8) + bytes(99)):
        with pytest.raises(LinkError, match="no 64-bit ELF object for x86-64 or aarch64"):
            shared_object(content)

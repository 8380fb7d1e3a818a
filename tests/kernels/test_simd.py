"""The vocabulary that kernels are written in, and how their machine code is kept."""

from __future__ import annotations

import ctypes
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numba
import numpy as np
import pytest

from npmobilenet.kernels import compilers
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer, Vector
from npmobilenet.kernels.vector.target import host
from tests.kernels.test_jit import REPOSITORY, python

compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="runs kernels from a function that Numba compiles")
LANES = host().lanes


def call(library: Library, name: str, *arguments: np.ndarray | int) -> None:
    """Call a kernel; arrays stand for their addresses."""
    values = [a.ctypes.data if isinstance(a, np.ndarray) else int(a) for a in arguments]
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(values))(library.address(name))(*values)


def run(write, *arguments: np.ndarray | int, target=None) -> None:
    """Compile a kernel and call it."""
    call(Library("test", target or host(), lambda library: library.add("kernel", write), None), "kernel", *arguments)


def floats(count: int = LANES, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count, np.float32)


# Vectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 3])
def test_vectors_are_loaded_and_stored_anywhere(at):
    x, out = floats(LANES + 4), np.zeros(LANES + 4, np.float32)

    def copy(code: Code, x: Pointer, out: Pointer, offset: Integer) -> None:
        (out + offset).store(x.vector(4 * at), 4)

    run(copy, x, out, 4 * (3 - at))
    start = 4 - at
    assert np.array_equal(out[start : start + LANES], x[at : at + LANES])
    assert np.count_nonzero(out) == LANES


def test_splat_and_arithmetic():
    x, y, out = floats(seed=1), floats(seed=2), np.zeros((4, LANES), np.float32)

    def compute(code: Code, x: Pointer, y: Pointer, out: Pointer) -> None:
        for i, result in enumerate((x.splat(8), code.splat(0.1), x.vector() + y.vector(), x.vector() * y.vector())):
            out.store(result, i * code.target.bytes)

    run(compute, x, y, out)
    assert np.array_equal(out, [np.full(LANES, x[2]), np.full(LANES, np.float32(0.1)), x + y, x * y])


def test_half_a_vector_is_filled_up_with_zeros():
    x, y, out = floats(seed=1), floats(seed=2), np.ones((2, LANES), np.float32)
    half = LANES // 2

    def compute(code: Code, x: Pointer, y: Pointer, out: Pointer) -> None:
        total = y.vector(lanes=half).fma(x.splat(4, half), code.splat(2.0, half))
        assert total.lanes == half
        out.store(total.clamp(code.splat(-1.0, half), code.splat(1.0, half)).whole())
        out.store(x.vector().whole(), code.target.bytes)

    run(compute, x, y, out)
    assert np.allclose(out[0, :half], np.clip(y[:half] + 2 * x[1], -1, 1), atol=1e-6)
    assert not out[0, half:].any()
    assert np.array_equal(out[1], x)


def test_memory_that_is_asked_for_need_not_be_there():
    x, out = floats(), np.zeros(LANES, np.float32)

    def compute(code: Code, x: Pointer, out: Pointer) -> None:
        code.integer(0).pointer().prefetch()
        x.prefetch(1 << 40)
        out.store(x.vector())

    run(compute, x, out)
    assert np.array_equal(out, x)


@pytest.mark.parametrize("has_fma", [True, False])
def test_fma_rounds_once_where_the_cpu_can(has_fma):
    """``x * y - round(x * y)`` is what rounding the product loses: a float32 again, and 0 where it is rounded twice."""
    if has_fma and not host().has_fma:
        pytest.skip("this CPU has no fused multiply-add")
    x, y, out = floats(seed=3), floats(seed=4), np.zeros(LANES, np.float32)
    minus_product = -(x * y)

    def compute(code: Code, sums: Pointer, x: Pointer, y: Pointer, out: Pointer) -> None:
        out.store(sums.vector().fma(x.vector(), y.vector()))

    run(compute, minus_product, x, y, out, target=replace(host(), has_fma=has_fma))
    lost = x.astype(np.float64) * y + minus_product
    assert np.count_nonzero(lost) > 0
    assert np.array_equal(out, lost if has_fma else np.zeros(LANES))


@pytest.mark.parametrize("bounds", [(0, 6), (0, np.inf), (-np.inf, np.inf), (-2, -1)])
def test_clamp(bounds):
    low, high = np.float32(bounds)
    values = np.float32([np.nan, -np.inf, -3, -1.5, -0.0, 0, 1e-45, 3, 6, np.nextafter(np.float32(6), 7), 7, np.inf])
    vectors = -(-len(values) // LANES)
    x, out = np.resize(values, vectors * LANES), np.zeros(vectors * LANES, np.float32)

    def compute(code: Code, x: Pointer, out: Pointer, limits: Pointer) -> None:
        for at in range(0, vectors * code.target.bytes, code.target.bytes):
            out.store(x.vector(at).clamp(limits.splat(0), limits.splat(4)), at)

    run(compute, x, out, np.array([low, high]))
    assert np.array_equal(out, np.where(x < low, low, np.where(x > high, high, x)), equal_nan=True)
    assert np.isnan(out[0])


def test_choosing_lane_by_lane():
    x = np.resize(np.array([np.nan, 1, -1, 0, -0.0, np.inf, -np.inf, 2], np.float32), LANES)
    y, mask = floats(seed=6), np.resize(np.array([-1, 0], np.int32), LANES)
    out = np.zeros((4, LANES), np.float32)

    def compute(code: Code, x: Pointer, y: Pointer, mask: Pointer, out: Pointer) -> None:
        x, y = x.vector(), y.vector()
        for i, result in enumerate((x.maximum(y), y.maximum(x), x.where_positive(y), x.masked(mask.vector()))):
            out.store(result, i * code.target.bytes)

    run(compute, x, y, mask, out)
    expected = [np.maximum(x, y), np.maximum(y, x), np.where(x > 0, x, y), np.where(mask, x, 0)]
    assert np.array_equal(out, expected, equal_nan=True)


def test_a_square_is_transposed():
    x, out = floats(LANES * LANES).reshape(LANES, LANES), np.zeros((LANES, LANES), np.float32)

    def transpose(code: Code, x: Pointer, out: Pointer) -> None:
        size = code.target.bytes
        for lane, vector in enumerate(code.columns_of([x.vector(size * row) for row in range(LANES)])):
            out.store(vector, size * lane)

    run(transpose, x, out)
    assert np.array_equal(out, x.T)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_across_all_lanes(lanes):
    x, out = floats(lanes, 7), np.zeros((2, lanes), np.float32)

    def compute(code: Code, x: Pointer, out: Pointer) -> None:
        out.store(x.vector().across(Vector.maximum))
        out.store(x.vector().across(Vector.__add__), code.target.bytes)

    run(compute, x, out, target=replace(host(), lanes=lanes))
    sums = x
    while len(sums) > 1:
        first, second = np.split(sums, 2)
        sums = first + second
    assert np.array_equal(out, [np.full(lanes, x.max()), np.full(lanes, sums[0])])


def test_one_value_is_stored():
    x, out = floats(seed=8), np.zeros(3, np.float32)

    def compute(code: Code, x: Pointer, out: Pointer) -> None:
        out.store_first(x.vector(), 4)

    run(compute, x, out)
    assert np.array_equal(out, [0, x[0], 0])


# Integers and pointers ------------------------------------------------------------------------------------------

ARITHMETIC = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "5 + a": lambda a, b: 5 + a,
    "5 - a": lambda a, b: 5 - a,
    "5 * a": lambda a, b: 5 * a,
}
DIVISION = {"a // b": lambda a, b: a // b, "a % b": lambda a, b: a % b}
COMPARISONS = {
    "a < b": lambda a, b: a < b,
    "a <= b": lambda a, b: a <= b,
    "a > b": lambda a, b: a > b,
    "a >= b": lambda a, b: a >= b,
    "a < 2": lambda a, b: a < 2,
}
PAIRS = [(3, 5), (5, 3), (4, 4), (-3, 5), (5, -3), (-7, -2), (1 << 40, 3), (0, 1)]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_integers(a, b):
    operations = {**ARITHMETIC, **COMPARISONS, **(DIVISION if min(a, b) >= 0 else {})}
    out = np.zeros(len(operations) + 3, np.int64)

    def compute(code: Code, a: Integer, b: Integer, out: Pointer) -> None:
        results = [operation(a, b) for operation in operations.values()]
        results = [y if isinstance(y, Integer) else code.select(y, code.integer(1), code.integer(0)) for y in results]
        same = code.select(a.equals(b), code.integer(1), code.integer(0))
        for i, result in enumerate((*results, same, a.minimum(b), a.maximum(b))):
            out.store(result, 8 * i)

    run(compute, a, b, out)
    assert out.tolist() == [*(operation(a, b) for operation in operations.values()), a == b, min(a, b), max(a, b)]


def test_pointers():
    memory = np.array([-1, 7, 0], np.int64)
    memory[2] = memory.ctypes.data
    out = np.zeros(6, np.int64)

    def compute(code: Code, memory: Pointer, nothing: Pointer, out: Pointer) -> None:
        one, zero = code.integer(1), code.integer(0)
        results = [
            memory.integer(8),
            memory.pointer(16).integer(),
            (memory + 16 - code.integer(8)).integer(),
            memory.address().pointer().integer(8),
            code.select(nothing.is_null(), one, zero),
            code.select(memory.is_null(), one, zero),
        ]
        for i, result in enumerate(results):
            out.store(result, 8 * i)

    run(compute, memory, 0, out)
    assert out.tolist() == [7, -1, 7, 7, 1, 0]


# Control --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [(0, 0, 1), (0, 1, 1), (0, 17, 1), (3, 11, 4), (3, 12, 4), (5, 2, 1), (-4, 3, 2)])
def test_loops_carry_values_of_every_kind(bounds):
    out, x = np.zeros(3, np.int64), floats(64)
    sums = np.zeros(LANES, np.float32)

    def compute(code: Code, start: Integer, stop: Integer, step: Integer, x: Pointer, out: Pointer, y: Pointer) -> None:
        def trip(i: Integer, count: Integer, total: Integer, at: Pointer, vector: Vector) -> list:
            return [count + 1, total + i, at + 4, vector + at.vector()]

        nothing = [code.integer(0), code.integer(0), x, code.splat(0.0)]
        count, total, at, vector = code.loop(stop, trip, nothing, start=start, step=step)
        for i, result in enumerate((count, total, at.address() - x.address())):
            out.store(result, 8 * i)
        y.store(vector)

    run(compute, *bounds, x, out, sums)
    trips = range(*bounds)
    assert out.tolist() == [len(trips), sum(trips), 4 * len(trips)]
    expected = np.zeros(LANES, np.float32)
    for i in range(len(trips)):
        expected += x[i : i + LANES]
    assert np.array_equal(sums, expected)


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_nested_loops(count):
    out = np.zeros(1, np.int64)

    def compute(code: Code, count: Integer, out: Pointer) -> None:
        def outer(i: Integer, total: Integer) -> list:
            return code.loop(i, lambda j, total: [total + i * j + 1], [total])

        out.store(*code.loop(count, outer, [code.integer(0)]))

    run(compute, count, out)
    assert out[0] == sum(i * j + 1 for i in range(count) for j in range(i))


@pytest.mark.parametrize("value", [-1, 0, 1])
def test_branch_and_when(value):
    out = np.zeros(3, np.int64)

    def compute(code: Code, value: Integer, out: Pointer) -> None:
        def loop_inside() -> list:
            return [*code.loop(value + 4, lambda i, y: [y + i], [code.integer(0)]), value]

        for i, result in enumerate(code.branch(value > 0, loop_inside, [code.integer(-7), value - 1])):
            out.store(result, 8 * i)
        with code.when(value.equals(0)):
            out.store(code.integer(5), 16)

    run(compute, value, out)
    assert out.tolist() == [*((10, 1) if value > 0 else (-7, value - 1)), 5 if value == 0 else 0]


def adders(library: Library) -> None:
    """Two functions, and two that call them: by name, and whichever stands at an address."""

    def add(code: Code, out: Pointer, value: Integer) -> None:
        out.store(out.integer() + value)

    def subtract(code: Code, out: Pointer, value: Integer) -> None:
        out.store(out.integer() - value)

    def twice(code: Code, out: Pointer, value: Integer) -> None:
        code.call("add", out, value)
        code.call("add", out, 100)

    def any_of_them(code: Code, function: Pointer, out: Pointer, value: Integer) -> None:
        code.call(function, out, value)

    for function in (add, subtract, twice, any_of_them):
        library.add(function.__name__, function)


def total(library: Library) -> list[int]:
    """What they compute."""
    out = np.zeros(3, np.int64)
    call(library, "twice", out, 7)
    for i, name in enumerate(("add", "subtract"), start=1):
        call(library, "any_of_them", library.address(name), out[i:], 7)
    return out.tolist()


def test_calls_by_name_and_by_address():
    assert total(Library("test", host(), adders, None)) == [107, 7, -7]


# Libraries ------------------------------------------------------------------------------------------------------


def wrong_type(code: Code, out: Pointer) -> None:
    integer = Vector(code, out.integer().value)
    out.store(integer + integer)


def used_before_it_is_there(code: Code, out: Pointer) -> None:
    values = []
    with code.when(out.is_null()):
        values.append(out.integer())
    out.store(values[0])


@pytest.mark.parametrize("write", [wrong_type, used_before_it_is_there])
def test_a_malformed_kernel_raises(write, tmp_path):
    library = Library("test", host(), lambda library: library.add("kernel", write), tmp_path)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            library.address("kernel")
    assert not list(tmp_path.iterdir())


def never(library: Library) -> None:
    raise AssertionError("compiled again")


def test_object_code_is_kept_and_loaded(tmp_path):
    first = Library("test", host(), adders, tmp_path)
    assert not first.file.exists()
    assert total(first) == [107, 7, -7]
    assert list(tmp_path.iterdir()) == [first.file]
    assert total(Library("test", host(), never, tmp_path)) == [107, 7, -7]
    for other in (
        Library("other", host(), never, tmp_path),
        Library("test", replace(host(), lanes=2), never, tmp_path),
    ):
        assert other.file != first.file
        with pytest.raises(AssertionError, match="compiled again"):
            other.address("add")


WITHOUT = """
import sys
sys.modules |= dict.fromkeys(("llvmlite", "numba"))
from pathlib import Path
from npmobilenet.kernels import compilers
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.target import LEVELS
library = Library("test", LEVELS[{level!r}].target, None, Path({folder!r}))
print(library.address("add") > 0, library.origin)
try:
    library.address("subtracted")
except ImportError as error:
    print(error)
"""


@pytest.mark.skipif(host().level is None, reason="LLVM alone knows this CPU")
def test_what_is_kept_needs_no_compiler(tmp_path):
    Library("test", host(), adders, tmp_path).address("add")
    loaded, missing = python(WITHOUT.format(level=host().level, folder=str(tmp_path))).splitlines()
    assert loaded == f"True kept in the cache for {host().level}"
    assert missing.startswith(f"the library 'test' for {host().level} must be compiled, and the compiler cannot be ")
    assert missing.endswith(": pip install numba")


def test_what_other_compilers_made_is_compiled_anew(tmp_path, monkeypatch):
    """Where there are any."""
    Library("test", host(), adders, tmp_path).address("add")
    with monkeypatch.context() as patch:
        patch.setattr(compilers, "installed", lambda: b"")
        assert total(Library("test", host(), never, tmp_path)) == [107, 7, -7]
        patch.setattr(compilers, "installed", lambda: b"others".ljust(32))
        with pytest.raises(AssertionError, match="compiled again"):
            Library("test", host(), never, tmp_path).address("add")
        assert total(Library("test", host(), adders, tmp_path)) == [107, 7, -7]
    with pytest.raises(AssertionError, match="compiled again"):
        Library("test", host(), never, tmp_path).address("add")


DAMAGE = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "truncated by a byte": lambda content: content[:-1],
    "garbage": lambda content: b"\x7fELF" + bytes(range(256)) * 20,
    "one bit": lambda content: content[:300] + bytes([content[300] ^ 1]) + content[301:],
    "two files in one": lambda content: content + content,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_written_again(tmp_path, damage):
    library = Library("test", host(), adders, tmp_path)
    library.address("add")
    content = library.file.read_bytes()
    library.file.write_bytes(damage(content))
    assert total(Library("test", host(), adders, tmp_path)) == [107, 7, -7]
    assert library.file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [library.file]


def test_a_whole_file_in_place_of_another(tmp_path):
    """A backup restored, a folder synchronised: of another library, another CPU, another version of the sources."""
    library = Library("test", host(), adders, tmp_path)
    library.address("add")
    content = library.file.read_bytes()

    def rest(other: Library) -> None:
        other.add("other", lambda code: None)

    for other in (Library("other", host(), rest, tmp_path), Library("test", replace(host(), lanes=2), rest, tmp_path)):
        other.address("other")
        library.file.write_bytes(other.file.read_bytes())
        assert total(Library("test", host(), adders, tmp_path)) == [107, 7, -7]
        assert library.file.read_bytes() == content


def test_a_kernel_that_is_not_in_the_kept_file(tmp_path):
    """Its address is never 0, where the process would end. What was taken from the file before goes on working."""

    def half(library: Library) -> None:
        adders(library)
        library.add("last", lambda code: None)

    Library("test", host(), adders, tmp_path).address("add")
    library = Library("test", host(), half, tmp_path)
    before = library.address("add")
    assert library.address("last") != 0
    out = np.zeros(1, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(before)(out.ctypes.data, 7)
    assert out[0] == 7
    assert Library("test", host(), never, tmp_path).address("last") != 0
    for one in (library, Library("test", host(), half, tmp_path)):
        with pytest.raises(LookupError, match="the library 'test' has no kernel 'nothing'"):
            one.address("nothing")


def test_a_folder_that_cannot_be_written(tmp_path):
    """A path below a file cannot be made into a folder, not even by root."""
    file = tmp_path / "file"
    file.touch()
    for folder in (file, tmp_path / "absent"):
        assert total(Library("test", host(), adders, folder)) == [107, 7, -7]
    assert list(tmp_path.iterdir()) == [file]


def test_threads_compile_a_library_once():
    compiled = []

    def define(library: Library) -> None:
        compiled.append(library)
        adders(library)

    library = Library("test", host(), define, None)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: library.address("add"), range(16)))) == 1
    assert compiled == [library]


POINTWISE = """
import numpy as np
from npmobilenet.kernels.blocked.pointwise import pointwise_conv2d
from npmobilenet.kernels.cache import kernel_cache
print(pointwise_conv2d(np.ones((1, 1, 1, 3)), np.full((3, 1), 2.0)).item(), kernel_cache())
"""


RESIZE = """
import numpy as np
from npmobilenet.image import resize
from npmobilenet.kernels.cache import kernel_cache
print(resize(np.full((4, 4, 3), 9, np.uint8), (2, 2)).max(), kernel_cache())
"""


@compiled_only
def test_several_processes_fill_an_empty_cache(tmp_path):
    environment = {
        "NPMOBILENET_CACHE_DIR": str(tmp_path),
        "NUMBA_CACHE_DIR": "",
        "NPMOBILENET_SHIPPED_KERNELS": "0",
    }
    with ThreadPoolExecutor(3) as pool:
        printed = set(pool.map(lambda _: python(POINTWISE, **environment), range(3)))
    assert len(printed) == 1
    result, folder = printed.pop().split()
    assert result == "6.0"
    assert {path.suffix for path in (tmp_path / folder).iterdir()} == {".o"}  # nothing temporary


@compiled_only
def test_no_cache_folder(tmp_path):
    file = tmp_path / "file"
    file.touch()
    environment = {"NPMOBILENET_CACHE_DIR": str(file / "cache"), "NUMBA_CACHE_DIR": ""}
    for shipped in ("0", ""):
        assert python(RESIZE, NPMOBILENET_SHIPPED_KERNELS=shipped, **environment) == "9 None"


@compiled_only
def test_an_edited_kernel_never_meets_old_code(tmp_path):
    """Two checkouts that differ in one line of a kernel share a cache."""
    environment = {"NPMOBILENET_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_CACHE_DIR": ""}
    for package in ("npmobilenet", "kernels"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=ignored)
    folders = set()
    for edited, expected in ((False, "6.0"), (True, "12.0"), (False, "6.0"), (True, "12.0")):
        source = (REPOSITORY / "kernels/blocked/code/pointwise.py").read_text()
        line = "sums = [y.clamp(low, high) for y, (low, high) in zip(sums, limits, strict=True)]"
        assert line in source
        if edited:
            source = source.replace(line, line.replace("y.clamp(low, high)", "y.clamp(low, high) + y"))
        (tmp_path / "kernels/blocked/code/pointwise.py").write_text(source)
        result, folder = python(POINTWISE, tmp_path, **environment).split()
        assert result == expected
        folders.add(folder)
    assert len(folders) == 2

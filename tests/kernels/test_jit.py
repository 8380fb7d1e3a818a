"""Compiling, caching and threads: what must hold in other processes is tried in other processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from npmobilenet.kernels import jit

REPOSITORY = Path(__file__).parents[2]
compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="about compiled code")
several_threads = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one CPU")


def python(program: str, folder: Path = REPOSITORY, **environment: str) -> str:
    """Run a program in a new interpreter, with ``folder`` as the checkout, and return what it prints."""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, f"exit status {run.returncode}\n{run.stdout}\n{run.stderr}"
    return run.stdout.strip()


@jit.parallel_loop
def threads_inside(out: np.ndarray) -> None:
    """Write down how many threads the region has."""
    for i in numba.prange(out.shape[0]):
        out[i] = numba.get_num_threads()


@compiled_only
@several_threads
@pytest.mark.filterwarnings("ignore:Cannot cache compiled function")  # numba.get_num_threads is a pointer
def test_threads_are_honoured_and_the_callers_setting_is_restored():
    before = numba.get_num_threads()
    out = np.zeros(4, np.int64)
    threads_inside(2, out)
    assert out.tolist() == [2] * 4
    assert numba.get_num_threads() == before
    numba.set_num_threads(1)
    try:
        threads_inside(2, out)
        assert out.tolist() == [2] * 4
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)
    threads_inside(10**6, out)  # more than there are
    assert out.tolist() == [numba.config.NUMBA_NUM_THREADS] * 4


@jit.parallel_loop
def fails(out: np.ndarray) -> None:
    """Raise in the kernel."""
    for _ in numba.prange(1):
        raise ValueError("from the kernel")


@compiled_only
@several_threads
@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPerformanceWarning")  # nothing to run in parallel
def test_an_error_in_a_region_restores_the_callers_setting():
    numba.set_num_threads(1)
    try:
        with pytest.raises(ValueError, match="from the kernel"):
            fails(2, np.zeros(1))
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)


LAYERS = ["omp", "tbb", "workqueue"]


SETUP = """
import os, sys, threading
import numba, numpy as np
from npmobilenet.kernels.jit import threading_layer
from npmobilenet.kernels.plain.pointwise import pointwise_conv2d
x = np.linspace(-1, 1, 16 * 16 * 8, dtype=np.float32).reshape(1, 16, 16, 8)
w = np.linspace(-1, 1, 8 * 24, dtype=np.float32).reshape(8, 24)
expected = pointwise_conv2d(x, w, threads=1)
try:
    assert np.array_equal(pointwise_conv2d(x, w, threads=2), expected)
except ValueError as error:
    if "threading layer" not in str(error): raise
    print("layer not available")
    sys.exit()
assert threading_layer() == os.environ["NUMBA_THREADING_LAYER"], threading_layer()
"""


def in_layer(layer: str, program: str) -> None:
    printed = python(SETUP + program, NUMBA_THREADING_LAYER=layer)
    if printed == "layer not available":
        pytest.skip(f"Numba finds no {layer} here")
    assert printed == "right"


@compiled_only
@several_threads
@pytest.mark.parametrize("layer", LAYERS)
def test_python_threads_may_enter_at_once(layer):
    """The layer `workqueue` ends the process when two threads are in a region: then they take turns."""
    in_layer(
        layer,
        """
results = []
start = threading.Barrier(4)
def work():
    start.wait()
    for _ in range(300):
        results.append(np.array_equal(pointwise_conv2d(x, w, threads=2), expected))
workers = [threading.Thread(target=work) for _ in range(4)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print("right" if len(results) == 1200 and all(results) else "wrong")
""",
    )


@compiled_only
@several_threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize("layer", LAYERS)
def test_fork_after_a_parallel_region(layer):
    """A child of a process that has used threads computes too, and its parent goes on."""
    in_layer(
        layer,
        """
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(pointwise_conv2d(x, w, threads=2), expected) else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
again = np.array_equal(pointwise_conv2d(x, w, threads=2), expected)
print("right" if status == 0 and again else f"child {status}, parent {again}")
""",
    )


USE_CACHE = """
import numpy as np
from npmobilenet.kernels.plain import activation
from npmobilenet.kernels.jit import kernel_cache
assert activation.relu(np.array([-1.0, 2.0])).tolist() == [0, 2]
hits = sum(activation._elementwise.serial.stats.cache_hits.values())
print(kernel_cache(), hits)
"""


@compiled_only
def test_the_second_process_compiles_nothing(tmp_path):
    first, second = (
        python(USE_CACHE, NPMOBILENET_CACHE_DIR=str(tmp_path), NUMBA_CACHE_DIR="").split() for _ in range(2)
    )
    assert Path(first[0]).parent == tmp_path
    assert (first[1], second[1]) == ("0", "1")
    assert list(tmp_path.rglob("*.nbc"))


@compiled_only
@several_threads
def test_serial_and_parallel_code_are_cached_apart(tmp_path):
    """Numba's own cache key does not tell them apart: one would be loaded for the other."""
    program = """
import numpy as np
from npmobilenet.kernels.plain import activation
loop = activation._elementwise
activation.relu(np.ones(3), threads=THREADS)
print(sum(loop.serial.stats.cache_hits.values()), sum(loop.parallel.stats.cache_hits.values()))
"""
    environment = {"NPMOBILENET_CACHE_DIR": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    hits = [python(program.replace("THREADS", threads), **environment) for threads in "12122"]
    assert hits == ["0 0", "0 0", "1 0", "0 1", "0 1"]


@compiled_only
def test_kernels_work_where_no_cache_can_be_written(tmp_path):
    """A path below a file cannot be made into a folder, not even by root."""
    file = tmp_path / "file"
    file.touch()
    assert python(USE_CACHE, NPMOBILENET_CACHE_DIR=str(file / "cache"), NUMBA_CACHE_DIR="") == "None 0"


def test_editing_any_kernel_source_changes_the_cache_folder(tmp_path):
    for package in ("npmobilenet", "kernels"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=ignored)
    program = (
        "from npmobilenet.image import loops; from npmobilenet.kernels.vector.target import host\n"
        "print(loops.library(host()).file)"
    )
    environment = {"NPMOBILENET_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_CACHE_DIR": ""}
    environment |= {"NPMOBILENET_SHIPPED_KERNELS": "0"}

    def cache() -> str:
        return python(program, tmp_path, **environment)

    original = cache()
    assert Path(original).parent.parent == tmp_path / "cache"
    assert cache() == original
    for name in ("reference.py", "plain/activation.py"):
        with (tmp_path / "kernels" / name).open("a") as source:
            source.write("# edited\n")
        assert Path(cache()).parent != Path(original).parent, name
        original = cache()
    with (tmp_path / "npmobilenet/image/loops.py").open("a") as source:  # loops that stand elsewhere
        source.write("# edited\n")
    assert cache() != original


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this platform")
def test_available_cpus_respects_the_affinity_mask():
    program = (
        "import os; from npmobilenet.machine import available_cpus\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(available_cpus())"
    )
    assert python(program) == "1"

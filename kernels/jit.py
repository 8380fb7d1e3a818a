"""How kernels are compiled by Numba, where the machine code is kept, and how loops run on threads.

Nothing is compiled at import: Numba compiles a kernel when it is first called with a set of argument types
and keeps the machine code on disk.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba

from npmobilenet.paths import cache_directory

# `contract` lets a * b + c become one fused instruction. No other fast-math flag: NaN and infinity must pass
# through, and the order of additions must not depend on anything but the source.
FLAGS = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy", "boundscheck": False}


@lru_cache(maxsize=1)
def kernel_cache() -> Path | None:
    """Return the folder of compiled kernels, or None where no folder can be written.

    Its name holds a hash of every kernel source: Numba itself looks only at the file that defines a function,
    and would go on using machine code into which an older version of another file was inlined.
    """
    sources = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(file.name.encode() + b"\0" + file.read_bytes())
    numba_folder = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(numba_folder) / "npmobilenet" if numba_folder else cache_directory()
    folder = base / f"kernels-{sources.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else None
    except OSError:
        return None


def jit(function: Callable, *, parallel: bool = False) -> Callable:
    """Compile ``function`` with the project's flags; machine code is cached in :func:`kernel_cache`."""
    folder = kernel_cache()
    if folder is None:
        return numba.njit(function, parallel=parallel, **FLAGS)
    # Numba's cache key does not hold `parallel`: both versions of one function need a folder of their own.
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder / ("parallel" if parallel else "serial"))
    try:
        return numba.njit(function, parallel=parallel, cache=True, **FLAGS)
    except (RuntimeError, OSError):  # the folder vanished or cannot hold a file: compile without a cache
        return numba.njit(function, parallel=parallel, **FLAGS)
    finally:
        numba.config.CACHE_DIR = previous


def inlined(function: Callable) -> Callable:
    """Decorate a helper that becomes part of every kernel that calls it, before LLVM sees either.

    In a function of its own, a loop over channels tests at every call whether its arrays overlap, and runs
    unvectorised where the channels are too few to pay for that test; inlined, the test leaves the pixel loop.
    """
    return numba.njit(function, inline="always", **FLAGS)


def parallel_loop(function: Callable) -> ParallelLoop:
    """Decorate a kernel whose outer loop is a ``numba.prange``; see :class:`ParallelLoop`."""
    return ParallelLoop(function)


class ParallelLoop:
    """One function with a ``prange`` loop, compiled for one thread and for several.

    Call it as ``loop(threads, *arguments)``. With ``threads=1`` it is a plain compiled function: no parallel
    region, any number of Python threads may be inside at once. Every iteration of the loop must compute its
    own outputs, so that the result is the same bit for bit for any number of threads.
    """

    def __init__(self, function: Callable) -> None:
        self.serial = jit(function)
        self.parallel = jit(function, parallel=True)
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__

    def __call__(self, threads: int, *arguments: Any) -> Any:
        threads = min(threads, numba.config.NUMBA_NUM_THREADS)
        if threads <= 1 or numba.config.DISABLE_JIT or _forked_from_omp:
            return self.serial(*arguments)
        with _parallel_region():
            previous = numba.get_num_threads()
            numba.set_num_threads(threads)  # holds for the calling Python thread only
            try:
                return self.parallel(*arguments)
            finally:
                numba.set_num_threads(previous)


def threading_layer() -> str | None:
    """Return Numba's threading layer ("tbb", "omp", "workqueue"), or None before the first region."""
    try:
        return numba.threading_layer()
    except ValueError:
        return None


_lock = threading.RLock()
_forked_from_omp = False


@contextmanager
def _parallel_region() -> Iterator[None]:
    """Enter one by one unless the layer is known to allow more: `workqueue` ends the process otherwise."""
    with nullcontext() if threading_layer() in ("omp", "tbb") else _lock:
        yield


def _after_fork() -> None:
    """GNU `omp` ends a forked process that enters a region after its parent did: there, use one thread."""
    global _lock, _forked_from_omp
    _lock = threading.RLock()
    _forked_from_omp = threading_layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity mask and its control group's quota."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:
        cpus = os.cpu_count() or 1
    return max(1, min(cpus, _cgroup_quota() or cpus))


def _cgroup_quota() -> int | None:
    root = Path("/sys/fs/cgroup")
    try:
        quota, period = (root / "cpu.max").read_text().split()  # cgroup v2
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text()  # cgroup v1
            period = (root / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        return max(1, int(quota) // int(period)) if int(quota) > 0 else None
    except ValueError:  # "max"
        return None

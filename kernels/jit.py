"""How kernels are compiled by Numba, where the machine code is kept, and how loops run on threads.

Nothing is compiled at import: Numba compiles a kernel when it is first called with a set of argument types
and keeps the machine code on disk.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from npmobilenet.kernels import compilers
from npmobilenet.kernels.cache import kernel_cache

numba = compilers.needed("a loop", compilers.NUMBA)

from numba.core.caching import FunctionCache  # noqa: E402

from npmobilenet.kernels.numba_cache import keep_code  # noqa: E402

# `contract` lets a * b + c become one fused instruction. No other fast-math flag: NaN and infinity must pass
# through, and the order of additions must not depend on anything but the source.
FLAGS = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy", "boundscheck": False}


def jit(function: Callable, *, parallel: bool = False, contract: bool = True) -> Callable:
    """Compile ``function`` with the project's flags; machine code is cached in :func:`kernel_cache`.

    Without ``contract`` every operation is rounded as it is written, so that all CPUs give the same bits.
    """
    dispatcher = numba.njit(function, parallel=parallel, **FLAGS if contract else {**FLAGS, "fastmath": False})
    folder = kernel_cache()
    if folder and not numba.config.DISABLE_JIT:
        # Numba's cache key does not hold `parallel`: both versions of one function need a folder of their own.
        keep_code(dispatcher, FunctionCache, folder / ("parallel" if parallel else "serial"))
    return dispatcher


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


def llvm_ir(name: str, function: Callable[..., Any], arguments: Sequence[str], result: str = "void") -> str:
    """Compile a function of such arguments and return its LLVM IR, in which it is called ``name``.

    It can make no arrays, since nothing of Numba is there when it runs (``_nrt``).
    """
    signature = getattr(numba.types, result)(*map(_argument_type, arguments))
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False, **FLAGS}
    compiled = numba.njit(signature, **options)(function)
    text = compiled.inspect_llvm(compiled.signatures[0])
    (symbol,) = set(re.findall(r"^define [^@]*@([\w.$]+|\"[^\"]+\")\(", text, re.MULTILINE))
    return text.replace(f"@{symbol}(", f"@{name}(")


def _argument_type(name: str) -> numba.types.Type:
    """``int64``, or C-contiguous arrays: ``uint8[3]`` has three axes."""
    dtype, _, axes = name.rstrip("]").partition("[")
    scalar = getattr(numba.types, dtype)
    return numba.types.Array(scalar, int(axes), "C") if axes else scalar


def texts(dispatcher: Callable | ParallelLoop, signature: tuple) -> tuple[str, str]:
    """Compile a function anew for arguments of these types: its machine code and its optimised LLVM IR, as text.

    Anew, since Numba shows nothing of code that it found in its cache.
    """
    serial = dispatcher.serial if isinstance(dispatcher, ParallelLoop) else dispatcher
    compiled = numba.njit(signature, no_cpython_wrapper=True, no_cfunc_wrapper=True, **FLAGS)(serial.py_func)
    return compiled.inspect_asm(compiled.signatures[0]), compiled.inspect_llvm(compiled.signatures[0])


def signatures(dispatcher: Callable | ParallelLoop) -> list[tuple]:
    """The types of arguments that a function has been called with on one thread."""
    return list((dispatcher.serial if isinstance(dispatcher, ParallelLoop) else dispatcher).signatures)

"""The CUDA device: the one module that imports Numba's ``cuda``.

``numba.cuda`` comes with the package ``numba-cuda``, or with those versions of Numba that still hold it; whichever is
installed serves. With ``NUMBA_ENABLE_CUDASIM=1`` it is a simulator that runs kernels as Python, without a device.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numba

from npmobilenet.kernels.cache import kernel_cache

try:
    from numba import cuda
except Exception as error:  # a numba-cuda that is older than this Numba fails in ways of its own, AttributeError too
    cuda, _import_error = None, error

INSTALL = 'pip install "npmobilenet[cuda]"'
SIMULATED = cuda is not None and "simulator" in cuda.jit.__module__

if SIMULATED:
    from numba.cuda.simulator import kernelapi

    # The simulator puts the inside of `cuda` only into the module of the kernel, not into those of device functions.
    cuda.local = kernelapi.FakeCUDALocal()
    _one_at_a_time = threading.Lock()

    def _shared_array(self: Any, shape: int, dtype: Any) -> Any:
        """Return the block's array of this line, as the simulator does, whose threads may get one each if they race."""
        frame = sys._getframe(1)
        line = frame.f_code.co_filename, frame.f_lineno
        with _one_at_a_time:
            if line not in self._allocations:
                self._allocations[line] = cuda.local.array(shape, dtype)
            return self._allocations[line]

    kernelapi.FakeCUDAShared.array = _shared_array
if cuda is None or SIMULATED:
    types = numba.types
else:
    from numba.cuda.extending import _intrinsic

    intrinsic = _intrinsic(prefer_literal=True, target="cuda")  # the public one has no literal arguments
    types = cuda.types if hasattr(cuda.types, "float32") else numba.types  # numba-cuda has types of its own


class CudaUnavailable(RuntimeError):
    """There is no CUDA device to run on; the message says what is missing."""


def problem() -> str | None:
    """Return why CUDA kernels cannot run here, or None if they can."""
    if cuda is None:
        return f"not available: {_import_error}; {INSTALL}"
    try:
        if not cuda.is_available():
            return f"not available: no NVIDIA driver or device found (on a machine with one: {INSTALL})"
        if not SIMULATED:
            cuda.get_current_device()
    except Exception as error:  # a broken driver raises whatever it likes; this is to say so, not to fail
        return f"not available: {type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    return None


def status() -> str:
    """Return one line on whether CUDA kernels could run here, and if not, why not."""
    missing = problem()
    if missing:
        return missing
    if SIMULATED:
        return "simulator (NUMBA_ENABLE_CUDASIM), no device"
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    major, minor = device.compute_capability
    return f"{name}, compute capability {major}.{minor}"


def require() -> None:
    """Raise :class:`CudaUnavailable` unless CUDA kernels can run here."""
    missing = problem()
    if missing:
        raise CudaUnavailable(f"CUDA is {missing}")


def multiprocessors() -> int:
    """Return how many blocks of threads run side by side, at least: the device's multiprocessors."""
    require()
    return 1 if SIMULATED else cuda.get_current_device().MULTIPROCESSOR_COUNT


def kernel(function: Callable, values: int = 0) -> Any:
    """Compile a kernel when it is first launched; its machine code is kept in :func:`kernel_cache`.

    Numba's key for the cache holds the closure of ``function``, so kernels made by one factory do not mix.

    Parameters
    ----------
    values : int
        How many values a thread keeps. With many of them the compiler would take more than half of the registers that
        there are for blocks of 256 threads, and one block alone would find room on a multiprocessor. With few it would
        take more than it needs, if it were given a limit.
    """
    if cuda is None:
        require()
    if SIMULATED:
        return cuda.jit(function)
    options = {"max_registers": 128} if values >= 64 else {}
    folder = kernel_cache()
    if folder is None:
        return cuda.jit(function, **options)
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder / "cuda")
    try:
        return cuda.jit(function, cache=True, **options)
    except (RuntimeError, OSError):  # the folder vanished or cannot hold a file: compile without a cache
        return cuda.jit(function, **options)
    finally:
        numba.config.CACHE_DIR = previous


def device_function(function: Callable, *key: Any) -> Any:
    """Compile a function that kernels call; ``key`` is all that it depends on besides its source.

    Such a function stands in the closure of its kernel, and so in the cache's key, for which Numba would pickle it: to
    other bytes in every process. So that kernels are found again, it pickles to its own key.
    """
    if cuda is None or SIMULATED:
        return function
    compiled = cuda.jit(function, device=True)
    compiled.__reduce_ex__ = lambda protocol: (str, (repr((function.__qualname__, key)),))
    return compiled

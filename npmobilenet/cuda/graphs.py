"""CUDA graphs: the launches of a plan, recorded once and started by one call of the driver.

A launch costs the host some microseconds, more than most layers of a MobileNet cost the device on a single image. A
recorded graph starts all of them at once. Numba has no interface to graphs, so the driver's own functions are called
through ctypes, here and nowhere else. Everything may be missing (the simulator, an old driver) or fail: then
:func:`record` returns None, and the caller goes on launching kernel by kernel, which computes the same.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

SWITCH = "NPMOBILENET_CUDA_GRAPHS"  # "0" turns them off

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NON_BLOCKING = 1  # a stream that does not wait for the default one: other threads may use that while we record
_RELAXED = 2  # what other code does meanwhile, freeing memory for example, does not spoil the recording

_Handle = ctypes.c_void_p
_SIGNATURES = {
    "cuStreamCreate": (ctypes.POINTER(_Handle), ctypes.c_uint),
    "cuStreamDestroy_v2": (_Handle,),
    "cuStreamBeginCapture_v2": (_Handle, ctypes.c_int),
    "cuStreamEndCapture": (_Handle, ctypes.POINTER(_Handle)),
    "cuGraphInstantiateWithFlags": (ctypes.POINTER(_Handle), _Handle, ctypes.c_ulonglong),  # since CUDA 11.4
    "cuGraphGetNodes": (_Handle, _Handle, ctypes.POINTER(ctypes.c_size_t)),
    "cuGraphLaunch": (_Handle, _Handle),
    "cuGraphDestroy": (_Handle,),
    "cuGraphExecDestroy": (_Handle,),
    "cuGetErrorName": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
}


class DriverError(RuntimeError):
    """A function of the driver returned an error."""


class Driver:
    """The few functions of the CUDA driver that recording takes; each raises :class:`DriverError` when it fails.

    Raises
    ------
    DriverError
        If there is no driver, or it is too old for one of them.
    """

    def __init__(self, library: Any = None) -> None:
        try:
            library = library or ctypes.CDLL(_LIBRARY)
            self._functions = {name: getattr(library, name) for name in _SIGNATURES}
        except (OSError, AttributeError) as error:
            raise DriverError(f"no CUDA driver with graphs: {error}") from None
        for name, types in _SIGNATURES.items():
            self._functions[name].argtypes, self._functions[name].restype = types, ctypes.c_int

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function by name."""
        code = self._functions[name](*arguments)
        if code:
            raise DriverError(f"{name}: {self._error_name(code)}")

    def _error_name(self, code: int) -> str:
        text = ctypes.c_char_p()
        failed = self._functions["cuGetErrorName"](code, ctypes.byref(text))
        return f"error {code}" if failed or not text.value else text.value.decode()


@cache
def driver() -> Driver | None:
    """Return the driver; None where there is none that can record."""
    try:
        return Driver()
    except DriverError:
        return None


def switched_on() -> bool:
    """Whether the environment lets us record."""
    return os.environ.get(SWITCH, "1") != "0"


class Graph:
    """Recorded launches. Whoever holds it also keeps the memory that they read and write."""

    def __init__(self, api: Driver, executable: _Handle, nodes: int) -> None:
        self._api, self._executable, self.nodes = api, executable, nodes

    def launch(self, stream: int) -> None:
        """Start all of them, in order, on the stream with this handle; returns at once."""
        self._api.call("cuGraphLaunch", self._executable, stream)

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process the driver may have gone first
            self._api.call("cuGraphExecDestroy", self._executable)


def record(launch_all: Callable[[int], None], api: Driver | None = None) -> Graph | None:
    """Record what a function launches.

    Parameters
    ----------
    launch_all : callable
        Takes the handle of a stream and launches kernels on it. They must have run before, since compiling and
        loading cannot be recorded. The calling thread must have the CUDA context that they belong to.
    api : Driver, optional
        This machine's if None.

    Returns
    -------
    Graph or None
        None where graphs are switched off or missing, and, with a warning, where recording fails.
    """
    api = api or driver()
    if api is None or not switched_on():
        return None
    try:
        return _record(launch_all, api)
    except Exception as error:  # the launches' own errors too: without a recording they will show again, in the open
        warnings.warn(f"no CUDA graph, kernels are launched one by one: {error} ({SWITCH}=0)", stacklevel=2)
        return None


def _record(launch_all: Callable[[int], None], api: Driver) -> Graph:
    stream, graph, executable = _Handle(), _Handle(), _Handle()
    api.call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
    try:
        api.call("cuStreamBeginCapture_v2", stream, _RELAXED)
        try:
            launch_all(stream.value)
        finally:  # a stream that is being recorded must not be left so
            api.call("cuStreamEndCapture", stream, ctypes.byref(graph))
        nodes = ctypes.c_size_t()
        api.call("cuGraphGetNodes", graph, None, ctypes.byref(nodes))
        api.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        return Graph(api, executable, nodes.value)
    finally:
        if graph:
            api.call("cuGraphDestroy", graph)
        api.call("cuStreamDestroy_v2", stream)

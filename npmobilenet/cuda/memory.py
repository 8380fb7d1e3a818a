"""Memory, streams and events of the device, alike for Numba's own ``cuda``, numba-cuda and the simulator."""

from __future__ import annotations

import ctypes
import threading
from contextlib import nullcontext
from typing import Any

import numpy as np

from npmobilenet import dlpack
from npmobilenet.kernels.cuda.device import SIMULATED, cuda

LAUNCHING = threading.Lock() if SIMULATED else nullcontext()  # the simulator runs one kernel at a time


class OutOfMemory(Exception):
    """The driver did not give memory."""


def free_memory() -> float:
    """Return how many bytes are free on the device, after what Python has let go is given back."""
    context = cuda.current_context()
    if hasattr(
        context, "memory_manager"
    ):  # the simulator has none, and other managers than Numba's may wait for nothing
        getattr(context.memory_manager, "deallocations", context.deallocations).clear()
    return context.get_memory_info().free


def empty(elements: int, dtype: np.dtype) -> Any:
    """Return a new flat device array.

    Raises
    ------
    OutOfMemory
        If there is no such piece of memory.
    """
    try:
        return cuda.device_array(elements, dtype)
    except Exception as error:  # CudaAPIError, which the simulator does not have
        if "OUT_OF_MEMORY" in str(error):
            raise OutOfMemory from None
        raise


def pointer(array: Any) -> int:
    """Return the address of a device array."""
    interface = array.__array_interface__ if SIMULATED else array.__cuda_array_interface__
    return interface["data"][0]


def dlpack_device() -> tuple[int, int]:
    """Return what DLPack calls the device: its kind and number. The simulator's memory is the host's."""
    return (dlpack.CPU, 0) if SIMULATED else (dlpack.CUDA, cuda.current_context().device.id)


def flat_view(address: int, elements: int, dtype: np.dtype, owner: object) -> Any:
    """Return a flat device array of memory that another library owns."""
    about = {"shape": (elements,), "typestr": np.dtype(dtype).str, "data": (address, False), "version": 3}
    if not SIMULATED:
        return cuda.from_cuda_array_interface({**about, "strides": None}, owner, sync=False)
    array = cuda.device_array(0)
    memory = (ctypes.c_char * (elements * np.dtype(dtype).itemsize)).from_address(address)
    array._ary = np.frombuffer(memory, dtype)
    array._owner = owner
    return array


def stream() -> Any:
    """Return a new stream. It waits for the default stream, on which other libraries compute, and that for it."""
    return cuda.stream()


def external_stream(number: int) -> Any:
    """Return the stream with this handle."""
    return cuda.external_stream(number)


def handle(stream: Any) -> int:
    """Return the handle of a stream; 0 for none, and in the simulator."""
    return 0 if stream is None or SIMULATED else int(stream)


def wait_for(number: int) -> None:
    """Wait until all is done on the stream with this handle."""
    if not SIMULATED:
        external_stream(number).synchronize()


def event() -> Any:
    """Return a new event that records its time."""
    return cuda.event()

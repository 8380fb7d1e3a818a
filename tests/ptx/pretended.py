"""A device that is not there: Numba's ``cuda`` on NumPy arrays, kernels compiled and run by the `machine`.

While :func:`pretended_device` lasts, the functions of ``numba.cuda`` that this package calls make arrays in the host's
memory, and a launch runs the kernel's PTX. All else is as on a device: the kernels are compiled for one, and the host's
code (`npmobilenet.cuda`) takes the ways that it takes there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from weakref import WeakSet

import numpy as np

from npmobilenet.kernels.cuda import device
from npmobilenet.kernels.cuda.device import types
from tests.ptx.machine import Machine
from tests.ptx.memory import SECTOR, Counts, Device, Findings
from tests.ptx.parser import Program, parse

CAPABILITY = (9, 0)  # of an H100 and an H200
MULTIPROCESSORS = 132
ALIGNMENT = 256  # of the driver's allocations
FREE = 64 << 30
LIMITS = {"grid": (2**31 - 1, 65535, 65535), "block": (1024, 1024, 64), "threads": 1024, "shared": 48 << 10}


class WrongKernel(AssertionError):
    """A launch did what it must not; the message says what, and which instruction."""


def compiler_missing() -> str | None:
    """Return why kernels cannot be compiled here, or None if they can."""
    if device.cuda is None:
        return f"CUDA is {device.problem()}"
    if device.SIMULATED:
        return "the simulator is switched on"
    try:
        device.cuda.compile_ptx(lambda: None, (), cc=CAPABILITY)
    except Exception as error:  # every version of the compiler has its own way to be missing
        return f"no CUDA compiler: {type(error).__name__}"
    return None


class Allocation:
    """A piece of memory, and which of its bytes have been written."""

    def __init__(self, size: int) -> None:
        room = np.full(size + ALIGNMENT, 0xFF, np.uint8)  # NaN, and integers that are no indices
        start = -room.ctypes.data % ALIGNMENT
        self.bytes, self.valid = room[start : start + size], np.zeros(size, bool)
        self.address = self.bytes.ctypes.data


class Resident:
    """What Numba's device arrays are to this package, of one dimension or more, C-contiguous or not."""

    __cuda_ndarray__ = True

    def __init__(self, allocation: Allocation, data: np.ndarray, valid: np.ndarray) -> None:
        self.allocation, self.data, self.valid = allocation, data, valid
        self.shape, self.dtype, self.size, self.nbytes = data.shape, data.dtype, data.size, data.nbytes
        self.ndim, self.strides = data.ndim, data.strides

    @classmethod
    def empty(cls, shape: int | Sequence[int], dtype: Any = np.float64) -> Resident:
        """New memory."""
        shape, dtype = (shape,) if np.ndim(shape) == 0 else tuple(shape), np.dtype(dtype)
        allocation = Allocation(prod(shape) * dtype.itemsize)
        _ALLOCATIONS.add(allocation)
        return cls._of(allocation, 0, shape, dtype)

    @classmethod
    def _of(cls, allocation: Allocation, start: int, shape: Sequence[int], dtype: np.dtype) -> Resident:
        part = slice(start, start + prod(shape) * dtype.itemsize)
        valid = allocation.valid[part].reshape(-1, dtype.itemsize)[:, 0]
        return cls(allocation, allocation.bytes[part].view(dtype).reshape(shape), valid.reshape(shape))

    @classmethod
    def at(cls, about: dict, owner: Any = None, sync: bool = True) -> Resident:
        """The array that an interface describes."""
        address, dtype = about["data"][0], np.dtype(about["typestr"])
        for each in _ALLOCATIONS:
            if each.address <= address < each.address + max(1, each.bytes.size):
                return cls._of(each, address - each.address, about["shape"], dtype)
        raise WrongKernel(f"no memory of the device at address {address}")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self.is_c_contiguous() else self.strides
        return {
            "shape": self.shape, "strides": strides, "typestr": self.dtype.str, "data": (self.data.ctypes.data, False),
            "version": 3, "stream": None,
        }  # fmt: skip

    def __getitem__(self, place: Any) -> Resident:
        return Resident(self.allocation, self.data[place], self.valid[place])

    def view(self, dtype: Any) -> Resident:
        """The same bytes as another type."""
        start = self.data.ctypes.data - self.allocation.address
        dtype = np.dtype(dtype)
        return self._of(self.allocation, start, (self.nbytes // dtype.itemsize,), dtype)

    def reshape(self, *shape: Any) -> Resident:
        """The same elements in another shape."""
        return Resident(self.allocation, self.data.reshape(*shape), self.valid.reshape(*shape))

    def is_c_contiguous(self) -> bool:
        """Whether elements follow each other in C's order."""
        return self.data.flags.c_contiguous

    def copy_to_host(self, stream: Any = 0) -> np.ndarray:
        """A copy as NumPy array."""
        return self.data.copy()

    def copy_to_device(self, values: Any, stream: Any = 0) -> None:
        """Fill it."""
        if isinstance(values, Resident):
            self.data[...], self.valid[...] = values.data, values.valid
        else:
            self.data[...], self.valid[...] = values, True


_ALLOCATIONS: WeakSet[Allocation] = WeakSet()


def to_device(values: np.ndarray, stream: Any = 0) -> Resident:
    """A copy of an array on the device."""
    array = Resident.empty(np.shape(values), values.dtype)
    array.copy_to_device(values)
    return array


class Stream:
    """All is done when it is asked for."""

    def __init__(self, number: int = 7) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number

    def synchronize(self) -> None:
        """Nothing to wait for."""


class Event(Stream):
    """Takes no time."""

    def record(self, stream: Any = 0) -> None:
        """Nothing to write down."""

    def elapsed_time(self, end: Event) -> float:
        """Not known."""
        return 0.0


@dataclass
class Launched:
    """What became of one launch."""

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    program: Program
    findings: Findings
    counts: Counts


@dataclass
class Pretended:
    """The device, with all that has been launched on it.

    Attributes
    ----------
    launched : list of Launched
    check : bool
        Whether to look for races and for reads of what was never written, which takes longer than to run.
    choose : callable, optional
        Which blocks of threads of a grid to run, for counts; all if None.
    """

    check: bool = True
    choose: Callable[[int], Sequence[int]] | None = None
    launched: list[Launched] = field(default_factory=list)

    def run(self, kernel: Any, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any]) -> None:
        """Launch a kernel; raises :class:`WrongKernel` if it does what it must not."""
        signature, numbers, memory = [], [], Device(Findings(), Counts(), self.check)
        places: dict[int, tuple[int, Resident]] = {}
        for argument in arguments:
            if not isinstance(argument, Resident):
                signature.append(types.int64)
                numbers.append(int(argument))
                continue
            signature.append(types.Array(types.float32 if argument.dtype == np.float32 else _type(argument), 1, "C"))
            host = argument.data.ctypes.data
            if host not in places:
                _refuse_overlap(argument, places)
                places[host] = memory.add(argument.data, argument.valid, host % ALIGNMENT), argument
            size, item = argument.size, argument.dtype.itemsize
            # As Numba hands it over: two pointers to Python objects, size, item size, data, shape, step.
            numbers += [0, 0, size, item, places[host][0], size, item]
        program = compiled(kernel, tuple(signature))
        _refuse(grid, block, program)
        only = self.choose(prod(grid)) if self.choose else None
        Machine(program, numbers, grid, block, memory, self.check).run(only)
        memory.counts.distinct = {
            kind: SECTOR * sum(int(array.seen[kind].sum()) for array in memory.arrays) for kind in ("loads", "stores")
        }
        name = kernel.py_func.__name__
        self.launched.append(Launched(name, tuple(grid), tuple(block), program, memory.findings, memory.counts))
        if memory.findings:
            raise WrongKernel(f"{name}, grid {tuple(grid)}, block {tuple(block)}: {memory.findings}")


def _type(array: Resident) -> Any:
    return getattr(types, array.dtype.name)


def _refuse_overlap(array: Resident, places: dict) -> None:
    first = array.data.ctypes.data
    for _, other in places.values():
        begin = other.data.ctypes.data
        if first < begin + other.nbytes and begin < first + array.nbytes:
            raise WrongKernel("two arguments of a launch overlap")


def _refuse(grid: Sequence[int], block: Sequence[int], program: Program) -> None:
    """As the driver does."""
    if not all(
        1 <= size <= most for size, most in zip((*grid, *block), (*LIMITS["grid"], *LIMITS["block"]), strict=True)
    ):
        raise WrongKernel(f"no device takes the grid {grid} of blocks {block}")
    if prod(block) > LIMITS["threads"] or program.shared_bytes > LIMITS["shared"]:
        raise WrongKernel(f"no device takes blocks of {prod(block)} threads and {program.shared_bytes} shared bytes")


_PROGRAMS: dict[tuple, Program] = {}


def ptx(kernel: Any, signature: tuple) -> str:
    """Return what the compiler makes of a kernel for arguments of these types."""
    text, _ = device.cuda.compile_ptx(kernel.py_func, signature, cc=CAPABILITY)
    return text


def compiled(kernel: Any, signature: tuple) -> Program:
    """Return a kernel, compiled and parsed once."""
    key = (kernel, signature)
    if key not in _PROGRAMS:
        _PROGRAMS[key] = parse(ptx(kernel, signature))
    return _PROGRAMS[key]


@contextmanager
def pretended_device(**options: Any) -> Iterator[Pretended]:
    """Have a device; takes the arguments of :class:`Pretended`."""
    cuda, pretended = device.cuda, Pretended(**options)

    class Properties:
        compute_capability, MULTIPROCESSOR_COUNT, name = CAPABILITY, MULTIPROCESSORS, "no device"

    def configure(kernel: Any, grid: Any, block: Any, stream: Any = 0, shared: int = 0) -> Callable[..., None]:
        grid, block = ((*((each,) if isinstance(each, int) else each), 1, 1)[:3] for each in (grid, block))
        return lambda *arguments: pretended.run(kernel, grid, block, arguments)

    def compile_ahead(kernel: Any, signature: tuple) -> None:
        compiled(kernel, signature)

    context = SimpleNamespace(
        get_memory_info=lambda: SimpleNamespace(free=FREE, total=FREE),
        memory_manager=SimpleNamespace(deallocations={}),
        deallocations={},
    )
    functions = {
        "is_available": lambda: True, "get_current_device": Properties, "current_context": lambda *_: context,
        "to_device": to_device, "device_array": Resident.empty, "synchronize": lambda: None,
        "as_cuda_array": lambda x, sync=True: Resident.at(x.__cuda_array_interface__),
        "from_cuda_array_interface": Resident.at, "stream": Stream, "external_stream": Stream,
        "event": lambda timing=True: Event(),
    }  # fmt: skip
    with ExitStack() as patches:
        for name, function in functions.items():
            patches.enter_context(patch.object(cuda, name, function))
        # Numba asks for which processor to compile a device function.
        patches.enter_context(patch.object(cuda.dispatcher, "get_current_device", Properties))
        for name, function in {"configure": configure, "compile": compile_ahead}.items():
            patches.enter_context(patch.object(cuda.dispatcher.CUDADispatcher, name, function))
        yield pretended

"""Launching: a kernel with its grid and block chosen once, and single calls on arrays of the host or the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numba
import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.checks import Shape
from npmobilenet.kernels.cuda import device
from npmobilenet.kernels.cuda.device import cuda, types

# How a kernel is cut into threads. The simulator runs every thread as one of Python: its tests put small numbers here.
CONFIGURATION = {
    "threads": 256,  # per block, of kernels that are bound by memory
    "lanes": 4,  # neighbouring channels of a thread, at most: 16 bytes
    "segment": 32,  # neighbouring channels of a block, at least: 128 bytes, one line of the cache
}
LARGEST_GRID = 65535  # blocks along y and z
DTYPES = (np.dtype(np.float32), np.dtype(np.float16))


@dataclass(frozen=True)
class Launch:
    """One kernel on tensors of one shape; ``launch(stream, *arrays)`` starts it.

    Attributes
    ----------
    name : str
    shape : tuple of int
        The result's, NHWC.
    kernel
        The Numba kernel. Its arguments: ``arrays``, flat, then ``tables``, and then ``scalars``.
    grid, block : (x, y, z)
    scalars : tuple of int
    order : tuple of int
        Which of the arrays given is which of the kernel's.
    dtype : np.dtype
    tables : tuple of array
        Numbers of the launch's own that do not fit into scalars, such as which pixels a resized image is made of; they
        are copied to the device when it is first started.
    """

    name: str
    shape: Shape
    kernel: Any
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    scalars: tuple[int, ...]
    order: tuple[int, ...]
    dtype: np.dtype
    tables: tuple[np.ndarray, ...] = field(default=(), repr=False, compare=False)
    _resident: list[tuple] = field(default_factory=list, repr=False, compare=False)  # the tables, on the device
    # By stream: Numba itself remembers only the last few of the many launchers of a network.
    _configured: dict = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what no device takes, such as 70,000 images of a kernel with a grid row for each."""
        if max(self.grid[1:]) > LARGEST_GRID:
            raise ValueError(
                f"{self.name}: at most {LARGEST_GRID} images (or rows of tiles of an image) at once, got a grid of "
                f"{self.grid}; compute them in several parts"
            )

    def __call__(self, stream: Any, *arrays: Any) -> None:
        """Start the kernel on flat device arrays and return at once; nothing is checked."""
        if 0 not in self.grid:  # an empty batch
            start = self._configured.get(stream) or self._configure(stream)
            start(*(arrays[i] for i in self.order), *self._tables(), *self.scalars)

    def _tables(self) -> tuple:
        if self.tables and not self._resident:
            self._resident.append(tuple(cuda.to_device(table) for table in self.tables))
        return self._resident[0] if self.tables else ()

    def _configure(self, stream: Any) -> Any:
        """Numba's launcher for this stream, made without its warning that the grid is small: so may be the image."""
        warns, numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = numba.config.CUDA_LOW_OCCUPANCY_WARNINGS, 0
        try:
            start = self.kernel[self.grid, self.block, stream]
        finally:
            numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = warns
        if not device.SIMULATED:  # there all launchers of a kernel are one
            self._configured[stream] = start
        return start

    def signature(self) -> tuple:
        """The Numba types of the kernel's arguments."""
        arrays = [self.dtype] * len(self.order) + [table.dtype for table in self.tables]
        arrays = (types.Array(getattr(types, dtype.name), 1, "C") for dtype in arrays)
        return (*arrays, *[types.int64] * len(self.scalars))

    def compile(self) -> None:
        """Compile the kernel, or fetch it from the cache, before it is first started."""
        if not device.SIMULATED:
            self.kernel.compile(self.signature())


def storage(dtype: Any) -> np.dtype:
    """Return the type in which tensors are stored: float32 or float16.

    Raises
    ------
    ValueError
        For any other.
    """
    if np.dtype(dtype) not in DTYPES:
        raise ValueError(f"dtype must be float32 or float16, got {np.dtype(dtype)}")
    return np.dtype(dtype)


def stand_in(shape: Sequence[int]) -> np.ndarray:
    """Return an array of this shape that takes no memory: what :mod:`checks` looks at."""
    return np.broadcast_to(np.float32(0), tuple(shape))


def divided(count: int, size: int) -> int:
    """How many pieces of ``size`` cover ``count``."""
    return -(-count // size)


def lanes(*channels: int, most: int | None = None) -> int:
    """How many neighbouring channels a thread takes: a power of two that divides all these numbers."""
    width = most or CONFIGURATION["lanes"]
    while any(count % width for count in channels):
        width //= 2
    return width


def power_of_two(count: int, most: int) -> int:
    """The least power of two that is not below ``count``, or ``most``."""
    return min(1 << max(count - 1, 0).bit_length(), most)


def block_of(channels: int, lanes: int, columns: int = 1, rows: int = 1) -> tuple[int, int, int]:
    """Return the threads of a block along channels (``lanes`` each), columns and rows of tiles.

    Neighbouring threads take neighbouring channels, a full line of the cache; the rest of the block is as square in
    the image as can be, for neighbouring windows overlap and find what they share in the multiprocessor's cache.
    """
    threads = CONFIGURATION["threads"]
    units = divided(channels, lanes)
    x = power_of_two(units, min(threads, max(1, CONFIGURATION["segment"] // lanes)))
    y = z = 1
    while x * y * z < threads and (y < columns or z < rows):
        if y < columns and (y <= z or z >= rows):
            y *= 2
        else:
            z *= 2
    while x * y * z * 2 <= threads and x < units:  # a small image: more channels instead
        x *= 2
    return x, y, z


def is_resident(x: Any) -> bool:
    """Whether an array lies on the device."""
    return getattr(x, "__cuda_ndarray__", False) or hasattr(x, "__cuda_array_interface__")


class Call:
    """One operation on arrays that lie on the host or on the device, as ``x`` does.

    Raises
    ------
    CudaUnavailable
        If there is no device to run on.
    """

    def __init__(self, x: Any) -> None:
        device.require()
        self.resident = is_resident(x)
        self.dtype = np.dtype(np.float16) if getattr(x, "dtype", None) == np.float16 else np.dtype(np.float32)
        if self.resident:
            x = self._array(x)
            self.dtype = np.dtype(x.dtype)

    @staticmethod
    def _array(x: Any) -> Any:
        return x if getattr(x, "__cuda_ndarray__", False) else cuda.as_cuda_array(x)

    def see(self, x: Any) -> Any:
        """What :mod:`checks` is to look at: host arrays as they are, device arrays by their shape."""
        return stand_in(self._array(x).shape) if is_resident(x) else x

    def flat(self, x: Any, name: str = "an array") -> Any:
        """The array on the device, one-dimensional and of the call's type."""
        if not is_resident(x):
            x = np.require(x, self.dtype, ("C", "A"))
            return cuda.to_device(x.reshape(-1))
        x = self._array(x)
        if x.dtype != self.dtype:
            raise ValueError(f"{name} must be {self.dtype} as x is, got {x.dtype}")
        if not x.is_c_contiguous():
            raise ValueError(f"{name} must be C-contiguous")
        address = getattr(x, "__cuda_array_interface__", {"data": (0,)})["data"][0]
        if address is not None and address % 16:
            raise ValueError(f"{name} must be aligned to 16 bytes")
        return x.reshape(prod(x.shape))

    def on_host(self, x: Any) -> np.ndarray:
        """The array as one of NumPy; one on the device is copied, and waited for."""
        return self._array(x).copy_to_host() if is_resident(x) else x

    def bias(self, bias: Any, channels: int) -> Any:
        """The bias: zeros where there is none."""
        return np.zeros(channels, self.dtype) if bias is None else bias

    def __call__(self, launch: Launch, out: Any, *inputs: Any, extras: Sequence[Any] = ()) -> Any:
        """Run the launcher on ``inputs``, ``out`` and ``extras``, and return the result where ``x`` lies."""
        return self.parts(out, [(launch, inputs)], extras)

    def parts(self, out: Any, parts: Sequence[tuple[Launch, Sequence[Any]]], extras: Sequence[Any] = ()) -> Any:
        """Run launchers, each on inputs of its own, that fill one result together."""
        shape = parts[0][0].shape
        result = self._result(out, shape)
        arrays = [[self.flat(x) for x in inputs] for _, inputs in parts]
        flat = self.flat(result, "out") if is_resident(result) else cuda.device_array(prod(shape), self.dtype)
        if prod(shape):
            for (launch, _), inputs in zip(parts, arrays, strict=True):
                launch(0, *inputs, flat, *(self.flat(x) for x in extras))
        if not is_resident(result):
            result[...] = flat.copy_to_host().reshape(shape)
        return result if out is None else out

    def _result(self, out: Any, shape: Shape) -> Any:
        if out is None:
            return cuda.device_array(shape, self.dtype) if self.resident else np.empty(shape, self.dtype)
        if is_resident(out):
            seen = self._array(out)
            if seen.dtype != self.dtype or tuple(seen.shape) != shape:
                raise ValueError(f"out must be a {self.dtype} array of shape {shape}, got {seen.dtype} {seen.shape}")
            return seen
        return checks.output(out, shape, self.dtype)

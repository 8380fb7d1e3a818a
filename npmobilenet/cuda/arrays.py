"""Arrays on the device as other libraries see them: ``__cuda_array_interface__`` in and out, nothing copied.

CuPy arrays, PyTorch tensors and Numba's device arrays all describe their memory by this dictionary (version 3 of the
interface, as Numba's documentation defines it). Out, there is DLPack as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from npmobilenet import dlpack
from npmobilenet.cuda import memory as cuda_memory

NO_STREAM = -1  # DLPack's number for "do not wait"
LEGACY_STREAM = 1  # the interface's number for the default stream, which our streams wait for by themselves


class DeviceArray:
    """An array on the device. ``cupy.asarray(y)`` and ``torch.as_tensor(y)`` take it as it is; DLPack works too.

    What fills it may still be running, on the stream that the interface names. CuPy waits for that stream; PyTorch
    does not look, but its default stream and ours wait for each other. On a PyTorch stream of your own, wait first
    (``y.synchronize()``).

    Attributes
    ----------
    shape, strides, dtype
        As NumPy's; strides are in bytes.
    pointer : int
        Address of the first element.
    stream
        Numba's stream on which it is computed, or None.
    """

    def __init__(
        self,
        pointer: int,
        shape: Sequence[int],
        strides: Sequence[int] | None,
        dtype: np.dtype,
        owner: object,
        stream: Any = None,
    ) -> None:
        self.pointer, self.shape, self.dtype = pointer, tuple(shape), np.dtype(dtype)
        self.strides = tuple(strides) if strides else contiguous_strides(self.shape, self.dtype.itemsize)
        self.owner, self.stream = owner, stream

    @classmethod
    def of(cls, x: Any) -> DeviceArray:
        """Return the same memory as a `DeviceArray`; waits for the stream that fills it, if it names one.

        Raises
        ------
        ValueError
            If it has a mask.
        """
        if isinstance(x, cls):
            return x
        about = x.__cuda_array_interface__
        if about.get("mask") is not None:
            raise ValueError("x has a mask; masked device arrays cannot be computed")
        if about.get("stream") not in (None, LEGACY_STREAM):
            cuda_memory.wait_for(about["stream"])
        return cls(about["data"][0] or 0, about["shape"], about.get("strides"), np.dtype(about["typestr"]), x)

    @classmethod
    def empty(cls, shape: Sequence[int], dtype: np.dtype, stream: Any = None) -> DeviceArray:
        """Return a new array, C-contiguous."""
        memory = cuda_memory.empty(max(1, prod(shape)), dtype)
        return cls(cuda_memory.pointer(memory), shape, None, dtype, memory, stream)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "strides": None if self.contiguous else self.strides,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "stream": cuda_memory.handle(self.stream) or None,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return cuda_memory.dlpack_device()

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a DLPack capsule: the same memory, ready for the consumer's ``stream`` (-1: it waits by itself)."""
        device = self.__dlpack_device__()
        if dl_device is not None and tuple(dl_device) != device:
            if tuple(dl_device) == (dlpack.CPU, 0) and copy is not False:
                return self.copy_to_host().__dlpack__()
            raise BufferError(f"an array on DLPack's device {device} cannot be lent on device {tuple(dl_device)}")
        if copy:
            raise BufferError("a copy on the device is not made here: copy what is lent")
        if stream not in (None, LEGACY_STREAM, NO_STREAM):
            self.synchronize()
        return dlpack.lend(self, self.__cuda_array_interface__, device)

    def __repr__(self) -> str:
        return f"<npmobilenet.DeviceArray {self.dtype} {self.shape}>"

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, images: slice) -> DeviceArray:
        """Some of the first axis: a view."""
        start, stop, step = images.indices(len(self))
        shape = (len(range(start, stop, step)), *self.shape[1:])
        strides = (self.strides[0] * step, *self.strides[1:])
        return DeviceArray(self.pointer + start * self.strides[0], shape, strides, self.dtype, self, self.stream)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether elements follow each other in C's order."""
        return self.strides == contiguous_strides(self.shape, self.dtype.itemsize)

    def transpose(self, *axes: int) -> DeviceArray:
        """Return a view with the axes in another order."""
        shape, strides = ([values[axis] for axis in axes] for values in (self.shape, self.strides))
        return DeviceArray(self.pointer, shape, strides, self.dtype, self, self.stream)

    @property
    def flat(self) -> Any:
        """Numba's one-dimensional array of all memory from the first to the last element, gaps included."""
        if min(self.strides, default=0) < 0:
            raise ValueError(f"x must not have negative strides, got {self.strides}")
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        elements = last // self.dtype.itemsize + 1 if prod(self.shape) else 0
        return cuda_memory.flat_view(self.pointer, elements, self.dtype, self)

    def follow(self, stream: Any) -> None:
        """Say that a part is computed on this stream. There is one at a time: another one's part is waited for."""
        if stream is not self.stream:
            self.synchronize()
        self.stream = stream

    def synchronize(self) -> None:
        """Wait until it is computed."""
        if self.stream is not None:
            self.stream.synchronize()

    def copy_to_host(self) -> np.ndarray:
        """Return a copy as a NumPy array, when it is computed."""
        self.synchronize()
        values = self.flat.copy_to_host()
        return np.ndarray(self.shape, self.dtype, values, strides=self.strides).copy("C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.copy_to_host().astype(dtype or self.dtype, copy=False)


def contiguous_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """The strides, in bytes, of a C-contiguous array."""
    return tuple(itemsize * prod(shape[axis + 1 :]) for axis in range(len(shape)))

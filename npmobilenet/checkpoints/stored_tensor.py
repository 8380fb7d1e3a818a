"""A tensor inside a checkpoint: some bytes of the file, a data type, a shape and strides.

Nothing in a checkpoint is believed. Every number here is a Python integer (which cannot overflow), is
compared with the bytes that are really there, and only then handed to NumPy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from math import prod

import numpy as np

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

BFLOAT16 = "bf16"  # the one data type below that NumPy does not know
SUPPORTED = "float64, float32, float16, bfloat16, integers and bool"

MAX_DIMENSIONS = 32  # what every NumPy release can hold
MAX_ELEMENTS = 2**40  # also bounds the shape of an empty tensor, whose size says nothing: (0, 10**30)


@dataclass(eq=False)
class Storage:
    """The flat bytes that one or several tensors view; ``data`` is filled in once they are located."""

    nbytes: int
    data: memoryview = field(default=memoryview(b""), repr=False)


class Tensor(ABC):
    """What a file says of a tensor."""

    @abstractmethod
    def to_array(self, name: str, allowance: Allowance) -> np.ndarray:
        """Return a read-only array; ``name`` is the tensor's name in an error."""

    def encoded(self, name: str, allowance: Allowance) -> tuple[np.ndarray, tuple[float, float] | None]:
        """Return an array of the type in which the file has it, and what multiplies it and is added, if something."""
        return self.to_array(name, allowance), None


@dataclass(eq=False)
class StoredTensor(Tensor):
    """A strided view of a storage. ``offset`` and ``strides`` count elements; no strides: C order."""

    storage: Storage
    dtype: str  # as the file spells it
    code: str | None  # as NumPy spells it, or BFLOAT16, or None: not supported
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    offset: int = 0
    byte_order: str = "<"

    def to_array(self, name: str, allowance: Allowance) -> np.ndarray:
        """Return a read-only array: a view of the file if its bytes allow, otherwise a converted copy."""
        array = self._view(name)
        result = np.float32 if self.code == BFLOAT16 or array.dtype.kind == "f" else array.dtype.newbyteorder("=")
        array = self._convert(array, np.dtype(result), name, allowance)
        array.flags.writeable = False
        return array

    def encoded(self, name: str, allowance: Allowance) -> tuple[np.ndarray, None]:
        """Return an array of the type in which the file has it; of bfloat16, which NumPy does not know, float32."""
        if self.code == BFLOAT16:
            return super().encoded(name, allowance)
        return np.ascontiguousarray(self._view(name)), None

    def _view(self, name: str) -> np.ndarray:
        """Its elements in the file; bfloat16 as their bits."""
        if self.code is None:
            raise CheckpointError(
                f"tensor {quote(name)} has dtype {quote(self.dtype)}, which is not supported "
                f"({SUPPORTED} are); convert it before saving, for example with tensor.float()"
            )
        dtype = np.dtype("u2" if self.code == BFLOAT16 else self.code).newbyteorder(self.byte_order)
        strides = self._checked_strides(name, dtype.itemsize)
        if 0 in self.shape:
            return np.empty(self.shape, dtype)
        return np.ndarray(
            self.shape,
            dtype,
            buffer=self.storage.data,
            offset=self.offset * dtype.itemsize,
            strides=[stride * dtype.itemsize for stride in strides],
        )

    def _checked_strides(self, name: str, itemsize: int) -> tuple[int, ...]:
        shape, strides = self.shape, self.strides
        sizes = [*shape, self.offset, *(strides or ())]
        if not all(type(size) is int and 0 <= size <= MAX_ELEMENTS for size in sizes):
            raise CheckpointError(f"tensor {quote(name)} has impossible sizes: a negative or huge number")
        if len(shape) > MAX_DIMENSIONS or prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
            raise CheckpointError(f"tensor {quote(name)} has an impossible shape of {len(shape)} dimensions")
        if strides is None:
            strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        if len(strides) != len(shape):
            raise CheckpointError(f"tensor {quote(name)} has {len(strides)} strides for {shape}")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        needed = (last + 1) * itemsize
        if 0 not in shape and needed > len(self.storage.data):
            raise CheckpointError(
                f"tensor {quote(name)} of shape {shape} and strides {strides} at offset {self.offset} needs "
                f"{needed} bytes, but its storage has {len(self.storage.data)}; the file is damaged"
            )
        return strides

    def _convert(self, array: np.ndarray, dtype: np.dtype, name: str, allowance: Allowance) -> np.ndarray:
        # Unaligned data would be slow in NumPy and wrong in compiled kernels.
        if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned and dtype.kind != "b":
            return array
        allowance.take(array.size * dtype.itemsize, f"tensor {quote(name)}")
        if self.code == BFLOAT16:  # the upper half of a float32, so exact for every value, NaNs too
            array = array.astype(np.uint32, order="C")
            array <<= np.uint32(16)
            return array.view(np.float32)
        if dtype.kind == "b":  # any byte but 0 is True; a bool array of other bytes would be undefined
            return np.asarray(array.view(np.uint8) != 0)
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32's range: infinite, as in PyTorch
            return array.astype(dtype, order="C")


@dataclass(eq=False)
class UnreadableTensor(Tensor):
    """A tensor of a kind that is not supported: an error only if it is one of the weights."""

    kind: str  # reads on after "is"
    advice: str

    def to_array(self, name: str, allowance: Allowance) -> np.ndarray:
        """Refuse."""
        raise CheckpointError(f"tensor {quote(name)} is {self.kind}, which is not supported; {self.advice}")

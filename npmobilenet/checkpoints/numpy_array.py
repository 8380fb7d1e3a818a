"""NumPy arrays as files hold them: in ``.npy`` after a header, in pickles as the arguments of a few functions.

Both give an element type as a short text (``"<f4"``, ``"f4"`` with the byte order apart), a shape, an order and bytes.

In a pickle an array is one of these (``numpy/_core/src/multiarray/methods.c``, ``numpy/_core/numeric.py``):

    _reconstruct(ndarray, (0,), b"b"), then BUILD with (version, shape, dtype, Fortran order, bytes or list of objects)
    _frombuffer(bytes, dtype, shape, "C" or "F")      protocol 5
    scalar(dtype, bytes)

and the dtype is ``dtype("f4", False, True)``, then BUILD with (version, byte order, …). Bytes are, with protocol 2,
``_codecs.encode(text, "latin1")``. None of these is NumPy's function here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.foreign import Foreign
from npmobilenet.checkpoints.stored_tensor import BFLOAT16, MAX_DIMENSIONS, Storage, StoredTensor
from npmobilenet.errors import CheckpointError

_ELEMENT = re.compile(r"([<>|=]?)(([biufc])(\d{1,2})|bf16)")
_READ = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", BFLOAT16}

# Element types that no weights have: text, bytes, objects, records, dates
_NO_NUMBERS = re.compile(r"[<>|=]?[USaOVMm]")


def holds_numbers(descr: str) -> bool:
    """Whether arrays of this element type can be weights, supported or not."""
    return _NO_NUMBERS.match(descr) is None


def place_array(what: str, descr: str, fortran_order: bool, shape: tuple, data: bytes | memoryview) -> StoredTensor:
    """Return the array of these elements; ``what`` names it in an error."""
    element = _ELEMENT.fullmatch(descr)
    order, code, _, size = element.groups() if element else ("", "", "", "")
    itemsize = 2 if code == BFLOAT16 else int(size or 0)
    # More than 32 dimensions are refused later; here they would only make a huge number.
    if element and len(shape) <= MAX_DIMENSIONS and prod(shape) * itemsize != len(data):
        raise CheckpointError(
            f"{what} of {descr} and shape {shape} should have {prod(shape) * itemsize} bytes but has {len(data)}; "
            "the file is damaged"
        )
    strides = tuple(prod(shape[:axis]) for axis in range(len(shape))) if fortran_order else None
    return StoredTensor(
        Storage(len(data), memoryview(data)),
        descr,
        code if code in _READ else None,
        shape,
        strides,
        byte_order=">" if order == ">" else "<",
    )


class ElementType:
    """A ``numpy.dtype``."""

    __slots__ = ("byte_order", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.byte_order = ""

    @property
    def descr(self) -> str:
        """As a ``.npy`` header spells it."""
        return self.byte_order + self.name

    def build(self, state: object) -> None:
        """Take the byte order."""
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise TypeError
        self.byte_order = state[1]


@dataclass(eq=False)
class NumpyArray(StoredTensor):
    """A ``numpy.ndarray`` in a pickle: of numbers, or a list of objects."""

    allowance: Allowance | None = None
    objects: list | None = None

    @classmethod
    def empty(cls, allowance: Allowance) -> NumpyArray:
        """An array that is still to be filled."""
        return cls(Storage(0), "f8", "f8", (0,), allowance=allowance)

    @property
    def holds_numbers(self) -> bool:
        """Whether it can be a weight."""
        return self.objects is None and holds_numbers(self.dtype)

    @property
    def entries(self) -> dict:
        """Its content as a dict: what `numpy.save` makes of one is an array of a single object without a shape."""
        only = self.objects[0] if self.objects is not None and len(self.objects) == 1 else None
        return only if type(only) is dict else {}

    def build(self, state: object) -> None:
        """Take (version, shape, element type, Fortran order, elements); the version is left out by the oldest."""
        if type(state) is not tuple or len(state) not in (4, 5):
            raise TypeError
        self.fill(*state[-4:])

    def fill(self, shape: object, dtype: object, fortran_order: object, content: object) -> NumpyArray:
        """Take the elements."""
        if type(dtype) is not ElementType or type(shape) is not tuple or type(fortran_order) not in (bool, int):
            raise TypeError
        if len(shape) > MAX_DIMENSIONS or not all(type(size) is int and 0 <= size < 2**63 for size in shape):
            raise TypeError
        if type(content) is list:
            self.objects = content
        else:
            content = latin1(content, self.allowance) if type(content) is str else content  # Python 2's bytes
            if type(content) is not bytes:
                raise TypeError
            vars(self).update(
                vars(place_array("an array in its pickle", dtype.descr, bool(fortran_order), shape, content))
            )
        return self


def latin1(text: str, allowance: Allowance) -> bytes:
    """The bytes that a pickle holds as text, a character for each."""
    allowance.take(len(text), "its pickle")
    return text.encode("latin-1")


def numpy_functions(allowance: Allowance) -> dict[str, Callable[..., object]]:
    """What stands for NumPy's functions in a pickle."""

    def element_type(name: object, *rest: object) -> ElementType:
        if isinstance(name, Foreign) and name.name == "ml_dtypes.bfloat16":
            return ElementType(BFLOAT16)
        return ElementType(name if type(name) is str and len(name) <= 20 else "V")

    def reconstruct(*arguments: object) -> NumpyArray:
        return NumpyArray.empty(allowance)

    def from_buffer(buffer: object, dtype: object, shape: object, order: object) -> NumpyArray:
        return NumpyArray.empty(allowance).fill(shape, dtype, order == "F", buffer)

    def scalar(dtype: object, content: object = b"") -> object:
        if type(dtype) is not ElementType:
            raise TypeError
        return NumpyArray.empty(allowance).fill((), dtype, False, content) if holds_numbers(dtype.descr) else content

    def encoded(text: object, encoding: object = "latin1") -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise TypeError
        return latin1(text, allowance)

    def as_bytes(content: object = b"", *encoding: object) -> bytes:
        return content if type(content) is bytes else encoded(content, *encoding)

    functions = {"numpy.dtype": element_type, "_codecs.encode": encoded}
    functions |= {"builtins.bytes": as_bytes, "builtins.bytearray": as_bytes}
    for package in ("numpy.core", "numpy._core"):
        functions[f"{package}.multiarray._reconstruct"] = reconstruct
        functions[f"{package}.multiarray.scalar"] = scalar
        functions[f"{package}.numeric._frombuffer"] = from_buffer
    return functions

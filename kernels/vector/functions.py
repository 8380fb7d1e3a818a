"""Compiled functions, found by name: in a shared object, or wherever a library has them."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np

METH_FASTCALL = 0x80


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


_methods: dict[int, _Method] = {}  # by the address of the function; for ever, as machine code is


def numba_array(array: np.ndarray) -> tuple[int, ...]:
    """Return what Numba's functions take for a C-contiguous array: no owner, sizes, address, shape and strides."""
    return (0, 0, array.size, array.itemsize, array.ctypes.data, *array.shape, *array.strides)


class Functions(ABC):
    """Functions by name; addresses are good for as long as the process lives.

    Attributes
    ----------
    name : str
        What they are called together.
    origin : str
        Where their machine code comes from, in a few words.
    """

    name: str
    origin: str

    @abstractmethod
    def address(self, name: str) -> int:
        """Return the address of a function.

        Raises
        ------
        LookupError
            If there is none of that name.
        """

    def lacks(self, name: str) -> LookupError:
        """Say that there is no function of that name."""
        return LookupError(f"the library {self.name!r} has no kernel {name!r}")

    def callable(self, name: str, arguments: int) -> Callable[..., None]:
        """Return a function that Numba compiled, for Python; other Python threads run while it does.

        Its arguments are so many integers; an array is the integers of :func:`numba_array`.
        """
        # Numba's convention: where to put the result, where to put an exception, the arguments.
        signature = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * arguments)
        function = signature(self.address(name))
        nowhere = ctypes.create_string_buffer(16)
        where = ctypes.addressof(nowhere)

        def run(*integers: int, _keep: object = nowhere) -> None:
            function(where, where + 8, *integers)

        return run

    def builtin(self, name: str, owner: object) -> Callable[..., int]:
        """Return a function that is written for `METH_FASTCALL`, as Python calls its own: `ctypes` alone takes longer.

        It keeps ``owner``. Whether other Python threads run meanwhile is up to the function.
        """
        function = self.address(name)
        method = _methods.setdefault(function, _Method(name.encode(), function, METH_FASTCALL, None))
        new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
        return new(("PyCFunction_NewEx", ctypes.pythonapi))(ctypes.addressof(method), owner, None)

"""Compiled functions, found by name: in a shared object, or wherever a library has them."""

from __future__ import annotations

import ctypes
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
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


def opened(name: str, origin: str, content: bytes, file: str = "") -> Functions:
    """Open a shared object that `link` wrote.

    Parameters
    ----------
    name, origin : str
        As of all `Functions`.
    content : bytes
        Of the shared object, whose hash was compared.
    file : path
        Where it stands, if it does: opened by the system's loader, so that nothing that was written in memory is
        executed. Otherwise, and where no file may be run, it is copied to memory (`mapped`); and where that may not be
        executed either, to a file that is in memory alone.

    Raises
    ------
    OSError
        If the system allows none of it.
    """
    if os.path.isfile(file):  # noqa: PTH113 - before pathlib
        with suppress(OSError):
            return Loaded(name, origin, file)
    from npmobilenet.kernels.vector.mapped import Mapped  # here, for installed packages are files

    try:
        return Mapped(name, origin, content)
    except OSError as error:
        if error.errno is None or not hasattr(os, "memfd_create"):
            raise
    number = os.memfd_create(name)  # stays open: the loader takes a file of the same name for the same one
    with open(number, "wb", closefd=False) as written:
        written.write(content)
    return Loaded(name, origin, f"/proc/self/fd/{number}")


class Loaded(Functions):
    """Functions in a file that the system's loader opens; it raises an OSError if it cannot."""

    def __init__(self, name: str, origin: str, file: str) -> None:
        self.name, self.origin = name, origin
        self._opened = ctypes.CDLL(file)

    def address(self, name: str) -> int:
        try:
            return ctypes.cast(getattr(self._opened, name), ctypes.c_void_p).value
        except AttributeError:
            raise self.lacks(name) from None

"""Shared objects that `link` wrote, opened: by the system's loader, or without it."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

from npmobilenet.kernels.vector.functions import Functions


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

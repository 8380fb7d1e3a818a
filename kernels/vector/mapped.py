"""A shared object in anonymous memory, without the system's loader: written first, executable only after that.

For machine code that lies in no file which may be run: of a package in an archive, on a file system mounted ``noexec``,
or with a checksum before it. It takes what `link` writes: segments to be copied, and slots for the addresses of
functions of Python and of the C library. At no time may the memory be both written to and executed.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.link import FROM_PYTHON

_MACHINES = {62: ("x86_64", 6), 183: ("aarch64", 1025)}  # by number in the header: and how a slot is marked
_LOAD, _DYNAMIC = 1, 2
_HASH, _STRTAB, _SYMTAB, _RELA, _RELASZ = 4, 5, 6, 7, 8
_EXECUTED = 1  # what a segment says
_READ, _WRITE, _EXECUTE = 1, 2, 4  # what memory is to allow
_PRIVATE, _ANONYMOUS = 2, 32


class Mapped(Functions):
    """Functions of a shared object of `link` in memory of their own, which is never given back.

    Parameters
    ----------
    name, origin : str
        As of all `Functions`.
    content : bytes
        Of the shared object. It is trusted: whoever calls this has compared its hash.

    Raises
    ------
    OSError
        If it is for another system, calls what this one has not, or the system lets nothing be executed that was
        written.
    """

    def __init__(self, name: str, origin: str, content: bytes) -> None:
        self.name, self.origin = name, origin
        self._addresses = _mapped(content)

    def address(self, name: str) -> int:
        try:
            return self._addresses[name]
        except KeyError:
            raise self.lacks(name) from None


class _Segment(NamedTuple):
    """A program header."""

    type: int
    flags: int
    offset: int
    address: int
    physical: int
    length: int
    size: int
    alignment: int


def _mapped(content: bytes) -> dict[str, int]:
    """Copy a shared object to new memory, make it executable, and return the addresses of its functions."""
    machine, slot = _MACHINES[struct.unpack_from("<H", content, 18)[0]]
    if (sys.platform, os.uname().machine) != ("linux", machine) or sys.maxsize < 1 << 32:
        raise OSError(f"it is machine code for Linux on {machine}")
    segments = _segments(content)
    loaded = [segment for segment in segments if segment.type == _LOAD]
    places = _places(content, segments)
    symbols = _symbols(content, places)
    memory = _Memory(max(segment.address + segment.size for segment in loaded))
    try:
        for segment in loaded:
            memory.write(segment.address, content[segment.offset : segment.offset + segment.length])
        for at in range(places[_RELA], places[_RELA] + places[_RELASZ], 24):
            where, kind, symbol = struct.unpack_from("<QII", content, at)
            if kind != slot:
                raise OSError(f"it has a relocation of type {kind}")
            memory.write(where, struct.pack("<Q", _foreign(symbols[symbol][0])))
        for segment in loaded:
            memory.close(segment.address, segment.size, executed=bool(segment.flags & _EXECUTED))
    except BaseException:
        memory.give_back()
        raise
    return {name: memory.start + where for name, where in symbols if where}


def names(content: bytes) -> list[str]:
    """The functions that a shared object has."""
    return [name for name, where in _symbols(content, _places(content, _segments(content))) if where]


def _segments(content: bytes) -> list[_Segment]:
    return [_Segment(*struct.unpack_from("<IIQQQQQQ", content, 64 + 56 * n)) for n in range(content[56])]


def _places(content: bytes, segments: Sequence[_Segment]) -> dict[int, int]:
    """What the loader is told: where symbols, texts and slots are."""
    (dynamic,) = (content[s.offset : s.offset + s.length] for s in segments if s.type == _DYNAMIC)
    return dict(struct.iter_unpack("<QQ", dynamic))


def _symbols(content: bytes, places: Mapping[int, int]) -> list[tuple[str, int]]:
    (count,) = struct.unpack_from("<I", content, places[_HASH] + 4)
    return [_symbol(content, places, number) for number in range(count)]


def _symbol(content: bytes, places: Mapping[int, int], number: int) -> tuple[str, int]:
    """Its name, and where it is; 0 if elsewhere."""
    name, _, _, _, where, _ = struct.unpack_from("<IBBHQQ", content, places[_SYMTAB] + 24 * number)
    start = places[_STRTAB] + name
    return content[start : content.index(b"\0", start)].decode(), where


def _foreign(name: str) -> int:
    """The address of a function of Python or of the C library."""
    library = ctypes.pythonapi if name in FROM_PYTHON else ctypes.CDLL(None)
    try:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    except AttributeError:
        raise OSError(f"this system has no function {name}") from None


class _Memory:
    """Pages from the system, to be written to until they are closed. Python's own would go when the process ends,
    while other threads still run what stands there."""

    def __init__(self, size: int) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._size = self._up(size)
        protection, flags = _READ | _WRITE, _PRIVATE | _ANONYMOUS
        self.start = _system("mmap", ctypes.c_void_p, None, self._size, protection, flags, -1, ctypes.c_long(0))

    def write(self, at: int, content: bytes) -> None:
        ctypes.memmove(self.start + at, content, len(content))

    def close(self, at: int, size: int, executed: bool) -> None:
        """Let the pages be read, or also executed, but no longer written to."""
        first = at // self._page * self._page
        pages = self._up(at + size) - first
        _system("mprotect", ctypes.c_int, self.start + first, pages, _READ | _EXECUTE if executed else _READ)

    def give_back(self) -> None:
        _system("munmap", ctypes.c_int, self.start, self._size)

    def _up(self, size: int) -> int:
        return -(-size // self._page) * self._page


def _system(name: str, result: type, address: int | None, size: int, *rest: object) -> int:
    """Call one of the C library's functions of memory; those fail with -1."""
    function = ctypes.CDLL(None, use_errno=True)[name]  # by index: an object of its own, of which this is the type
    function.restype = result
    answer = function(ctypes.c_void_p(address), ctypes.c_size_t(size), *rest)
    if answer in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return answer

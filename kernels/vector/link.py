"""From an object file of LLVM to a shared object that the system's loader opens: no compiler or linker is needed.

Objects of 64-bit ELF, position independent, for x86-64 and aarch64. All code and constants make one segment, after the
symbols and where they are; a second, which is written to, has what the loader fills in: the addresses of the few
functions of Python and of the C library that are called. (System V ABI, its supplements for AMD64 and AArch64.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

# What may be called that is not in the object: of Python, and of the C library.
FROM_PYTHON = ("PyEval_SaveThread", "PyEval_RestoreThread", "PyLong_FromLongLong")
CALLED = frozenset({*FROM_PYTHON, "sched_yield", "memset", "memcpy", "memmove"})

_HEADER, _SEGMENT, _SECTION, _SYMBOL, _DYNAMIC, _RELOCATION = 64, 56, 64, 24, 16, 24
_PROGBITS, _SYMTAB, _RELA = 1, 2, 4
_WRITABLE, _ALLOCATED = 1, 2
_SHARED = 3  # of the types of files
_FUNCTION = 0x12  # a global one
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_RELAENT, _DT_STRSZ, _DT_SYMENT = 4, 5, 6, 7, 8, 9, 10, 11
_LINE = 64
_STUB = 16  # bytes of a jump through an address that the loader fills in


Relocate = Callable[[int, int, int], bytes]  # of the four bytes that stand at a place, what they are to be


class LinkError(Exception):
    """The object has what this linker does not know."""


class _Machine(NamedTuple):
    """What differs between CPUs.

    Attributes
    ----------
    number : int
        In the header.
    page : int
        The largest that a system may have.
    address : int
        The relocation by which the loader writes a symbol's address.
    stub : callable
        The code, at one place, that jumps to the address that stands at another.
    relocate : mapping of int to callable
        By type of relocation: the instruction or number that stands at ``place``, made to refer to ``to``.
    """

    number: int
    page: int
    address: int
    stub: Callable[[int, int], bytes]
    relocate: Mapping[int, Relocate]


def _relative(word: int, place: int, to: int) -> bytes:
    return struct.pack("<i", to - place)


def _page_of(word: int, place: int, to: int) -> bytes:
    """ADRP: the distance in pages of 4 KiB, its two lowest bits apart."""
    pages = (to >> 12) - (place >> 12)
    return struct.pack("<I", word & ~0x60FFFFE0 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5)


def _in_page(shift: int) -> Relocate:
    """ADD, or a load or store of so many bytes (as a power of two): the place within a page of 4 KiB."""
    return lambda word, place, to: struct.pack("<I", word & ~0x3FFC00 | (to & 0xFFF) >> shift << 10)


def _branch(word: int, place: int, to: int) -> bytes:
    return struct.pack("<I", word & ~0x3FFFFFF | (to - place) >> 2 & 0x3FFFFFF)


def _x86_stub(place: int, address: int) -> bytes:
    return b"\xff\x25" + struct.pack("<i", address - place - 6)  # jmp *address(%rip)


def _arm_stub(place: int, address: int) -> bytes:
    """ADRP and LDR of x16 (what a call may spoil), BR."""
    load = _page_of(0x90000010, place, address) + _in_page(3)(0xF9400210, place, address)
    return load + struct.pack("<I", 0xD61F0200)


_MACHINES = {
    62: _Machine(62, 1 << 12, 6, _x86_stub, dict.fromkeys((2, 4), _relative)),
    183: _Machine(
        183,
        1 << 16,
        1025,
        _arm_stub,
        {
            261: _relative,
            275: _page_of,
            277: _in_page(0),
            282: _branch,
            283: _branch,
            **dict(zip((278, 284, 285, 286, 299), map(_in_page, range(5)), strict=True)),
        },
    ),
}


class _Section(NamedTuple):
    """As in the object's table."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


class _Symbol(NamedTuple):
    """With its name."""

    name: str
    info: int
    section: int
    value: int


class _Object:
    """What stands in an object file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        (number,) = struct.unpack_from("<H", content, 18)
        if content[:6] != b"\x7fELF\2\1" or number not in _MACHINES:
            raise LinkError("no 64-bit ELF object for x86-64 or aarch64")
        self.machine = _MACHINES[number]
        (table,), (count,) = struct.unpack_from("<Q", content, 40), struct.unpack_from("<H", content, 60)
        self.sections = [
            _Section(*struct.unpack_from("<IIQQQQIIQQ", content, table + _SECTION * n)) for n in range(count)
        ]
        symbols = next(section for section in self.sections if section.type == _SYMTAB)
        names = self.sections[symbols.link].offset
        self.symbols = []
        for at in range(symbols.offset, symbols.offset + symbols.size, symbols.entry):
            name, info, _, section, value, _ = struct.unpack_from("<IBBHQQ", content, at)
            text = content[names + name : content.index(b"\0", names + name)].decode()
            self.symbols.append(_Symbol(text, info, section, value))

    def loaded(self) -> Iterator[tuple[int, _Section]]:
        """The sections with code and constants; what unwinds stacks is of no use: nothing here raises."""
        (number,) = struct.unpack_from("<H", self.content, 62)
        names = self.sections[number].offset
        for number, section in enumerate(self.sections):
            unwinds = self.content.startswith(b".eh_frame", names + section.name)
            if section.type == _PROGBITS and section.flags & _ALLOCATED and not unwinds:
                if section.flags & _WRITABLE and section.size:
                    raise LinkError("has variables")
                yield number, section

    def relocations(self, section: int) -> Iterator[tuple[int, int, _Symbol, int]]:
        """Of a section: where in it, of which type, to which symbol, and how far beyond."""
        for table in self.sections:
            if table.type == _RELA and table.info == section:
                for at in range(table.offset, table.offset + table.size, table.entry):
                    where, info, beyond = struct.unpack_from("<QQq", self.content, at)
                    yield where, info & 0xFFFFFFFF, self.symbols[info >> 32], beyond


def is_shared_object(content: bytes) -> bool:
    """Whether this is one, and no object file."""
    return content[:4] == b"\x7fELF" and content[16] == _SHARED


def shared_object(content: bytes) -> bytes:
    """Return the shared object of an object file; it offers the object's global functions.

    Raises
    ------
    LinkError
        If the object has variables, unknown relocations, or calls what is not in `CALLED`.
    """
    source = _Object(content)
    machine, sections = source.machine, dict(source.loaded())
    offered = sorted(s for s in source.symbols if s.info == _FUNCTION and s.section in sections)
    used = (symbol for number in sections for _, _, symbol, _ in source.relocations(number))
    called = sorted({symbol.name for symbol in used if not symbol.section and symbol.name})
    if not CALLED.issuperset(called):
        raise LinkError(f"calls {', '.join({*called} - CALLED)}")

    # Where everything stands: headers, symbols, their names and hashes, what the loader fills in; code and constants.
    names = [*called, *(symbol.name for symbol in offered)]
    text = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    count = 1 + len(names)
    symbols = _HEADER + 4 * _SEGMENT
    texts = symbols + _SYMBOL * count
    hashes = _up(texts + len(text), 8)
    fills = _up(hashes + 4 * (3 + count), 8)
    end = fills + _RELOCATION * len(called)
    starts = {}
    for number, section in sections.items():
        starts[number] = _up(end, max(section.alignment, _LINE))
        end = starts[number] + section.size
    stubs = {name: _up(end, _STUB) + _STUB * n for n, name in enumerate(called)}
    end = _up(_up(end, _STUB) + _STUB * len(called), 16)
    # The second segment follows in the file, and lies a page further in memory.
    slots = end + machine.page
    dynamic = slots + 8 * len(called)

    def address(symbol: _Symbol) -> int:
        return starts[symbol.section] + symbol.value if symbol.section in starts else stubs[symbol.name]

    file = bytearray(end)
    places = [(0, 0)] * len(called) + [(1, address(symbol)) for symbol in offered]  # sections and addresses
    for n, (name, place) in enumerate(zip(names, places, strict=True), 1):
        at = text.index(b"\0" + name.encode() + b"\0") + 1
        struct.pack_into("<IBBHQQ", file, symbols + _SYMBOL * n, at, _FUNCTION, 0, *place, 0)
    file[texts : texts + len(text)] = text
    # One bucket, in which every symbol leads to the next one.
    chain = [0, *[n % count for n in range(2, count + 1)]]
    struct.pack_into(f"<{3 + count}I", file, hashes, 1, count, min(1, count - 1), *chain)
    for n, name in enumerate(called):
        fill = slots + 8 * n, (1 + n) << 32 | machine.address, 0
        struct.pack_into("<QQq", file, fills + _RELOCATION * n, *fill)
        stub = machine.stub(stubs[name], slots + 8 * n)
        file[stubs[name] : stubs[name] + len(stub)] = stub
    for number, section in sections.items():
        file[starts[number] : starts[number] + section.size] = content[section.offset : section.offset + section.size]
        for where, kind, symbol, beyond in source.relocations(number):
            place = starts[number] + where
            if kind not in machine.relocate or not (symbol.section in starts or symbol.name in stubs):
                raise LinkError(f"has a relocation of type {kind} to {symbol.name or 'a section'!r}")
            (word,) = struct.unpack_from("<I", file, place)
            file[place : place + 4] = machine.relocate[kind](word, place, address(symbol) + beyond)

    known = {
        _DT_HASH: hashes, _DT_STRTAB: texts, _DT_SYMTAB: symbols, _DT_STRSZ: len(text), _DT_SYMENT: _SYMBOL,
        _DT_RELA: fills, _DT_RELASZ: _RELOCATION * len(called), _DT_RELAENT: _RELOCATION, 0: 0,
    }  # fmt: skip
    file += bytes(8 * len(called)) + b"".join(struct.pack("<QQ", *item) for item in known.items())
    segments = (
        (1, 5, 0, 0, end, machine.page),  # read and executed
        (1, 6, end, slots, len(file) - end, machine.page),  # read and written
        (2, 6, dynamic - machine.page, dynamic, _DYNAMIC * len(known), 8),
        (0x6474E551, 6, 0, 0, 0, 16),  # the stack, without code
    )
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = ident, _SHARED, machine.number, 1, 0, _HEADER, 0, 0, _HEADER, _SEGMENT, len(segments), _SECTION, 0, 0
    struct.pack_into("<16sHHIQQQIHHHHHH", file, 0, *header)
    for n, (kind, flags, offset, where, size, alignment) in enumerate(segments):
        about = kind, flags, offset, where, where, size, size, alignment
        struct.pack_into("<IIQQQQQQ", file, _HEADER + _SEGMENT * n, *about)
    return bytes(file)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

"""Tar archives as streams: each image when it comes by, in memory one header and one image.

Nothing is extracted, and a name is only a name: absolute ones, those with ``..``, links and devices lead nowhere. Only
regular files have bytes. What is read of a header is bounded, whatever it says.

The format: POSIX.1-2001, "pax Interchange Format" and "ustar Interchange Format"; GNU's long names and large sizes.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from npmobilenet.errors import ImageError
from npmobilenet.streaming.entries import LARGEST_MEMBER, Entry, NamedBytes, reason, too_large
from npmobilenet.streaming.files import is_image_name
from npmobilenet.text import printable

BLOCK = 512
LARGEST_HEADER = 1 << 20  # bytes of a name that is too long for a block, or of a pax header
LARGEST_EXPANSION = 200  # times the compressed bytes, beyond the first
FREE_EXPANSION = 1 << 30  # bytes
BUFFER = 1 << 18
CUT = "ends: is it cut short?"

REGULAR, DIRECTORY = (b"\0", b"0", b"7"), b"5"  # "7": contiguous, which nobody writes any more
WITHOUT_DATA = (b"1", b"2", b"3", b"4", DIRECTORY, b"6")
OTHER_KINDS = {
    **dict.fromkeys((b"1", b"2"), "a link"),
    **dict.fromkeys((b"3", b"4"), "a device"),
    **{b"6": "a pipe", b"S": "a sparse file", DIRECTORY: "a folder"},
}
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", b"x", b"g"


class ArchiveError(ValueError):
    """An archive cannot be read any further."""


class _Header(NamedTuple):
    name: bytes
    kind: bytes
    size: int


class Tar:
    """The images in one archive, read once, from its beginning to its end.

    Parameters
    ----------
    path : str
        Compressed by gzip or not; a pipe too.

    Attributes
    ----------
    position : int
        Bytes of the file that have been read; 0 of a pipe.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.position = 0

    def file_size(self) -> int:
        """Of the file, in bytes; 0 of a pipe, and of what is not there any more."""
        try:
            return Path(self.path).stat().st_size
        except OSError:
            return 0

    def entries(self) -> Iterator[Entry]:
        """Yield the images; last of all the archive itself, if something is wrong with it."""
        empty = True
        try:
            with open(self.path, "rb", buffering=BUFFER) as raw:  # noqa: PTH123
                stream = _Stream(raw)
                for header in _members(stream):
                    self.position = stream.position
                    name = os.fsdecode(header.name)
                    if is_image_name(name):
                        empty = False
                        yield self._entry(stream, name, header)
                    stream.finish_member()
                    if stream.cut and is_image_name(name):
                        return  # whose own failure says so
        except (ArchiveError, OSError) as error:
            yield Entry.failed(self.path, f"as a tar archive: {reason(error)}")
        else:
            if empty:
                yield Entry.failed(self.path, "no image files in this archive")

    def _entry(self, stream: _Stream, member: str, header: _Header) -> Entry:
        name = f"{self.path}/{member}"
        if header.kind not in REGULAR:
            kind = OTHER_KINDS.get(header.kind, f"of the unknown kind {header.kind!r}")
            return Entry.failed(name, f"{kind}, and no file in the archive")
        if header.size > LARGEST_MEMBER:
            return Entry.failed(name, too_large(header.size))

        def content() -> NamedBytes:
            data = stream.member()
            if stream.cut:
                raise ImageError(f"{printable(name)}: in the middle of it the archive {stream.problem}")
            return NamedBytes(data, name)

        return Entry(name, content, passing=True)


class _Stream:
    """What stands in the archive, and where its member's bytes are. What cannot be read is taken for its end.

    Attributes
    ----------
    problem : str
        Why it ends where it should not.
    cut : bool
        Whether that was in a member's bytes.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._file = raw, raw
        self._compressed = raw.peek(2)[:2] == b"\x1f\x8b"
        self._seekable = raw.seekable()
        self._read = self._left = self._padding = 0
        self.problem, self.cut = CUT, False
        if self._compressed:
            self._file = gzip.GzipFile(fileobj=raw)

    @property
    def position(self) -> int:
        """Of the end of the member in the file, or near it."""
        return self._raw.tell() + (0 if self._compressed else self._left) if self._seekable else 0

    def read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except EOFError:
            return b""
        except (OSError, zlib.error) as error:
            self.problem = f"is damaged: {reason(error)}"
            return b""
        self._read += len(data)
        if self._compressed and self._read > FREE_EXPANSION + LARGEST_EXPANSION * max(self._raw.tell(), 1):
            self.problem = f"expands to more than {LARGEST_EXPANSION} times its size: a bomb?"
            return b""
        return data

    def begin_member(self, size: int) -> None:
        self._left, self._padding = size, -size % BLOCK

    def member(self) -> bytes:
        """All bytes of the member, once; fewer if the archive ends."""
        data = self.read(self._left)
        self.cut = len(data) < self._left
        self._left = 0
        return data

    def finish_member(self) -> None:
        """Go to the next header, whatever has been read of the member.

        Raises
        ------
        ArchiveError
            If the archive ends after the member's last byte.
        """
        if self._left > BUFFER and self._seekable and not self._compressed:
            self._raw.seek(self._left - 1, io.SEEK_CUR)
            self._left = 1
        while self._left and not self.cut:
            part = self.read(min(self._left, BUFFER))
            self._left -= len(part)
            self.cut = not part
        if not self.cut and len(self.read(self._padding)) < self._padding:
            raise ArchiveError(self.problem)


def _members(stream: _Stream) -> Iterator[_Header]:
    """Yield the headers of members, with the names and sizes that extended headers before them say."""
    told: dict[str, bytes] = {}
    first = True
    while True:
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            if first and stream.problem == CUT:
                raise ArchiveError("is empty" if not block else "no tar archive")
            raise ArchiveError(stream.problem)
        if block == bytes(BLOCK):
            return
        try:
            header = _header(block)
        except ValueError as error:
            raise ArchiveError("no tar archive" if first else f"a header is damaged ({error})") from None
        first = False
        if header.kind in (LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL):
            if header.size > LARGEST_HEADER:
                raise ArchiveError(f"a header of {header.size} bytes, and {LARGEST_HEADER} are enough for any name")
            stream.begin_member(header.size)
            data = stream.member()
            stream.finish_member()
            if stream.cut:
                raise ArchiveError(stream.problem)
            if header.kind == LONG_NAME:
                told["path"] = data.rstrip(b"\0")
            elif header.kind == PAX:
                told |= _pax(data)
            continue
        size = header.size
        if "size" in told:
            if not told["size"].isdigit() or len(told["size"]) > 20:
                raise ArchiveError("a size is no number")
            size = int(told["size"])
        kind = b"S" if any(key.startswith("GNU.sparse") for key in told) else header.kind
        stream.begin_member(0 if header.kind in WITHOUT_DATA else size)
        yield _Header(told.get("GNU.sparse.name") or told.get("path") or header.name, kind, size)
        if stream.cut:
            raise ArchiveError(stream.problem)
        told = {}


def _header(block: bytes) -> _Header:
    """Read a block.

    Raises
    ------
    ValueError
        If it is no header.
    """
    checksum = _number(block[148:156])
    if checksum not in (_sum(block), _sum(block, signed=True)):
        raise ValueError("its checksum is wrong")
    name, kind, prefix = _text(block[:100]), block[156:157], _text(block[345:500])
    if block[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    if kind == b"\0" and name.endswith(b"/"):  # before POSIX
        kind = DIRECTORY
    return _Header(name, kind, _number(block[124:136]))


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits; or, where the first bit is set, the others as a number (GNU)."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            raise ValueError("a number is negative")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip()
    if not digits:
        return 0
    if not digits.isdigit():
        raise ValueError("a number has other characters than digits")
    return int(digits, 8)


def _sum(block: bytes, signed: bool = False) -> int:
    """The checksum, its own field taken for spaces; some old programs added signed bytes."""
    rest = block[:148] + block[156:]
    return sum(rest) + 8 * ord(" ") - (256 * sum(byte > 127 for byte in rest) if signed else 0)


def _pax(data: bytes) -> dict[str, bytes]:
    """The records of a pax header, ``"LENGTH KEY=VALUE\\n"``, as far as they matter here."""
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        digits = data[at : at + 8].partition(b" ")[0]
        if not digits.isdigit() or not len(digits) + 1 < int(digits) <= len(data) - at:
            raise ArchiveError("a pax header is damaged")
        record = data[at + len(digits) + 1 : at + int(digits)]
        key, _, value = record.rstrip(b"\n").partition(b"=")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            records[key.decode("ascii", "replace")] = value
        at += int(digits)
    return records

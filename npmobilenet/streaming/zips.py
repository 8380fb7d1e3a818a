"""Zip archives: images by the directory at the archive's end, each read by whoever computes it."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress

from npmobilenet.errors import ImageError
from npmobilenet.streaming.entries import LARGEST_MEMBER, Entry, NamedBytes, reason, too_large
from npmobilenet.streaming.files import is_image_name
from npmobilenet.text import printable

LARGEST_EXPANSION = 200  # times the compressed bytes, beyond the first
FREE_EXPANSION = 1 << 24  # bytes
ENCRYPTED, UTF8 = 1, 1 << 11  # a member's flags


def open_zip(path: str) -> zipfile.ZipFile:
    """Open an archive and read its directory.

    Raises
    ------
    ValueError
        If it is none, or its members are more than it holds: such a one expands to any size.
    """
    try:
        archive = zipfile.ZipFile(path)
        end = archive.fp.seek(0, io.SEEK_END)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RecursionError) as error:
        raise ValueError(f"no zip archive: {reason(error)}") from None
    if sum(member.compress_size for member in archive.infolist()) > end:
        archive.close()
        raise ValueError("its members overlap: a bomb?")
    return archive


def name_of(member: zipfile.ZipInfo) -> str:
    """A member's name: of one that is marked as neither, UTF-8 if it can be that, as most programs write it."""
    if not member.flag_bits & UTF8:
        with suppress(UnicodeError):
            return member.filename.encode("cp437").decode()
    return member.filename


def entries(path: str, archive: zipfile.ZipFile) -> Iterator[Entry]:
    """Yield the images, in the order of the directory."""
    for member in archive.infolist():
        if member.is_dir() or not is_image_name(member.filename):
            continue
        name = f"{path}/{name_of(member)}"
        if member.flag_bits & ENCRYPTED:
            yield Entry.failed(name, "is encrypted")
        elif member.file_size > LARGEST_MEMBER:
            yield Entry.failed(name, too_large(member.file_size))
        elif member.file_size > FREE_EXPANSION + LARGEST_EXPANSION * member.compress_size:
            yield Entry.failed(name, f"expands to more than {LARGEST_EXPANSION} times its size: a bomb?")
        else:
            yield Entry(name, lambda name=name, member=member: _content(archive, member, name))


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> io.BytesIO:
    try:
        return NamedBytes(archive.read(member), name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, zlib.error) as error:
        raise ImageError(f"{printable(name)}: cannot be taken out of the archive: {reason(error)}") from None

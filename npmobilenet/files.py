"""Writing files whole or not at all; reading them, but not without an end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PART = 1 << 20  # bytes that are read at once


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[BinaryIO]:
    """Give a binary file that takes this path when the block ends; one that is there already is replaced.

    It is written under a temporary name in the same folder, or in this one of the same file system, synced to disk and
    renamed. If the block raises, nothing is left of it and what was there stays. A link stays a link: the file it leads
    to is replaced.

    Raises
    ------
    OSError
        If it cannot be written, or something else than a file has this path: a device, a pipe, a folder.
    """
    path = replaceable(path)
    temporary = (folder or path.parent) / f".{path.name}.{os.urandom(6).hex()}.tmp"
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the name everyone knows for an atomic rename
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise


def replaceable(path: Path) -> Path:
    """The path to which a link leads. The administrator's rename would replace anything, /dev/null too.

    Raises
    ------
    OSError
        If something else than a file has it.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "not a file: a device, a pipe or a socket", str(path))
    return target


def read_all(file: BinaryIO, most: int) -> bytes:
    """Read to the end of what may be a pipe or a device that has none.

    Raises
    ------
    OSError
        If that is more than ``most`` bytes.
    """
    content = bytearray()
    while part := file.read(PART):
        content += part
        if len(content) > most:
            raise OSError(errno.EFBIG, f"more than {most >> 20} MB")
    return bytes(content)

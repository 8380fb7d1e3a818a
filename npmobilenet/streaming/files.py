"""Files: what is one, what folders, globs and lists of names lead to."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

LIST_MARK = "@"
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
ZIP_SUFFIX = ".zip"
OTHER_ARCHIVES = (".7z", ".rar", ".tar.bz2", ".tar.lz4", ".tar.xz", ".tar.zst", ".tbz2", ".txz")  # which are not read
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
SEPARATOR = f"/{re.escape(os.sep)}"
ANY_FOLDERS = re.compile(rf"(?:(?<![^{SEPARATOR}])\*\*(?:[{SEPARATOR}]+|$))+")  # ``**``; several are as good as one
NOT_PHOTOGRAPHS = "__MACOSX"  # what macOS puts into archives beside the files; other such folders begin with a dot
CHOICE = re.compile(
    r"\{(?:(\d{1,9})\.\.(\d{1,9})|([^{}]*,[^{}]*))\}"
)  # ``{000..131}``, as shards are told, or ``{a,b}``
LONGEST_NAME = 1 << 16  # bytes, in a list
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # which some programs of Windows begin a text with
PART = 1 << 16


def not_a_path(argument: str) -> str | None:
    """Say why an argument can be no file or folder, if so."""
    if not argument:
        return "an empty argument is no file"
    if URL.match(argument):
        return "a URL is no file: download it first, nothing is fetched from a network here"
    return None


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none that a user put there: macOS's sidecars ``._IMG.jpg``, thumbnails, the trash."""
    return name.startswith(".") or name == NOT_PHOTOGRAPHS


def is_archive(path: str) -> bool:
    """Whether a file with this path would be taken for an archive, read or not: by its suffix."""
    return path.lower().endswith((*TAR_SUFFIXES, ZIP_SUFFIX, *OTHER_ARCHIVES))


def is_special(path: str) -> bool:
    """Whether this is a pipe, a socket or a device. What cannot be told is told when it is opened."""
    try:
        return not S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return False


def is_image_name(path: str) -> bool:
    """Whether a file with this path would be taken for a photograph: by its suffix, unless it is hidden."""
    from npmobilenet.image import IMAGE_SUFFIXES

    *folders, name = path.replace("\\", "/").split("/") if os.sep == "\\" else path.split("/")
    if os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:  # noqa: PTH122 - of a million names
        return False
    return not (is_hidden(name) or any(is_hidden(folder) for folder in folders if folder not in (".", "..")))


def chosen(path: str) -> Iterator[str]:
    """The paths that one with ``{000..131}`` or ``{a,b}`` stands for, as in a shell; without, itself."""
    choice = CHOICE.search(path)
    if not choice:
        yield path
        return
    first, last, listed = choice.groups()
    if listed is None:
        digits = max(len(first), len(last)) if "0" in (first[0], last[0]) else 1
        step = 1 if int(first) <= int(last) else -1
        names: Iterable[str] = (f"{number:0{digits}}" for number in range(int(first), int(last) + step, step))
    else:
        names = listed.split(",")
    for name in names:
        for rest in chosen(path[choice.end() :]):
            yield path[: choice.start()] + name + rest


def matches(pattern: str) -> Iterator[str]:
    """What a pattern matches; ``**``, unlike that of `glob`, follows no links: two that lead back are endless ways."""
    before, *after = ANY_FOLDERS.split(pattern, maxsplit=1)
    if not after:
        yield from glob.iglob(pattern)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return
    for start in glob.iglob(before) if before else [""]:  # noqa: PTH207
        for where, folders, _ in os.walk(start or os.curdir):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = glob.escape(where if start else where[2:])  # without "./"
            yield from matches(os.path.join(inside, after[0] or "*"))  # noqa: PTH118 - a path would lose a last slash


def walk(folder: str) -> Iterator[str | OSError]:
    """The photographs of a folder and its subfolders, and what of it cannot be read, in the order of their paths.

    No more is in memory than what lies in the folders on the way to a file.
    """
    from npmobilenet.image import IMAGE_SUFFIXES

    todo = [(str(Path(folder)), True)]  # the next one last
    while todo:
        path, is_folder = todo.pop()
        if not is_folder:
            yield path
            continue
        found = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    where = entry.name if path == os.curdir else os.path.join(path, entry.name)  # noqa: PTH118 - quick
                    if entry.is_dir(follow_symlinks=False):
                        found.append((where + os.sep, where, True))
                    elif os.path.splitext(entry.name)[1].lower() not in IMAGE_SUFFIXES:  # noqa: PTH122 - quick
                        continue
                    elif entry.is_file(follow_symlinks=False) or not is_special(where):
                        found.append((where, where, False))
        except OSError as error:
            yield error
        todo += [(where, is_folder) for _, where, is_folder in sorted(found, reverse=True)]


def names_in(file: BinaryIO) -> Iterator[str]:
    """The names in a list, one on a line; or each before a zero byte, as ``find -print0`` writes them.

    Raises
    ------
    ValueError
        If one is too long for a name, so that this is no list.
    """
    rest = separator = b""
    while part := file.read(PART):
        if not separator:
            part = part.removeprefix(BYTE_ORDER_MARK)
            separator = b"\0" if b"\0" in part else b"\n"
        *whole, rest = (rest + part).split(separator)
        if len(rest) > LONGEST_NAME:
            raise ValueError("no list of files, one on a line: there is a line of more than 64 KB")
        yield from filter(None, (_name(one, separator) for one in whole))
    if last := _name(rest, separator):
        yield last


def _name(line: bytes, separator: bytes) -> str:
    return os.fsdecode(line if separator == b"\0" else line.rstrip(b"\r"))

"""Sources, one after the other: files, folders, globs, lists of names, archives."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from stat import S_ISDIR

from npmobilenet.streaming import files, zips
from npmobilenet.streaming.entries import Entry, reason
from npmobilenet.streaming.tar import Tar

Source = str | os.PathLike | Entry


class Sources:
    """All images of some sources, in their order; each iteration reads them anew.

    What cannot be read is an entry, too, whose content raises why: nothing is left out silently.

    Parameters
    ----------
    given : a source, or several
        The path of an image, of a folder (its photographs and those of its subfolders, by path), or of an archive:
        ``.tar``, ``.tar.gz`` and ``.tgz``, read once from beginning to end, or ``.zip``; a glob, in which
        ``{000..131}`` and ``{a,b}`` stand for one path after the other, as in a shell; ``@list.txt``, a file
        with a path on each line (or each before a zero byte); or an :class:`Entry`.
    part : (int, int)
        Of so many parts, such as ``(1, 8)``, which one: each process or machine that takes another one gets other
        images, and all of them have each once.

    Attributes
    ----------
    names : list of str
        Of what was given.
    """

    def __init__(self, given: Source | Iterable[Source], part: tuple[int, int] = (1, 1)) -> None:
        self.part = _checked_part(part)
        alone = isinstance(given, (str, os.PathLike, Entry))
        self._given = [one if isinstance(one, Entry) else os.fsdecode(one) for one in ([given] if alone else given)]
        self.names = [one.name if isinstance(one, Entry) else one for one in self._given]
        self._yielded = self._in_tar = self._tar_bytes = 0  # so far

    def __iter__(self) -> Iterator[Entry]:
        which, parts = self.part
        return islice(self._all(), which - 1, None, parts)

    def _all(self) -> Iterator[Entry]:
        self._yielded = self._in_tar = self._tar_bytes = 0
        for found in self._found():
            if isinstance(found, Entry):
                self._yielded += 1
                yield found
                continue
            before = self._tar_bytes
            for entry in found.entries():
                self._yielded, self._in_tar = self._yielded + 1, self._in_tar + 1
                self._tar_bytes = before + found.position
                yield entry
            self._tar_bytes = before + found.file_size()

    def counter(self) -> Callable[[], int | None]:
        """Count the images, and return what tells how many there are.

        Those in tar archives are a guess, which gets better: as many as in the bytes that have been read.
        """
        counted = size = 0
        for found in self._found():
            if isinstance(found, Entry):
                counted += 1
            else:
                size += found.file_size()

        which, parts = self.part

        def total() -> int | None:
            if size and not self._tar_bytes:
                return None
            guess = counted + (self._in_tar * size // self._tar_bytes if size else 0)
            return (max(self._yielded, guess) + parts - which) // parts

        return total

    def _found(self) -> Iterator[Entry | Tar]:
        for one in self._given:
            if isinstance(one, Entry):
                yield one
            elif one.startswith(files.LIST_MARK):
                yield from _of_list(one[len(files.LIST_MARK) :])
            else:
                yield from _of_pattern(one)


def _checked_part(part: tuple[int, int]) -> tuple[int, int]:
    try:
        which, parts = part
        if type(which) is int and type(parts) is int and 1 <= which <= parts:
            return which, parts
    except (TypeError, ValueError):
        pass
    raise ValueError(f"part must be (which, of how many), such as (1, 8), got {part!r:.40}")


def _of_list(path: str) -> Iterator[Entry | Tar]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            empty = True
            for name in files.names_in(file):
                empty = False
                yield from _of_path(name)
        if empty:
            yield Entry.failed(path, "no names in this list")
    except (OSError, ValueError) as error:
        yield Entry.failed(path, f"as a list of files: {reason(error)}")


def _of_pattern(given: str) -> Iterator[Entry | Tar]:
    for path in [given] if os.path.lexists(given) else files.chosen(given):
        yield from _of_path(path, glob.has_magic(path))


def _of_path(path: str, may_be_glob: bool = False) -> Iterator[Entry | Tar]:
    if problem := files.not_a_path(path):
        yield Entry.failed(path, problem)
        return
    try:
        is_folder = S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 - a path without its slashes were another name
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        if may_be_glob and isinstance(error, FileNotFoundError):
            yield from _of_glob(path)
        else:
            yield Entry.failed(path, f"cannot be opened: {reason(error)}")
        return
    if is_folder:
        yield from _of_folder(path)
    elif path.lower().endswith(files.TAR_SUFFIXES):
        yield Tar(path)
    elif path.lower().endswith(files.ZIP_SUFFIX):
        yield from _of_zip(path)
    elif path.lower().endswith(files.OTHER_ARCHIVES):
        yield Entry.failed(
            path, f"archives are read as {', '.join((*files.TAR_SUFFIXES, files.ZIP_SUFFIX))}: pack it as one"
        )
    else:
        yield Entry(path, partial(str, path))


def _of_glob(pattern: str) -> Iterator[Entry | Tar]:
    found = [path for path in sorted(set(files.matches(pattern))) if Path(path).is_file()]
    if not found:
        yield Entry.failed(pattern, "no file matches")
    for path in found:
        yield from _of_path(path)


def _of_folder(folder: str) -> Iterator[Entry]:
    empty = True
    for path in files.walk(folder):
        empty = False
        if isinstance(path, OSError):
            yield Entry.failed(os.fsdecode(path.filename), f"cannot be opened: {reason(path)}")
        else:
            yield Entry(path, partial(str, path))
    if empty:
        yield Entry.failed(folder, "no image files in this folder")


def _of_zip(path: str) -> Iterator[Entry]:
    try:
        archive = zips.open_zip(path)
    except (OSError, ValueError) as error:
        yield Entry.failed(path, f"as a zip archive: {reason(error)}")
        return
    empty = True
    for entry in zips.entries(path, archive):
        empty = False
        yield entry
    if empty:
        yield Entry.failed(path, "no image files in this archive")

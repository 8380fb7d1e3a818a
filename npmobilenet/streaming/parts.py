"""The folder in which a table grows: so that a process may end at any moment, and the next one goes on.

A part holds what a run of consecutive images gave, failures too, and how many images there are up to its end. It is
written under another name, synced and renamed: it is there as a whole or not at all. So what the parts hold is always a
beginning of the source, each image once; whoever goes on drops as many images as the last part counts, and makes sure
that they are called as they were then.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from npmobilenet.files import replacing
from npmobilenet.text import listed, printable, quote

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FORMAT = "npmobilenet parts 1"
FINGERPRINT = "fingerprint.json"
LOCK = "lock"
SUFFIX = ".part"


class Progress(NamedTuple):
    """How far the parts go.

    Attributes
    ----------
    images, failed : int
    names : str
        A hash of the images' names, in their order.
    shape : tuple of int
        Of a result that is an array.
    """

    images: int = 0
    failed: int = 0
    names: str = ""
    shape: tuple[int, ...] = ()

    def with_one(self, name: str, failed: bool = False, shape: tuple[int, ...] = ()) -> Progress:
        """This, with one image more."""
        names = hashlib.sha256(f"{self.names}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()
        return Progress(self.images + 1, self.failed + failed, names, self.shape or shape)


class Parts:
    """The parts of one table, kept in a folder that nobody else writes to.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    fingerprint : dict of str to str
        What the rows depend on: parts that were made of something else are refused.

    Attributes
    ----------
    count : int
    progress : Progress

    Raises
    ------
    ValueError
        If the folder holds something else, or another process is at it.
    OSError
        If it cannot be made or written.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, str]) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._lock = _locked(folder)
        self._end = 0, Progress()  # of the parts; one assignment, so that an interrupt comes before or after it
        try:
            self._begin({"format": FORMAT, **fingerprint})
        except BaseException:
            self.close()
            raise

    def _begin(self, fingerprint: dict[str, str]) -> None:
        mark = self.folder / FINGERPRINT
        if mark.exists():
            try:
                theirs = json.loads(mark.read_bytes())
            except ValueError:
                theirs = {}  # differs in everything
            self._compare(fingerprint, theirs)
        else:
            self._sweep(strict=True)  # of a run that came to its end, and was killed while it cleaned up
            with replacing(mark) as file:
                file.write(json.dumps(fingerprint, indent=1).encode())
        for file in self.folder.glob(".*.tmp"):  # which a killed process was writing
            file.unlink()
        count = 0
        while self._path(count).exists():
            count += 1
        if count:
            about = json.loads(self._members(count - 1)["about"])
            self._end = count, Progress(**{**about, "shape": tuple(about["shape"])})

    @property
    def count(self) -> int:
        return self._end[0]

    @property
    def progress(self) -> Progress:
        return self._end[1]

    def _compare(self, mine: dict[str, str], theirs: Any) -> None:
        theirs = theirs if isinstance(theirs, dict) else {}
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        if names:
            other = ", ".join(listed([_difference(name, theirs.get(name), mine.get(name)) for name in names], 5))
            raise ValueError(
                f"{printable(self.folder)}: holds part of what another command began ({other}): start that one again "
                "to go on, or delete the folder to begin anew"
            )

    def append(self, rows: dict[str, bytes], errors: str, progress: Progress) -> None:
        """Write the next part: the images after `self.progress`, up to this one."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("about", json.dumps(progress._asdict()))
            archive.writestr("errors", errors)
            for name, data in rows.items():
                archive.writestr(name, data)
        with replacing(self._path(self.count)) as file:
            file.write(content.getbuffer())
        self._end = self.count + 1, progress

    def __iter__(self) -> Iterator[dict[str, bytes]]:
        """The parts, in their order: what they hold, by name; ``errors`` among it."""
        return map(self._members, range(self.count))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06}{SUFFIX}"

    def _members(self, index: int) -> dict[str, bytes]:
        path = self._path(index)
        try:
            with zipfile.ZipFile(path) as archive:
                return {name: archive.read(name) for name in archive.namelist()}
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise ValueError(
                f"{printable(path)}: is damaged ({error}): delete it and the parts after it to compute them again"
            ) from None

    def remove(self) -> None:
        """Delete the folder: first what makes it one to go on from."""
        (self.folder / FINGERPRINT).unlink()
        self._sweep()
        self.close()
        (self.folder / LOCK).unlink(missing_ok=True)
        self.folder.rmdir()

    def _sweep(self, strict: bool = False) -> None:
        for file in self.folder.iterdir():
            if file.suffix == SUFFIX or (file.name.startswith(".") and file.suffix == ".tmp"):
                file.unlink()
            elif strict and file.name != LOCK:
                raise ValueError(f"{printable(self.folder)}: is in the way: a folder of something else; move it")

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(folder: Path) -> int | None:
    """A lock on the folder, which ends with the process, whatever becomes of this."""
    if fcntl is None:
        return None
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ValueError(f"{printable(folder)}: another process is at it: wait for its end, or end it") from None
    except OSError:  # a file system without locks
        pass
    return lock


def _difference(name: str, before: str | None, now: str | None) -> str:
    if name in ("model", "format") or before is None or now is None:
        return f"another {name}"
    return f"{name} {quote(before, 40)}, now {quote(now, 40)}"

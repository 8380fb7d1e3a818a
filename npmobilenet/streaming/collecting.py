"""A stream into a table that can be resumed: :class:`Collection`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from npmobilenet.errors import NpmobilenetError
from npmobilenet.files import replaceable, replacing
from npmobilenet.pipelines import Pipeline
from npmobilenet.streaming.batches import outcomes
from npmobilenet.streaming.entries import Entry, reason
from npmobilenet.streaming.parts import Parts, Progress
from npmobilenet.streaming.sources import Source, Sources
from npmobilenet.streaming.tables import csv_line, plain_text, table_for
from npmobilenet.text import plural, printable

PART_SECONDS = 5.0  # what a kill costs at most
PART_BYTES = 1 << 25
ERRORS_SUFFIX, PARTS_SUFFIX = ".errors.csv", ".parts"
ERRORS_COLUMNS = ("image", "error")


class Collection:
    """What a task computes of all images of some sources, collected in a file.

    Iterating does the work: it yields the name of each image with None, or with what is wrong with it. Every few
    seconds what has been computed is kept in a folder beside the file, ``FILE.parts``; when all is done, the file takes
    its place, and that folder goes. A process that is killed at any moment, or finds the disk full, is gone on from by
    one with the same sources, model and options: every image is in the file once, in the order of the sources. Images
    that cannot be read are in ``FILE.errors.csv``. To be used as a context, which keeps what is computed when it ends
    early.

    Parameters
    ----------
    given, part
        As for :class:`~npmobilenet.streaming.sources.Sources`.
    task : Pipeline
        One with columns.
    out : path
        ``.parquet``, ``.csv``, ``.jsonl``; of features also ``.npz`` and ``.npy``.
    workers : int, optional
        As for :func:`~npmobilenet.streaming.batches.stream`.

    Attributes
    ----------
    out, errors : Path
    progress : Progress
        How many images are done, and how many of them failed; at first those of an earlier run.
    written : bool
        Whether the file is there: not if there is nothing but failures.

    Raises
    ------
    ValueError
        If the file cannot be written, or its parts are of another command; while iterating, if the sources have changed
        since these were made.
    MissingDependencyError
        If the file needs pyarrow and it is not installed.
    """

    def __init__(
        self,
        given: Source | Iterable[Source],
        task: Pipeline,
        out: str | os.PathLike,
        workers: int | None = None,
        part: tuple[int, int] = (1, 1),
    ) -> None:
        self.sources, self.task, self.workers = Sources(given, part), task, workers
        self._table = table_for(Path(out), task)
        self.out = Path(out)
        with self._writing():
            real = replaceable(self.out)
        if self.out.is_symlink():
            self.out = real  # where it is renamed to: within one file system
        self.errors = self.out.with_name(self.out.name + ERRORS_SUFFIX)
        self.written = False
        self._pending: list[tuple[int, str, Any]] = []  # of the images after the parts, with how many came before
        self._bytes, self._since = 0, time.monotonic()
        fingerprint = {**task.fingerprint(), "sources": json.dumps(self.sources.names), "part": str(part)}
        with self._writing():
            self._parts = Parts(self.out.with_name(self.out.name + PARTS_SUFFIX), fingerprint)

    @property
    def progress(self) -> Progress:
        return self._parts.progress

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *of_error: object) -> None:
        try:
            if self._parts.folder.exists():
                with suppress(OSError, ValueError):
                    self._keep()
                with suppress(OSError, ValueError):
                    if not self._parts.count:
                        self._parts.remove()
        finally:
            self._parts.close()

    def __iter__(self) -> Iterator[tuple[str, str | None]]:
        entries = iter(self.sources)
        self._pass_over(entries)
        outcome = enumerate(outcomes(entries, self.task, self.workers), self.progress.images)
        for index, (name, result) in outcome:
            error = None
            if isinstance(result, Exception):
                result = error = describe(name, result)
            else:
                self._table.check(result)
                self._bytes += getattr(result, "nbytes", 0)
            self._pending.append((index, name, result))
            yield name, error
            if self._bytes > PART_BYTES or time.monotonic() - self._since > PART_SECONDS:
                self._keep()
        self._keep()
        self._join()

    def _pass_over(self, entries: Iterator[Entry]) -> None:
        """Go to where the parts end, and see that all are called as they were."""
        before = Progress()
        for entry in islice(entries, self.progress.images):
            before = before.with_one(entry.name)
        if (before.images, before.names) != (self.progress.images, self.progress.names):
            done = plural(self.progress.images, "image")
            raise ValueError(
                f"{printable(self._parts.folder)}: the sources have changed since it was begun: of its {done} some are "
                "gone, or stand elsewhere: delete the folder to begin anew"
            )

    def _keep(self) -> None:
        """Write a part of what has been computed since the last one."""
        progress = self.progress
        pending = [(name, result) for index, name, result in self._pending if index >= progress.images]
        if not pending:  # an interrupt may have come before they were cleared
            return
        for name, result in pending:
            progress = progress.with_one(name, isinstance(result, str), getattr(result, "shape", ()))
        good = [(name, result) for name, result in pending if not isinstance(result, str)]
        errors = "".join(csv_line([plain_text(name), plain_text(why)]) for name, why in pending if isinstance(why, str))
        with self._writing():
            self._parts.append(self._table.encode(good), errors, progress)
        self._pending, self._bytes, self._since = [], 0, time.monotonic()

    def _join(self) -> None:
        """Make the file of the parts, and delete these."""
        progress = self.progress
        with self._writing():
            if progress.failed:
                with self._replacing(self.errors) as file:
                    file.write(csv_line(ERRORS_COLUMNS).encode())
                    for part in self._parts:
                        file.write(part["errors"])
            else:
                self.errors.unlink(missing_ok=True)  # of an earlier file
            if progress.images > progress.failed:
                self._table.join(lambda: self._parts, progress.shape, self.out, self._replacing)
                self.written = True
            self._parts.remove()

    def _replacing(self, path: Path) -> AbstractContextManager[BinaryIO]:
        return replacing(path, self._parts.folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, NpmobilenetError):
                raise
            kept = self._parts.progress.images if hasattr(self, "_parts") else 0
            more = f"; {plural(kept, 'image')} are kept: the same command goes on from there" if kept else ""
            raise ValueError(f"{printable(self.out)}: cannot be written: {reason(error)}{more}") from None


def describe(name: str, error: Exception) -> str:
    """What is wrong with an image, without its name."""
    text = reason(error)
    for shown in (name, printable(name), repr(name), " ".join(name.split())):
        text = text.removeprefix(f"{shown}: ")
    if isinstance(error, MemoryError):
        return f"out of memory{text and ': '}{text}"
    if isinstance(error, (NpmobilenetError, ValueError, OSError)):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__}{text and ': '}{text}"

"""Files of features, written row by row: no memory grows with their number, no file appears before it is whole."""

from __future__ import annotations

import csv
import io
import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from npmobilenet.cli.terminal import on_a_line, reason
from npmobilenet.errors import NpmobilenetError
from npmobilenet.files import replacing
from npmobilenet.text import dimensions, printable

HEADER_BYTES = 128  # of an array file: enough for any shape
NAMES_AT_ONCE = 1024


class Rows(Protocol):
    """Takes features one by one."""

    def append(self, name: str, features: np.ndarray) -> None:
        """Add the features, float32, of the image of this name; all have the same shape."""


@contextmanager
def feature_file(path: Path) -> Iterator[Rows]:
    """Give what writes features to a file of the kind that its suffix says; it appears when the block ends.

    ``.npz``: the arrays ``names`` and ``features``. ``.npy``: the features; their names, one on a line, beside it in
    ``.names.txt``. ``.csv``: a line for each image, its name first; of features without height and width.

    Raises
    ------
    ValueError
        If the suffix is another one, or the file cannot be written.
    """
    kinds = {".npz": _npz, ".npy": _npy, ".csv": _csv}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"{printable(path)}: features are written as {', '.join(kinds)}")
    if path.is_dir():
        raise ValueError(f"{printable(path)}: is a folder; name a file in it")
    try:
        with kinds[path.suffix.lower()](path) as rows:
            yield rows
    except OSError as error:
        if isinstance(error, NpmobilenetError):
            raise
        raise ValueError(f"{printable(path)}: cannot be written: {reason(error)}") from None


class _ArrayFile:
    """An array file that grows; its header, which tells how many rows there are, is written at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._count, self._shape = 0, ()
        file.write(bytes(HEADER_BYTES))

    def append(self, row: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(row, "<f4").data)
        self._count, self._shape = self._count + 1, row.shape

    def finish(self) -> None:
        self._file.seek(0)
        self._file.write(_header("<f4", (self._count, *self._shape)))
        self._file.flush()


def _header(kind: str, shape: tuple[int, ...]) -> bytes:
    """The beginning of a ``.npy`` file, version 1.0, which has always the same length."""
    text = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    text = text.ljust(HEADER_BYTES - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


class _Npy:
    def __init__(self, array: BinaryIO, names: BinaryIO) -> None:
        self._array, self._names = _ArrayFile(array), names

    def append(self, name: str, features: np.ndarray) -> None:
        self._array.append(features)
        self._names.write(on_a_line(name).encode() + b"\n")

    def finish(self) -> None:
        self._array.finish()


@contextmanager
def _npy(path: Path) -> Iterator[_Npy]:
    with replacing(path.with_suffix(".names.txt")) as names, replacing(path) as array:
        rows = _Npy(array, names)
        yield rows
        rows.finish()


class _Npz:
    """An archive takes one array after the other, and that of names needs the longest first: both wait outside."""

    def __init__(self, array: BinaryIO, names: BinaryIO) -> None:
        self._file, self._array, self._names = array, _ArrayFile(array), names
        self._count, self._longest = 0, 1

    def append(self, name: str, features: np.ndarray) -> None:
        self._array.append(features)
        self._names.write(json.dumps(name).encode() + b"\n")
        self._count, self._longest = self._count + 1, max(self._longest, len(name))

    def finish(self, file: BinaryIO) -> None:
        self._array.finish()
        kind = f"<U{self._longest}"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            with archive.open("names.npy", "w", force_zip64=True) as member:
                member.write(_header(kind, (self._count,)))
                self._names.seek(0)
                while lines := list(islice(self._names, NAMES_AT_ONCE)):
                    member.write(np.array([json.loads(line) for line in lines], kind).tobytes())
            with archive.open("features.npy", "w", force_zip64=True) as member:
                self._file.seek(0)
                shutil.copyfileobj(self._file, member, 1 << 20)


@contextmanager
def _npz(path: Path) -> Iterator[_Npz]:
    with (
        replacing(path) as file,
        tempfile.TemporaryFile(dir=path.parent) as array,
        tempfile.TemporaryFile(dir=path.parent) as names,
    ):
        rows = _Npz(array, names)
        yield rows
        rows.finish(file)


class _Csv:
    def __init__(self, file: io.TextIOBase) -> None:
        self._writer = csv.writer(file)
        self._has_header = False

    def append(self, name: str, features: np.ndarray) -> None:
        if features.ndim != 1:
            raise ValueError(f"features of {dimensions(features.shape)} are no line of a table: write .npz or .npy")
        if not self._has_header:
            self._writer.writerow(["name", *(f"feature{index}" for index in range(len(features)))])
            self._has_header = True
        self._writer.writerow([on_a_line(name), *map(str, features)])  # of a float32 the fewest digits that tell it


@contextmanager
def _csv(path: Path) -> Iterator[_Csv]:
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield _Csv(text)
        text.detach()

"""What rows are written as. Each kind of file encodes rows for a part, and joins the parts to the file.

Encoded rows stand in bytes by name (:meth:`Table.encode`), which `parts` keeps. They are joined part by part: in memory
is one at a time.
"""

from __future__ import annotations

import csv
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from npmobilenet.errors import MissingDependencyError
from npmobilenet.pipelines import Pipeline
from npmobilenet.text import dimensions, printable

if TYPE_CHECKING:
    from types import ModuleType

HEADER_BYTES = 128  # of an array file: enough for any shape
ROW_GROUP_BYTES = 1 << 26  # of a Parquet file, before it is compressed
LONGEST_NAME = 10 * 4096  # each character escaped
IMAGE = "image"

Results = Sequence[tuple[str, Any]]  # of images by name, in their order
Parts = Callable[[], Iterable[dict[str, bytes]]]  # what `encode` gave, once more from the beginning at each call
Writing = Callable[[Path], AbstractContextManager[BinaryIO]]  # a file that appears, whole, when the block ends


class Table:
    """How the rows of a task stand in a file of one kind.

    Attributes
    ----------
    suffix : str
    """

    suffix = ""
    takes_maps = False  # arrays of more than one axis

    def __init__(self, task: Pipeline) -> None:
        self.task = task

    def check(self, result: Any) -> None:
        """Raise a ValueError if a result cannot stand in such a file."""
        if isinstance(result, np.ndarray) and result.ndim != 1 and not self.takes_maps:
            raise ValueError(f"features of {dimensions(result.shape)} are no line of a table: write .npz or .npy")

    def encode(self, results: Results) -> dict[str, bytes]:
        """The rows of some images."""
        raise NotImplementedError

    def join(self, parts: Parts, shape: tuple[int, ...], out: Path, writing: Writing) -> None:
        """Write the file; ``shape`` is that of a result that is an array."""
        raise NotImplementedError


class Lines(Table):
    """Text, a line for each row."""

    def line(self, image: str, row: tuple) -> str:
        raise NotImplementedError

    def header(self, shape: tuple[int, ...]) -> str:
        return ""

    def encode(self, results: Results) -> dict[str, bytes]:
        lines = (self.line(image, row) for image, result in results for row in self.task.rows(result))
        return {"rows": "".join(lines).encode()}

    def join(self, parts: Parts, shape: tuple[int, ...], out: Path, writing: Writing) -> None:
        with writing(out) as file:
            file.write(self.header(shape).encode())
            for part in parts():
                file.write(part["rows"])


class Csv(Lines):
    """Comma-separated values (RFC 4180), in UTF-8; of a vector a column for each value."""

    suffix = ".csv"

    def header(self, shape: tuple[int, ...]) -> str:
        names = [IMAGE]
        for name, kind in self.task.columns.items():
            values = shape[0] if kind is list and shape else 0
            names += [f"{name.removesuffix('s')}{index}" for index in range(values)] if kind is list else [name]
        return csv_line(names)

    def line(self, image: str, row: tuple) -> str:
        cells: list[Any] = [plain_text(image)]
        for cell in row:
            if isinstance(cell, np.ndarray):
                cells += map(_SHORTEST, cell.tolist())
            else:
                cells.append(plain_text(cell) if isinstance(cell, str) else cell)
        return csv_line(cells)


class JsonLines(Lines):
    """An object for each row, in ASCII."""

    suffix = ".jsonl"

    def line(self, image: str, row: tuple) -> str:
        cells = (
            [float(_SHORTEST(value)) for value in cell.tolist()] if isinstance(cell, np.ndarray) else cell
            for cell in row
        )
        return json.dumps({IMAGE: image, **dict(zip(self.task.columns, cells, strict=True))}, allow_nan=False) + "\n"


class Parquet(Table):
    """Apache Parquet, by pyarrow; a vector is a list of fixed length. Parts are Arrow's own format."""

    suffix = ".parquet"

    def __init__(self, task: Pipeline) -> None:
        super().__init__(task)
        self.arrow = _pyarrow()

    def encode(self, results: Results) -> dict[str, bytes]:
        rows = [(image, row) for image, result in results for row in self.task.rows(result)]
        if not rows:
            return {"rows": b""}
        images, rows = zip(*rows, strict=True)
        schema = self.schema(next((cell.shape for cell in rows[0] if isinstance(cell, np.ndarray)), ()))
        columns = [self.arrow.array(map(plain_text, images), self.arrow.string())]
        for field, cells in zip(list(schema)[1:], zip(*rows, strict=True), strict=True):
            if isinstance(cells[0], np.ndarray):
                values = self.arrow.array(np.concatenate(cells))
                columns.append(self.arrow.FixedSizeListArray.from_arrays(values, type=field.type))
            else:
                texts = [plain_text(cell) for cell in cells] if isinstance(cells[0], str) else cells
                columns.append(self.arrow.array(texts, field.type))
        sink = self.arrow.BufferOutputStream()
        with self.arrow.ipc.new_stream(sink, schema) as stream:
            stream.write_batch(self.arrow.record_batch(columns, schema=schema))
        return {"rows": sink.getvalue().to_pybytes()}

    def schema(self, shape: tuple[int, ...]) -> Any:
        arrow = self.arrow
        kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
        fields = [arrow.field(IMAGE, arrow.string(), nullable=False)]
        for name, kind in self.task.columns.items():
            if kind is list:
                value = arrow.field("item", arrow.float32(), nullable=False)
                fields.append(arrow.field(name, arrow.list_(value, shape[0]), nullable=False))
            else:
                fields.append(arrow.field(name, kinds[kind], nullable=False))
        return arrow.schema(fields)

    def join(self, parts: Parts, shape: tuple[int, ...], out: Path, writing: Writing) -> None:
        import pyarrow.parquet

        schema = self.schema(shape)
        group: list[Any] = []
        with writing(out) as file, pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for part in parts():
                if part["rows"]:
                    group.append(self.arrow.ipc.open_stream(part["rows"]).read_all())
                if sum(table.nbytes for table in group) > ROW_GROUP_BYTES:
                    writer.write_table(self.arrow.concat_tables(group))
                    group = []
            if group:
                writer.write_table(self.arrow.concat_tables(group))


class Npy(Table):
    """NumPy's file of one array, its images in their order in a text file beside it, one on a line."""

    suffix = ".npy"

    takes_maps = True

    def encode(self, results: Results) -> dict[str, bytes]:
        lines = "".join(json.dumps(image) + "\n" for image, _ in results)
        arrays = (np.ascontiguousarray(array, "<f4").tobytes() for _, array in results)
        return {"names": lines.encode(), "rows": b"".join(arrays)}

    def join(self, parts: Parts, shape: tuple[int, ...], out: Path, writing: Writing) -> None:
        with writing(out.with_suffix(".names.txt")) as file:
            for name in _names(parts):
                file.write(printable(name, LONGEST_NAME).encode() + b"\n")
        with writing(out) as file:
            self.write_array(parts, shape, sum(1 for _ in _names(parts)), file)

    @staticmethod
    def write_array(parts: Parts, shape: tuple[int, ...], count: int, file: BinaryIO) -> None:
        file.write(_header("<f4", (count, *shape)))
        for part in parts():
            file.write(part["rows"])


class Npz(Npy):
    """NumPy's archive of the arrays ``names`` and ``features``."""

    suffix = ".npz"

    def join(self, parts: Parts, shape: tuple[int, ...], out: Path, writing: Writing) -> None:
        count, longest = 0, 1  # an array of names has room for the longest in each
        for name in _names(parts):
            count, longest = count + 1, max(longest, len(name))
        kind = f"<U{longest}"
        with writing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            with archive.open("names.npy", "w", force_zip64=True) as member:
                member.write(_header(kind, (count,)))
                for part in parts():
                    member.write(np.array([json.loads(line) for line in part["names"].splitlines()], kind).tobytes())
            with archive.open("features.npy", "w", force_zip64=True) as member:
                self.write_array(parts, shape, count, member)


KINDS: tuple[type[Table], ...] = (Npz, Npy, Csv, Parquet, JsonLines)


def table_for(out: Path, task: Pipeline) -> Table:
    """Return what writes the rows of this task to a file with this suffix.

    Raises
    ------
    ValueError
        If there is none, or that is a folder.
    MissingDependencyError
        If it needs a package.
    """
    vectors = [*task.columns.values()] == [list]
    kinds = {kind.suffix: kind for kind in KINDS if vectors or not issubclass(kind, Npy)}
    if out.suffix.lower() not in kinds:
        raise ValueError(f"{printable(out)}: {task.results} are written as {', '.join(kinds)}")
    if out.is_dir():
        raise ValueError(f"{printable(out)}: is a folder; name a file in it")
    return kinds[out.suffix.lower()](task)


def csv_line(cells: Sequence[Any]) -> str:
    """A line of a table; numbers with the fewest digits that tell them."""
    line = io.StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue()


def plain_text(text: str) -> str:
    """Text that UTF-8 can encode: bytes of a file's name that are none stand as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


_SHORTEST = "%.9g".__mod__  # of a float32 as many digits as tell it


def _names(parts: Parts) -> Iterator[str]:
    for part in parts():
        yield from map(json.loads, part["names"].splitlines())


def _header(kind: str, shape: tuple[int, ...]) -> bytes:
    """The beginning of a ``.npy`` file, version 1.0, which has always the same length."""
    text = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    text = text.ljust(HEADER_BYTES - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise MissingDependencyError(
            'writing .parquet needs pyarrow: pip install "npmobilenet[parquet]" (.csv and .jsonl need nothing)'
        ) from None
    return pyarrow

"""NumPy's ``.npz``: a zip archive with one ``.npy`` member for each array.

    6 bytes    b"\\x93NUMPY"
    2 bytes    version: 1.0, 2.0 or 3.0
    2 bytes    N, the length of the header, little-endian; 4 bytes from version 2.0 on
    N bytes    {'descr': '<f4', 'fortran_order': False, 'shape': (32, 3, 3, 3), }
    the rest   the elements

The header is a Python expression, which ``numpy.load`` evaluates (as literals) before it allocates whatever
shape stands there. Here a regular expression takes it apart, and the shape must match the bytes. The elements of an
array of objects are a pickle, which `unpickler` reads; arrays of text are passed over.

Source: ``numpy/lib/format.py``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from npmobilenet.checkpoints.numpy_array import holds_numbers, place_array
from npmobilenet.checkpoints.stored_tensor import StoredTensor
from npmobilenet.checkpoints.zip_archive import ZipArchive
from npmobilenet.errors import CheckpointError
from npmobilenet.text import printable, quote

METADATA_KEY = "__metadata__"

_HEADER = re.compile(
    r"\{'descr': '([^']{1,20})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,19}L?, ?)*(?:\d{1,19}L?)?)\),? ?\}\s*"
)


def read_npz(archive: ZipArchive, unpickle: Callable[[memoryview], object]) -> tuple[dict[str, object], str]:
    """Return the arrays of an ``.npz`` file, and the text stored under ``__metadata__`` (or "").

    ``unpickle`` returns the object in a pickle, which is what an array of objects is.
    """
    members = _members(archive)
    metadata = members.pop(METADATA_KEY, None)
    text = "" if metadata is None else _read_text(archive.read(metadata))
    arrays = {name: read_npy(name, archive.read(member), unpickle) for name, member in members.items()}
    return {name: array for name, array in arrays.items() if array is not None}, text


def read_numbers(archive: ZipArchive) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return the arrays of numbers in an ``.npz`` file, and the names of all else with what it is instead."""
    numbers: dict[str, StoredTensor] = {}
    others = {name: "no array (.npy)" for name in archive.names() if not name.endswith(".npy")}
    for name, member in _members(archive).items():
        descr, fortran_order, shape, data = _split(name, archive.read(member))
        if holds_numbers(descr):
            numbers[name] = place_array(_called(name), descr, fortran_order, shape, data)
        else:
            others[name] = f"an array of {printable(descr)}, not of numbers"
    return numbers, others


def _members(archive: ZipArchive) -> dict[str, str]:
    """The arrays' names, and those of their members."""
    return {name.removesuffix(".npy"): name for name in archive.names() if name.endswith(".npy")}


def read_npy(name: str, content: memoryview, unpickle: Callable[[memoryview], object]) -> object:
    """Return the array in the content of a ``.npy`` file, what ``unpickle`` makes of its objects, or None of text."""
    descr, fortran_order, shape, data = _split(name, content)
    if descr.endswith("O"):
        return unpickle(data)
    return place_array(_called(name), descr, fortran_order, shape, data) if holds_numbers(descr) else None


def _split(name: str, content: memoryview) -> tuple[str, bool, tuple[int, ...], memoryview]:
    """Take a ``.npy`` member apart: (element type, Fortran order, shape, bytes of the elements)."""
    size_format = "<H" if content[6:7] == b"\x01" else "<I"
    start = 8 + struct.calcsize(size_format)
    if content[:6] != b"\x93NUMPY" or content[6:7] not in (b"\x01", b"\x02", b"\x03") or len(content) < start:
        raise CheckpointError(f"{_called(name)} is not in the .npy format; the file is damaged")
    end = start + struct.unpack_from(size_format, content, 8)[0]
    header = str(content[start : min(end, start + 10_000)], "latin-1")
    match = _HEADER.fullmatch(header)
    if match is None:
        raise CheckpointError(
            f"{_called(name)} has a header that is no plain array's, {quote(header.strip())}; "
            "structured arrays are not supported"
        )
    descr, order, sizes = match.groups()
    return descr, order == "True", tuple(int(size) for size in re.findall(r"\d+", sizes)), content[end:]


def _read_text(content: memoryview) -> str:
    descr, _, shape, data = _split(METADATA_KEY, content)
    if shape != () or re.fullmatch(r"[<>]U\d{1,9}", descr) is None or int(descr[2:]) * 4 != len(data):
        raise CheckpointError(f"its {METADATA_KEY} is not one text; the file is damaged")
    try:
        return str(data, "utf-32-le" if descr[0] == "<" else "utf-32-be")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"its {METADATA_KEY} is not valid text; the file is damaged") from error


def _called(name: str) -> str:
    return f"array {quote(name)}" if name else "its array"

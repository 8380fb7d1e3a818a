"""NumPy's ``.npz``: a zip archive with one ``.npy`` member for each array.

    6 bytes    b"\\x93NUMPY"
    2 bytes    version: 1.0, 2.0 or 3.0
    2 bytes    N, the length of the header, little-endian; 4 bytes from version 2.0 on
    N bytes    {'descr': '<f4', 'fortran_order': False, 'shape': (32, 3, 3, 3), }
    the rest   the elements

The header is a Python expression, which ``numpy.load`` evaluates (as literals) before it allocates whatever
shape stands there. Here a regular expression takes it apart, and the shape must match the bytes. Object
arrays are pickles and are never read.

Source: ``numpy/lib/format.py``.
"""

from __future__ import annotations

import re
import struct
from math import prod

from npmobilenet.checkpoints.stored_tensor import Storage, StoredTensor, Tensor
from npmobilenet.checkpoints.zip_archive import ZipArchive
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

METADATA_KEY = "__metadata__"

_HEADER = re.compile(
    r"\{'descr': '([^']{1,20})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,19}L?, ?)*(?:\d{1,19}L?)?)\),? ?\}\s*"
)
_ELEMENT = re.compile(r"([<>|=])?([biuf])([1248])")


def read_npz(archive: ZipArchive) -> tuple[dict[str, Tensor], str]:
    """Return the arrays of an ``.npz`` file, and the text stored under ``__metadata__`` (or "")."""
    members = {name.removesuffix(".npy"): name for name in archive.names() if name.endswith(".npy")}
    metadata = members.pop(METADATA_KEY, None)
    text = "" if metadata is None else _read_text(archive.read(metadata))
    return {name: _read_array(name, archive.read(member)) for name, member in members.items()}, text


def _split(name: str, content: memoryview) -> tuple[str, bool, tuple[int, ...], memoryview]:
    """Take a ``.npy`` member apart: (element type, Fortran order, shape, bytes of the elements)."""
    size_format = "<H" if content[6:7] == b"\x01" else "<I"
    start = 8 + struct.calcsize(size_format)
    if content[:6] != b"\x93NUMPY" or content[6:7] not in (b"\x01", b"\x02", b"\x03") or len(content) < start:
        raise CheckpointError(f"array {quote(name)} is not in the .npy format; the file is damaged")
    end = start + struct.unpack_from(size_format, content, 8)[0]
    header = str(content[start : min(end, start + 10_000)], "latin-1")
    match = _HEADER.fullmatch(header)
    if match is None:
        raise CheckpointError(
            f"array {quote(name)} has a header that is no plain array's, {quote(header.strip())}; "
            "structured arrays are not supported"
        )
    descr, order, sizes = match.groups()
    return descr, order == "True", tuple(int(size) for size in re.findall(r"\d+", sizes)), content[end:]


def _read_array(name: str, content: memoryview) -> StoredTensor:
    descr, fortran_order, shape, data = _split(name, content)
    if descr.endswith("O"):
        raise CheckpointError(
            f"array {quote(name)} holds Python objects, which are pickled: refused as unsafe; save arrays of numbers"
        )
    element = _ELEMENT.fullmatch(descr)
    order, code = (element[1], element[2] + element[3]) if element else ("<", "")
    supported = code in ("f2", "f4", "f8", "b1") or code[:1] in ("i", "u")
    # More than 32 dimensions are refused later; here they would only make a huge number.
    if supported and len(shape) <= 32 and prod(shape) * int(code[1]) != len(data):
        raise CheckpointError(
            f"array {quote(name)} of {descr} and shape {shape} should have {prod(shape) * int(code[1])} "
            f"bytes but has {len(data)}; the file is damaged"
        )
    strides = tuple(prod(shape[:axis]) for axis in range(len(shape))) if fortran_order else None
    byte_order = ">" if order == ">" else "<"
    storage = Storage(len(data), data)
    return StoredTensor(storage, descr, code if supported else None, shape, strides, byte_order=byte_order)


def _read_text(content: memoryview) -> str:
    descr, _, shape, data = _split(METADATA_KEY, content)
    if shape != () or re.fullmatch(r"[<>]U\d{1,9}", descr) is None or int(descr[2:]) * 4 != len(data):
        raise CheckpointError(f"its {METADATA_KEY} is not one text; the file is damaged")
    try:
        return str(data, "utf-32-le" if descr[0] == "<" else "utf-32-be")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"its {METADATA_KEY} is not valid text; the file is damaged") from error

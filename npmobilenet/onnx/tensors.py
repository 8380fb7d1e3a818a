"""Tensors in ONNX files: in the file's bytes, in fields by type, or in a file beside it.

    TensorProto    1 dims, 2 data_type, 4 float_data, 5 int32_data, 6 string_data, 7 int64_data, 8 name, 9 raw_data,
                   10 double_data, 11 uint64_data, 13 external_data (1 key, 2 value), 14 data_location (1: a file)

Numbers of 16 bits with a fraction are computed in float32, and so arrive as float32.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.protobuf import Value, gathered, integer, integers, message, only, text
from npmobilenet.checkpoints.stored_tensor import MAX_DIMENSIONS, MAX_ELEMENTS
from npmobilenet.errors import CheckpointError
from npmobilenet.onnx.narrow import NARROW, bytes_of, held_in, unpacked
from npmobilenet.text import printable, quote

FLOAT, STRING, FLOAT16, BFLOAT16 = 1, 8, 10, 16
TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16", 17: "float8e4m3fn", 18: "float8e4m3fnuz",
    19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1", 24: "float8e8m0", 25: "uint2",
    26: "int2",
}  # fmt: skip
OTHER_TYPES = {8: "string", 14: "complex64", 15: "complex128"}
CODES = {name: code for code, name in TYPES.items()}
# Of types that are stored alone
COMPUTED_IN = {"float16": "float32", "bfloat16": "float32", **{name: held_in(name) for name in NARROW}}
_INT32_DATA = ("int32", "uint8", "int8", "uint16", "int16", "bool", "float16", "bfloat16", *NARROW)
_LOCATION, _OFFSET, _LENGTH = "location", "offset", "length"


def type_name(code: int) -> str:
    """What a type is called, known here or not."""
    return TYPES.get(code) or OTHER_TYPES.get(code) or f"of the unknown type {code}"


@dataclass
class Beside:
    """The files that a model keeps its tensors in: in its own folder, each read once.

    Attributes
    ----------
    folder : Path
    allowance : Allowance
        Of the model; files beside it are added.
    """

    folder: Path
    allowance: Allowance
    _read: dict[str, bytes] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of those that were read."""
        return sum(map(len, self._read.values()))

    def content(self, location: str) -> bytes:
        """Return what is in a file.

        Raises
        ------
        CheckpointError
            If it lies outside the folder, or cannot be read.
        """
        if location not in self._read:
            data = self._content(self._path(location), location)
            self.allowance.grow(len(data))
            self._read[location] = data
        return self._read[location]

    def _path(self, location: str) -> Path:
        pure = PurePosixPath(location)
        windows = PureWindowsPath(location)
        if not location or "\0" in location or pure.is_absolute() or windows.drive or windows.root:
            raise CheckpointError(f"keeps tensors in {quote(location)}, which is no name of a file in its folder")
        folder = os.path.realpath(self.folder)
        path = os.path.realpath(os.path.join(folder, *pure.parts))  # noqa: PTH118 - links followed, nothing opened
        if ".." in pure.parts + windows.parts or os.path.commonpath([folder, path]) != folder:
            raise CheckpointError(f"keeps tensors in {quote(location)}, which leads out of its folder")
        return Path(path)

    @staticmethod
    def _content(path: Path, location: str) -> bytes:
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise CheckpointError(f"keeps tensors in {quote(location)}, which is not a regular file")
            return path.read_bytes()
        except (OSError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            reason = printable(getattr(error, "strerror", None) or str(error))
            raise CheckpointError(
                f"keeps tensors in {quote(location)} beside it, which cannot be read ({reason})"
            ) from None


def read_tensor(data: memoryview, beside: Beside, what: str = "") -> tuple[str, str, np.ndarray]:
    """Return the name, the type and the read-only array of a TensorProto; ``what`` it is in errors, if it has no name.

    Raises
    ------
    CheckpointError
        If it is damaged, or of a type that is not supported.
    """
    about = gathered(data)
    name = text(only(about, 8, b""))
    what = f"tensor {quote(name)}" if name else what
    code = integer(only(about, 2, 0))
    if code not in TYPES:
        raise CheckpointError(f"{what} is {type_name(code)}, which is not supported ({', '.join(CODES)} are)")
    shape = tuple(integers(about.get(1, ())).tolist())
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise CheckpointError(f"{what} has an impossible shape; the file is damaged")
    if prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise CheckpointError(f"{what} has an impossible shape; the file is damaged")
    if 3 in about:
        raise CheckpointError(f"{what} is stored in segments, which are not supported")
    array = _stored(about, TYPES[code], prod(shape), beside, what)
    array = _computed(array, TYPES[code], beside.allowance, what).reshape(shape)
    array.flags.writeable = False
    return name, TYPES[code], array


def _stored(about: Mapping[int, list[Value]], dtype: str, size: int, beside: Beside, what: str) -> np.ndarray:
    """The elements as they are stored, one after the other; bfloat16 as its bits."""
    narrow = dtype in NARROW
    element = np.dtype("uint8" if narrow else "uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")
    nbytes = bytes_of(dtype, size) if narrow else size * element.itemsize
    if integer(only(about, 14, 0)) == 1:
        raw = _external(about, nbytes, beside, what)
    elif 9 in about:
        raw = message(only(about, 9, b""))
    else:
        array = _typed(about, dtype, beside.allowance, what)
        if len(array) != (nbytes if narrow else size):
            raise CheckpointError(f"{what} should have {size} values but has {len(array)}; the file is damaged")
        return unpacked(dtype, array, size) if narrow else array
    if len(raw) != nbytes:
        raise CheckpointError(f"{what} should have {nbytes} bytes but has {len(raw)}; the file is damaged")
    array = np.frombuffer(raw, np.uint8 if dtype == "bool" else element)
    return unpacked(dtype, array, size) if narrow else array


def _external(about: Mapping[int, list[Value]], nbytes: int, beside: Beside, what: str) -> memoryview:
    entries = {}
    for entry in about.get(13, ()):
        pair = gathered(message(entry))
        entries[text(only(pair, 1, b""))] = text(only(pair, 2, b""))
    data = beside.content(entries.get(_LOCATION, ""))
    offset, length = (
        _whole(entries.get(key, default), what) for key, default in ((_OFFSET, "0"), (_LENGTH, str(nbytes)))
    )
    if offset + length > len(data):
        raise CheckpointError(
            f"{what} should be bytes {offset} to {offset + length} of {quote(entries[_LOCATION])}, which has "
            f"{len(data)}; it is cut short, or another model's"
        )
    return memoryview(data)[offset : offset + length]


def _whole(digits: str, what: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise CheckpointError(f"{what} lies at {quote(digits, 40)} of another file, which is no number")
    return int(digits)


def _typed(about: Mapping[int, list[Value]], dtype: str, allowance: Allowance, what: str) -> np.ndarray:
    """Elements in the field for their type; float16 and bfloat16 are bits in integers."""
    if dtype in ("float32", "float64"):
        element, number = ("<f4", 4) if dtype == "float32" else ("<f8", 10)
        parts = [bytes(message(part)) for part in about.get(number, ())]
        data = b"".join(parts)
        allowance.take(len(data), what)
        if len(data) % int(element[2]):
            raise CheckpointError(f"{what} has a part of a number; the file is damaged")
        return np.frombuffer(data, element)
    number = 5 if dtype in _INT32_DATA else 7 if dtype == "int64" else 11
    allowance.take(sum(8 * (1 if isinstance(part, int) else len(part)) for part in about.get(number, ())), what)
    values = integers(about.get(number, ()))
    if dtype in ("float16", "bfloat16"):
        return values.astype(np.uint16).view(np.float16 if dtype == "float16" else np.uint16)
    return values.astype(np.uint8 if dtype == "bool" or dtype in NARROW else dtype)


def _computed(array: np.ndarray, dtype: str, allowance: Allowance, what: str) -> np.ndarray:
    """In the type in which it is computed, aligned, and in this machine's byte order."""
    if dtype == "bool":
        return array != 0
    if dtype == "bfloat16":  # the upper half of a float32
        allowance.take(4 * array.size, what)
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype in NARROW:
        allowance.take(8 * array.size, what)
        return NARROW[dtype].decoded(array)
    wanted = np.dtype(COMPUTED_IN.get(dtype, dtype))
    if array.dtype == wanted and array.flags.aligned:
        return array.view()
    allowance.take(wanted.itemsize * array.size, what)
    return array.astype(wanted)

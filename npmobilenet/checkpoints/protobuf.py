"""Protocol Buffers' wire format: a message as its fields, each a number and what stands there.

    varint     7 bits a byte, the lowest first, all bytes but the last with the 8th bit
    key        varint of 8 * number + kind
    kind 0     varint          kind 1   8 bytes
    kind 2     varint N, then N bytes: text, a message, packed numbers
    kind 5     4 bytes

Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from npmobilenet.errors import CheckpointError

VARINT_BYTES = 10  # of 64 bits
FIXED = {1: 8, 5: 4}  # kinds of a fixed length

Value = int | memoryview


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield the fields of a message in order: its number, and an integer or the bytes.

    Raises
    ------
    CheckpointError
        If the message is cut short or no message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in FIXED:
            length = FIXED[kind]
        else:
            raise CheckpointError(f"has a field of the unknown kind {kind}; the file is damaged")
        if length > len(message) - at:
            raise CheckpointError(
                f"is cut short or damaged: a field should have {length} bytes, {len(message) - at} follow"
            )
        yield key >> 3, message[at : at + length]
        at += length


def gathered(message: memoryview) -> dict[int, list[Value]]:
    """Return all values of each field, by its number."""
    found: dict[int, list[Value]] = {}
    for number, value in fields(message):
        found.setdefault(number, []).append(value)
    return found


def text(value: Value) -> str:
    """Return a field's text.

    Raises
    ------
    CheckpointError
        If it is none.
    """
    try:
        return str(value, "utf-8")
    except (TypeError, UnicodeDecodeError):
        raise CheckpointError("has a name that is no text; the file is damaged") from None


def only(about: Mapping[int, list[Value]], number: int, default: Value) -> Value:
    """Return the value of a field that may be there once; of several the last counts."""
    return about.get(number, [default])[-1]


def message(value: Value) -> memoryview:
    """Return a field's bytes.

    Raises
    ------
    CheckpointError
        If it is a number.
    """
    if isinstance(value, int):
        raise CheckpointError("has a number where a message should be; the file is damaged")
    return memoryview(value)


def integer(value: Value) -> int:
    """Return a field's signed integer, which stands there as one of 64 bits without a sign.

    Raises
    ------
    CheckpointError
        If it is none.
    """
    if not isinstance(value, int):
        raise CheckpointError("has a message where a number should be; the file is damaged")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def integers(values: Iterable[Value]) -> np.ndarray:
    """Return a repeated field of integers, each a field or many packed into one, as int64.

    Raises
    ------
    CheckpointError
        If one of them does not end.
    """
    parts = [np.array([integer(one)], np.int64) if isinstance(one, int) else _varints(one) for one in values]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def encoded(number: int, value: int | float | bytes | str) -> bytes:
    """Return a field as it stands in a message: an integer, four bytes of a float, or bytes with their length."""
    if isinstance(value, float):
        return _encoded_varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _encoded_varint(number << 3) + _encoded_varint(value & (1 << 64) - 1)
    data = value.encode() if isinstance(value, str) else value
    return _encoded_varint(number << 3 | 2) + _encoded_varint(len(data)) + data


def packed(number: int, values: Iterable[int]) -> bytes:
    """Return a repeated field of integers in one."""
    return encoded(number, b"".join(_encoded_varint(value & (1 << 64) - 1) for value in values))


def _encoded_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _varints(packed: memoryview) -> np.ndarray:
    """Many numbers at once: each byte's seven bits, moved to their place, and added up for each number."""
    data = np.frombuffer(packed, np.uint8)
    last = np.flatnonzero(data < 128)
    if len(data) == 0:
        return np.empty(0, np.int64)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1 if len(last) == len(first) else np.array([VARINT_BYTES + 1])
    if not len(last) or last[-1] != len(data) - 1 or lengths.max() > VARINT_BYTES:
        raise CheckpointError("is cut short or damaged: a number in it does not end")
    places = np.arange(len(data)) - np.repeat(first, lengths)
    bits = (data & np.uint8(127)).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.add.reduceat(bits, first).view(np.int64)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(message[at : at + VARINT_BYTES]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise CheckpointError("is cut short or damaged: a number in it does not end")

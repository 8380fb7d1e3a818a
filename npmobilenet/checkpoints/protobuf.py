"""Protocol Buffers' wire format: a message as its fields, each a number and what stands there.

    varint     7 bits a byte, the lowest first, all bytes but the last with the 8th bit
    key        varint of 8 * number + kind
    kind 0     varint          kind 1   8 bytes
    kind 2     varint N, then N bytes: text, a message, packed numbers
    kind 5     4 bytes

Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

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


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(message[at : at + VARINT_BYTES]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise CheckpointError("is cut short or damaged: a number in it does not end")

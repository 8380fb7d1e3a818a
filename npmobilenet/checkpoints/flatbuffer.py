"""FlatBuffers: tables whose fields are found by offsets, every one of which is checked.

    a file         4 bytes: where the first table is
    a table        4 bytes: how far before it its list of offsets is; then its fields
    the list       2 bytes: its length, 2 bytes: the table's; then for each field 2 bytes: where in the table it is,
                   or 0
    vector, text   4 bytes: how many; then the elements. Tables, vectors and texts stand elsewhere, and a field or an
                   element says how far behind itself

Source: https://flatbuffers.dev/internals
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from npmobilenet.errors import CheckpointError

MOST_TEXT = 1000  # bytes of a name


class Table(NamedTuple):
    """One table: the file's bytes, and where it begins."""

    data: memoryview
    at: int

    def number(self, field: int, form: str, default: int = 0) -> int:
        """Return a number; ``form`` is its format as `struct` has it."""
        place = self._place(field)
        return default if place is None else unpack(self.data, place, form)

    def table(self, field: int) -> Table | None:
        """Return a table, if there is one."""
        place = self._place(field)
        return None if place is None else Table(self.data, place + unpack(self.data, place, "<I"))

    def tables(self, field: int, most: int) -> list[Table]:
        """Return a list of at most so many tables."""
        start, length = self._vector(field, 4)
        if length > most:
            raise CheckpointError(f"has a list of {length} tables, more than {most}; the file is damaged")
        places = range(start, start + 4 * length, 4)
        return [Table(self.data, place + unpack(self.data, place, "<I")) for place in places]

    def numbers(self, field: int, most: int) -> tuple[int, ...]:
        """Return a list of at most so many int32."""
        start, length = self._vector(field, 4)
        if length > most:
            raise CheckpointError(f"has a list of {length} numbers, more than {most}; the file is damaged")
        return struct.unpack_from(f"<{length}i", self.data, start)

    def bytes(self, field: int) -> memoryview:
        """Return a list of bytes: a view."""
        start, length = self._vector(field, 1)
        return self.data[start : start + length]

    def text(self, field: int) -> str:
        """Return a text; none is empty."""
        found = self.bytes(field)
        try:
            return str(found[:MOST_TEXT], "utf-8")
        except UnicodeDecodeError:
            raise CheckpointError("has a name that is no text; the file is damaged") from None

    def _place(self, field: int) -> int | None:
        """Where a field is; None if the table lacks it."""
        offsets = self.at - unpack(self.data, self.at, "<i")
        where = 4 + 2 * field
        if where + 2 > unpack(self.data, offsets, "<H"):
            return None
        inside = unpack(self.data, offsets + where, "<H")
        return self.at + inside if inside else None

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        """Where the elements of a list begin, and how many there are."""
        place = self._place(field)
        if place is None:
            return 0, 0
        start = place + unpack(self.data, place, "<I")
        length = unpack(self.data, start, "<I")
        if length * size > len(self.data) - start - 4:
            raise CheckpointError(f"is cut short or damaged: a list should have {length * size} bytes")
        return start + 4, length


def root(data: bytes) -> Table:
    """Return a file's first table."""
    view = memoryview(data)
    return Table(view, unpack(view, 0, "<I"))


def unpack(data: memoryview, at: int, form: str) -> int:
    """Return a number at a place in a file.

    Raises
    ------
    CheckpointError
        If it is outside.
    """
    if not 0 <= at <= len(data) - struct.calcsize(form):
        raise CheckpointError("is cut short or damaged: an offset in it leads outside")
    return struct.unpack_from(form, data, at)[0]

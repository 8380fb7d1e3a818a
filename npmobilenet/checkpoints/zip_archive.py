"""Members of a zip archive in memory, as views where they are stored and bounded copies where deflated.

A zip file is a sequence of members, each behind a local header, and at its end a central directory that
says where each begins and how large it is (PKWARE's APPNOTE.TXT). `zipfile` parses the directory; the
claims in it are then compared with the bytes.

    local header   30 bytes: b"PK\\x03\\x04" … name length (at 26), length of extra fields (at 28)
                   name, extra fields (PyTorch pads them so that data starts at a multiple of 64)
    data           `compress_size` bytes
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from npmobilenet.checkpoints.stored_tensor import Allowance
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1


class ZipArchive:
    """The members of the zip archive ``data``; ``allowance`` bounds what decompression may produce."""

    def __init__(self, data: bytes, allowance: Allowance) -> None:
        self._data = data
        self._allowance = allowance
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            ValueError,
            LookupError,
            OSError,
            struct.error,
        ) as error:
            raise CheckpointError(
                "is a zip archive whose directory at the end is missing or damaged: probably cut short; "
                "download or save it again"
            ) from error
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise CheckpointError("is a zip archive with two members of one name; it is damaged or hostile")
        self._starts = {entry.filename: self._data_start(entry) for entry in entries}
        self._refuse_overlaps()

    def names(self) -> list[str]:
        """Return the names of all members, in the directory's order."""
        return list(self._entries)

    def read(self, name: str) -> memoryview:
        """Return the content of a member: a view of the file, or a copy if it is compressed."""
        entry, start = self._entries[name], self._starts[name]
        data = memoryview(self._data)[start : start + entry.compress_size]
        if entry.flag_bits & _ENCRYPTED:
            raise CheckpointError(f"zip member {quote(name)} is encrypted; save it without a password")
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            data = self._inflate(entry, data)
        elif entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(
                f"zip member {quote(name)} uses compression method {entry.compress_type}; "
                "only stored (0) and deflated (8) are read"
            )
        if len(data) != entry.file_size:
            raise CheckpointError(
                f"zip member {quote(name)} should have {entry.file_size} bytes but has {len(data)}; the file is damaged"
            )
        # PyTorch can be told not to compute checksums; it writes 0 then.
        if entry.CRC and zlib.crc32(data) != entry.CRC:
            raise CheckpointError(
                f"zip member {quote(name)} does not match its checksum: the file is damaged; download or save it again"
            )
        return data

    def _inflate(self, entry: zipfile.ZipInfo, data: memoryview) -> memoryview:
        self._allowance.take(entry.file_size, f"compressed zip member {quote(entry.filename)}")
        try:
            # One byte more than declared tells a lie apart from the truth, and bounds what a lie costs.
            return memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry.file_size + 1))
        except zlib.error as error:
            raise CheckpointError(
                f"zip member {quote(entry.filename)} cannot be decompressed; the file is damaged"
            ) from error

    def _data_start(self, entry: zipfile.ZipInfo) -> int:
        offset = entry.header_offset
        header = self._data[offset : offset + _LOCAL_HEADER.size] if offset >= 0 else b""
        if len(header) == _LOCAL_HEADER.size:
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            start = offset + _LOCAL_HEADER.size + name_length + extra_length
            if signature == b"PK\x03\x04" and start + entry.compress_size <= len(self._data):
                return start
        raise CheckpointError(
            f"zip member {quote(entry.filename)} does not lie inside the file ({entry.compress_size} bytes "
            f"at {offset} of {len(self._data)}); the file is damaged"
        )

    def _refuse_overlaps(self) -> None:
        end = 0
        for entry in sorted(self._entries.values(), key=lambda entry: entry.header_offset):
            if entry.header_offset < end:
                raise CheckpointError(
                    f"zip member {quote(entry.filename)} overlaps another one; the file is damaged or hostile"
                )
            end = self._starts[entry.filename] + entry.compress_size

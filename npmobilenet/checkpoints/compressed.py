"""Files compressed as a whole by gzip, bzip2 or xz."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.errors import CheckpointError

CHUNK = 1 << 20
XZ_MEMORY = 100 << 20  # its strongest preset asks for 65 MiB; a file may ask for more than there is
MAX_STREAMS = 1000  # that follow each other in one file, as parallel compressors write them


def decompress(data: bytes, kind: str, allowance: Allowance) -> bytes:
    """Return the content of a file compressed by ``kind``: "gzip", "bzip2" or "xz"."""
    what, parts = f"its content, compressed with {kind},", []
    try:
        for part in _CHUNKS[kind](data):
            allowance.take(len(part), what)
            parts.append(part)
    except ImportError as error:
        raise CheckpointError(f"is compressed with {kind}, which this Python lacks; decompress it first") from error
    except EOFError as error:
        raise CheckpointError(f"is compressed with {kind} and cut short; download or save it again") from error
    except (OSError, zlib.error, _Damaged) as error:
        raise CheckpointError(f"is compressed with {kind} and damaged; download or save it again") from error
    return b"".join(parts)


class _Damaged(Exception):
    """What a decompressor found."""


def _gzip(data: bytes) -> Iterator[bytes]:
    import gzip

    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        while part := file.read(CHUNK):
            yield part


def _bzip2(data: bytes) -> Iterator[bytes]:
    import bz2

    for _ in range(MAX_STREAMS):
        stream = bz2.BZ2Decompressor()
        yield from _stream(stream, data)
        data = stream.unused_data
        if not data:
            return
    raise _Damaged


def _xz(data: bytes) -> Iterator[bytes]:
    import lzma

    for _ in range(MAX_STREAMS):
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        try:
            yield from _stream(stream, data)
        except lzma.LZMAError as error:
            raise _Damaged from error
        data = stream.unused_data.lstrip(b"\0")  # padding between streams
        if not data:
            return
    raise _Damaged


def _stream(stream: object, data: bytes) -> Iterator[bytes]:
    yield stream.decompress(data, CHUNK)
    while not stream.eof:
        if stream.needs_input:
            raise EOFError
        yield stream.decompress(b"", CHUNK)


_CHUNKS = {"gzip": _gzip, "bzip2": _bzip2, "xz": _xz}

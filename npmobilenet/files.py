"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a binary file that takes this path when the block ends; one that is there already is replaced.

    It is written under a temporary name in the same folder, synced to disk and renamed. If the block raises, nothing
    is left of it and what was there stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the name everyone knows for an atomic rename
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise

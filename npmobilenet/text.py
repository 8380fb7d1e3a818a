"""Text for people and programs: tables, and what is fit for a terminal or a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence


def columns(lines: Iterable[Sequence[str]], texts: int = 1) -> Iterator[str]:
    """Yield lines of cells, the first ``texts`` columns aligned to the left, numbers to the right."""
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        aligned = (
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        yield "  ".join(aligned).rstrip()


def dimensions(shape: Iterable[int]) -> str:
    """Such as ``112x112x32``."""
    return "x".join(map(str, shape))


def plural(number: int, thing: str) -> str:
    """Such as ``1 thread``, ``2 threads``."""
    return f"{number} {thing}{'s' * (number != 1)}"


def megabytes(size: int | None) -> str:
    """Such as ``6.02 MB``; nothing of nothing."""
    return f"{size / 1e6:.2f} MB" if size else ""


def binary_size(size: int) -> str:
    """Such as ``64 KB``, ``16 MB``, of a power of two."""
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} KB"


def printable(text: str, limit: int = 1000) -> str:
    """Text of unknown origin, fit for a terminal: on one line, nothing but printable characters, not too long."""
    text = text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def to_json(value: object, indent: int | None = None) -> str:
    """JSON that every reader takes: ASCII, whatever is in a file's name; numbers that are not finite are null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

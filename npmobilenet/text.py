"""Tables for a terminal."""

from __future__ import annotations

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


def shown(value: object, longest: int = 80) -> str:
    """A value in the text of an error: its ``repr``, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        text = f"a {type(value).__name__} of thousands of digits"
    return text if len(text) <= longest else text[: longest - 1] + "…"

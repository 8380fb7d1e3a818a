"""Text for people, and JSON: tables for a terminal, and strings of unknown origin made fit to be shown.

Names of tensors, classes and files may hold anything: an escape sequence that sets a terminal's title or clears its
screen, a newline before a forged line of results, a mark that reverses the direction of writing, 50,000 characters.
Wherever such a string goes into an error or to a terminal, it passes through `printable` or `quote` first.
"""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

NAMES_LISTED = 20  # of a list in an error


def printable(text: str | os.PathLike, limit: int = 500) -> str:
    """Show untrusted text on one line of at most ``limit`` characters, of which "…" is the last where text is left out.

    What Python does not count as printable is escaped: control characters, line separators, invisible marks such as
    those that reverse the direction of writing, lone surrogates (bytes of a file name that are no UTF-8). The spaces
    of all scripts become plain ones. So the result can be encoded as UTF-8 and is ``str.isprintable()``.
    """
    shown, rest = "", limit
    for character in str(text)[: limit + 1]:
        if not character.isprintable():
            character = " " if unicodedata.category(character) == "Zs" else repr(character)[1:-1]
        rest -= len(character)
        if rest < 0:
            return shown[: limit - 1] + "…"
        shown += character
    return shown


def quote(text: object, limit: int = 80) -> str:
    """Show an untrusted string in quotation marks, or of which type an object is that is no string."""
    if not isinstance(text, str):
        return f"a {printable(type(text).__name__)}"
    shown = printable(text, limit)
    if "'" not in shown:
        return f"'{shown}'"
    return '"' + shown.replace('"', '\\"') + '"'


def listed(items: Sequence[str], limit: int = NAMES_LISTED) -> list[str]:
    """The first ``limit`` items, each short and on one line, and how many more there are: ``"... and 3 more"``."""
    more = [f"... and {len(items) - limit} more"] if len(items) > limit else []
    return [*(printable(item, 200) for item in items[:limit]), *more]


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


def plural(number: int, thing: str, things: str = "") -> str:
    """Such as ``1 thread``, ``2 threads``; ``things`` where an s does not do."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def megabytes(size: int | None) -> str:
    """Such as ``6.02 MB``; nothing of nothing."""
    return f"{size / 1e6:.2f} MB" if size else ""


def binary_size(size: int) -> str:
    """Such as ``64 KB``, ``16 MB``, of a power of two."""
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} KB"


def to_json(value: object, indent: int | None = None) -> str:
    """JSON that every reader takes: ASCII, whatever is in a file's name; numbers that are not finite are null."""
    from json import dumps  # few write any

    return dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def shown(value: object, longest: int = 80) -> str:
    """A value in the text of an error: its ``repr``, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        text = f"a {type(value).__name__} of thousands of digits"
    return text if len(text) <= longest else text[: longest - 1] + "…"

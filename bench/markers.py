"""Text that a program writes into a document: whatever stands between two markers.

<!-- begin: NAME -->
<!-- end: NAME -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

BEGIN, END = "<!-- begin: {} -->", "<!-- end: {} -->"


def regions(file: Path) -> list[str]:
    """Return the names of the marked regions of a document."""
    return re.findall(BEGIN.format("(.+)"), file.read_text(encoding="utf-8"))


def content(file: Path, name: str) -> list[str]:
    """Return the lines of a region.

    Raises
    ------
    ValueError
        If the document does not have both its markers.
    """
    return _parts(file, name)[1].strip("\n").splitlines()


def replace(file: Path, name: str, lines: Iterable[str]) -> None:
    """Replace what stands in a region; errors as of :func:`content`."""
    before, _, after = _parts(file, name)
    file.write_text("\n".join([before, "", *lines, "", after]), encoding="utf-8")


def _parts(file: Path, name: str) -> tuple[str, str, str]:
    """What stands before a region, with its marker; in it; and after it, with the other marker."""
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN.format(name))
    inside, end, after = rest.partition(END.format(name))
    if not begin or not end:
        raise ValueError(f"{file} has no lines {BEGIN.format(name)} and {END.format(name)}")
    return before + begin, inside, end + after

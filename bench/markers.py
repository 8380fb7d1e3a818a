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


def replace(file: Path, name: str, lines: Iterable[str]) -> None:
    """Replace what stands in a region.

    Raises
    ------
    ValueError
        If the document does not have both its markers.
    """
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN.format(name))
    _, end, after = rest.partition(END.format(name))
    if not begin or not end:
        raise ValueError(f"{file} has no lines {BEGIN.format(name)} and {END.format(name)}")
    file.write_text("\n".join([before + begin, "", *lines, "", end + after]), encoding="utf-8")

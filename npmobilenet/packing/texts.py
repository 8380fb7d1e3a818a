"""What a pack has for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npmobilenet.packing.folder import Pack


def files(made: Pack, out: Path) -> dict[str, bytes]:
    """Return the texts, by the names of their files."""
    return {}

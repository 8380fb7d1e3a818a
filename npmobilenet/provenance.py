"""What a loaded network was made with, and why."""

from __future__ import annotations

from typing import Any

from npmobilenet.image import Preprocessing
from npmobilenet.text import dimensions, plural, printable


class Provenance(dict[str, tuple[Any, str]]):
    """What was decided when weights were loaded: name to ``(value, reason)``.

    The reasons: ``"option"``, whoever called said so; ``"file"``, the file or one beside it says so; ``"source"``,
    networks whose layers have these names are so; ``"assumed"``, nothing says so. `docs/checkpoints.md` lists the
    names.
    """

    def choose(self, name: str, **by_reason: Any) -> Any:
        """Note and return the first value that is not None; the keywords are reasons, the strongest first."""
        for reason, value in by_reason.items():
            if value is not None:
                self[name] = (value, reason)
                return value
        return None

    def shown(self) -> list[tuple[str, str, str]]:
        """Name, value and reason as text, for people."""
        return [(name, _text(value), reason) for name, (value, reason) in self.items()]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The same as JSON knows it."""
        return {name: {"value": _plain(value), "reason": reason} for name, (value, reason) in self.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Preprocessing):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, Preprocessing):
        return _photo(value)
    if isinstance(value, tuple):
        shown = ", ".join(printable(str(each), 40) for each in value[:3])
        return f"{shown}, ... ({plural(len(value), 'name')})" if len(value) > 3 else shown or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return printable(str(value), 100) or "none"


def _photo(photo: Preprocessing) -> str:
    """What is done to a photograph, without what is hardly ever otherwise."""
    resize = dimensions(photo.resize) if isinstance(photo.resize, tuple) else photo.resize
    fraction = photo.crop_fraction and f"{photo.crop_fraction:g} of the centre"
    numbers = (f"{name} {'/'.join(f'{v:g}' for v in getattr(photo, name))}" for name in ("mean", "std"))
    size = f"{dimensions(photo.crop)} of {resize or fraction or 'the whole'}"
    return ", ".join([size, photo.filter, *numbers])

"""What a loaded network was made with, and why."""

from __future__ import annotations

from typing import Any

REASONS = ("option", "file", "source", "assumed")


class Provenance(dict[str, tuple[Any, str]]):
    """What was decided when weights were loaded: name to ``(value, reason)``.

    The reasons: ``"option"``, whoever called said so; ``"file"``, the file or one beside it says so; ``"source"``,
    networks whose layers have these names are so; ``"assumed"``, nothing says so. `docs/checkpoints.md` lists the
    names.
    """

    def choose(self, name: str, **by_reason: Any) -> Any:
        """Note and return the first value that is not None; the keywords are `REASONS`, the strongest first."""
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
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    from npmobilenet.text import plural, printable

    if hasattr(value, "to_dict"):
        known = {name: each for name, each in value.to_dict().items() if each is not None}
        return ", ".join(
            f"{name} {_text(tuple(each) if isinstance(each, list) else each)}" for name, each in known.items()
        )
    if isinstance(value, tuple) and value and all(isinstance(each, (int, float)) for each in value):
        return "/".join(f"{each:g}" for each in value)
    if isinstance(value, tuple):
        shown = ", ".join(printable(str(each), 40) for each in value[:3])
        return f"{shown}, ... ({plural(len(value), 'name')})" if len(value) > 3 else shown or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return printable(str(value), 100) or "none"

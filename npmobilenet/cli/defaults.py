"""What a command line says that has photographs alone: found without a parser, which takes a while to be made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any


class Defaults:
    """In place of a parser, and of what belongs to one: takes down what is where an option is not given."""

    def __init__(self) -> None:
        self.options = SimpleNamespace()

    def add_parser(self, *about: str, **more: str) -> Defaults:
        """Return itself, as groups do."""
        return self

    add_argument_group = add_mutually_exclusive_group = add_parser

    def add_argument(
        self,
        *names: str,
        action: str = "store",
        default: Any = None,
        type: Callable[[str], Any] | None = None,
        **more: Any,
    ) -> None:
        """Take down the default of an option."""
        name = next((name for name in names if name.startswith("--")), names[0])
        if action == "store_true":
            default = False
        elif type and isinstance(default, str):
            default = type(default)
        setattr(self.options, name.lstrip("-").replace("-", "_"), default)


def photographs(arguments: Sequence[str]) -> bool:
    """Whether these are all names of photographs, one at least."""
    return bool(arguments) and all(name == "-" or not name.startswith("-") for name in arguments)

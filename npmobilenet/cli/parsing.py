"""The parser of command lines."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from npmobilenet.cli import terminal


class Parser(argparse.ArgumentParser):
    """Reads a command line; what is wrong with it is one line, fit for a terminal whatever was given.

    An option goes by its whole name: what a command lacks would else be taken for another of which it is the beginning.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end with exit code 2."""
        self.exit(2, f"{self.prog}: error: {terminal.line(message)} (see {self.prog} --help)\n")

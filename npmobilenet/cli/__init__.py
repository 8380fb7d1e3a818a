"""The command ``npmobilenet``: one module per subcommand, each with ``add_parser`` and ``run``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from npmobilenet import __version__
from npmobilenet.cli import terminal

COMMANDS = (
    *("classify", "features", "evaluate", "inspect", "weights"),
    *("bench", "report", "study", "warmup", "doctor"),
)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(
        prog="npmobilenet", description="MobileNet inference with nothing but NumPy and Numba."
    )
    parser.add_argument("--version", action="version", version=f"npmobilenet {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        command = import_module(f"{__name__}.{name}")
        command.add_parser(commands).set_defaults(run=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""

    def command() -> int:  # reading the command line imports the commands, which can be interrupted as well
        options = parser().parse_args(arguments)
        return options.run(options)

    return terminal.run(command)

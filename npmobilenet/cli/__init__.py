"""The command ``npmobilenet``: one module per subcommand, each with ``add_parser`` and ``run``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from types import SimpleNamespace

COMMANDS = (
    *("classify", "detect", "faces", "segment", "features", "evaluate", "inspect", "export", "pack", "weights"),
    *("serve", "bench", "report", "study", "warmup", "doctor"),
)

OF_PHOTOGRAPHS = ("classify", "detect", "faces", "segment")

# What takes a moment to import is imported in the functions, where an interrupt is caught.


def parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return what reads the command line: of all commands, or of these."""
    from importlib import import_module

    from npmobilenet import __version__
    from npmobilenet.cli.parsing import Parser

    parser = Parser(prog="npmobilenet", description="MobileNet inference with nothing but NumPy and Numba.")
    parser.add_argument("--version", action="version", version=f"npmobilenet {__version__}")
    # Told its name, it does not write a usage to find it.
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=parser.prog)
    for name in names:
        command = import_module(f"{__name__}.{name}")
        command.add_parser(commands).set_defaults(run=command.run)
    return parser


def plain(given: Sequence[str]) -> SimpleNamespace | None:
    """Read a command line that has a command and photographs alone, as the parser does, but sooner."""
    from npmobilenet.cli.defaults import Defaults, photographs

    if not given or given[0] not in OF_PHOTOGRAPHS or not photographs(given[1:]):
        return None
    from importlib import import_module

    command, defaults = import_module(f"{__name__}.{given[0]}"), Defaults()
    command.add_parser(defaults)
    options = defaults.options
    options.command, options.run, options.images = given[0], command.run, list(given[1:])
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""

    def command() -> int:
        given = sys.argv[1:] if arguments is None else arguments
        options = plain(given) or parser(given[:1] if given and given[0] in COMMANDS else COMMANDS).parse_args(given)
        return options.run(options)

    try:
        from npmobilenet.cli import terminal

        return terminal.run(command)
    except KeyboardInterrupt:  # before `terminal` takes care of it
        if sys.stderr is not None:
            print("npmobilenet: interrupted", file=sys.stderr)
        return 130

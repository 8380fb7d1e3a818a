"""The command ``npmobilenet``: one module per subcommand, each with ``add_parser`` and ``run``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from npmobilenet import __version__
from npmobilenet.cli import bench, classify, doctor, inspect, report, study, warmup, weights
from npmobilenet.errors import AssumptionWarning, NpmobilenetError

COMMANDS = (classify, inspect, weights, bench, report, study, warmup, doctor)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(
        prog="npmobilenet", description="MobileNet inference with nothing but NumPy and Numba."
    )
    parser.add_argument("--version", action="version", version=f"npmobilenet {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands).set_defaults(run=command.run)
    return parser


@contextmanager
def _notes() -> Iterator[None]:
    """Say assumptions about a checkpoint in one line each."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, AssumptionWarning):
                print(f"npmobilenet: note: {message}", file=sys.stderr)
            else:
                usual(message, category, *place, **more)

        warnings.simplefilter("always", AssumptionWarning)
        warnings.showwarning = show
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 something failed, 2 wrong usage."""
    options = parser().parse_args(arguments)
    try:
        with _notes():
            code = options.run(options)
        sys.stdout.flush()
        return code
    except (NpmobilenetError, ValueError) as error:
        print(f"npmobilenet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("npmobilenet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1

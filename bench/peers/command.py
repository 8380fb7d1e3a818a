"""What the commands that compare runtimes have in common: options, and a record of what they find."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from npmobilenet.bench.record import Record
from npmobilenet.bench.runtimes import RUNTIMES


def numbers(text: str) -> list[int]:
    """Read an option such as ``1,2``."""
    found = [int(item) for item in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return found


def names(text: str) -> list[str]:
    """Read an option such as ``onnxruntime,openvino``."""
    return [item.strip() for item in text.split(",")]


def add_options(parser: argparse.ArgumentParser, seconds: float) -> None:
    """Add which runtimes are measured, how long, and where it is written; ``seconds`` is a default."""
    parser.add_argument(
        "--runtimes",
        type=names,
        default=[name for name in RUNTIMES if name != "torch compiled"],
        help=f"of {', '.join(RUNTIMES)} (default: all but the last, which compiles for minutes)",
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of every runtime (default: 9)")
    parser.add_argument("--seconds", type=float, default=seconds, help=f"length of a turn (default: {seconds})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; ends the program if one of the options above makes no sense."""
    options = parser.parse_args(arguments)
    unknown = [name for name in options.runtimes if name not in RUNTIMES]
    if unknown:
        parser.error(f"no runtime {unknown[0]!r}; there are: {', '.join(RUNTIMES)}")
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    return options


def record(options: argparse.Namespace, *kinds: str) -> Record:
    """Begin the record of a command with these options."""
    settings = {"rounds": options.rounds, "seconds": options.seconds}
    return Record(options.threads, kinds, settings, options.json)

"""What the commands that compare runtimes have in common: options, and a record of what they find."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from npmobilenet.bench import machine_limits
from npmobilenet.bench.peers import report
from npmobilenet.bench.peers.runtimes import RUNTIMES


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


class Record:
    """One run of a command: the machine, and what was found, printed as it comes.

    Attributes
    ----------
    settings : dict
        Rounds and seconds.
    peaks : dict of int to float
        The highest rate of multiply-adds seen so far, by the number of threads.
    found : dict of str to list
        What the JSON file has besides.
    """

    def __init__(self, options: argparse.Namespace, threads: Sequence[int], *kinds: str) -> None:
        self.file = options.json
        self.settings = {"rounds": options.rounds, "seconds": options.seconds}
        self.about = report.machine(machine_limits.limits(threads))
        self.peaks = {row["threads"]: row["gflops"] for row in self.about["limits"]}
        self.found: dict[str, list] = {kind: [] for kind in (*kinds, "left_out")}
        self.say(report.heading(self.about))

    def say(self, lines: Iterable[str]) -> None:
        """Print lines."""
        print("\n".join(line.rstrip() for line in lines), flush=True)

    def left_out(self, line: str) -> None:
        """Say that a runtime is left out, and why; the same is said once."""
        if line not in self.found["left_out"]:
            self.found["left_out"].append(line)
            self.say([line])

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *exception: object) -> None:
        """Write the file, so that what was measured before Ctrl+C is not lost."""
        if self.file:
            self.file.write_text(json.dumps({**self.about, "settings": self.settings, **self.found}, indent=2) + "\n")

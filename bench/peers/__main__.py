"""The command ``python -m npmobilenet.bench.peers``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from npmobilenet.bench import machine_limits
from npmobilenet.bench.peers import measure, report
from npmobilenet.bench.peers.networks import DEFAULT, Network
from npmobilenet.bench.peers.runtimes import RUNTIMES
from npmobilenet.bench.peers.workers import PeerError
from npmobilenet.machine import available_cpus

STARTUP_NETWORK = "mobilenet_v2-1.0-224"


def _numbers(text: str) -> list[int]:
    numbers = [int(item) for item in text.split(",")]
    if min(numbers) < 1:
        raise ValueError
    return numbers


def _names(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m npmobilenet.bench.peers",
        description="The same network in npmobilenet and in every other runtime that is installed: latency, "
        "throughput, share of the machine's peak. Outputs are compared before anything is timed.",
    )
    parser.add_argument("--networks", type=_names, help=f"such as {','.join(DEFAULT[1:3])} (default: {len(DEFAULT)})")
    parser.add_argument(
        "--runtimes",
        type=_names,
        default=[name for name in RUNTIMES if name != "torch compiled"],
        help=f"of {', '.join(RUNTIMES)} (default: all but the last, which compiles for minutes)",
    )
    parser.add_argument("--threads", type=_numbers, default=sorted({1, available_cpus()}), help="such as 1,2")
    parser.add_argument("--batches", type=_numbers, default=[1, 8, 32], help="default: 1,8,32")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every runtime (default: 9)")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a turn (default: 0.2)")
    parser.add_argument("--startup", action="store_true", help="time to the first result of fresh processes instead")
    parser.add_argument("--memory", action="store_true", help="their memory instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    return parser


class _Run:
    """One run of the command: what it was asked for, and what it has found."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.settings = {"rounds": options.rounds, "seconds": options.seconds}
        self.about = report.machine(machine_limits.limits(options.threads))
        self.peaks = {row["threads"]: row["gflops"] for row in self.about["limits"]}
        self.found: dict[str, list] = {"comparisons": [], "processes": [], "left_out": []}
        self.say(report.heading(self.about))

    def say(self, lines: Iterable[str]) -> None:
        print("\n".join(line.rstrip() for line in lines), flush=True)

    def left_out(self, line: str) -> None:
        """Say that a runtime is left out, and why; the same is said once."""
        if line not in self.found["left_out"]:
            self.found["left_out"].append(line)
            self.say([line])

    def processes(self, network: Network, threads: int) -> None:
        rows = measure.processes(network, self.options.runtimes, threads, self.options.rounds, self.left_out)
        self.found["processes"] += rows
        self.say(report.process_table(rows, self.options.startup, self.options.memory))

    def comparisons(self, network: Network, threads: int) -> None:
        for batch in self.options.batches:
            result = measure.compare(
                network,
                self.options.runtimes,
                threads,
                batch,
                **self.settings,
                peak=self.peaks[threads],
                say=self.left_out,
            )
            self.peaks[threads] = result["peak_gflops"]
            self.found["comparisons"].append(result)
            self.say(report.comparison(result))

    def write(self, file: Path) -> None:
        file.write_text(json.dumps({**self.about, "settings": self.settings, **self.found}, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _options()
    options = parser.parse_args(arguments)
    fresh = options.startup or options.memory
    names = options.networks or ([STARTUP_NETWORK] if fresh else DEFAULT)
    unknown = [name for name in options.runtimes if name not in RUNTIMES]
    if unknown:
        parser.error(f"no runtime {unknown[0]!r}; there are: {', '.join(RUNTIMES)}")
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    try:
        for name in names:
            Network.parse(name, Path())
    except ValueError as error:
        parser.error(str(error))

    run = _Run(options)
    try:
        for name in names:
            with tempfile.TemporaryDirectory(prefix="npmobilenet-peers-") as folder:
                network = Network.parse(name, Path(folder))
                for threads in options.threads:
                    (run.processes if fresh else run.comparisons)(network, threads)
    except PeerError as error:
        print(f"npmobilenet itself fails: {error}", file=sys.stderr)
        return 1
    finally:  # what was measured before Ctrl+C is not lost
        if options.json:
            run.write(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())

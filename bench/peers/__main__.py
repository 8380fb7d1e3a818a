"""The command ``python -m npmobilenet.bench.peers``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from npmobilenet.bench.peers import command, measure, report
from npmobilenet.bench.peers.networks import DEFAULT, Network
from npmobilenet.bench.peers.workers import PeerError
from npmobilenet.bench.record import Record
from npmobilenet.machine import available_cpus

STARTUP_NETWORK = "mobilenet_v2-1.0-224"


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m npmobilenet.bench.peers",
        description="The same network in npmobilenet and in every other runtime that is installed: latency, "
        "throughput, share of the machine's peak. Outputs are compared before anything is timed.",
    )
    parser.add_argument(
        "--networks", type=command.names, help=f"such as {','.join(DEFAULT[1:3])} (default: {len(DEFAULT)})"
    )
    parser.add_argument("--threads", type=command.numbers, default=sorted({1, available_cpus()}), help="such as 1,2")
    parser.add_argument("--batches", type=command.numbers, default=[1, 8, 32], help="default: 1,8,32")
    command.add_options(parser, seconds=0.2)
    parser.add_argument("--startup", action="store_true", help="time to the first result of fresh processes instead")
    parser.add_argument("--memory", action="store_true", help="their memory instead")
    return parser


def _processes(record: Record, options: argparse.Namespace, network: Network, threads: int) -> None:
    rows = measure.processes(network, options.runtimes, threads, options.rounds, record.left_out)
    record.found["processes"] += rows
    record.say(report.process_table(rows, options.startup, options.memory))


def _comparisons(record: Record, options: argparse.Namespace, network: Network, threads: int) -> None:
    for batch in options.batches:
        result = measure.compare(
            network,
            options.runtimes,
            threads,
            batch,
            **record.settings,
            peak=record.roofs[threads].gflops,
            say=record.left_out,
        )
        record.raise_roof(threads, result["peak_gflops"])
        record.found["comparisons"].append(result)
        record.say(report.comparison(result))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _options()
    options = command.parse(parser, arguments)
    fresh = options.startup or options.memory
    names = options.networks or ([STARTUP_NETWORK] if fresh else DEFAULT)
    try:
        for name in names:
            Network.parse(name, Path())
    except ValueError as error:
        parser.error(str(error))

    try:
        with command.record(options, "comparisons", "processes") as record:
            for name in names:
                with tempfile.TemporaryDirectory(prefix="npmobilenet-peers-") as folder:
                    network = Network.parse(name, Path(folder))
                    for threads in options.threads:
                        (_processes if fresh else _comparisons)(record, options, network, threads)
    except PeerError as error:
        print(f"npmobilenet itself fails: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

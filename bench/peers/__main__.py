"""The command ``python -m npmobilenet.bench.peers``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from npmobilenet.bench.agreement import photographs_in
from npmobilenet.bench.peers import command, measure, report
from npmobilenet.bench.peers.int8 import PHOTOGRAPHS, Int8Network
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
    parser.add_argument("--dtype", choices=("float32", "int8"), default="float32", help="default: %(default)s")
    parser.add_argument(
        "--photographs", type=Path, metavar="FOLDER", help="of int8: what the others are calibrated on, and measured"
    )
    parser.add_argument("--startup", action="store_true", help="time to the first result of fresh processes instead")
    parser.add_argument("--memory", action="store_true", help="their memory instead")
    return parser


def _network(name: str, folder: Path, options: argparse.Namespace) -> Network:
    if options.dtype == "float32":
        return Network.parse(name, folder)
    return replace(Int8Network.parse(name, folder), photographs=options.photographs or PHOTOGRAPHS)


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
            peak=record.roof(threads, network.dtype).gflops,
            say=record.left_out,
        )
        record.raise_roof(threads, result["peak_gflops"], dtype=network.dtype)
        record.found["comparisons"].append(result)
        record.say(report.comparison(result))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _options()
    options = command.parse(parser, arguments)
    fresh = options.startup or options.memory
    names = options.networks or ([STARTUP_NETWORK] if fresh else DEFAULT)
    if options.photographs and options.dtype != "int8":
        parser.error("--photographs calibrates networks of --dtype int8")
    try:
        for name in names:
            Network.parse(name, Path())
        if options.dtype == "int8":
            photographs_in(options.photographs or PHOTOGRAPHS)
    except ValueError as error:
        parser.error(str(error))

    try:
        with command.record(options, "comparisons", "processes") as record:
            for name in names:
                with tempfile.TemporaryDirectory(prefix="npmobilenet-peers-") as folder:
                    network = _network(name, Path(folder), options)
                    for threads in options.threads:
                        (_processes if fresh else _comparisons)(record, options, network, threads)
    except PeerError as error:
        print(f"npmobilenet itself fails: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``npmobilenet bench``: how fast a network is, layer by layer, and how fast it could be."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from npmobilenet.cli.network import find_network
from npmobilenet.cli.options import add_network_options, numbers, positive, size

DEFAULT = "mobilenet_v2"
ROUNDS = 25


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser(
        "bench",
        help="measure a network layer by layer, kernels, other runtimes; compare saved runs",
        description="Measure a network layer by layer: time, GFLOP/s and GB/s, each beside what this machine can do, "
        "which is probed in the same run.",
    )
    parser.add_argument(
        "network", nargs="?", metavar="NETWORK", help=f"an architecture, weights or a checkpoint (default: {DEFAULT})"
    )
    what = parser.add_argument_group("instead of a network's layers").add_mutually_exclusive_group()
    what.add_argument(
        "--ladder",
        metavar="OPERATION",
        help="every version of an operation: depthwise, pointwise, mixed, conv2d; fused: of a block",
    )
    what.add_argument("--peers", action="store_true", help="the network in every other runtime that is installed")
    what.add_argument(
        "--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="two runs that were saved with --json"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=numbers, default=(1,), metavar="N,...", help="such as 1,2 (default: 1)")
    how.add_argument("--batch", type=positive, default=1, metavar="N", help="images of a call (default: 1)")
    how.add_argument("--resolution", type=size, metavar="HxW", help="input size (default: the network's own)")
    how.add_argument(
        "--rounds", type=positive, metavar="N", help=f"turns of everything (default: {ROUNDS}; 9 with --peers)"
    )
    how.add_argument(
        "--dtype", choices=("float32", "int8"), default="float32",
        help="of the network, and with --peers of all runtimes (default: %(default)s)",
    )  # fmt: skip
    how.add_argument(
        "--photographs", type=Path, metavar="FOLDER", help="of --peers --dtype int8: what the others are calibrated on"
    )
    how.add_argument("--unfused", action="store_true", help="show every layer as a call of its own, too")
    how.add_argument(
        "--shape",
        metavar="SHAPE",
        help="of --ladder: 3-56x56x144-s2, or mobilenet_v2/block3.depthwise; of fused mobilenet_v2/block5",
    )
    how.add_argument("--across-machines", action="store_true", help="--compare runs of different machines all the same")
    out = parser.add_argument_group("where to")
    out.add_argument("--json", type=Path, metavar="FILE", help="save the run")
    out.add_argument("--csv", type=Path, metavar="FILE", help="save its rows as a table")
    out.add_argument(
        "--write-docs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="write the tables of a checkout's README and docs/: from this run, or from saved ones instead",
    )
    add_network_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Measure, print and save; or compare, or write tables."""
    if options.compare:
        return compare(*options.compare, options.across_machines)
    if options.write_docs:
        from npmobilenet.bench.record import read

        write_docs([read(file) for file in options.write_docs])
        return 0
    check(options)
    if options.peers:
        return peers(options)
    return ladder(options) if options.ladder else layers(options)


def check(options: argparse.Namespace) -> None:
    """Find what makes no sense before minutes of measuring."""
    if options.photographs and not (options.peers and options.dtype == "int8"):
        raise ValueError("--photographs calibrates the other runtimes of --peers --dtype int8")
    if options.ladder and options.dtype != "float32":
        raise ValueError("a --ladder is of one type, which its name says (depthwise_int8), not --dtype")
    if options.shape and not options.ladder:
        raise ValueError("--shape says on what layer a --ladder is measured")
    if options.ladder and (options.network is not None or options.batch > 1 or options.unfused or options.resolution):
        raise ValueError("a --ladder is measured on one layer: it takes a --shape, no network, batch or resolution")
    check_numba()


def check_numba() -> None:
    """There is nothing to measure without it."""
    from npmobilenet.machine import numba_is_on

    if not numba_is_on():
        raise ValueError("Numba is switched off (NUMBA_DISABLE_JIT): there is nothing to measure")


def _network(options: argparse.Namespace) -> str:
    return DEFAULT if options.network is None else options.network


def layers(options: argparse.Namespace) -> int:
    """Measure a network, block by block and layer by layer."""
    from npmobilenet.bench import network
    from npmobilenet.bench.record import Record

    about = find_network(_network(options), options)
    resolution, rounds = options.resolution or about.resolution, options.rounds or ROUNDS
    graph, weights = about.with_weights()
    name = about.name(resolution)
    parts = ("blocks", "layers") if options.unfused else ("blocks",)
    with Record(options.threads, ("networks",), {"rounds": rounds}, options.json, options.csv) as record:
        for threads in options.threads:
            found = network.measure(
                name, graph, weights, resolution, options.batch, threads, rounds, record, options.dtype
            )
            record.say(["", *network.table(found, parts)])
        record.warn()
    return finish(options, record.run)


def ladder(options: argparse.Namespace) -> int:
    """Measure every version of an operation on one layer."""
    from npmobilenet.bench import ladder
    from npmobilenet.bench.layers import find_layer
    from npmobilenet.bench.record import Record

    operation = ladder.find_ladder(options.ladder)
    layer = find_layer(operation, options.shape or ladder.LAYERS[operation])
    rounds = options.rounds or ROUNDS
    with Record(options.threads, ("ladders",), {"rounds": rounds}, options.json, options.csv) as record:
        for threads in options.threads:
            record.say(["", *ladder.table(ladder.measure(layer, threads, rounds, record))])
        record.warn()
    return finish(options, record.run)


def peers(options: argparse.Namespace) -> int:
    """Measure a network in every runtime that is installed."""
    from npmobilenet.bench.peers.__main__ import main
    from npmobilenet.bench.record import read, write_csv

    about = find_network(_network(options), options)
    height, width = options.resolution or about.resolution
    if height != width or Path(_network(options)).exists():
        raise ValueError("--peers takes an architecture (and --width), and square images")
    arguments = ["--networks", about.name((height, width)), "--batches", str(options.batch)]
    arguments += ["--threads", ",".join(map(str, options.threads)), "--dtype", options.dtype]
    arguments += ["--photographs", str(options.photographs)] * (options.photographs is not None)
    arguments += ["--rounds", str(options.rounds)] * (options.rounds is not None)
    with TemporaryDirectory(prefix="npmobilenet-bench-") as folder:
        file = options.json or Path(folder) / "run.json"
        code = main([*arguments, "--json", str(file)])
        if code:
            return code
        run = read(file)
        if options.csv:
            write_csv(run, options.csv)
        if any("not installed" in line for line in run["left_out"]):
            extra = "peers-int8" if options.dtype == "int8" else "peers"
            print(f'\nwhat is not installed can be: pip install "npmobilenet[{extra}]"')
        return finish(options, run)


def compare(old: Path, new: Path, across_machines: bool) -> int:
    """Print two saved runs beside each other."""
    from npmobilenet.bench import compare
    from npmobilenet.bench.machine import different_machines
    from npmobilenet.bench.record import read

    runs = read(old), read(new)
    different = different_machines(*runs)
    if different and not across_machines:
        raise ValueError(f"these are runs of different machines ({'; '.join(different)}): --across-machines compares")
    print("\n".join(compare.table(*runs, compare.compare(*runs))))
    return 0


def finish(options: argparse.Namespace, run: dict) -> int:
    """Write the documents, if that was asked for."""
    if options.write_docs is not None:
        write_docs([run])
    return 0


def write_docs(runs: Sequence[dict]) -> None:
    """Write the tables of the README and of docs/, and say which."""
    from npmobilenet.bench import documents

    print("\n".join(f"written: {where}" for where in documents.write(runs)))

"""``npmobilenet report``: what was measured, as one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from npmobilenet.cli.bench import DEFAULT, ROUNDS, check_numba
from npmobilenet.cli.network import find_network
from npmobilenet.cli.options import add_network_options, numbers, positive, size
from npmobilenet.cli.terminal import on_a_line


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser(
        "report",
        help="write a page with what was measured: layers, roofline, ladders, other runtimes, the papers' tables",
        description="Write one HTML page that needs no network and no other file. What the saved runs have is taken "
        "from them; a network's layers and the ladders are measured if no run has them.",
    )
    parser.add_argument("page", type=Path, metavar="OUT.html", help="where the page is written")
    # An option, since argparse takes no list of arguments that stands after options.
    parser.add_argument(
        "--from",
        dest="runs",
        type=Path,
        nargs="+",
        default=(),
        metavar="RUN",
        help="saved with bench --json",
    )
    parser.add_argument("--network", default=DEFAULT, metavar="NAME", help="to be measured (default: %(default)s)")
    parser.add_argument("--threads", type=numbers, default=(1,), metavar="N,...", help="such as 1,2 (default: 1)")
    parser.add_argument("--resolution", type=size, metavar="HxW", help="input size (default: the network's own)")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save what is measured")
    add_network_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Measure what no saved run has, and write the page."""
    from npmobilenet.bench import page  # the first thing that may be missing is matplotlib
    from npmobilenet.bench.record import check_writable, merged, read

    check_writable(options.page)
    runs = [read(file) for file in options.runs]
    missing = [kind for kind in ("networks", "ladders") if not any(run.get(kind) for run in runs)]
    if missing:
        runs.append(measure(options, missing))
    options.page.write_text(page.page(merged(runs)), encoding="utf-8")
    print(f"written: {on_a_line(options.page)}")
    return 0


def measure(options: argparse.Namespace, kinds: list[str]) -> dict:
    """Measure a network's layers, every ladder, or both; the ladders on the least number of threads."""
    from npmobilenet.bench import ladder, network
    from npmobilenet.bench.layers import find_layer
    from npmobilenet.bench.record import Record

    check_numba()
    about = find_network(options.network, options)
    resolution = options.resolution or about.resolution
    graph, weights = about.with_weights()
    name = about.name(resolution)
    with Record(options.threads, kinds, {"rounds": options.rounds}, options.json) as record:
        if "networks" in kinds:
            for threads in options.threads:
                network.measure(name, graph, weights, resolution, 1, threads, options.rounds, record)
        if "ladders" in kinds:
            for operation, layer in ladder.LAYERS.items():
                ladder.measure(find_layer(operation, layer), options.threads[0], options.rounds, record)
        record.warn()
    return record.run

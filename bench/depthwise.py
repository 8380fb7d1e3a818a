"""Depthwise and mixed convolutions as layers of a network, beside other runtimes.

    python -m npmobilenet.bench.depthwise
    python -m npmobilenet.bench.depthwise --cases 3-56x56x144,3.5.7.9-28x28x192 --json depthwise.json

The time of a layer is that of a network with several of them, one after another, less that of a network with one,
divided by their number: what a call costs, and what a runtime does to bring an image into its own layout, is in
both. A mixed convolution is also compared with its parts: the time that its multiply-adds would take at the speed
of our own convolutions of a single kernel size, on as many channels as it has itself.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from npmobilenet.architectures import random_weights
from npmobilenet.architectures.blocks import Builder, Row
from npmobilenet.bench import machine_limits
from npmobilenet.bench.machine import package_version
from npmobilenet.bench.noise import NOISY, spread
from npmobilenet.bench.peers import command
from npmobilenet.bench.peers.measure import OURS, Say, difference
from npmobilenet.bench.peers.networks import EXPORTERS
from npmobilenet.bench.peers.report import fastest_variants
from npmobilenet.bench.peers.workers import PeerError
from npmobilenet.bench.profile import in_turn
from npmobilenet.bench.runtimes import RUNTIMES, Run, burst, one_line, rest, together
from npmobilenet.engine import Engine
from npmobilenet.graph import Graph
from npmobilenet.kernels.geometry import equal_partition

LAYERS = 8  # by which the longer of two networks is longer

Chains = tuple[Run, Run]  # the shorter network and the longer one


@dataclass(frozen=True)
class Case:
    """A layer of stride 1; with several kernel sizes, a mixed one in equal parts."""

    kernels: tuple[int, ...]
    height: int
    width: int
    channels: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read such a name as ``3.5.7.9-28x28x192``.

        Raises
        ------
        ValueError
            If it is none.
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)*)-(\d+)x(\d+)x(\d+)", text.strip())
        kernels = tuple(map(int, found[1].split("."))) if found else ()
        if not found or len(set(kernels)) < len(kernels):
            raise ValueError(f"a layer is written as kernels-HxWxC (3.5.7.9-28x28x192), each once, got {text!r}")
        return cls(kernels, *map(int, found.groups()[1:]))

    @property
    def name(self) -> str:
        """As :meth:`parse` reads it."""
        return f"{'.'.join(map(str, self.kernels))}-{self.height}x{self.width}x{self.channels}"

    @property
    def widths(self) -> dict[int, int]:
        """The channels of each kernel size."""
        return dict(zip(self.kernels, equal_partition(self.channels, len(self.kernels)), strict=True))

    @property
    def parts(self) -> dict[Case, float]:
        """Layers of a single kernel size, and how much of each there is in a mixed one."""
        return {replace(self, kernels=(kernel,)): width / self.channels for kernel, width in self.widths.items()}

    @property
    def macs(self) -> int:
        """Multiply-adds, those on the zeros around the image too."""
        return self.height * self.width * sum(width * kernel**2 for kernel, width in self.widths.items())

    @property
    def image(self) -> tuple[int, int, int, int]:
        """The shape of the network's input."""
        return (1, 3, 2 * self.height, 2 * self.width)

    def network(self, layers: int) -> Graph:
        """A stem, so many of these layers, and a small classifier."""
        builder = Builder(1.0, 10, "relu6", "symmetric", 1e-5)
        builder.channels, builder.last, builder.block, builder.function = 3, "input", "layers", "relu6"
        builder._dense("stem", self.channels, 3, 2)
        for number in range(layers):
            builder._depthwise(f"layer{number}", Row("inverted", kernels=self.kernels), 1)
        builder._pool(Row("pool"), 0, 1)
        builder._linear(Row("linear"), 0, 1)
        return Graph(tuple(builder.nodes))


PLAIN = (
    *("3-112x112x32", "3-56x56x144", "3-28x28x192", "3-14x14x384", "3-7x7x960"),
    *(f"{kernel}-{image}" for kernel in (5, 7, 9, 11) for image in ("28x28x192", "14x14x384")),
)
MIXED = ("3.5.7.9-56x56x96", "3.5.7.9-28x28x192", "3.5.7.9-14x14x384")


def chains(case: Case, runtime: str, threads: int, folder: Path) -> Chains:
    """Return both networks of a case in a runtime.

    Raises
    ------
    PeerError
        If the runtime is missing, or does not compute what we do.
    """
    about = RUNTIMES[runtime]
    if package_version(about.package) is None:
        raise PeerError(f"not installed ({about.package})")
    x = np.random.default_rng(0).standard_normal(case.image, np.float32)
    return tuple(_network(case, layers, runtime, threads, folder, x) for layers in (1, 1 + LAYERS))


def _network(case: Case, layers: int, runtime: str, threads: int, folder: Path, x: np.ndarray) -> Run:
    graph = case.network(layers)
    weights = random_weights(graph)
    engine = Engine(graph, weights)
    if runtime == OURS:
        return lambda: [engine.run(x, threads)]
    about = RUNTIMES[runtime]
    file = folder / f"{layers}{about.suffix}"
    if not file.exists():
        EXPORTERS[about.suffix](graph, weights, x.shape, file)
    run = about.load(str(file), x, threads)
    difference(*(together(outputs, about.channels_last) for outputs in (run(), [engine.run(x, threads)])))
    return run


def measure(case: Case, names: Sequence[str], threads: int, *, rounds: int, seconds: float, say: Say) -> dict:
    """Measure one layer.

    Parameters
    ----------
    names : sequence of str
        Of `runtimes.RUNTIMES`. One that is missing, fails or disagrees is left out with a word of why.
    seconds : float
        Length of a turn.

    Returns
    -------
    dict
        What the JSON file says of it; the rows are those of the runtimes, the fastest first.
    """
    with TemporaryDirectory(prefix="npmobilenet-depthwise-") as folder:
        measured = {OURS: chains(case, OURS, threads, Path())}
        for name in names:
            try:
                if name not in measured:
                    measured[name] = chains(case, name, threads, Path(folder))
            except Exception as error:
                say(f"{name} left out: {error if isinstance(error, PeerError) else one_line(error)}")
        runtimes = tuple(measured)
        parts = case.parts if len(case.kernels) > 1 else {}
        measured |= {part.name: chains(part, OURS, threads, Path()) for part in parts}
        turns: dict[str, list[float]] = {name: [] for name in measured}
        peaks = []
        for number in range(rounds):
            peaks.append(machine_limits.multiply_add_rate(threads) / 1e9)
            for name in in_turn(measured, number):
                turns[name].append(_turn(measured[name], seconds))
    ours = turns[OURS]
    rows = []
    for name in runtimes:
        rate = 2 * case.macs / median(turns[name]) / 1e9
        rows.append(
            {
                "runtime": name,
                "version": package_version(RUNTIMES[name].package),
                "microseconds": 1e6 * median(turns[name]),
                "gflops": rate,
                "of_peak": rate / max(peaks),
                "over_ours": median(its / mine for its, mine in zip(turns[name], ours, strict=True)),
                "spread": spread(turns[name]),
                "round_microseconds": [1e6 * turn for turn in turns[name]],
            }
        )
    found = {
        "case": case.name,
        "threads": threads,
        "macs": case.macs,
        "peak_gflops": max(peaks),
        "rows": sorted(rows, key=lambda row: row["microseconds"]),
    }
    if parts:
        sums = [sum(share * turns[part.name][turn] for part, share in parts.items()) for turn in range(rounds)]
        found["over_parts"] = median(whole / of_parts for whole, of_parts in zip(ours, sums, strict=True))
        found["parts_microseconds"] = {part.name: 1e6 * median(turns[part.name]) for part in parts}
    return found


def _turn(both: Chains, seconds: float) -> float:
    """The seconds of one layer."""
    short, long = (burst(run, seconds / 2)["median"] for run in both)
    rest()
    return (long - short) / LAYERS


def heading(packages: Sequence[str]) -> Iterator[str]:
    """What the columns are, and the columns: ours, then those of each package."""
    yield "ratio: its time, of ours; parts: our time, of what the parts would take; ~: varies between rounds"
    yield ""
    yield f"{'':<18}{OURS:>21}" + "".join(f"{package:>15}" for package in packages)
    yield f"{'':<18}{'GFLOP/s':>7}{'of peak':>8}{'parts':>6}" + f"{'GFLOP/s':>9}{'ratio':>6}" * len(packages)


def line(found: dict, packages: Sequence[str]) -> str:
    """One case as a line of the table."""
    rows = {RUNTIMES[row["runtime"]].package: row for row in fastest_variants(found["rows"])}
    ours = rows[RUNTIMES[OURS].package]
    parts = _number(found["over_parts"], 1000, ".2f") if "over_parts" in found else ""
    cells = [f"{found['case']:<18}{_rate(ours):>7}{_mark(ours)}{_number(ours['of_peak'], 10, '.0%'):>7}{parts:>6}"]
    for package in packages:
        row = rows.get(package)
        cells.append(f"{_rate(row):>8}{_mark(row)}{_number(row['over_ours'], 1000, '.2f'):>6}" if row else " " * 15)
    return "".join(cells)


def _rate(row: dict) -> str:
    return _number(row["gflops"], 10_000, ".1f")


def _number(value: float, limit: float, form: str) -> str:
    """A number, unless nothing but noise explains it: the difference of two disturbed times may be less than none."""
    return format(value, form) if 0 < value < limit else "?"


def _mark(row: dict) -> str:
    return "~" if row["spread"] > NOISY else " "


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m npmobilenet.bench.depthwise",
        description="Depthwise and mixed convolutions as layers of a network, in npmobilenet and in every other "
        "runtime that is installed. Outputs are compared before anything is timed.",
    )
    default = (*PLAIN, *MIXED)
    parser.add_argument(
        "--cases", type=command.names, default=default, help=f"such as {PLAIN[0]},{MIXED[1]} (default: {len(default)})"
    )
    parser.add_argument("--threads", type=command.numbers, default=[1], help="such as 1,2 (default: 1)")
    command.add_options(parser, seconds=0.05)
    options = command.parse(parser, arguments)
    try:
        cases = [Case.parse(text) for text in options.cases]
        for case in cases:
            case.network(1 + LAYERS).shapes(case.image[2:])
    except ValueError as error:
        parser.error(str(error))

    packages = list(dict.fromkeys(RUNTIMES[name].package for name in options.runtimes if name != OURS))
    with command.record(options, "layers") as record:
        record.say(heading(packages))
        for threads in options.threads:
            record.say([f"threads {threads}"])
            for case in cases:
                found = measure(case, options.runtimes, threads, **record.settings, say=record.left_out)
                record.found["layers"].append(found)
                record.say([line(found, packages)])
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A ladder on one layer: every version of an operation, from the textbook's loops to the engine's kernel.

Each is compared with the reference before it is timed. One that would take long, as Python loops do, is timed on a
few of the layer's output channels and multiplied; its row says so. Of one that can be prepared, packing is not counted
(:mod:`npmobilenet.kernels.prepared`). The last row is the same layer inside its network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np

from npmobilenet.bench import machine_limits
from npmobilenet.bench.layers import BLOCK, Call, Layer, network_of
from npmobilenet.bench.noise import NOISY, spread
from npmobilenet.bench.profile import Seconds, in_turns, medians, timed
from npmobilenet.bench.progress import progress, say
from npmobilenet.bench.record import Record
from npmobilenet.bench.roofline import UNITS
from npmobilenet.bench.runtimes import burst
from npmobilenet.blocked.program import BlockedProgram, UnsupportedGraphError
from npmobilenet.kernels import registry
from npmobilenet.kernels.ladder import LADDERS
from npmobilenet.kernels.registry import Kernel
from npmobilenet.text import columns, megabytes, plural

LAYERS = {
    "conv2d": "mobilenet_v2/stem",
    "depthwise_conv2d": "mobilenet_v2/block3.depthwise",
    "mixed_depthwise_conv2d": "mixnet_s/block12.depthwise",
    "pointwise_conv2d": "mobilenet_v2/block5.project",
    "inverted_residual": "mobilenet_v2/block2",
    "pointwise_conv2d_int8": "mobilenet_v2/block5.project",
    "depthwise_conv2d_int8": "mobilenet_v2/block3.depthwise",
}
"""What a ladder is measured on if nothing else is asked for."""

PART = 100_000  # multiply-adds of the part of a layer on which a rung is tried first
PATIENCE = 0.3  # seconds of a call: a rung that needs more for the whole layer is timed on that part
SURE = 0.1  # seconds that a call for a part must take: below, what does not grow with the channels would count
TRIES = 3  # calls for that part, of which the least counts
TURN = 0.02  # seconds of a rung in each round
IMAGES = 3  # that its network computes instead: helper threads may come late to the first
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
MATRIX_PRODUCTS = (
    "conv2d",
    "pointwise_conv2d",
    "inverted_residual",
    "pointwise_conv2d_int8",
)  # ladders whose NumPy rungs leave the work to a BLAS library
UNPACKED = "a network packs its weights once and keeps its tensors in blocks of channels"
ENGINE = "in the network"
ENGINE_LESSON = (
    "The same kernel between its neighbours, as the engine calls it: its input has just been written by the layer "
    "before, its weights come from a cache farther away."
)
BLOCK_LESSON = (
    "The block as the engine calls it, by rows, by channels or in three calls, whichever it takes to be best for the "
    "shape and the number of threads, on tensors that the blocks before and after share."
)


def ladder_names() -> dict[str, str]:
    """What the ladders are called for short, and their operations."""
    short = {}
    for operation in LADDERS:
        kind = operation.removesuffix("_int8")
        short[operation] = kind.removesuffix("_conv2d").removesuffix("_depthwise") + operation.removeprefix(kind)
    return {name: operation for operation, name in {**short, BLOCK: "fused"}.items()}


def find_ladder(name: str) -> str:
    """Return the operation of a ladder, given its name or its short one.

    Raises
    ------
    ValueError
        If there is none.
    """
    known = ladder_names()
    operation = known.get(name, name)
    if operation not in LADDERS:
        raise ValueError(f"no ladder {name!r}; there are: {', '.join(known)}")
    return operation


@dataclass(frozen=True)
class Part:
    """What a slow rung takes on a part of the layer."""

    error: float
    seconds: float
    """Of the whole layer, by the multiply-adds."""
    channels: int
    macs: int
    between: int | None
    """Bytes that the whole layer's rung keeps between input and result, if it tells."""


def measure(layer: Layer, threads: int, rounds: int, record: Record) -> dict:
    """Measure every rung of an operation's ladder on a layer.

    Parameters
    ----------
    threads : int
        Of those rungs that use threads at all.
    record : Record
        Has the machine's limits; the result is added to its ladders.

    Returns
    -------
    dict
        What the JSON file says of it.

    Raises
    ------
    ValueError
        If a rung computes something else than the reference does.
    """
    rungs = [kernel for kernel in registry.kernels(layer.operation, "ladder") if kernel.supports(**layer.options)]
    lessons = {rung.name: rung.lesson for rung in LADDERS[layer.operation]}
    lessons[ENGINE] = BLOCK_LESSON if layer.operation == BLOCK else ENGINE_LESSON
    runs: dict[str, Callable[[], Seconds]] = {}
    slow: dict[str, Part] = {}
    errors: dict[str, float] = {}
    prepared: set[str] = set()
    between: dict[str, int | None] = {}
    expected = layer.reference()
    for rung in rungs:
        part = try_part(layer, rung, threads)
        between[rung.variant] = part.between
        if part.seconds > PATIENCE and part.channels < layer.channels:
            say(f"{rung.variant}: timed on {part.channels} of {layer.channels} {_kind(layer.operation)} channels")
            slow[rung.variant], errors[rung.variant] = part, part.error
            continue
        call = Call.of(rung, layer, threads, expected)
        errors[rung.variant], between[rung.variant] = call.error, call.between
        prepared |= {rung.variant} if call.prepared else set()
        runs[rung.variant] = lambda run=call.run: {"seconds": burst(run, TURN)["median"]}
    engine = in_network(layer, threads)
    if engine:
        runs[ENGINE] = engine
    runs["peak"] = lambda: {"gflops": machine_limits.product_rate(layer.dtype, threads, repeats=5) / 1e9}
    found = in_turns(runs, progress(range(rounds), f"{layer.operation}, {plural(threads, 'thread')}"))
    peaks = [one["gflops"] for one in found.pop("peak")]
    record.probe_again(threads)
    roof = record.raise_roof(threads, *peaks, dtype=layer.dtype)
    using_threads = {ENGINE, *(rung.name for rung in LADDERS[layer.operation] if rung.threads)}
    rows = []
    for name in [rung.variant for rung in rungs] + [ENGINE] * (engine is not None):
        seconds = [slow[name].seconds] if name in slow else [one["seconds"] for one in found[name]]
        rows.append(
            {
                "rung": name,
                "lesson": lessons[name],
                "threads": name in using_threads,
                "milliseconds": 1e3 * median(seconds),
                "spread": spread(seconds),
                "round_milliseconds": [1e3 * one for one in seconds],
                "channels_timed": slow[name].channels if name in slow else layer.channels,
                "error": errors.get(name),
                "prepared": name in prepared,
                "between": between.get(name),
                **roof.place(layer.macs, layer.bytes, median(seconds)),
            }
        )
    for row in rows:
        row["speedup"] = rows[0]["milliseconds"] / row["milliseconds"]
    result = {
        "operation": layer.operation,
        "dtype": layer.dtype,
        "network": layer.network,
        "name": layer.name,
        "layer": layer.title,
        "channels": layer.channels,
        "threads": threads,
        "macs": layer.macs,
        "bytes": layer.bytes,
        "peak_gflops": roof.gflops,
        "peak_spread": spread(peaks),
        "round_peaks": peaks,
        "blas_threads": os.environ.get(BLAS_THREADS),
        "possible_gflops": roof.possible(layer.macs, layer.bytes),
        "rows": rows,
    }
    record.found["ladders"].append(result)
    return result


def try_part(layer: Layer, rung: Kernel, threads: int) -> Part:
    """Run a rung on a part of a layer: what it computes is compared with the reference.

    The part grows until it is fast enough for the whole layer, or slow enough that its time can be multiplied.
    """
    macs, seconds = PART, 0.0
    while True:
        narrow = layer.narrowed(macs)
        call = Call.of(rung, narrow, threads)  # its first run compiles
        # The least of a few calls: a lowest rung that was disturbed would flatter all that stand above it.
        seconds = min(timed(call.run)()["seconds"] for _ in range(TRIES))
        known = seconds * layer.macs / narrow.macs <= PATIENCE or seconds >= SURE
        if known or narrow.channels == layer.channels:
            break
        macs = 4 * narrow.macs
    between = call.between and call.between * layer.channels // narrow.channels
    return Part(call.error, seconds * layer.macs / narrow.macs, narrow.channels, narrow.macs, between)


def in_network(layer: Layer, threads: int) -> Callable[[], Seconds] | None:
    """A measurement of a layer inside its network, unfused, or of a block; None of a layer that is of none."""
    if not layer.network:
        return None
    graph, weights = network_of(layer.network, layer.dtype)
    try:
        program = BlockedProgram(graph, weights)
    except UnsupportedGraphError:
        return None
    plan = program.plan((224, 224), threads=threads, fused=layer.operation == BLOCK)
    plan.run(np.random.default_rng(0).standard_normal((graph.in_channels, 224, 224), np.float32))

    def measured() -> Seconds:
        times = medians([plan.time_groups() for _ in range(IMAGES)])
        if layer.operation == BLOCK:  # one call, or three
            return {"seconds": sum(seconds for name, seconds in times.items() if name.startswith(f"{layer.name}."))}
        return {"seconds": times[layer.name]}

    return measured


def _kind(operation: str) -> str:
    """The channels of which there may be fewer while the others stay."""
    return "expanded" if operation == BLOCK else "output"


HEADER = ("rung", "ms", "speed-up", "GFLOP/s", "peak", "GB/s", "memory", "possible", "error")


def table(found: dict) -> Iterator[str]:
    """A ladder as text."""
    yield (
        f"{found['operation']}: {found['network'] or 'layer'} {found['layer']}, "
        f"{found['macs'] / 1e6:.2f} million multiply-adds, {plural(found['threads'], 'thread')}"
    )
    unit = UNITS[found.get("dtype", "float32")]
    yield f"possible here: {found['possible_gflops']:.0f} {unit} of a peak of {found['peak_gflops']:.0f}"
    yield ""
    rows = [tuple(unit if name == "GFLOP/s" else name for name in HEADER), *map(_cells, found["rows"])]
    if any(row.get("between") for row in found["rows"]):
        cells = ("between", *(megabytes(row["between"]) for row in found["rows"]))
        rows = [(*row, cell) for row, cell in zip(rows, cells, strict=True)]
    yield from columns(rows)
    yield ""
    yield from notes(found)
    if any(row.get("between") for row in found["rows"]):
        yield "between: memory of what a rung keeps between input and result, on all threads"
    yield "error: largest, of the largest value of the reference; ~: varies between rounds"


def notes(found: dict, quote: str = "") -> Iterator[str]:
    """What has to be said below a ladder's table; ``quote`` stands around the names of rungs."""
    for row in found["rows"]:
        if is_part(found, row):
            part = f"{row['channels_timed']} of {found['channels']} {_kind(found['operation'])} channels"
            yield f"* {quote}{row['rung']}{quote}: the least of {TRIES} calls on {part}, multiplied"
    prepared = [f"{quote}{row['rung']}{quote}" for row in found["rows"] if row["prepared"]]
    if prepared:
        yield f"packing not counted in {', '.join(prepared)}: {UNPACKED}"
    if found["operation"] in MATRIX_PRODUCTS:
        threads = found["blas_threads"] or "as many as its BLAS library takes"
        yield f"threads of numpy's matrix products: {threads} ({BLAS_THREADS})"


def is_part(found: dict, row: dict) -> bool:
    """Whether a rung was timed on a part of the layer."""
    return row["channels_timed"] < found["channels"]


def _cells(row: dict) -> tuple[str, ...]:
    mark = "~" if row["spread"] > NOISY else "*" if len(row["round_milliseconds"]) == 1 else " "
    return (
        row["rung"],
        f"{row['milliseconds']:.3f}{mark}",
        f"x {row['speedup']:,.1f}",
        f"{row['gflops']:.2f}",
        f"{row['of_peak']:.1%}",
        f"{row['gbytes']:.2f}",
        f"{row['of_bandwidth']:.0%}",
        f"{row['of_possible']:.1%}",
        "" if row["error"] is None else f"{row['error']:.0e}",
    )

"""A network layer by layer: how long each takes, how fast that is, and what would be possible.

The times are taken inside the network's own walk (`BlockedPlan.time_groups`), with the blocks fused as a model runs
them, and again with each layer as a call of its own. Layers that the vector kernels cannot run are plain Numba loops;
where Numba makes no machine code all of them are, and nothing is fused. Weights are random: the time does not depend on
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

import numpy as np

from npmobilenet.bench import machine_limits
from npmobilenet.bench.layers import largest_error
from npmobilenet.bench.noise import NOISY, spread
from npmobilenet.bench.profile import Seconds, in_turns, settled, timed
from npmobilenet.bench.progress import progress
from npmobilenet.bench.record import Record
from npmobilenet.bench.roofline import UNITS, Roofline
from npmobilenet.blocked.plan import BlockedPlan
from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.engine import Engine
from npmobilenet.graph import Graph, Node, Shape
from npmobilenet.image import IMAGENET
from npmobilenet.kernels.geometry import Pair
from npmobilenet.operations import INT8_OPERATIONS
from npmobilenet.plan import Plan
from npmobilenet.quantisation import quantised
from npmobilenet.text import columns, dimensions, plural

PEAK_REPEATS = 5  # of the peak in every round

HEADER = ("layer", "output", "MMACs", "us", "share", "GFLOP/s", "peak", "GB/s", "memory", "possible", "bound")
LEGEND = (
    "peak: of the machine's multiply-adds; memory: of the rate of a buffer as large as what the layer moves (weights:",
    "as all of them together)",
    "possible: of the roofline, whichever of the two ends first (bound); ~: varies between rounds",
)


def measure(
    name: str,
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    size: Pair,
    batch: int,
    threads: int,
    rounds: int,
    record: Record,
    dtype: str = "float32",
) -> dict:
    """Measure a network, and each of its blocks and layers.

    Parameters
    ----------
    name : str
        What it is called.
    weights : mapping of str to float32 array
        By the graph's parameter names.
    size : (H, W)
    batch : int
        Images of a call. Blocks and layers are those of a single image, on all threads.
    rounds : int
        In each of which the network, its blocks, its layers and the machine's peak have their turn.
    record : Record
        Has the machine's limits; the result is added to its networks.
    dtype : {"float32", "int8"}
        "int8": of the network quantised.

    Returns
    -------
    dict
        What the JSON file says of it.

    Raises
    ------
    ValueError
        If it computes something else than the reference does.
    """
    if dtype == "int8":
        name = f"{name} int8"
        made = quantised(graph, weights, replace(IMAGENET, resize=size, crop=size))
        graph, weights = made.graph, made.weights
    engine = Engine(graph, weights, dtype=dtype)
    program = engine.program
    asked = graph.output_names if len(graph.output_names) > 1 else graph.main_output

    def run(engine: Engine, x: np.ndarray) -> list[np.ndarray]:
        """As a model computes all of its outputs."""
        if isinstance(asked, tuple):
            return list(engine.outputs(x, asked, threads).values())
        return [engine.run(x, threads)]

    plans: dict[str, BlockedPlan | Plan] = {"layers": program.plan(size, asked, threads)}
    if isinstance(program, BlockedProgram):
        plans = {"blocks": plans["layers"], "layers": program.plan(size, asked, threads, fused=False)}
    x = np.random.default_rng(0).standard_normal((batch, graph.in_channels, *size), np.float32)
    expected = run(Engine(graph, weights, "reference", dtype), x[:1])
    found = [run(engine, x[:1])]
    for plan in plans.values():
        results = [np.empty(shape, np.float32) for shape in plan.output_shapes]
        plan.run_into(x[0], results)
        found.append([result[None] for result in results])
    error = max(largest_error(*pair) for outputs in found for pair in zip(outputs, expected, strict=True))
    runs = {
        "network": settled(timed(lambda: run(engine, x))),
        "peak": lambda: {"gflops": machine_limits.product_rate(dtype, threads, repeats=PEAK_REPEATS) / 1e9},
        **{part: settled(plan.time_groups) for part, plan in plans.items()},
    }
    found = in_turns(runs, progress(range(rounds), f"{name}, {plural(threads, 'thread')}"))
    peaks = [one["gflops"] for one in found["peak"]]
    record.probe_again(threads)
    roof = record.raise_roof(threads, *peaks, dtype=dtype)
    shapes = program.graph.shapes(size)
    rows = {part: list(_rows(plan, shapes, weights, found[part], roof)) for part, plan in plans.items()}
    parts = {"blocks": [], **rows}
    macs = sum(row["macs"] for row in parts["layers"])
    seconds = [one["seconds"] for one in found["network"]]
    gflops = 2 * macs * batch / median(seconds) / 1e9
    result = {
        "network": name,
        "dtype": dtype,
        "size": list(size),
        "batch": batch,
        "threads": threads,
        "macs": macs,
        "kernels": "plain" if not parts["blocks"] else "vector and plain" if engine.plain_layers else "vector",
        "plain_layers": list(engine.plain_layers),
        "memory": next(iter(plans.values())).memory,
        "error": error,
        **_times(seconds),
        "images_per_second": batch / median(seconds),
        "gflops": gflops,
        "of_peak": gflops / roof.gflops,
        "peak_gflops": roof.gflops,
        "peak_spread": spread(peaks),
        "round_peaks": peaks,
        **parts,
    }
    record.found["networks"].append(result)
    return result


def _times(seconds: Sequence[float]) -> dict:
    return {
        "milliseconds": 1e3 * median(seconds),
        "least_milliseconds": 1e3 * min(seconds),
        "spread": spread(seconds),
        "round_milliseconds": [1e3 * one for one in seconds],
    }


def _rows(
    plan: BlockedPlan | Plan,
    shapes: Mapping[str, Shape],
    weights: Mapping[str, np.ndarray],
    found: Sequence[Seconds],
    roof: Roofline,
) -> Iterator[dict]:
    whole = sum(median(one[group[-1].name] for one in found) for group in plan.groups)
    sizes = {name: 4 * int(np.prod(shape)) for name, shape in shapes.items()}
    for node in (node for group in plan.groups for node in group):
        sizes[node.name] = sizes[node.name] // 4 * np.dtype(node.kind.result_dtype(node)).itemsize
    learned = {node.name: _weight_bytes(node, weights) for group in plan.groups for node in group}
    for group in plan.groups:
        seconds = [one[group[-1].name] for one in found]
        macs = sum(node.macs(shapes[node.name]) for node in group)
        inside = {node.name for node in group}
        outer = {name for node in group for name in node.inputs} - inside
        moved = sum(sizes[name] for name in (*outer, group[-1].name))
        streamed = sum(learned[node.name] for node in group)
        yield {
            "name": _title(group),
            "operations": [node.operation for node in group],
            "input": list(shapes[group[0].inputs[0]]),
            "output": list(shapes[group[-1].name]),
            **_times(seconds),
            "share": median(seconds) / whole,
            **roof.place(macs, moved + streamed, median(seconds), streamed, sum(learned.values())),
        }


def _weight_bytes(node: Node, weights: Mapping[str, np.ndarray]) -> int:
    """Weights and a bias; of what has no weights, and of 8 bits, whatever it has."""
    if node.operation in INT8_OPERATIONS:
        return sum(weights[f"{node.name}.{name}"].nbytes for name in node.parameters)
    return 4 * (node.weight_count + node["channels"] if node.weight_count else node.parameter_count)


def _title(group: Sequence[Node]) -> str:
    """Such as ``block2.expand+depthwise+project``."""
    names = [group[0].name]
    for before, node in pairwise(group):
        names.append(node.name.removeprefix(f"{before.block}."))
    return "+".join(names)


def table(found: dict, parts: Sequence[str] = ("blocks",)) -> Iterator[str]:
    """A network as text: its totals, and a line for each block or layer."""
    image = f"{dimensions(found['size'])}, batch {found['batch']}, {plural(found['threads'], 'thread')}"
    noise = f" ~{found['spread']:.2f}x between rounds" if found["spread"] > NOISY else ""
    unit = UNITS[found.get("dtype", "float32")]
    yield f"{found['network']}, {image}"
    yield f"  time         {found['milliseconds']:.2f} ms (least {found['least_milliseconds']:.2f}){noise}"
    yield f"  throughput   {found['images_per_second']:.1f} images/s"
    yield (
        f"  arithmetic   {found['gflops']:.1f} {unit}, {found['of_peak']:.0%} of this machine's peak of "
        f"{found['peak_gflops']:.0f}, probed in the same rounds"
    )
    yield f"  memory       {found['memory'] / 1e6:.2f} MB of activations; largest error {found['error']:.0e}"
    if not found["blocks"]:
        yield "  kernels      plain Numba loops: the vector kernels cannot run this network"
        parts = ("layers",)
    elif found["plain_layers"]:
        these = f"{len(found['plain_layers'])} of {len(found['layers'])}"
        yield f"  kernels      plain Numba loops for {these} layers, which the vector kernels cannot run"
    for part in parts:
        rows = found[part]
        milliseconds = sum(row["milliseconds"] for row in rows)
        least = sum(row["milliseconds"] * row["of_possible"] for row in rows)
        yield ""
        yield {"blocks": "As it runs, blocks fused", "layers": "Layer by layer" + ", unfused" * bool(found["blocks"])}[
            part
        ] + (f" (one image): {milliseconds:.2f} ms in all; at what is possible for each: {least:.2f} ms")
        yield ""
        yield from columns([[unit if name == "GFLOP/s" else name for name in HEADER], *map(_cells, rows)], texts=2)
    yield ""
    yield from LEGEND


def _cells(row: dict) -> tuple[str, ...]:
    noise = "~" if row["spread"] > NOISY else " "
    return (
        row["name"],
        dimensions((*row["output"][1:], row["output"][0])),
        f"{row['macs'] / 1e6:.2f}",
        f"{1e3 * row['milliseconds']:.1f}{noise}",
        f"{row['share']:.1%}",
        f"{row['gflops']:.1f}",
        f"{row['of_peak']:.0%}",
        f"{row['gbytes']:.1f}",
        f"{row['of_bandwidth']:.0%}",
        f"{row['of_possible']:.0%}",
        row["bound"],
    )

"""Activation memory: by the paper's formulas, as the engine plans it, as a process takes it (1801.04381, 5.1).

Op by op, an inference needs as much as its largest operation: all of that one's inputs and outputs. A block as one
operation needs its input and its output, and a part of the expanded tensor between: expanded, filtered and projected
in t parts of its channels, 1/t of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.profile import noise, time_in_turns
from npmobilenet.bench.study.peak import measure
from npmobilenet.bench.study.study import Table, measurement_notes, milliseconds
from npmobilenet.blocked.program import BlockedProgram, UnsupportedGraphError
from npmobilenet.counts import count, materialised_bytes
from npmobilenet.graph import Graph
from npmobilenet.machine import numba_is_on
from npmobilenet.plan import Program

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (112, 56, 28, 14, 7, 1)
PAPER = {
    "MobileNetV1": ((64, 1600), (128, 800), (256, 400), (512, 200), (1024, 199), (1024, 2)),
    "MobileNetV2": ((16, 400), (32, 200), (64, 100), (160, 62), (320, 32), (1280, 2)),
    "ShuffleNet 2x, g=3": ((32, 800), (48, 300), (400, 600), (800, 310), (1600, 156), (1600, 3)),
}
"""Table 3: channels, and kilobytes of 16-bit values, at each of `SIZES`."""
PAPER_LARGEST = (1600, 400, 600)
VALUE_BYTES = 4  # float32


@dataclass(frozen=True)
class Peak:
    """Bytes of activations at the peak of one inference: by formula or plan, and as a process grew."""

    name: str
    planned: int
    measured: int | None = None


@dataclass(frozen=True)
class Split:
    """The expansion of every block in so many parts; 0: as the engine cuts each block."""

    parts: int
    seconds: float
    memory: int
    scratch: int


@dataclass(frozen=True)
class Memory:
    """All of it."""

    network: str
    width: float
    resolution: int
    peaks: list[Peak]
    splits: list[Split]
    warning: str | None

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        table = [
            {"network": name, "size": size, "channels": channels, "paper_kilobytes": kilobytes,
             "bytes": materialised_bytes(size, channels)}
            for name, entries in PAPER.items()
            for size, (channels, kilobytes) in zip(SIZES, entries, strict=True)
        ]  # fmt: skip
        return {"table_3": table, **asdict(self)}

    def tables(self) -> list[Table]:
        """Return the paper's table, the peaks and the splits."""
        rows = []
        for at, size in enumerate(SIZES):
            cells = [f"{size}x{size}"]
            for entries in PAPER.values():
                channels, kilobytes = entries[at]
                cells += [str(channels), f"{materialised_bytes(size, channels) / 1e3:.1f}", str(kilobytes)]
            rows.append(cells)
        last = ["largest"]
        for entries, printed in zip(PAPER.values(), PAPER_LARGEST, strict=True):
            found = max(materialised_bytes(size, channels) for size, (channels, _) in zip(SIZES, entries, strict=True))
            last += ["", f"{found / 1e3:.1f}", str(printed)]
        header = ["size", *(cell for name in PAPER for cell in (name, "kB", "printed"))]
        paper = Table(
            "Tensors between blocks, 16-bit values: channels, size x size x channels x 2 bytes, as printed (Table 3)",
            header,
            [*rows, last],
            notes=(
                "printed 199 for 7x7x1024 is a misprint; the table takes the output channels of each row of Table 2 "
                "at its input size, so that a network has more at some sizes and less at others",
            ),
        )
        where = f"{self.network}, width {self.width:g}, {self.resolution}x{self.resolution}, one image"
        measured = any(peak.measured for peak in self.peaks)
        peaks = Table(
            f"Activations at the peak, float32, in MB (section 5.1): {where}",
            ("", "formula or plan", "process grew by"),
            [
                (peak.name, _megabytes(peak.planned), _megabytes(peak.measured) if peak.measured else "-")
                for peak in self.peaks
            ],
            notes=[
                "process grew by: VmHWM of a new process, less what it held when its weights were packed (with the "
                "plan's tables); Linux counts pages in lots, so that it is true to about 0.3 MB"
            ]
            if measured
            else ["the growth of a process: not measured (needs Linux, and Numba switched on)"],
        )
        splits = Table(
            f"The expansion of each block in t parts (section 5.1: between 2 and 5 are best): {where}",
            ("t", "ms", "memory MB", "of which scratch"),
            [
                (
                    str(split.parts or "engine"),
                    milliseconds(split.seconds),
                    _megabytes(split.memory),
                    _megabytes(split.scratch),
                )
                for split in self.splits
            ],
            notes=[
                "scratch: expanded and filtered channels of one part; a part is whole panels of channels",
                "engine: strips of rows for large images, parts of the channels where weights outweigh the image, "
                "separate calls where neither pays; 1 thread, the shortest of rounds in turns",
                *measurement_notes(self.warning, True),
            ]
            if self.splits
            else measurement_notes(None, False),
        )
        return [paper, peaks, splits] if self.splits or not numba_is_on() else [paper, peaks]

    def draw(self, figure: Figure) -> None:
        """Peaks as bars; the splits' time and memory."""
        from npmobilenet.bench.study.pictures import BLUE, ORANGE, RED

        left, *right = figure.subplots(1, 3 if self.splits else 1, width_ratios=(1.6, 1, 1) if self.splits else (1,),
                                       squeeze=False)[0]  # fmt: skip
        at = np.arange(len(self.peaks))[::-1]
        left.barh(at + 0.2, [peak.planned / 1e6 for peak in self.peaks], 0.4, color=BLUE, label="formula or plan")
        found = [(y, peak.measured / 1e6) for y, peak in zip(at, self.peaks, strict=True) if peak.measured]
        if found:
            left.barh([y - 0.2 for y, _ in found], [mb for _, mb in found], 0.4, color=ORANGE, label="process grew by")
        left.set_yticks(at, [peak.name.replace(", ", ",\n") for peak in self.peaks])
        left.set_xlabel("MB at the peak")
        left.set_title(f"Activations: {self.network}, width {self.width:g}, {self.resolution}²")
        left.set_xlim(0, 1.35 * max(peak.planned for peak in self.peaks) / 1e6)
        left.legend(loc="lower right")
        left.grid(axis="y", visible=False)
        parts = [split for split in self.splits if split.parts]
        engine = next((split for split in self.splits if not split.parts), None)
        for axes, title, value in zip(
            right,
            ("Split: time in ms", "Split: memory in MB"),
            (lambda split: 1e3 * split.seconds, lambda split: split.memory / 1e6),
            strict=False,
        ):
            axes.plot([split.parts for split in parts], list(map(value, parts)), "o-", color=BLUE, label="t parts")
            axes.axhline(value(engine), color=RED, linestyle="--", label="engine's choice")
            axes.set_ylim(0, 1.4 * max(map(value, self.splits)))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel("t, parts of the expansion")
            axes.set_title(title)
            axes.legend(loc="upper right", fontsize=9)


def study(network: str, width: float, resolution: int, splits: int, rounds: int) -> Memory:
    """Compute, plan and measure the memory of one inference.

    Parameters
    ----------
    network : str
        An architecture.
    width : float
    resolution : int
        Height and width of the image.
    splits : int
        The largest number of parts that expansions are computed in.
    rounds : int
        Measurements of each, in turns.
    """
    graph, size = get_architecture(network).graph(width), (resolution, resolution)
    counts = count(graph, size)
    weights = random_weights(graph)

    def grown(lowering: str) -> int | None:
        return measure(network, width, resolution, lowering) if numba_is_on() else None

    peaks = [
        Peak("op by op, formula", VALUE_BYTES * counts.op_by_op_memory),
        Peak("plain kernels, layer by layer", Program(graph, weights, "plain").plan(size).memory, grown("plain")),
        Peak("block as one, formula", VALUE_BYTES * counts.block_memory),
    ]
    found, warning = [], None
    try:
        program = BlockedProgram(graph, weights)
    except UnsupportedGraphError:
        pass
    else:
        layers, blocks = program.plan(size, fused=False), program.plan(size)
        peaks.insert(2, Peak("vector kernels, layer by layer", layers.memory, grown("layers")))
        peaks.append(Peak("vector kernels, blocks fused", blocks.memory, grown("blocks")))
        found, warning = _splits(program, graph, size, splits, rounds)
    return Memory(network, width, resolution, peaks, found, warning)


def _splits(
    program: BlockedProgram, graph: Graph, size: tuple[int, int], splits: int, rounds: int
) -> tuple[list[Split], str | None]:
    image = np.random.default_rng(0).standard_normal((graph.in_channels, *size), np.float32)
    numbers = [*range(1, splits + 1), 0]
    plans = [program.plan(size, split=number or None) for number in numbers]
    timings = time_in_turns([lambda plan=plan: plan.run(image) for plan in plans], rounds)
    rows = [
        Split(number, timing.best, plan.memory, plan.scratch_bytes)
        for number, timing, plan in zip(numbers, timings, plans, strict=True)
    ]
    return rows, noise(timings)


def _megabytes(value: int) -> str:
    return f"{value / 1e6:.2f}"

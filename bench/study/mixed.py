"""Kernel sizes and their mixtures in depthwise convolutions (MixNet, 1907.09595, section 3).

A larger window sees more at the square of the cost; a mixture gives each size to a part of the channels, so that the
largest is paid for by few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.profile import Timing, noise, time_in_turns, time_layers
from npmobilenet.bench.study.study import Table, measurement_notes, milliseconds, ratio
from npmobilenet.blocked.program import BlockedProgram, UnsupportedGraphError
from npmobilenet.counts import count
from npmobilenet.graph import Graph

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def receptive_field(graph: Graph) -> int:
    """Return how many rows of the image a value of the last feature map depends on, borders aside.

    A window of K taps at distance D on an image whose rows are J rows of the input apart adds ``(K - 1) D J``;
    a stride multiplies J. Of parallel paths the widest counts, and of a mixed convolution the largest window.
    """
    fields = {"input": (1, 1)}  # rows seen, and how many rows of the image lie between neighbours
    seen = 1
    for node in graph:
        rows, step = max(fields[name] for name in node.inputs)
        if node.operation in ("global_average_pool", "linear"):
            break
        if node.windows:
            rows += step * max((kernel[0] - 1) * dilation[0] for kernel, dilation in node.windows)
            step *= node["stride"][0]
        fields[node.name] = (rows, step)
        seen = rows
    return seen


@dataclass(frozen=True)
class Variant:
    """The network with one choice of kernel sizes in all its depthwise convolutions.

    Attributes
    ----------
    kernels : tuple of int
        One: plain; several: equal parts of the channels.
    macs, parameters : int
        Of the network.
    depthwise_macs : int
    receptive_field : int
        Of the last feature map, in pixels of the image.
    seconds, depthwise_seconds : float or None
        The network as a model runs it, blocks fused; its depthwise convolutions as calls of their own.
    """

    kernels: tuple[int, ...]
    parameters: int
    macs: int
    depthwise_macs: int
    receptive_field: int
    seconds: float | None = None
    depthwise_seconds: float | None = None

    @property
    def name(self) -> str:
        """Such as ``9x9``, or ``3,5,7,9``."""
        return ",".join(map(str, self.kernels)) if len(self.kernels) > 1 else f"{self.kernels[0]}x{self.kernels[0]}"


@dataclass(frozen=True)
class Mixed:
    """All variants, plain ones first."""

    network: str
    width: float
    resolution: int
    variants: list[Variant]
    warning: str | None

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return asdict(self)

    def tables(self) -> list[Table]:
        """Return one line for each variant."""
        measured = self.variants[0].seconds is not None
        header = ("kernels", "parameters", "MACs", "depthwise MACs", "x", "receptive field",
                  "network ms", "depthwise ms", "x", "GFLOP/s")  # fmt: skip
        first = self.variants[0]
        rows = []
        for each in self.variants:
            times = ("-", "-", "-", "-")
            if each.depthwise_seconds:
                slower = ratio(each.depthwise_seconds / first.depthwise_seconds)
                speed = f"{2e-9 * each.depthwise_macs / each.depthwise_seconds:.1f}"
                times = (milliseconds(each.seconds), milliseconds(each.depthwise_seconds), slower, speed)
            rows.append(
                (
                    *(each.name, f"{each.parameters:,}", f"{each.macs:,}", f"{each.depthwise_macs:,}"),
                    *(ratio(each.depthwise_macs / first.depthwise_macs), f"{each.receptive_field} pixels", *times),
                )
            )
        notes = [
            f"x: times as much as with {first.name}; receptive field: of the last feature map, if the image went on "
            f"beyond its {self.resolution} pixels"
        ]
        if measured:
            notes.append(
                "depthwise: as calls of their own, with the frames of zeros they need; network: as a model runs, "
                "blocks fused; 1 thread, the shortest of rounds in turns, random weights"
            )
        notes += measurement_notes(self.warning, measured)
        title = (
            f"Depthwise convolutions of {self.network}, width {self.width:g}, {self.resolution}x{self.resolution}: "
            f"plain kernels, and mixtures in equal parts of the channels"
        )
        return [Table(title, header, rows, notes=notes)]

    def draw(self, figure: Figure) -> None:
        """Multiply-adds and time over the largest kernel; the receptive field."""
        from npmobilenet.bench.study.pictures import BLACK, BLUE, RED

        left, right = figure.subplots(1, 2)
        first = self.variants[0]
        plain = [each for each in self.variants if len(each.kernels) == 1]
        mixed = [first, *(each for each in self.variants if len(each.kernels) > 1)]
        for name, rows, colour in (("plain", plain, BLUE), ("mixed", mixed, RED)):
            sizes = [max(each.kernels) for each in rows]
            macs = [each.depthwise_macs / first.depthwise_macs for each in rows]
            left.plot(sizes, macs, "o--", color=colour, label=f"{name}: multiply-adds", markerfacecolor="white")
            if first.depthwise_seconds:
                times = [each.depthwise_seconds / first.depthwise_seconds for each in rows]
                left.plot(sizes, times, "o-", color=colour, label=f"{name}: time")
            fields = [each.receptive_field for each in rows]
            right.plot([each.macs / 1e6 for each in rows], fields, "o-", color=colour, label=name)
            for each in rows[name == "mixed" :]:
                place = {"xytext": (0, 7), "ha": "right"} if name == "mixed" else {"xytext": (6, -10)}
                right.annotate(each.name, (each.macs / 1e6, each.receptive_field), textcoords="offset points",
                               color=colour, fontsize=8, **place)  # fmt: skip
        left.set_xticks(sorted({max(each.kernels) for each in self.variants}))
        left.set_xlabel("largest kernel")
        left.set_ylabel(f"times as much as with {first.name}")
        left.set_title(f"Depthwise convolutions of {self.network}")
        right.axhline(self.resolution, color=BLACK, linestyle=":", linewidth=1, label="the image")
        right.set_xlabel("million multiply-adds of the network")
        right.set_ylabel("receptive field in pixels")
        right.set_title("What the last feature map sees")
        for axes in (left, right):
            axes.margins(x=0.12, y=0.08)
            axes.set_ylim(bottom=0)
            axes.legend()


def study(network: str, width: float, resolution: int, kernels: Sequence[int], rounds: int) -> Mixed:
    """Give a network other kernel sizes, each alone and in mixtures of the smaller ones, and compare.

    Parameters
    ----------
    network : str
        An architecture with depthwise convolutions.
    width : float
    resolution : int
        Height and width of the image.
    kernels : sequence of int
        Kernel sizes; the mixtures are the first two, the first three, ...
    rounds : int
        Measurements of each variant, in turns.
    """
    kernels = tuple(sorted(set(kernels)))
    choices = [*((kernel,) for kernel in kernels), *(kernels[:number] for number in range(2, len(kernels) + 1))]
    architecture, size = get_architecture(network), (resolution, resolution)
    graphs = [architecture.with_mixed(choice).graph(width) for choice in choices]
    try:
        wholes, parts = _measure(graphs, size, rounds)
    except UnsupportedGraphError:
        wholes, parts = ([None] * len(graphs),) * 2
    variants = []
    for choice, graph, whole, part in zip(choices, graphs, wholes, parts, strict=True):
        counts = count(graph, size)
        macs = sum(layer.macs for layer in counts.layers if "depthwise" in layer.operation)
        seconds = None if part is None else sum(timing.best for timing in part)
        variants.append(
            Variant(
                *(choice, counts.parameters, counts.macs, macs, receptive_field(graph)), whole and whole.best, seconds
            )
        )
    warning = noise([whole for whole in wholes if whole])
    return Mixed(network, width, resolution, variants, warning)


def _measure(graphs: Sequence[Graph], size: tuple[int, int], rounds: int) -> tuple[list[Timing], list[list[Timing]]]:
    """Times of the networks, and of the depthwise convolutions of each."""
    programs = [BlockedProgram(graph, random_weights(graph)) for graph in graphs]
    image = np.random.default_rng(0).standard_normal((graphs[0].in_channels, *size), np.float32)
    plans = [program.plan(size) for program in programs]
    wholes = time_in_turns([lambda plan=plan: plan.run(image) for plan in plans], rounds)
    layers = [time_layers(program.plan(size, fused=False), rounds) for program in programs]
    return wholes, [
        [timing for name, timing in found.items() if "depthwise" in program.graph[name].operation]
        for program, found in zip(programs, layers, strict=True)
    ]

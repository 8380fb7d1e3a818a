"""Width and resolution multipliers (1704.04861, sections 3.3 and 3.4; 1801.04381, section 6.1).

Both scale the multiply-adds with their square, roughly; only the width changes the parameters. Beside what is counted
and measured here stands what the authors published of their 22 MobileNetV2 checkpoints (tensorflow/models,
research/slim/nets/mobilenet).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.profile import Timing, noise, time_in_turns
from npmobilenet.bench.study.study import Table, measurement_notes, milliseconds
from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.counts import count
from npmobilenet.machine import numba_is_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Published(NamedTuple):
    """Of a checkpoint: million MACs (cut, not rounded), accuracy in per cent, milliseconds on a Pixel 1, one core."""

    macs: int
    top1: float
    top5: float
    pixel: float


PUBLISHED = {
    (1.4, 224): Published(582, 75.0, 92.5, 138.0),
    (1.3, 224): Published(509, 74.4, 92.1, 123.0),
    (1.0, 224): Published(300, 71.8, 91.0, 73.8),
    (1.0, 192): Published(221, 70.7, 90.1, 55.1),
    (1.0, 160): Published(154, 68.8, 89.0, 40.2),
    (1.0, 128): Published(99, 65.3, 86.9, 27.6),
    (1.0, 96): Published(56, 60.3, 83.2, 17.6),
    (0.75, 224): Published(209, 69.8, 89.6, 55.8),
    (0.75, 192): Published(153, 68.7, 88.9, 41.6),
    (0.75, 160): Published(107, 66.4, 87.3, 30.4),
    (0.75, 128): Published(69, 63.2, 85.3, 21.9),
    (0.75, 96): Published(39, 58.8, 81.6, 14.2),
    (0.5, 224): Published(97, 65.4, 86.4, 28.7),
    (0.5, 192): Published(71, 63.9, 85.4, 21.1),
    (0.5, 160): Published(50, 61.0, 83.2, 14.9),
    (0.5, 128): Published(32, 57.7, 80.8, 9.9),
    (0.5, 96): Published(18, 51.2, 75.8, 6.4),
    (0.35, 224): Published(59, 60.3, 82.9, 19.7),
    (0.35, 192): Published(43, 58.2, 81.2, 14.6),
    (0.35, 160): Published(30, 55.7, 79.1, 10.5),
    (0.35, 128): Published(20, 50.8, 75.0, 6.9),
    (0.35, 96): Published(11, 45.5, 70.4, 4.5),
}


@dataclass(frozen=True)
class Network:
    """MobileNetV2 of one width for one size of images."""

    width: float
    resolution: int
    parameters: int
    macs: int
    seconds: float | None
    published: Published | None


@dataclass(frozen=True)
class Multipliers:
    """The whole grid."""

    networks: list[Network]
    warning: str | None

    @property
    def measured(self) -> bool:
        """Whether there are times."""
        return self.networks[0].seconds is not None

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        rows = [{**asdict(row), "published": row.published and row.published._asdict()} for row in self.networks]
        return {"networks": rows, "warning": self.warning}

    def tables(self) -> list[Table]:
        """Return the grid."""
        header = ("width", "size", "parameters", "MACs", "ms", "GFLOP/s", "| top-1 %", "top-5 %", "Pixel 1 ms")
        rows = []
        for row in self.networks:
            speed = f"{2e-9 * row.macs / row.seconds:.1f}" if row.seconds else "-"
            known = row.published
            rows.append(
                (
                    *(f"{row.width:g}", str(row.resolution), f"{row.parameters:,}", f"{row.macs:,}"),
                    *(milliseconds(row.seconds), speed),
                    *((f"{known.top1:.1f}", f"{known.top5:.1f}", f"{known.pixel:.1f}") if known else ("", "", "")),
                )
            )
        notes = ["right of the bar: published by the authors, trained and measured by them (ImageNet, TF-Lite)"]
        if self.measured:
            notes.append("ms: this machine, 1 thread, one image, the shortest of rounds in turns, random weights")
        notes += measurement_notes(self.warning, self.measured)
        title = "MobileNetV2 under width and resolution multipliers"
        return [Table(title, header, rows, texts=0, notes=notes)]

    def draw(self, figure: Figure) -> None:
        """Accuracy over time or multiply-adds; and time over multiply-adds, here and on the phone."""
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        from npmobilenet.bench.study.pictures import GREY, SERIES

        figure.set_size_inches(figure.get_size_inches()[0], 4.6)
        left, right = figure.subplots(1, 2)
        for colour, width in zip(SERIES, dict.fromkeys(row.width for row in self.networks), strict=False):
            rows = [row for row in self.networks if row.width == width]
            known = [row for row in rows if row.published]
            left.plot([_time(row) for row in known], [row.published.top1 for row in known], "o-", color=colour,
                      label=f"width {width:g}")  # fmt: skip
            if self.measured:
                macs = [row.macs / 1e6 for row in rows]
                right.plot(macs, [1e3 * row.seconds for row in rows], "o-", color=colour)
        phone = sorted((row.macs / 1e6, row.published.pixel) for row in self.networks if row.published)
        right.plot(*zip(*phone, strict=True), "x", color=GREY, label="Pixel 1 (published)") if phone else None
        left.set_xlabel("ms, this machine, 1 thread" if self.measured else "million multiply-adds")
        left.set_ylabel("published top-1 accuracy in %")
        left.set_title("Accuracy for time; along a line: image sizes")
        right.set_xlabel("million multiply-adds")
        right.set_ylabel("ms for one image")
        right.set_title("Time for multiply-adds; colours as on the left")
        right.set_yscale("log")
        for axes, logarithmic, place in (
            (left, [left.xaxis], "lower right"),
            (right, [right.xaxis, right.yaxis], "upper left"),
        ):
            axes.set_xscale("log")
            for axis in logarithmic:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axis.set_minor_formatter(NullFormatter())
            axes.legend(loc=place, fontsize=9) if axes.get_legend_handles_labels()[0] else None


def _time(row: Network) -> float:
    """Milliseconds, or millions of multiply-adds where nothing was measured."""
    return row.macs / 1e6 if row.seconds is None else 1e3 * row.seconds


def study(widths: Sequence[float] | None, resolutions: Sequence[int], rounds: int) -> Multipliers:
    """Count and measure MobileNetV2 over a grid.

    Parameters
    ----------
    widths : sequence of float, optional
        For every resolution; None: the published grid, where widths above 1 are for images of 224 only.
    resolutions : sequence of int
    rounds : int
        Measurements of each network, in turns.
    """
    if widths is None:
        grid = [(width, resolution) for width, resolution in PUBLISHED if resolution in resolutions]
        if not grid:
            raise ValueError(f"nothing was published for images of {', '.join(map(str, resolutions))}; give --widths")
    else:
        grid = [(width, resolution) for width in widths for resolution in resolutions]
    graphs = {width: get_architecture("mobilenet_v2").graph(width) for width, _ in grid}
    timings = _measure(graphs, grid, rounds) if numba_is_on() else [None] * len(grid)
    networks = []
    for (width, resolution), timing in zip(grid, timings, strict=True):
        counts = count(graphs[width], (resolution, resolution))
        seconds, known = timing and timing.best, PUBLISHED.get((width, resolution))
        networks.append(Network(width, resolution, counts.parameters, counts.macs, seconds, known))
    return Multipliers(networks, noise([timing for timing in timings if timing]))


def _measure(graphs: dict, grid: Sequence[tuple[float, int]], rounds: int) -> list[Timing]:
    programs = {width: BlockedProgram(graph, random_weights(graph)) for width, graph in graphs.items()}
    calls = []
    for width, resolution in grid:
        plan = programs[width].plan((resolution, resolution))
        image = np.random.default_rng(0).standard_normal((3, resolution, resolution), np.float32)
        calls.append(lambda plan=plan, image=image: plan.run(image))
    return time_in_turns(calls, rounds)

"""Dense against depthwise separable convolutions (MobileNetV1, 1704.04861, section 3.1).

A convolution of a K x K window from M to N channels costs ``K K M N F F`` multiply-adds on an F x F image; a
depthwise convolution followed by a pointwise one ``K K M F F + M N F F``: the part ``1/N + 1/K^2``, with 3 x 3
windows "between 8 to 9 times less computation". Time need not follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.profile import noise, time_in_turns, time_layers
from npmobilenet.bench.study.study import Table, measurement_notes, milliseconds, ratio
from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.counts import LayerCount, count
from npmobilenet.graph import Graph
from npmobilenet.kernels.geometry import Pair, convolution_macs
from npmobilenet.machine import numba_is_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KERNELS = {
    "plain": "plain Numba loops (kernels/plain: convolution; depthwise, pointwise)",
    "vector": "explicit vectors on packed tensors (kernels/blocked: convolution; depthwise, pointwise)",
}
TABLE_3 = {"input": 14, "channels": 512, "kernel": 3}
"""The layer of the paper's Table 3."""


def separable_part(c_out: int, kernel: int) -> float:
    """Return what is left of a convolution's multiply-adds: ``1/N + 1/K^2`` (section 3.1)."""
    return 1 / c_out + 1 / kernel**2


@dataclass(frozen=True)
class Layer:
    """One layer of MobileNetV1 both ways; ``seconds`` are (dense, separable) of each class of kernels."""

    block: str
    times: int
    input: tuple[int, int, int]
    c_out: int
    stride: int
    macs: tuple[int, int]
    weights: tuple[int, int]
    seconds: dict[str, tuple[float, float]]

    @property
    def name(self) -> str:
        """Its block, and how often there is one like it."""
        return self.block + (f" (x{self.times})" if self.times > 1 else "")

    @property
    def macs_ratio(self) -> float:
        """Dense multiply-adds per separable one."""
        return self.macs[0] / self.macs[1]

    def time_ratio(self, kernels: str) -> float | None:
        """How many times as long the dense convolution takes."""
        pair = self.seconds.get(kernels)
        return pair and pair[0] / pair[1]


@dataclass(frozen=True)
class Cost:
    """Every different layer of MobileNetV1."""

    width: float
    resolution: int
    layers: list[Layer]
    warning: str | None

    @property
    def measured(self) -> list[str]:
        """Classes of kernels that were measured."""
        return list(self.layers[0].seconds)

    def total(self, what: Callable[[Layer], tuple[float, float]]) -> tuple[float, float]:
        """Sum a pair of numbers over all layers, equal ones as often as they occur."""
        return tuple(sum(layer.times * what(layer)[which] for layer in self.layers) for which in (0, 1))

    def seconds(self, kernels: str) -> tuple[float, float]:
        """All layers in a class of kernels."""
        return self.total(lambda layer: layer.seconds[kernels])

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        rows = [
            {**asdict(layer), "macs_ratio": layer.macs_ratio, "formula": 1 / separable_part(layer.c_out, 3)}
            for layer in self.layers
        ]
        totals = {"macs": self.total(lambda layer: layer.macs), "weights": self.total(lambda layer: layer.weights)}
        totals["seconds"] = {name: self.seconds(name) for name in self.measured}
        kernels = {name: KERNELS[name] for name in self.measured}
        return {"width": self.width, "resolution": self.resolution, "kernels": kernels, "layers": rows,
                "total": totals, "table_3": table_3(), "warning": self.warning}  # fmt: skip

    def tables(self) -> list[Table]:
        """Return Table 3, and the layers with their times."""
        example = table_3()
        paper = Table(
            "One layer, 14x14x512 to 512 channels under 3x3 (Table 3; the paper prints 462 and 52.3 million, "
            "2.36 and 0.27)",
            ("", "million MACs", "million weights"),
            [
                (name, f"{macs / 1e6:.1f}", f"{weights / 1e6:.2f}")
                for name, macs, weights in zip(("dense", "separable"), *example.values(), strict=True)
            ],
        )
        macs, weights = self.total(lambda layer: layer.macs), self.total(lambda layer: layer.weights)
        ratios = ratio(macs[0] / macs[1]), "", ratio(weights[0] / weights[1])
        title = f"Layers of MobileNetV1, width {self.width:g}, {self.resolution}x{self.resolution}"
        counted = Table(
            f"{title}: millions of multiply-adds",
            ("layer", "input", "out", "stride", "dense", "separable", "ratio", "1/(1/N+1/9)", "weights ratio"),
            [*map(self._counted, self.layers), ("all layers", "", "", "", *_millions(macs), *ratios)],
            texts=2,
        )
        header, last, notes = ["layer", "MACs ratio"], ["all layers", ratios[0]], []
        for name in self.measured:
            header += [f"{name}: dense ms", "separable ms", "ratio"]
        for name in self.measured:
            seconds = self.seconds(name)
            last += _times(seconds)
            speeds = [2e-9 * number / time for number, time in zip(macs, seconds, strict=True)]
            notes.append(f"{name}: {KERNELS[name]}: dense {speeds[0]:.1f} GFLOP/s, separable {speeds[1]:.1f} GFLOP/s")
        if self.measured:
            notes.append("1 thread, the shortest of rounds in turns; time falls by more where dense kernels are slower")
        notes += measurement_notes(self.warning, bool(self.measured))
        rows = [*map(self._timed, self.layers), last] if self.measured else []
        return [paper, counted, Table(f"{title}: time", header, rows, notes=notes)]

    def _counted(self, layer: Layer) -> list[str]:
        cells = [layer.name, "x".join(map(str, layer.input)), str(layer.c_out), str(layer.stride)]
        cells += [*_millions(layer.macs), ratio(layer.macs_ratio), ratio(1 / separable_part(layer.c_out, 3))]
        return [*cells, ratio(layer.weights[0] / layer.weights[1])]

    def _timed(self, layer: Layer) -> list[str]:
        times = [cell for kernels in self.measured for cell in _times(layer.seconds[kernels])]
        return [layer.name, ratio(layer.macs_ratio), *times]

    def draw(self, figure: Figure) -> None:
        """Ratios of multiply-adds and of times, layer by layer."""
        from npmobilenet.bench.study.pictures import BLACK, grouped_bars

        axes = figure.subplots()
        labels = [f"{layer.input[0]}→{layer.c_out}\n{layer.input[1]}², s{layer.stride}" for layer in self.layers]
        groups = {"multiply-adds": [layer.macs_ratio for layer in self.layers]}
        for kernels in self.measured:
            groups[f"time, {kernels} kernels"] = [layer.time_ratio(kernels) for layer in self.layers]
        grouped_bars(axes, labels, groups)
        axes.axhspan(8, 9, color=BLACK, alpha=0.12, linewidth=0, zorder=0, label="the paper's 8 to 9 times")
        axes.set_xlabel("layers of MobileNetV1: channels in→out, image size, stride")
        axes.set_ylabel("times as much for a dense convolution")
        axes.set_title("What a depthwise separable convolution saves")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(axis="x", labelsize=9)
        axes.set_ylim(0, 1.25 * max(map(max, groups.values())))
        axes.legend(loc="upper left", ncols=4)


def study(width: float, resolution: int, rounds: int) -> Cost:
    """Count and measure every different layer of MobileNetV1 as both kinds of convolution.

    Parameters
    ----------
    width : float
        Width multiplier.
    resolution : int
        Height and width of the image.
    rounds : int
        Measurements of each layer, in turns.
    """
    size = (resolution, resolution)
    separable_graph = get_architecture("mobilenet_v1").graph(width)
    separable = _of_blocks(count(separable_graph, size).layers)
    dense = _of_blocks(count(get_architecture("mobilenet_v1_dense").graph(width), size).layers)
    equal: dict[tuple, list[str]] = {}
    for block, parts in separable.items():
        if len(parts) == 2:
            equal.setdefault((parts[0].input, parts[1].output, parts[0].stride), []).append(block)
    firsts = {blocks[0]: dense[blocks[0]][0] for blocks in equal.values()}
    times, warning = _measure(firsts, separable_graph, size, rounds) if numba_is_on() else ({}, None)
    layers = [
        Layer(
            block,
            len(blocks),
            layer.input,
            layer.output[0],
            layer.stride[0],
            (layer.macs, sum(part.macs for part in separable[block])),
            (layer.weights, sum(part.weights for part in separable[block])),
            {name: pairs[number] for name, pairs in times.items()},
        )
        for number, ((block, layer), blocks) in enumerate(zip(firsts.items(), equal.values(), strict=True))
    ]
    return Cost(width, resolution, layers, warning)


def table_3() -> dict[str, tuple[int, int]]:
    """Return multiply-adds and weights of the layer of Table 3, (dense, separable)."""
    size, channels, kernel = TABLE_3["input"], TABLE_3["channels"], TABLE_3["kernel"]
    image, window = (size, size), (kernel, kernel)
    depthwise = convolution_macs(image, window, channels, channels, channels)
    macs = (
        convolution_macs(image, window, channels, channels),
        depthwise + convolution_macs(image, (1, 1), channels, channels),
    )
    return {"macs": macs, "weights": tuple(number // size**2 for number in macs)}


def _of_blocks(layers: list[LayerCount]) -> dict[str, list[LayerCount]]:
    blocks: dict[str, list[LayerCount]] = {}
    for layer in layers:
        blocks.setdefault(layer.block, []).append(layer)
    return blocks


def _measure(
    layers: dict[str, LayerCount], separable: Graph, size: Pair, rounds: int
) -> tuple[dict[str, list[tuple[float, float]]], str | None]:
    """Seconds of dense layers, by their blocks, and of these blocks as the separable network has them."""
    plain = [call for layer in layers.values() for call in _plain_calls(layer)]
    timings = time_in_turns([*plain, *map(_dense_vector_call, layers.values())], rounds)
    parts = time_layers(BlockedProgram(separable, random_weights(separable)).plan(size, fused=False), rounds)
    blocks = [parts[f"{block}.depthwise"].best + parts[f"{block}.pointwise"].best for block in layers]
    seconds = [timing.best for timing in timings]
    times = {
        "plain": list(zip(seconds[: len(plain) : 2], seconds[1 : len(plain) : 2], strict=True)),
        "vector": list(zip(seconds[len(plain) :], blocks, strict=True)),
    }
    return times, noise([*timings, *parts.values()])


def _arrays(layer: LayerCount) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image and weights: dense, depthwise, pointwise."""
    random = np.random.default_rng(0)
    (c_in, height, width), c_out, (kernel, _) = layer.input, layer.output[0], layer.kernels[0]
    shapes = (1, height, width, c_in), (kernel, kernel, c_in, c_out), (kernel, kernel, c_in), (c_in, c_out)
    return tuple(random.standard_normal(shape, np.float32) for shape in shapes)


def _plain_calls(layer: LayerCount) -> tuple[Callable[[], object], Callable[[], object]]:
    from npmobilenet.kernels.plain.convolution import conv2d
    from npmobilenet.kernels.plain.depthwise import depthwise_conv2d
    from npmobilenet.kernels.plain.pointwise import pointwise_conv2d

    x, dense, depthwise, pointwise = _arrays(layer)
    (c_out, rows, columns), options = layer.output, {"stride": layer.stride, "padding": "symmetric"}
    between = np.empty((1, rows, columns, x.shape[3]), np.float32)
    out = np.empty((1, rows, columns, c_out), np.float32)

    def separable() -> None:
        depthwise_conv2d(x, depthwise, activation="relu6", out=between, **options)
        pointwise_conv2d(between, pointwise, activation="relu6", out=out)

    return lambda: conv2d(x, dense, activation="relu6", out=out, **options), separable


def _dense_vector_call(layer: LayerCount) -> Callable[[], object]:
    """The vector kernel of a dense convolution, on packed operands."""
    from npmobilenet.kernels.blocked.convolution import conv2d

    x, weight, _, _ = _arrays(layer)
    return conv2d.prepare(x, weight, stride=layer.stride, padding="symmetric", activation="relu6").run


def _millions(pair: tuple[float, float]) -> list[str]:
    return [f"{value / 1e6:.1f}" for value in pair]


def _times(pair: tuple[float, float]) -> list[str]:
    return [*map(milliseconds, pair), ratio(pair[0] / pair[1])]

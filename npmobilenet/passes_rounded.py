"""Graph to graph: a network of float32 with its roundings to 8 bits written into it, as any runtime computes them.

Every tensor has one scale and one zero point, and a layer's weights have a scale for each output channel: what QDQ
means to other runtimes. But the channels of a tensor differ by orders of magnitude. So tensors are written in units of
their own, others for each channel, where the layers before and behind absorb them into their weights:

- Behind a ReLU or ReLU6 all channels reach to 255, and the activation is the saturation there.
- Linear results and sums of residuals lie around the middle of each channel's range.
- What another activation gives, or a squeeze-and-excitation scales, is multiplied once more.
- What anything else reads, and the outputs, keep their units.

`passes_qdq` makes of such a graph one that computes in 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from npmobilenet.graph import INPUT, WINDOWED, Graph, Node
from npmobilenet.passes import folded_parameters, fuse
from npmobilenet.passes_int8 import DEPTHWISE, Writer
from npmobilenet.passes_qdq import Integers
from npmobilenet.plan import Code
from npmobilenet.statistics import SMALLEST, UNKNOWN, Values

LAYERS = (*WINDOWED, "linear")
CLAMPS = ("none", "relu", "relu6")
POOLS = ("global_average_pool", "max_pool2d")  # whose results have the units of what they read
LARGEST, LARGEST_BIAS = 127, 2**30
SMALLEST_SCALE = 1e-12  # of weights that are all zeros
RATIOS = np.geomspace(0.01, 1, 60)  # of the ends below and above zero


class Rounded(NamedTuple):
    """A network with its roundings: as `passes_qdq.lowered` takes it."""

    graph: Graph
    weights: dict[str, np.ndarray]
    integers: dict[str, Integers]


class Unit(NamedTuple):
    """A tensor ``t`` is written as ``(t - offset) * factor``, with an entry of both for each channel."""

    factor: np.ndarray
    offset: np.ndarray


def apart(graph: Graph) -> Graph:
    """Return the fused graph in which every tensor that is rounded is the result of a node.

    Sums of residuals, and activations other than clamps, are nodes of their own.
    """
    wanted = {}
    for node in graph:
        if node.operation == "add" or (node.operation == "activation" and node["function"] not in CLAMPS):
            wanted |= {name: name for name in node.inputs if name != INPUT}
    fused = fuse(replace(graph, outputs={**wanted, **graph.output_nodes}))
    return replace(fused, outputs=graph.output_nodes)


def rounded(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    values: Mapping[str, Values],
    means: Mapping[str, Values],
    ends: tuple[float, float],
) -> Rounded:
    """Return the network with its roundings.

    Parameters
    ----------
    graph : Graph
        As `apart` gives it.
    weights : mapping of str to float32 array
    values : mapping of str to Values
        The range of every tensor.
    means : mapping of str to Values
        Their means, where known: what rounded weights would add to them is taken off the biases.
    ends : (float, float)
        The lowest and the highest value of an image.
    """
    spelled, arrays, inside = _spelled(graph, weights)
    values = {node.name: _clamped(values[node.name], node) for node in spelled if node.name in values}
    values[INPUT] = Values(*(np.full(graph.in_channels, float(end)) for end in ends))
    units = dict(_Units(spelled, values, inside).found())
    writer = _Writer(spelled, arrays, values, means, units, inside)
    writer.round(INPUT, spelled.nodes[0].block)
    for node in spelled:
        writer.write(node)
    outputs = {output: writer.last[name] for output, name in graph.output_nodes.items()}
    return Rounded(Graph(tuple(writer.nodes), graph.in_channels, outputs), writer.arrays, writer.integers)


def _spelled(graph: Graph, weights: Mapping[str, np.ndarray]) -> tuple[Graph, dict[str, np.ndarray], set[str]]:
    """The graph with the parts of squeeze-and-excitation as nodes of their own, which stay float32: their names."""
    nodes: list[Node] = []
    arrays, inside = dict(weights), set()
    for node in graph:
        parts = list(_excitation(node, arrays)) if node.operation == "squeeze_excite" else [node]
        nodes += parts
        inside.update(part.name for part in parts[:-1])
    return replace(graph, nodes=tuple(nodes)), arrays, inside


def _excitation(node: Node, arrays: dict[str, np.ndarray]) -> Iterator[Node]:
    """A squeeze-and-excitation: its last node, a product, has its name."""
    last = f"{node.name}.mean"
    yield Node(last, "global_average_pool", node.inputs, node.block, {}, {"keepdims": True})
    for part, function in (("reduce", node["activation"]), ("expand", node["gate"])):
        name = f"{node.name}.{part}"
        arrays[f"{name}.weight"] = arrays[f"{name}.weight"][:, :, None, None]
        shapes = {key: arrays[f"{name}.{key}"].shape for key in ("weight", "bias")}
        yield Node(name, "pointwise_conv2d", (last,), node.block, shapes, {"channels": shapes["bias"][0]})
        last = name
        if function != "none":
            last = f"{name}.{function}"
            yield Node(last, "activation", (name,), node.block, {}, {"function": function})
    yield Node(node.name, "multiply", (*node.inputs, last), node.block)


# Units -------------------------------------------------------------------------------------------------------


@dataclass
class _Units:
    """In which unit every tensor is written."""

    graph: Graph
    values: Mapping[str, Values]
    inside: set[str]

    def __post_init__(self) -> None:
        self.nodes = {node.name: node for node in self.graph}
        self.readers: dict[str, list[Node]] = {}
        for node in self.graph:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.outputs = set(self.graph.output_nodes.values())

    def found(self) -> Iterator[tuple[str, Unit]]:
        """The unit of each tensor."""
        for names in self._together():
            if not all(map(self._is_free, names)):
                yield from ((name, Unit(np.ones(1), np.zeros(1))) for name in names)
                continue
            offsets = self._offsets(names)
            spans = [
                Values(self.values[name].low - offsets[name], self.values[name].high - offsets[name])
                for name in names
                if self.nodes[name].operation not in POOLS
            ]
            factor = _factor(spans)
            yield from ((name, Unit(factor, offsets[name])) for name in names)

    def _together(self) -> list[list[str]]:
        """The tensors that must have the same factors: of a sum, and of a pooling."""
        first = {name: name for name in (INPUT, *self.nodes)}

        def find(name: str) -> str:
            while first[name] != name:
                name = first[name]
            return name

        for node in self.graph:
            if node.operation == "add" or node.operation in POOLS:
                for name in node.inputs:
                    first[find(name)] = find(node.name)
        found: dict[str, list[str]] = {}
        for name in first:
            found.setdefault(find(name), []).append(name)
        return list(found.values())

    def _is_free(self, name: str) -> bool:
        """Whether the layers around a tensor absorb factors."""
        node = self.nodes.get(name)
        if node is None or name in self.outputs or not all(_absorbs(each, name) for each in self.readers.get(name, ())):
            return False
        if node.operation in ("add", *POOLS):
            return True
        if name in self.inside:
            return False
        if node.operation == "activation":  # of a vector nothing is multiplied once more
            source = self.nodes.get(node.inputs[0])
            return source is not None and source.operation in WINDOWED
        return node.operation == "multiply" or (_is_layer(node) and node.attributes.get("activation", "none") in CLAMPS)

    def _offsets(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The middles of ranges, where pointwise convolutions alone read them; else zero."""
        offsets = {}
        for name in names:  # in the order of execution
            node = self.nodes[name]
            linear = node.operation in WINDOWED and node.attributes.get("activation", "none") == "none"
            readers = ("pointwise_conv2d", "linear", "add", "global_average_pool")
            if not (linear or node.operation in ("add", "global_average_pool")) or not all(
                each.operation in readers for each in self.readers.get(name, ())
            ):
                return {each: np.zeros(1) for each in names}
            if linear:
                offsets[name] = (self.values[name].low + self.values[name].high) / 2
            else:
                offsets[name] = sum(offsets[each] for each in node.inputs)
        return offsets


def _absorbs(node: Node, name: str) -> bool:
    """Whether a node that reads a tensor does as well with its channels in other units."""
    if node.operation == "multiply":
        return name == node.inputs[0] != node.inputs[1]
    return node.operation in ("add", *POOLS) or _is_layer(node)


def _is_layer(node: Node) -> bool:
    """Whether its weights can be integers; the parts of a mixed convolution would have to be nodes of their own."""
    return node.operation in LAYERS and node.operation != "mixed_depthwise_conv2d"


def _clamped(known: Values, node: Node) -> Values:
    """A range with the ends of a layer's clamp."""
    low, high = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0)}.get(node.attributes.get("activation"), (-np.inf, np.inf))
    return Values(np.maximum(known.low, low), np.minimum(known.high, high), known.mean)


def _factor(spans: Sequence[Values]) -> np.ndarray:
    """By what channels are multiplied, so that each has as many steps on its side of 0 as that allows."""
    low, high = np.min([span.low for span in spans], axis=0), np.max([span.high for span in spans], axis=0)
    best = None
    for ratio in RATIOS if low.min() < 0 else (np.inf,):
        size = np.maximum(np.maximum(high, -low / ratio), SMALLEST)
        lost = np.log(size).mean() + (np.log1p(ratio) if low.min() < 0 else 0.0)
        if best is None or lost < best[0]:
            best = lost, size
    return np.exp(np.log(best[1]).mean()) / best[1]


# The network -------------------------------------------------------------------------------------------------


@dataclass
class _Writer(Writer):
    """The new graph so far; layers keep their names."""

    graph: Graph
    weights: Mapping[str, np.ndarray]
    values: Mapping[str, Values]
    means: Mapping[str, Values]
    units: Mapping[str, Unit]
    inside: set[str]
    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)  # of no tensor: all are float32 here
    integers: dict[str, Integers] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=lambda: {INPUT: INPUT})  # what gives a tensor of the graph that comes
    scales: dict[str, float] = field(default_factory=dict)  # of those that are rounded

    def write(self, node: Node) -> None:
        """Add a node, and the rounding of its result."""
        inputs = [self.last[name] for name in node.inputs]
        self.last[node.name] = node.name
        factor = self.units[node.name].factor
        if node.operation in LAYERS:
            self._layer(node, tuple(inputs))
        else:
            if node.operation == "multiply":
                inputs[1] = self._scaled(inputs[1], factor / self.units[node.inputs[0]].factor, node.block)
            arrays = {name: self.weights[f"{node.name}.{name}"] for name in node.parameters}
            self._add(node.name, node.operation, tuple(inputs), node.block, arrays, node.attributes)
            if node.operation == "activation":
                self.last[node.name] = self._scaled(node.name, factor, node.block)
        if self._is_rounded(node):
            self.round(node.name, node.block)

    def _is_rounded(self, node: Node) -> bool:
        """What layers of 8 bits and sums read, and what such layers make; what becomes of it in an activation first."""
        readers = [each for each in self.graph if node.name in each.inputs]
        if not readers or node.name in self.inside:
            return False
        if node.name in self.integers or node.operation in ("add", "multiply"):
            return [each.operation for each in readers] != ["activation"]
        return any(each.operation == "add" or (_is_layer(each) and each.name not in self.inside) for each in readers)

    def _scaled(self, name: str, factor: np.ndarray, block: str) -> str:
        """A tensor times a number for each channel; itself if these are 1."""
        if len(factor) == 1 and factor[0] == 1:
            return name
        ones = np.ones(len(factor), np.float32)
        arrays = {"weight": np.float32(factor), "bias": 0 * ones, "running_mean": 0 * ones, "running_var": ones}
        self._add(f"{name}.scaled", "batch_norm", (name,), block, arrays, {"eps": 0.0})
        return f"{name}.scaled"

    def round(self, name: str, block: str) -> None:
        """Let a tensor be read as bytes."""
        unit, known = self.units[name], self.values[name]
        low = min(((known.low - unit.offset) * unit.factor).min(), 0.0)
        high = max(((known.high - unit.offset) * unit.factor).max(), SMALLEST)
        scale = np.float32((high - low) / 255)
        zero_point = np.uint8(np.rint(-low / np.float64(scale)))
        channels = len(known.low)
        code = Code(np.full(channels, scale), np.full(channels, zero_point))
        self.last[name] = self._written_rounded(name, self.last[name], code, block)
        self.scales[name] = float(scale)

    def _layer(self, node: Node, inputs: tuple[str, ...]) -> None:
        """A layer in the units of what it reads and makes, its weights rounded."""
        if not _is_layer(node):
            self._float(replace(node, inputs=inputs))
            return
        weight, bias = self._in_units(node, *folded_parameters(node, self.weights))
        if node.name not in self.inside:
            integers, scale = self._integers(weight, bias, self.scales[node.inputs[0]])
            real = integers * _of_channels(scale, weight.ndim)
            bias = bias - self._shift(node, real - weight)
            weight, self.integers[node.name] = real, (integers.astype(np.int8), scale)
        names = [name for name in node.parameters if name.endswith("weight")]
        parts = zip(names, *(np.split(np.float32(each), len(names)) for each in (weight, bias)), strict=True)
        arrays = {}
        for name, *both in parts:
            arrays |= zip((name, f"{name.removesuffix('weight')}bias"), both, strict=True)
        ends = ("norm", "activation") if self._is_rounded(node) else ("norm",)  # where bytes end, a clamp would
        attributes = {name: value for name, value in node.attributes.items() if name not in ends}
        self._add(node.name, node.operation, inputs, node.block, arrays, attributes)

    def _in_units(self, node: Node, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights and biases for an input and a result in their units."""
        entry, result = self.units[node.inputs[0]], self.units[node.name]
        if node.operation not in DEPTHWISE:
            groups, c_in = node.attributes.get("groups", 1), weight.shape[1]
            columns = [
                np.repeat(np.broadcast_to(each, groups * c_in).reshape(groups, -1), len(weight) // groups, axis=0)
                for each in entry
            ]
            sums = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
            bias = bias + (sums * columns[1]).sum(axis=1)
            weight = weight / columns[0].reshape(*columns[0].shape, *[1] * (weight.ndim - 2))
        else:
            weight = weight / _of_channels(entry.factor, weight.ndim)
        return weight * _of_channels(result.factor, weight.ndim), (bias - result.offset) * result.factor

    @staticmethod
    def _integers(weight: np.ndarray, bias: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights as integers and their scales, large enough for a bias of 32 bits in the steps of the sums."""
        largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1) / LARGEST
        scale = np.float64(np.float32(np.maximum(largest, np.abs(bias) / (step * LARGEST_BIAS) + SMALLEST_SCALE)))
        real = weight / _of_channels(scale, weight.ndim)
        integers = np.rint(real)
        if weight.ndim == 4 and weight.shape[2] * weight.shape[3] > 1:
            integers = _keeping_sums(integers, real)
        return np.clip(integers, -LARGEST, LARGEST), scale

    def _shift(self, node: Node, error: np.ndarray) -> np.ndarray | float:
        """What the rounding of weights adds to the mean of each output channel."""
        mean = self.means.get(node.inputs[0], UNKNOWN).mean
        if mean is None:
            return 0.0
        unit, sums = self.units[node.inputs[0]], error.reshape(*error.shape[:2], -1).sum(axis=2)
        mean = (mean - unit.offset) * unit.factor
        if node.operation in DEPTHWISE:
            return sums[:, 0] * mean
        groups = node.attributes.get("groups", 1)
        return (sums * np.repeat(mean.reshape(groups, -1), len(sums) // groups, axis=0)).sum(axis=1)


def _of_channels(array: np.ndarray, rank: int) -> np.ndarray:
    """Numbers of output channels, as they broadcast to weights."""
    return array.reshape(-1, *[1] * (rank - 1))


def _keeping_sums(integers: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Round some weights of a window the other way, so that the sum of each window is kept.

    Neighbouring pixels are alike: of a window's errors it is the sum that counts.
    """
    error = (integers - real).reshape(*real.shape[:2], -1)
    total = error.sum(axis=2, keepdims=True)
    by_size = np.argsort(np.argsort(-error * np.sign(total), axis=2), axis=2)
    return integers - (np.sign(total) * (by_size < np.rint(np.abs(total)))).reshape(real.shape)

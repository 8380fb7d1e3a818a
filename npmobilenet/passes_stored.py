"""Graph to graph: a network that PyTorch quantised, with the integers, scales and zero points of its file.

PyTorch rounds after every step, to the 8 bits of a scale and a zero point for the whole tensor: the sums of a
convolution, and again what an activation other than ReLU makes of them; the sum of a residual; the mean over the pixels
(with the scale that the image had); in a squeeze-and-excitation the gate and the product. All that is written into the
network here; `passes_qdq` makes one of 8 bits of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from npmobilenet.graph import INPUT, Graph, Node
from npmobilenet.passes import fuse
from npmobilenet.passes_int8 import Writer
from npmobilenet.passes_qdq import Integers, lowered
from npmobilenet.plan import Code

SUMS, ACTIVATED, JOINED = "sums", "activated", "joined"  # what a layer rounds one after the other
GATE = (1 / 256, 0)  # how PyTorch stores what a sigmoid makes, hard or not


@dataclass(frozen=True)
class Stored:
    """What a file says of a quantised network, by this package's names.

    Attributes
    ----------
    weights : mapping of str to (int8 array, float array)
        By parameter: integers, and the scale of each output channel.
    results : mapping of str to (float, int)
        Scale and zero point of the image (`graph.INPUT`) and of every layer: of the sums of the node ``"stem"``
        ``"stem.sums"``, after an activation that is not ReLU ``"stem.activated"``, after a residual or a product with
        a gate ``"block3.project.joined"``; of the two layers of a squeeze-and-excitation ``"block4.squeeze.reduce"``
        and ``"block4.squeeze.expand"``.
    """

    weights: Mapping[str, Integers]
    results: Mapping[str, tuple[float, int]]


def quantized_as_stored(
    graph: Graph, weights: Mapping[str, np.ndarray], stored: Stored
) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return the quantised graph and its parameters.

    Parameters
    ----------
    graph : Graph
        As the architecture builds it, without batch norms.
    weights : mapping of str to float32 array
        Of them the biases are taken.
    stored : Stored

    Raises
    ------
    ValueError
        If there is a layer that PyTorch's quantised networks do not have.
    """
    fused = fuse(graph)
    writer = _Writer(weights, stored)
    writer.round(INPUT, INPUT, fused.in_channels, stored.results[INPUT], fused.nodes[0].block)
    for node in fused:
        writer.write(node)
    outputs = {output: writer.read[name] for output, name in fused.output_nodes.items()}
    made = lowered(replace(fused, nodes=tuple(writer.nodes), outputs=outputs), writer.arrays, writer.integers)
    return replace(made.graph, merged={**fused.merged, **made.graph.merged}), made.weights


@dataclass
class _Writer(Writer):
    """The graph with its roundings so far."""

    weights: Mapping[str, np.ndarray]
    stored: Stored
    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    integers: dict[str, Integers] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)  # what gives the numbers of a node as they are rounded
    results: dict[str, tuple[tuple[float, int], int]] = field(default_factory=dict)  # scale, zero point; channels

    def write(self, node: Node) -> None:
        """Add what computes a node."""
        write = {
            "conv2d": self._layer,
            "depthwise_conv2d": self._layer,
            "pointwise_conv2d": self._layer,
            "linear": self._layer,
            "squeeze_excite": self._squeeze_excite,
            "global_average_pool": self._pool,
        }.get(node.operation)
        if write is None:
            raise ValueError(
                f"{node.name} is {node.operation}, of which no network that PyTorch quantised consists: "
                "load it as float32 and npmobilenet.quantize it"
            )
        write(node)

    def round(self, name: str, source: str, channels: int, result: tuple[float, int], block: str) -> None:
        """Let the result of a node be read as bytes; ``source`` is what computes it."""
        code = Code(
            *(np.full(channels, each, dtype) for each, dtype in zip(result, (np.float32, np.uint8), strict=True))
        )
        self.read[name], self.results[name] = self._written_rounded(name, source, code, block), (result, channels)

    def _layer(self, node: Node) -> None:
        """Sums, an activation and a residual, each rounded; the last of them has the layer's name."""
        function, residual = node.attributes.get("activation", "none"), node.inputs[1:]
        apart, channels = function not in ("none", "relu"), node["channels"]
        name = f"{node.name}.{SUMS}" if apart or residual else node.name
        attributes = {key: value for key, value in node.attributes.items() if key not in ("activation", "residual")}
        self._weighted(node, node.name, name, self.read[node.inputs[0]], attributes, "none" if apart else function)
        self.round(name, name, channels, self.stored.results[f"{node.name}.{SUMS}"], node.block)
        if apart:
            after = f"{node.name}.{ACTIVATED}" if residual else node.name
            self._add(after, "activation", (self.read[name],), node.block, {}, {"function": function})
            self.round(after, after, channels, self.stored.results[f"{node.name}.{ACTIVATED}"], node.block)
            name = after
        if residual:
            self._add(node.name, "add", (self.read[name], self.read[residual[0]]), node.block, {}, {})
            self.round(node.name, node.name, channels, self.stored.results[f"{node.name}.{JOINED}"], node.block)

    def _weighted(
        self, node: Node, layer: str, name: str, source: str, attributes: Mapping[str, Any], function: str
    ) -> None:
        """Add a layer with the integers of the file."""
        integers, scale = self.stored.weights[f"{layer}.weight"]
        operation = "pointwise_conv2d" if node.operation == "squeeze_excite" else node.operation
        if operation == "pointwise_conv2d":
            integers = integers.reshape(*integers.shape[:2], 1, 1)
        real = integers * scale.reshape(-1, *[1] * (integers.ndim - 1))
        biases = [self.weights[key] for key in (f"{layer}.bias", f"{layer}.0.bias") if key in self.weights]
        arrays = {"weight": real.astype(np.float32)} | ({"bias": biases[0]} if biases else {})
        ended = {} if function == "none" else {"activation": function}
        self._add(name, operation, (source,), node.block, arrays, {**attributes, **ended})
        self.integers[name] = integers, scale

    def _pool(self, node: Node) -> None:
        self._mean(node, node.name, node.attributes)

    def _mean(self, node: Node, name: str, attributes: Mapping[str, Any]) -> None:
        """The mean over the pixels, rounded as the image is."""
        result, channels = self.results[node.inputs[0]]
        self._add(name, "global_average_pool", (self.read[node.inputs[0]],), node.block, {}, attributes)
        self.round(name, name, channels, result, node.block)

    def _squeeze_excite(self, node: Node) -> None:
        name, results = f"{node.name}.mean", self.stored.results
        self._mean(node, name, {"keepdims": True})
        for part, function in (("reduce", "relu"), ("expand", "none")):
            before, name = self.read[name], f"{node.name}.{part}"
            channels = len(self.weights[f"{name}.bias"])
            self._weighted(node, name, name, before, {"channels": channels}, function)
            self.round(name, name, channels, results[name], node.block)
        gate, source = f"{node.name}.gate", node.inputs[0]
        self._add(gate, "activation", (self.read[name],), node.block, {}, {"function": node["gate"]})
        self.round(gate, gate, channels, GATE, node.block)
        self._add(node.name, "multiply", (self.read[source], self.read[gate]), node.block, {}, {})
        self.round(node.name, node.name, channels, results[f"{node.name}.{JOINED}"], node.block)

"""Graph to graph: a network that PyTorch quantised, with the integers, scales and zero points of its file.

PyTorch rounds after every step, to the 8 bits of a scale and a zero point for the whole tensor: the sums of a
convolution, and again what an activation other than ReLU makes of them; the sum of a residual; the mean over the pixels
(with the scale that the image had); in a squeeze-and-excitation the gate and the product. So does this graph, whose
layers are the convolutions of `operations_int8`, a linear layer being one of an image of one pixel. What has no
operation of 8 bits is computed between conversions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from npmobilenet.graph import INPUT, Graph, Node
from npmobilenet.passes import folded_parameters, fuse
from npmobilenet.passes_int8 import MOST_OF_STEM, Writer
from npmobilenet.plan import Code

SUMS, ACTIVATED, JOINED = "sums", "activated", "joined"  # what a layer rounds one after the other
PIXEL = "pixel"  # a vector as an image
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

    weights: Mapping[str, tuple[np.ndarray, np.ndarray]]
    results: Mapping[str, tuple[float, int]]


def quantized_as_stored(
    graph: Graph, weights: Mapping[str, np.ndarray], stored: Stored, image: tuple[float, float]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return the quantised graph and its parameters.

    Parameters
    ----------
    graph : Graph
        As the architecture builds it, without batch norms.
    weights : mapping of str to float32 array
        Of them the biases are taken.
    stored : Stored
    image : (float, float)
        The lowest and the highest value of an image.

    Raises
    ------
    ValueError
        If there is a layer that PyTorch's quantised networks do not have.
    """
    writer = _Writer(weights, stored, image)
    fused = fuse(graph)
    for node in fused:
        writer.write(node)
    return replace(fused, nodes=tuple(writer.nodes)), writer.arrays


@dataclass
class _Writer(Writer):
    """The new graph so far; every tensor of it but the image has a twin in uint8."""

    weights: Mapping[str, np.ndarray]
    stored: Stored
    image: tuple[float, float]
    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    pixels: dict[str, str] = field(default_factory=dict)  # of a vector the same in uint8, as an image of one pixel

    def write(self, node: Node) -> None:
        """Add what computes a node."""
        write = {
            "conv2d": self._convolution,
            "depthwise_conv2d": self._convolution,
            "pointwise_conv2d": self._convolution,
            "linear": self._linear,
            "squeeze_excite": self._squeeze_excite,
            "global_average_pool": self._pool,
        }.get(node.operation)
        if write is None:
            raise ValueError(
                f"{node.name} is {node.operation}, of which no network that PyTorch quantised consists: "
                "load it as float32 and npmobilenet.quantize it"
            )
        write(node)

    # Layers ------------------------------------------------------------------------------------------------

    def _convolution(self, node: Node) -> None:
        self._layer(node, node.name, node.inputs[0], folded_parameters(node, self.weights)[1])

    def _linear(self, node: Node) -> None:
        last = f"{node.name}.{PIXEL}"
        self._layer(node, last, self.pixels[node.inputs[0]], folded_parameters(node, self.weights)[1])
        self.pixels[node.name] = last
        self._vector(node.name, last, node.block)

    def _layer(self, node: Node, last: str, source: str, bias: np.ndarray) -> None:
        """Sums, an activation and a residual, each rounded; the last of them is called ``last``."""
        function, residual = node.attributes.get("activation", "none"), node.inputs[1:]
        apart = function not in ("none", "relu")
        name = f"{node.name}.{SUMS}" if apart or residual else last
        kept = {key: value for key, value in node.attributes.items() if key not in ("norm", "residual", "activation")}
        result = self.stored.results[f"{node.name}.{SUMS}"]
        self._weighted(node, f"{node.name}.weight", name, source, bias, result, kept, function == "relu")
        if apart:
            after = f"{node.name}.{ACTIVATED}" if residual else last
            self._activated(name, function, after, self.stored.results[f"{node.name}.{ACTIVATED}"])
            name = after
        if residual:
            self._sum(last, (name, *residual), node.block, self.stored.results[f"{node.name}.{JOINED}"])

    def _weighted(
        self,
        node: Node,
        parameter: str,
        name: str,
        source: str,
        bias: np.ndarray,
        result: tuple[float, int],
        attributes: Mapping[str, Any],
        relu: bool,
    ) -> None:
        """Add a convolution with the integers of a parameter."""
        weight, steps = self.stored.weights[parameter]
        operation = "pointwise_conv2d" if node.operation in ("linear", "squeeze_excite") else node.operation
        if operation == "pointwise_conv2d":
            weight = weight.reshape(*weight.shape[:2], 1, 1)
        attributes, arrays = {**attributes, "dtype": "uint8", "activation": "none"}, {}
        code = self._code(result, len(weight))
        if source == INPUT and self._in_16_bits(weight):
            step = np.float64(np.float32(self.stored.results[INPUT][0]))
            attributes["steps"], weight = float(np.float32(1 / step)), weight.astype(np.int16)
            unit = steps / np.float64(np.float32(attributes["steps"]))
        else:
            source = self._image(node) if source == INPUT else source
            unit = steps * np.float64(self.codes[source].scale[0])
            if self.codes[source].zero_point.any():
                arrays["zero_point"] = self.codes[source].zero_point
        if relu and result[1]:  # whose lowest value is not 0
            attributes["activation"] = "relu"
        else:  # saturation is the ReLU
            unit, bias = unit / np.float64(code.scale), bias / np.float64(code.scale) + code.zero_point
        arrays |= {"weight": weight, "scale": unit.astype(np.float32), "bias": bias.astype(np.float32)}
        self._coded(name, f"{operation}_int8", (source,), node.block, code, arrays, attributes)

    def _in_16_bits(self, weight: np.ndarray) -> bool:
        """Whether the image's own kernel, which cuts nothing off, gives what the file's 8 bits do."""
        scale, zero_point = self.stored.results[INPUT]
        low, high = ((end - zero_point) * scale for end in (0, 255))
        slack = scale / 2
        sums = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1)
        return low - slack <= self.image[0] and self.image[1] <= high + slack and sums.max() <= MOST_OF_STEM

    def _image(self, node: Node) -> str:
        made = f"{INPUT}.quantized"
        if made not in self.codes:
            channels = self.stored.weights[f"{node.name}.weight"][0].shape[1] * node.attributes.get("groups", 1)
            self._rounded(made, INPUT, node.block, self._code(self.stored.results[INPUT], channels))
        return made

    def _sum(self, name: str, inputs: Sequence[str], block: str, result: tuple[float, int]) -> None:
        first, other = (self.codes[each] for each in inputs)
        code = self._code(result, len(first.scale))
        scale, other_scale = (np.float64(each.scale) / np.float64(code.scale) for each in (first, other))
        bias = code.zero_point - first.zero_point * scale - other.zero_point * other_scale
        arrays = {"scale": scale, "other_scale": other_scale, "bias": bias}
        arrays = {key: array.astype(np.float32) for key, array in arrays.items()}
        self._coded(name, "add_int8", tuple(inputs), block, code, arrays, {"dtype": "uint8"})

    def _pool(self, node: Node) -> None:
        mean = f"{node.name}.{PIXEL}"
        self._mean(node, node.inputs[0], mean)
        self.pixels[node.name] = mean
        self._vector(node.name, mean, node.block)

    def _squeeze_excite(self, node: Node) -> None:
        source, code = node.inputs[0], self.codes[node.inputs[0]]
        name, results = f"{node.name}.mean", self.stored.results
        self._mean(node, source, name)
        for part, relu in (("reduce", True), ("expand", False)):
            before, name = name, f"{node.name}.{part}"
            bias = self.weights[f"{name}.bias"].astype(np.float64)
            about = {"channels": len(bias), "groups": 1}
            self._weighted(node, f"{name}.weight", name, before, bias, results[name], about, relu)
        gate, product = f"{node.name}.gate", f"{node.name}.{JOINED}"
        self._activated(name, node["gate"], gate, GATE)
        self._add(product, "multiply", (self._real(source), self._real(gate)), node.block, {}, {})
        self._rounded(node.name, product, node.block, self._code(results[product], len(code.scale)))

    # Between them ------------------------------------------------------------------------------------------

    def _mean(self, node: Node, source: str, name: str) -> None:
        """The mean over the pixels, rounded as the image is; of steps, whose sum no kernel rounds."""
        code, steps, mean = self.codes[source], f"{name}.steps", f"{name}.mean"
        unit = code._replace(scale=np.ones_like(code.scale))
        self._add(steps, "dequantize", (source,), node.block, {"scale": unit.scale, "zero_point": unit.zero_point}, {})
        self._add(mean, "global_average_pool", (steps,), node.block, {}, {"keepdims": True})
        self._rounded(name, mean, node.block, unit)
        self.codes[name] = code

    def _vector(self, name: str, pixel: str, block: str) -> None:
        self._add(name, "flatten", (self._real(pixel),), block, {}, {})

    def _activated(self, source: str, function: str, name: str, result: tuple[float, int]) -> None:
        code = self._code(result, len(self.codes[source].scale))
        self._rounded(name, self._real(source), self._block(source), code, function)

    def _rounded(self, name: str, source: str, block: str, code: Code, function: str = "none") -> None:
        self._coded(name, "quantize", (source,), block, code, {}, {"dtype": "uint8", "activation": function})

    def _coded(
        self,
        name: str,
        operation: str,
        inputs: tuple[str, ...],
        block: str,
        code: Code,
        arrays: Mapping[str, np.ndarray],
        attributes: Mapping[str, Any],
    ) -> None:
        """Add a node whose result is uint8."""
        result = {"out_scale": code.scale, "out_zero_point": code.zero_point}
        self._add(name, operation, inputs, block, {**arrays, **result}, attributes)
        self.codes[name] = code

    @staticmethod
    def _code(result: tuple[float, int], channels: int) -> Code:
        scale, zero_point = result
        return Code(np.full(channels, scale, np.float32), np.full(channels, zero_point, np.uint8))

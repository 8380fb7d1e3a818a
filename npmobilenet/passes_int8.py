"""Graph to graph: a network of float32 becomes one of 8 bits.

What is stored how: docs/kernels/int8.md says why.

- What ends with an activation and is read by 8-bit operations: uint8, with a scale for each channel.
- Linear results, sums of residuals, what a squeeze-and-excitation scales: float32, quantised pixel by pixel by the
  pointwise convolution that reads them.
- Weights: int8 with a scale for each output channel; 15 bits in the first depthwise convolution, 13 in the convolution
  of the image, which is read as 16 bits.
- What has no 8-bit operation stays float32, between conversions. So do dense convolutions but the image's, and what is
  computed of the means of a whole image: gates among it, whose error is that of every pixel, and which cost next to
  nothing.
- Where no range is known, nothing is uint8: pointwise convolutions quantise pixel by pixel what they read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from npmobilenet.graph import INPUT, WINDOWED, Graph, Node
from npmobilenet.passes import folded_parameters, fuse
from npmobilenet.plan import Code
from npmobilenet.statistics import SMALLEST, UNKNOWN, Values

IMAGE_BITS, STEM_BITS, FIRST_DEPTHWISE_BITS = 13, 13, 15
MOST_OF_STEM = 65536  # magnitudes of the weights of an output channel, added up: times 32767 less than 2**31
NOT_NEGATIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid")
DEPTHWISE = ("depthwise_conv2d", "mixed_depthwise_conv2d")
OF_MEANS = ("squeeze_excite", "global_average_pool")
READ_8_BITS = (*(operation for operation in WINDOWED if operation != "conv2d"), *OF_MEANS)


def quantized(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    values: Mapping[str, Values],
    means: Mapping[str, Values],
    image_range: float,
    weight_bits: int = 8,
    whole: Collection[str] = (),
) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return the quantised graph and its parameters.

    Parameters
    ----------
    graph : Graph
        As the architecture builds it.
    weights : mapping of str to float32 array
    values : mapping of str to Values
        The range of every tensor of the fused graph, where known.
    means : mapping of str to Values
        Its mean, likewise: what rounded weights would add to it is taken off the bias.
    image_range : float
        The largest magnitude of a value of the image that is not clipped eightfold.
    weight_bits : int
        4 to 8, of the weights that are int8.
    whole : collection of str
        Layers of the fused graph that stay float32.
    """
    writer = _Writer(weights, values, means, image_range, weight_bits, frozenset(whole))
    fused = fuse(graph)
    for node in fused:
        for name in node.inputs:
            writer.readers.setdefault(name, []).append(node)
    for node in fused:
        writer.write(node)
    return replace(fused, nodes=tuple(writer.nodes)), writer.arrays


class Writer:
    """A graph of 8 bits in the making: ``nodes``, their ``arrays``, and the ``codes`` of the tensors that are uint8.

    ``weights`` are those of the graph that it is made from.
    """

    weights: Mapping[str, np.ndarray]
    nodes: list[Node]
    arrays: dict[str, np.ndarray]
    codes: dict[str, Code]

    def _real(self, name: str) -> str:
        """The float32 twin of a tensor."""
        if name not in self.codes:
            return name
        made = f"{name}.dequantized"
        if all(node.name != made for node in self.nodes):
            code = self.codes[name]
            arrays = {"scale": code.scale, "zero_point": code.zero_point}
            self._add(made, "dequantize", (name,), self._block(name), arrays, {})
        return made

    def _float(self, node: Node) -> None:
        """Its batch norm folded in, so that a node is all of its layer."""
        arrays = {name: self.weights[f"{node.name}.{name}"] for name in node.parameters}
        attributes = {key: value for key, value in node.attributes.items() if key != "norm"}
        if "norm" in node.attributes:
            parts, bias = folded_parameters(node, self.weights)
            names = [name for name in node.parameters if name.endswith("weight")]
            if not isinstance(parts, list):
                parts = np.split(parts, len(names))
            arrays = dict(zip(names, parts, strict=True)) | dict(_biases(names, bias, [len(part) for part in parts]))
            arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
        self._add(node.name, node.operation, tuple(map(self._real, node.inputs)), node.block, arrays, attributes)

    def _written_rounded(self, name: str, source: str, code: Code, block: str) -> str:
        """Write down that a tensor is rounded, as bytes of some code; return what is to be read in its place."""
        written, read = f"{name}.rounded", f"{name}.read"
        result = {"out_scale": code.scale, "out_zero_point": code.zero_point}
        self._add(written, "quantize", (source,), block, result, {})
        self._add(read, "dequantize", (written,), block, code._asdict(), {})
        return read

    def _block(self, name: str) -> str:
        return next(node.block for node in self.nodes if node.name == name)

    def _add(
        self,
        name: str,
        operation: str,
        inputs: tuple[str, ...],
        block: str,
        arrays: Mapping[str, np.ndarray],
        attributes: Mapping[str, Any],
    ) -> None:
        shapes = {key: array.shape for key, array in arrays.items()}
        self.nodes.append(Node(name, operation, inputs, block, shapes, attributes))
        self.arrays |= {f"{name}.{key}": array for key, array in arrays.items()}


@dataclass
class _Writer(Writer):
    """The new graph so far."""

    weights: Mapping[str, np.ndarray]
    values: Mapping[str, Values]
    means: Mapping[str, Values]
    image_range: float
    weight_bits: int
    whole: frozenset[str]
    readers: dict[str, list[Node]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)  # of the tensors that are uint8
    not_negative: set[str] = field(default_factory=set)
    of_one_pixel: set[str] = field(default_factory=set)
    first_depthwise: bool = True

    def write(self, node: Node) -> None:
        """Add what computes a node."""
        source = node.inputs[0]
        of_means = node.operation in OF_MEANS and not _is_one_pixel(node)
        if _is_one_pixel(node) or self.of_one_pixel.issuperset(node.inputs):
            self.of_one_pixel.add(node.name)
            self._float(node)
        elif node.name in self.whole:
            self._float(node)
        elif node.operation in WINDOWED and self._reads_integers(node):
            self._convolution(node)
        elif node.operation == "linear":
            self._linear(node)
        elif of_means and source in self.codes:
            self._of_means(node)
        else:
            self._float(node)
        if self._is_not_negative(node):
            self.not_negative.add(node.name)

    def _is_not_negative(self, node: Node) -> bool:
        if node.operation in ("global_average_pool", "squeeze_excite"):
            return node.inputs[0] in self.not_negative
        ends = node.attributes.get("activation", node.attributes.get("function"))
        return ends in NOT_NEGATIVE and not node.attributes.get("residual")

    def _reads_integers(self, node: Node) -> bool:
        """Whether a convolution's input is of integers, or can be made so."""
        source = node.inputs[0]
        if node.operation == "conv2d":
            return source == INPUT
        return source in self.codes or node.operation == "pointwise_conv2d" or self._code_of(source) is not None

    # Layers ------------------------------------------------------------------------------------------------

    def _convolution(self, node: Node) -> None:
        source, attributes = node.inputs[0], dict(node.attributes)
        per_pixel = source not in self.codes and node.operation == "pointwise_conv2d"
        of_image = source == INPUT and not per_pixel
        if source not in self.codes and not per_pixel and not of_image:
            source = self._quantize(source)
        code = self.codes.get(source)
        parts, bias = folded_parameters(node, self.weights)
        parts = parts if isinstance(parts, list) else [parts]
        bits = self._bits(node, of_image)
        in_scale = None if code is None else code.scale.astype(np.float64)
        integers, scales = self._rounded(node, parts, in_scale, bits, of_image)
        bias = bias - self._shift(node, parts, integers, scales, in_scale)
        attributes.pop("norm", None)
        attributes.pop("residual", None)
        if of_image:
            steps = (2 ** (IMAGE_BITS - 1) - 1) / self.image_range
            attributes["steps"] = float(np.float32(steps))
            scales = scales / np.float64(np.float32(steps))
        if per_pixel:
            attributes["zero_point"] = 0 if source in self.not_negative else 128
        arrays = {name: array for name, array in zip(_weight_names(integers), integers, strict=True)}
        if code is not None and code.zero_point.any():
            arrays["zero_point"] = code.zero_point
        arrays |= self._end(node, attributes, scales, bias)
        inputs = (source, *(self._real(name) for name in node.inputs[1:]))
        self._add(node.name, f"{node.operation}_int8", inputs, node.block, arrays, attributes)

    def _bits(self, node: Node, of_image: bool) -> int:
        if of_image:
            return STEM_BITS
        if node.operation in DEPTHWISE and self.first_depthwise:
            self.first_depthwise = False
            return FIRST_DEPTHWISE_BITS
        return self.weight_bits

    def _rounded(
        self, node: Node, parts: list[np.ndarray], in_scale: np.ndarray | None, bits: int, of_image: bool
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return weights as integers, and what a unit of a sum stands for in each output channel."""
        dtype = np.int8 if bits <= 8 else np.int16
        if node.operation not in DEPTHWISE and in_scale is not None:
            parts = [part * _columns(in_scale, part, node) for part in parts]
        integers, scales = [], []
        for part in parts:
            flat = np.abs(part.reshape(len(part), -1))
            scale = np.maximum(flat.max(axis=1), np.finfo(np.float32).tiny) / (2 ** (bits - 1) - 1)
            if of_image:  # half a step is what rounding adds to each
                scale = np.maximum(scale, flat.sum(axis=1) / (MOST_OF_STEM - flat.shape[1] / 2))
            integers.append(np.rint(part / scale.reshape(-1, *[1] * (part.ndim - 1))).astype(dtype))
            scales.append(scale)
        scale = np.concatenate(scales)
        if node.operation in DEPTHWISE:
            scale = scale * in_scale
        return integers, scale

    def _shift(
        self,
        node: Node,
        parts: list[np.ndarray],
        integers: list[np.ndarray],
        scales: np.ndarray,
        in_scale: np.ndarray | None,
    ) -> np.ndarray | float:
        """What the rounding of weights adds to the mean of each output channel."""
        mean = self.means.get(node.inputs[0], UNKNOWN).mean
        if mean is None:
            return 0.0
        shifts, first = [], 0
        for part, rounded in zip(parts, integers, strict=True):
            out = slice(first, first + len(part))
            real = rounded * scales[out].reshape(-1, *[1] * (part.ndim - 1))
            if in_scale is not None:
                real = real / (
                    in_scale[out].reshape(-1, 1, 1, 1)
                    if node.operation in DEPTHWISE
                    else _columns(in_scale, part, node)
                )
            error = (real - part).sum(axis=(2, 3))
            shifts.append(error[:, 0] * mean[out] if node.operation in DEPTHWISE else _products(error, mean, node))
            first += len(part)
        return np.concatenate(shifts)

    def _end(self, node: Node, attributes: dict, scales: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        """What becomes of the sums: the parameters, and in ``attributes`` the activation and the type."""
        function = attributes.setdefault("activation", "none")
        code = None
        if function != "none" and not node.attributes.get("residual") and self._is_read_as_integers(node):
            code = self._code_of(node.name)
        attributes["dtype"] = "float32" if code is None else "uint8"
        if code is None:
            return {"scale": scales.astype(np.float32), "bias": bias.astype(np.float32)}
        self.codes[node.name] = code
        result = {"out_scale": code.scale, "out_zero_point": code.zero_point}
        if function in ("relu", "relu6"):  # saturation is their end
            attributes["activation"] = "none"
            real = code.scale.astype(np.float64)
            scales, bias = scales / real, bias / real + code.zero_point
        return {"scale": scales.astype(np.float32), "bias": bias.astype(np.float32), **result}

    def _is_read_as_integers(self, node: Node) -> bool:
        return any(
            reader.operation in READ_8_BITS and reader.inputs[0] == node.name and not _is_one_pixel(reader)
            for reader in self.readers.get(node.name, ())
        )

    def _linear(self, node: Node) -> None:
        source = self._real(node.inputs[0])
        weight, bias = folded_parameters(node, self.weights)
        limit = 2 ** (self.weight_bits - 1) - 1
        scale = np.maximum(np.abs(weight).max(axis=1), np.finfo(np.float32).tiny) / limit
        integers = np.rint(weight / scale[:, None]).astype(np.int8)
        mean = self.means.get(node.inputs[0], UNKNOWN).mean
        if mean is not None:
            bias = bias - (integers * scale[:, None] - weight) @ mean
        attributes = dict(node.attributes) | {"zero_point": 0 if node.inputs[0] in self.not_negative else 128}
        arrays = {"weight": integers, "scale": scale.astype(np.float32), "bias": bias.astype(np.float32)}
        self._add(node.name, "linear_int8", (source,), node.block, arrays, attributes)

    def _of_means(self, node: Node) -> None:
        code = self.codes[node.inputs[0]]
        arrays = {name: self.weights[f"{node.name}.{name}"] for name in node.parameters}
        arrays["scale"] = code.scale
        if code.zero_point.any():
            arrays["zero_point"] = code.zero_point
        self._add(node.name, f"{node.operation}_int8", node.inputs, node.block, arrays, dict(node.attributes))

    # Between them ------------------------------------------------------------------------------------------

    def _code_of(self, name: str) -> Code | None:
        """How a tensor is stored in uint8, if its range is known."""
        values = self.values.get(name, UNKNOWN)
        if values.low is None:
            return None
        low, high = np.minimum(values.low, 0), np.maximum(values.high, SMALLEST)
        scale = ((high - low) / 255).astype(np.float32)
        zero_point = np.rint(-low / scale)
        return Code(scale, zero_point.astype(np.uint8))

    def _quantize(self, name: str) -> str:
        made = f"{name}.quantized"
        if made not in self.codes:
            code = self._code_of(name)
            arrays = {"out_scale": code.scale, "out_zero_point": code.zero_point}
            self._add(made, "quantize", (name,), self._block(name), arrays, {})
            self.codes[made] = code
        return made


def _is_one_pixel(node: Node) -> bool:
    """Whether it makes an image of one pixel of any other."""
    return node.operation == "global_average_pool" and node["keepdims"]


def _biases(weights: list[str], bias: np.ndarray, lengths: list[int]) -> Iterator[tuple[str, np.ndarray]]:
    """The biases of the parts whose weights have these names."""
    parts = np.split(bias, np.cumsum(lengths)[:-1])
    for name, part in zip(weights, parts, strict=True):
        yield f"{name.removesuffix('weight')}bias", part


def _weight_names(parts: list[np.ndarray]) -> list[str]:
    return ["weight"] if len(parts) == 1 else [f"{number}.weight" for number in range(len(parts))]


def _columns(in_scale: np.ndarray, weight: np.ndarray, node: Node) -> np.ndarray:
    """The scale of the input channel that each weight (C_out, C_in/G, K_h, K_w) meets, to be multiplied with it."""
    groups = node["groups"]
    return np.repeat(in_scale.reshape(groups, -1), len(weight) // groups, axis=0)[:, :, None, None]


def _products(error: np.ndarray, mean: np.ndarray, node: Node) -> np.ndarray:
    """Each output channel's weights (C_out, C_in/G) times the means of the channels that it reads."""
    groups = node["groups"]
    return (error * np.repeat(mean.reshape(groups, -1), len(error) // groups, axis=0)).sum(axis=1)

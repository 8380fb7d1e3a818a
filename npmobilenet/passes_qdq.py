"""Graph to graph: a network that says where its tensors are rounded to 8 bits becomes one that computes in 8 bits.

In the graph that comes, a node ``quantize`` rounds a tensor and ``dequantize`` gives back what its bytes stand for; all
between computes numbers with a fraction, and of layers it is known which integers their weights stand for. That is how
ONNX writes networks of 8 bits (QDQ). In the graph that goes, layers are those of `operations_int8`, with the scales and
zero points that were there:

- A layer whose result is rounded makes bytes at once. Its ReLU, or ReLU6, is their saturation where it can be.
- A vector is an image of one pixel, and a linear layer a convolution of it.
- The network's image is read in 16 bits, cut off where its bytes would be.
- What has no operation of 8 bits, or weights that are no integers, stays float32, between conversions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from npmobilenet.graph import INPUT, WINDOWED, Graph, Node
from npmobilenet.passes import folded_parameters, fuse, norm_scale
from npmobilenet.passes_int8 import DEPTHWISE, MOST_OF_STEM, Writer
from npmobilenet.plan import Code

Integers = tuple[np.ndarray, np.ndarray]  # (C_out, ...) without a zero point, and the scale of each output channel

MOST_OF_BYTES = (2**31 - 1) // 255  # magnitudes of the weights of an output channel, added up
PIXELWISE = ("quantize", "dequantize", "activation", "add", "multiply")  # the same of a vector and of its image
STEPS_STAY = ("max_pool2d", "channel_pad", "channel_select", "concat")  # make no other values, but 0


class Lowered(NamedTuple):
    """A network of 8 bits.

    Attributes
    ----------
    graph : Graph
    weights : dict of str to array
    floats : dict of str to str
        The convolutions and linear layers that stay float32, and why.
    """

    graph: Graph
    weights: dict[str, np.ndarray]
    floats: dict[str, str]


def lowered(graph: Graph, weights: Mapping[str, np.ndarray], integers: Mapping[str, Integers]) -> Lowered:
    """Return the network of 8 bits.

    Parameters
    ----------
    graph : Graph
        With nodes ``quantize`` and ``dequantize``.
    weights : mapping of str to array
        Its parameters; the float32 numbers of weights whose integers are known, too.
    integers : mapping of str to (integer array, float array)
        By node.
    """
    once = _once(graph, weights)
    with_pixels = _Pixels.of(once, weights, integers)
    fused = fuse(with_pixels.graph)
    writer = _Writer(with_pixels.weights, with_pixels.integers, set(fused.output_nodes.values()))
    for node in fused:
        for name in node.inputs:
            writer.readers.setdefault(name, []).append(node)
    for node in fused:
        writer.write(node)
        writer.add_vectors(with_pixels.vectors)
    outputs = {output: writer._real(name) for output, name in fused.output_nodes.items()}
    merged = {**{name: made for name, made in writer.rounded.items() if made in writer.codes}, **fused.merged}
    made = Graph(tuple(writer.nodes), fused.in_channels, outputs)
    names = {node.name for node in made}
    merged = {name: of for name, of in merged.items() if of in names and name not in names}
    return Lowered(replace(made, merged=merged), writer.arrays, writer.floats)


# Before ------------------------------------------------------------------------------------------------------


def _once(graph: Graph, weights: Mapping[str, np.ndarray]) -> Graph:
    """Each rounding and each reading once, in the block of what is rounded: some writers have one for every reader."""
    found: dict[tuple, str] = {}
    gives: dict[str, str] = {}
    nodes: list[Node] = []
    blocks: dict[str, str] = {}
    for node in graph:
        node = replace(node, inputs=tuple(gives.get(name, name) for name in node.inputs))
        if node.operation in ("quantize", "dequantize"):
            node = replace(node, block=blocks.get(node.inputs[0], node.block))
            arrays = (weights[name].tobytes() for name in node.tensors)
            gives[node.name] = found.setdefault((node.operation, *node.inputs, *arrays), node.name)
        blocks[node.name] = node.block
        if gives.get(node.name, node.name) == node.name:
            nodes.append(node)
    outputs = {output: gives.get(name, name) for output, name in graph.output_nodes.items()}
    return replace(graph, nodes=tuple(nodes), outputs=outputs)


@dataclass
class _Pixels:
    """The graph with images of one pixel in place of vectors; what was a vector is one still, for whoever reads it.

    ``vectors`` are those of poolings and linear layers that nothing reads: nodes to be added.
    """

    graph: Graph
    weights: dict[str, np.ndarray]
    integers: dict[str, Integers]
    vectors: list[Node] = field(default_factory=list)
    image: dict[str, str] = field(default_factory=dict)  # of a vector, or an image of one pixel: itself
    nodes: list[Node] = field(default_factory=list)

    @classmethod
    def of(cls, graph: Graph, weights: Mapping[str, np.ndarray], integers: Mapping[str, Integers]) -> _Pixels:
        made = cls(graph, dict(weights), dict(integers))
        for node in graph:
            made._write(node)
        read = {name for node in made.nodes for name in node.inputs} | {*graph.output_nodes.values()}
        vectors = {node.name for node in graph if node.operation in ("linear", "global_average_pool", "flatten")}
        unread = [node for node in made.nodes if node.operation == "flatten" and node.name not in read]
        made.vectors = [node for node in unread if node.name in vectors]
        kept = [node for node in made.nodes if node not in unread]
        made.graph = replace(graph, nodes=tuple(kept), outputs=graph.output_nodes)
        return made

    def _write(self, node: Node) -> None:
        pixels = [self.image.get(name) for name in node.inputs]
        if node.operation == "global_average_pool":
            if node["keepdims"]:
                self.nodes.append(node)
                self.image[node.name] = node.name
            else:
                self._as_image(node.with_attributes(keepdims=True))
        elif None in pixels:
            self.nodes.append(node)
        elif node.operation == "flatten":
            self.nodes.append(node)
            self.image[node.name] = pixels[0]
        elif node.operation == "linear" and node.name in self.integers:
            shapes = {name: (*shape, 1, 1) if name == "weight" else shape for name, shape in node.parameters.items()}
            self.weights[f"{node.name}.weight"] = self.weights[f"{node.name}.weight"][:, :, None, None]
            integers, scale = self.integers[node.name]
            self.integers[node.name] = integers[:, :, None, None], scale
            attributes = {"channels": node["channels"]}
            made = replace(node, operation="pointwise_conv2d", parameters=shapes, attributes=attributes)
            self._as_image(made, pixels)
        elif node.operation == "pointwise_conv2d" or (node.operation in PIXELWISE and pixels == list(node.inputs)):
            self.nodes.append(node)
            self.image[node.name] = node.name
        elif node.operation in PIXELWISE:
            self._as_image(node, pixels)
        else:
            self.nodes.append(node)

    def _as_image(self, node: Node, inputs: Sequence[str] | None = None) -> None:
        """A node that makes an image, and one that makes a vector of it, under its name."""
        name = f"{node.name}.pixel"
        self.nodes.append(replace(node, name=name, inputs=tuple(inputs or node.inputs)))
        self.nodes.append(Node(node.name, "flatten", (name,), node.block))
        for parameter in node.parameters:
            self.weights[f"{name}.{parameter}"] = self.weights.pop(f"{node.name}.{parameter}")
        if node.name in self.integers:
            self.integers[name] = self.integers.pop(node.name)
        self.image[node.name] = self.image[name] = name


# The network -------------------------------------------------------------------------------------------------


@dataclass
class _Writer(Writer):
    """The new graph so far. Tensors of float32 have the names that they have in the graph that comes."""

    weights: Mapping[str, np.ndarray]
    integers: Mapping[str, Integers]
    outputs: set[str]
    readers: dict[str, list[Node]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    images: dict[str, Node] = field(default_factory=dict)  # roundings of the network's image, which may not be needed
    same: dict[str, str] = field(default_factory=dict)  # of bytes that may not be needed either: what they are of
    rounded: dict[str, str] = field(default_factory=dict)  # what has the bytes of a `quantize`
    bytes_of: dict[str, str] = field(default_factory=dict)  # and those that a `dequantize` reads
    on_steps: dict[str, Code] = field(default_factory=dict)  # tensors that nothing would be lost of as such bytes
    waiting: dict[str, Node] = field(default_factory=dict)  # what will be computed when what reads it is known
    floats: dict[str, str] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)  # what has the numbers of a node that was computed, or its bytes

    def write(self, node: Node) -> None:
        """Add what computes a node."""
        if node.operation == "quantize":
            self._round(node)
        elif node.operation == "dequantize":
            self._read(node)
        elif self._waits(node):
            self.waiting[node.name] = node
        else:
            self._compute(node)

    def add_vectors(self, vectors: list[Node]) -> None:
        """Add those whose images are there, as they are rounded if they are."""
        for node in [node for node in vectors if node.inputs[0] in (self.done.keys() | self.bytes_of.keys())]:
            vectors.remove(node)
            source = node.inputs[0]
            source = Writer._real(self, self.done[source]) if source in self.done else self._real(source)
            self._add(node.name, "flatten", (source,), node.block, {}, {})

    def _waits(self, node: Node) -> bool:
        """Whether what follows a node may be computed with it: a rounding, or a ReLU and a rounding."""
        readers = self.readers.get(node.name, ())
        if node.name in self.outputs or len(readers) != 1:
            return False
        if readers[0].operation == "quantize":
            return node.operation in (*WINDOWED, "add", "activation", "global_average_pool")
        return node.operation == "add" and readers[0].operation == "activation" and self._waits(readers[0])

    # Bytes -------------------------------------------------------------------------------------------------

    def _round(self, node: Node) -> None:
        code, source = Code.of(node, self.weights), node.inputs[0]
        before = self.waiting.pop(source, None)
        if source == INPUT:
            self.images[node.name] = node
            self.rounded[node.name] = node.name
        elif before is not None:
            self.rounded[node.name] = self.done[source] = self._ended(before, code)
        elif _same(self._steps(source), code):
            self.rounded[node.name] = self._bytes_name(source)
        else:
            self._quantize(node.name, source, code, node.block)
            self.rounded[node.name] = node.name

    def _read(self, node: Node) -> None:
        name = self.rounded[node.inputs[0]]
        arrays = {key: self.weights[f"{node.name}.{key}"] for key in ("scale", "zero_point")}
        if _same(self._code(name), Code(**arrays)):
            self.bytes_of[node.name] = name
        else:  # read as other than what they were written as
            self._add(node.name, "dequantize", (self._made(name),), node.block, arrays, {})

    def _ended(self, node: Node, code: Code) -> str:
        """Compute a node and round its result; return the name of its bytes."""
        if node.operation in WINDOWED and self._convolution(node, code):
            return node.name
        if node.operation == "add" and self._sum(node, node.name, code):
            return node.name
        if node.operation == "activation":
            before = self.waiting.pop(node.inputs[0], None)
            if before is not None:
                if _saturates(node["function"], code) and self._sum(before, node.name, code):
                    return node.name
                self._float(before)
            self._quantize(node.name, node.inputs[0], code, node.block, node["function"])
            return node.name
        name = f"{node.name}.quantized"
        if node.operation == "global_average_pool" and self._steps(node.inputs[0]) is not None:
            self._mean(node, name, code)
        else:
            self._float(node)
            self._quantize(name, node.name, code, node.block)
        return name

    def _mean(self, node: Node, name: str, code: Code) -> None:
        """Round a mean: of steps, whose sum no kernel rounds."""
        source = self._bytes(node.inputs[0])
        entry, steps = self._code(source), f"{name}.steps"
        arrays = {"scale": np.ones_like(entry.scale), "zero_point": entry.zero_point}
        self._add(steps, "dequantize", (source,), node.block, arrays, {})
        self._add(f"{name}.mean", node.operation, (steps,), node.block, {}, node.attributes)
        of_steps = Code((np.float64(code.scale) / entry.scale).astype(np.float32), code.zero_point)
        self._coded(name, "quantize", (f"{name}.mean",), node.block, of_steps, {}, {"dtype": "uint8"})
        self.codes[name] = code

    def _quantize(self, name: str, source: str, code: Code, block: str, function: str = "none") -> None:
        attributes = {"dtype": "uint8", "activation": function}
        self._coded(name, "quantize", (self._real(source),), block, code, {}, attributes)

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

    def _made(self, name: str) -> str:
        """Bytes, which are made now if they are the image's."""
        if name in self.same and name not in self.codes:
            self._quantize(name, self.same[name], self.on_steps[self.same[name]], self._block(self.same[name]))
        elif name not in self.codes:
            self._quantize(name, INPUT, self._code(name), self.images[name].block)
        return name

    def _code(self, name: str) -> Code:
        if name in self.same:
            return self.on_steps[self.same[name]]
        return self.codes[name] if name in self.codes else Code.of(self.images[name], self.weights)

    def _steps(self, name: str) -> Code | None:
        """As which bytes a tensor may be read, if any."""
        return self._code(self.bytes_of[name]) if name in self.bytes_of else self.on_steps.get(name)

    def _bytes(self, name: str) -> str:
        """The tensor as those."""
        return self._made(self._bytes_name(name))

    def _bytes_name(self, name: str) -> str:
        if name in self.bytes_of:
            return self.bytes_of[name]
        self.same[f"{name}.quantized"] = name
        return f"{name}.quantized"

    def _real(self, name: str) -> str:
        bytes_ = self.bytes_of.get(name)
        if bytes_ is None:
            return name
        return self.same[bytes_] if bytes_ in self.same else super()._real(self._made(bytes_))

    # Layers ------------------------------------------------------------------------------------------------

    def _compute(self, node: Node) -> None:
        """Add a node whose result is not rounded."""
        self.done[node.name] = node.name
        if node.operation in WINDOWED and self._convolution(node, None):
            return
        if node.operation == "squeeze_excite" and self._steps(node.inputs[0]) is not None:
            code = self._steps(node.inputs[0])
            arrays = {name: self.weights[f"{node.name}.{name}"] for name in node.parameters} | {"scale": code.scale}
            arrays |= {"zero_point": code.zero_point} if code.zero_point.any() else {}
            source = self._bytes(node.inputs[0])
            self._add(node.name, "squeeze_excite_int8", (source,), node.block, arrays, dict(node.attributes))
            return
        self._float(node)
        if _stays_on_steps(node):
            codes = [self._steps(name) for name in node.inputs[: 1 if node.operation == "resize2d" else None]]
            if all(_is_uniform(code) and _same_step(code, codes[0]) for code in codes):
                more = node.attributes.get("before", 0) + node.attributes.get("after", 0)
                channels = len(node.attributes.get("indices", ())) or more + sum(len(code.scale) for code in codes)
                self.on_steps[node.name] = Code(*(np.full(channels, array[0], array.dtype) for array in codes[0]))

    def _convolution(self, node: Node, code: Code | None) -> bool:
        """Add a convolution of integers, if it can be one; else why not is noted."""
        try:
            self._add_convolution(node, code)
        except _StaysFloatError as reason:
            self.floats[node.name] = str(reason)
            return False
        return True

    def _add_convolution(self, node: Node, code: Code | None) -> None:
        source, entry = node.inputs[0], self._steps(node.inputs[0])
        if node.name not in self.integers:
            raise _StaysFloatError("its weights are no integers")
        if entry is None:
            raise _StaysFloatError("its input is not rounded to 8 bits")
        integers, steps = self.integers[node.name]
        weight, bias = _in_bytes(integers), folded_parameters(node, self.weights)[1]
        if "norm" in node.attributes:
            steps = steps * norm_scale(node["norm"], self.weights)
        ends = ("norm", "residual")
        attributes = {name: value for name, value in node.attributes.items() if name not in ends}
        arrays: dict[str, np.ndarray] = {}
        most = np.abs(integers.astype(np.int64)).reshape(len(integers), -1).sum(axis=1).max(initial=0)
        if node.operation not in DEPTHWISE and not _is_uniform(entry):
            raise _StaysFloatError("its input has other scales for other channels")
        if node.operation == "conv2d" and node["groups"] > 1:
            raise _StaysFloatError("8-bit kernels have no groups, but of one channel or one pixel")
        if node.operation == "conv2d" and self.bytes_of.get(source) in self.images and node["dilation"] == (1, 1):
            if most > MOST_OF_STEM:
                raise _StaysFloatError("its weights are too large")
            weight, step = integers.astype(np.int16), np.float64(np.float32(1 / np.float64(entry.scale[0])))
            limits = tuple(end - int(entry.zero_point[0]) for end in (0, 255))
            attributes |= {"steps": float(step), "limits": limits}
            source, unit = INPUT, steps / step
        else:
            if weight.dtype != np.int8 and node.operation not in DEPTHWISE:
                raise _StaysFloatError("its weights reach beyond a byte around their zero point")
            if most > MOST_OF_BYTES:
                raise _StaysFloatError("its weights are too large")
            source, unit = (
                self._bytes(source),
                steps * (np.float64(entry.scale) if node.operation in DEPTHWISE else np.float64(entry.scale[0])),
            )
            if entry.zero_point.any():
                arrays["zero_point"] = entry.zero_point
        function = attributes.setdefault("activation", "none")
        attributes["dtype"] = "float32" if code is None else "uint8"
        if code is not None and _saturates(function, code):
            attributes["activation"] = "none"
            unit, bias = unit / np.float64(code.scale), bias / np.float64(code.scale) + code.zero_point
        arrays |= {"weight": weight, "scale": unit.astype(np.float32), "bias": bias.astype(np.float32)}
        inputs = (source, *map(self._real, node.inputs[1:]))
        about = node.name, f"{node.operation}_int8", inputs, node.block
        if code is None:
            self._add(*about, arrays, attributes)
        else:
            self._coded(*about, code, arrays, attributes)

    def _sum(self, node: Node, name: str, code: Code) -> bool:
        """Add a sum of bytes, if it is one."""
        first, other = (self._steps(each) for each in node.inputs)
        if first is None or other is None:
            return False
        scale, other_scale = (np.float64(each.scale) / np.float64(code.scale) for each in (first, other))
        bias = code.zero_point - first.zero_point * scale - other.zero_point * other_scale
        arrays = {"scale": scale, "other_scale": other_scale, "bias": bias}
        arrays = {key: array.astype(np.float32) for key, array in arrays.items()}
        inputs = tuple(map(self._bytes, node.inputs))
        self._coded(name, "add_int8", inputs, node.block, code, arrays, {"dtype": "uint8"})
        return True


class _StaysFloatError(Exception):
    """Why a layer cannot be one of 8 bits."""


def _stays_on_steps(node: Node) -> bool:
    """Whether a node makes no values but those that it reads, and 0."""
    if node.operation == "activation":
        return node["function"] == "relu"
    return node.operation in STEPS_STAY or (node.operation == "resize2d" and node["mode"] == "nearest")


def _in_bytes(integers: np.ndarray) -> np.ndarray:
    """As int8 if they are such numbers, else as int16."""
    fit = integers.size == 0 or (integers.min() >= -128 and integers.max() <= 127)
    return integers.astype(np.int8 if fit else np.int16)


def _saturates(function: str, code: Code) -> bool:
    """Whether what an activation cuts off is beyond the bytes of its result anyway."""
    if function == "none":
        return True
    if function not in ("relu", "relu6") or code.zero_point.any():
        return False
    return function == "relu" or bool(np.all(6 / np.float64(code.scale) >= 254.5))


def _same(one: Code | None, other: Code) -> bool:
    return one is not None and all(map(np.array_equal, one, other))


def _is_uniform(code: Code | None) -> bool:
    """Whether all channels have one scale and one zero point."""
    return code is not None and all(np.all(array == array[:1]) for array in code)


def _same_step(one: Code, other: Code) -> bool:
    return all(mine[0] == theirs[0] for mine, theirs in zip(one, other, strict=True))

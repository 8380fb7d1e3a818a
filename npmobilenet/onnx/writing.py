"""ONNX files: any :class:`~npmobilenet.onnx.file.OnnxGraph`, and a network of this package's as one.

A network is written operation by operation, for images of any number and size. Batch norms stay nodes of their own, so
that nothing is lost: loaded again, it has the same bits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet import graph as graphs
from npmobilenet.checkpoints.protobuf import encoded, packed
from npmobilenet.checkpoints.reader import METADATA_NAME
from npmobilenet.errors import CheckpointError
from npmobilenet.files import replacing
from npmobilenet.graph import INPUT, Graph
from npmobilenet.kernels.geometry import PaddingSpec, resolve_padding
from npmobilenet.onnx.file import MICROSOFT, Dimension, Node, OnnxGraph, Port
from npmobilenet.onnx.tensors import CODES
from npmobilenet.passes_qdq import Integers
from npmobilenet.text import printable

OPSET, IR_VERSION = 17, 8  # old enough for every runtime in use
DTYPES = ("float32", "int8")
LARGEST = (1 << 31) - 1  # bytes of a message
BATCH, HEIGHT, WIDTH = "batch", "height", "width"
ANY = ((64, 64), (224, 224))  # sizes of images that most networks take


def serialised(graph: OnnxGraph) -> bytes:
    """Return the bytes of an ONNX file: the inverse of :func:`~npmobilenet.onnx.file.parse_model`."""
    body = b"".join(encoded(1, _node(node)) for node in graph.nodes) + encoded(2, graph.name)
    body += b"".join(encoded(5, _tensor(array, name)) for name, array in graph.constants.items())
    for number, ports in ((11, graph.inputs), (12, graph.outputs)):
        body += b"".join(encoded(number, _port(port)) for port in ports)
    metadata = b"".join(encoded(14, encoded(1, key) + encoded(2, value)) for key, value in graph.metadata.items())
    opset = encoded(8, encoded(1, "") + encoded(2, graph.opset))
    if any(node.operator.startswith(MICROSOFT) for node in graph.nodes):
        opset += encoded(8, encoded(1, MICROSOFT) + encoded(2, 1))
    return encoded(1, IR_VERSION) + encoded(2, "npmobilenet") + encoded(7, body) + opset + metadata


def _node(node: Node) -> bytes:
    names = b"".join(encoded(1, name) for name in node.inputs) + b"".join(encoded(2, name) for name in node.outputs)
    attributes = b"".join(encoded(5, _attribute(name, value)) for name, value in node.attributes.items())
    domain, _, operator = node.operator.rpartition(".")
    return names + encoded(3, node.name) + encoded(4, operator) + attributes + encoded(7, domain) * bool(domain)


def _attribute(name: str, value: Any) -> bytes:
    """By its type: see `npmobilenet.onnx.file`."""
    if isinstance(value, np.ndarray):
        kind, content = 4, encoded(5, _tensor(value))
    elif isinstance(value, str):
        kind, content = 3, encoded(4, value)
    elif isinstance(value, float):
        kind, content = 1, encoded(2, value)
    elif isinstance(value, int):
        kind, content = 2, encoded(3, value)
    elif all(isinstance(each, int) for each in value):
        kind, content = 7, packed(8, value)
    elif all(isinstance(each, str) for each in value):
        kind, content = 8, b"".join(encoded(9, each) for each in value)
    else:
        kind, content = 6, encoded(7, np.array(value, "<f4").tobytes())
    return encoded(1, name) + content + encoded(20, kind)


def _tensor(array: np.ndarray, name: str = "") -> bytes:
    array = np.asarray(array, order="C")
    about = packed(1, array.shape) + encoded(2, CODES[array.dtype.name]) + encoded(8, name) * bool(name)
    return about + encoded(9, array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


def _port(port: Port) -> bytes:
    tensor = encoded(1, CODES[port.dtype])
    if port.shape is not None:
        tensor += encoded(2, b"".join(encoded(1, _dimension(size)) for size in port.shape))
    return encoded(1, port.name) + encoded(2, encoded(1, tensor))


def _dimension(size: Dimension) -> bytes:
    if size is None:
        return b""
    return encoded(1, size) if isinstance(size, int) else encoded(2, size)


def export_onnx(
    model: Any, path: str | os.PathLike, *, dtype: str | None = None, images: Sequence[Any] | None = None
) -> Path:
    """Write a model as an ONNX file, for images of any number and size.

    The file appears complete or not at all. It holds the names of classes and the preprocessing as metadata, which
    :func:`npmobilenet.load` reads.

    Parameters
    ----------
    model : Model
        Of float32.
    path : str or os.PathLike
    dtype : {"float32", "int8"}, optional
        "int8": with QuantizeLinear and DequantizeLinear (QDQ), as any runtime knows them: uint8 with a scale for each
        tensor, weights of int8 with a scale for each output channel.
    images : sequence of photographs, optional
        As of :func:`npmobilenet.quantize`, with ``dtype="int8"``.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    CheckpointError
        If the model is of 8 bits, has an operation that ONNX does not, or the disk refuses. The message is one line.
    ValueError
        If an option is out of range, or there is nothing to be quantised.

    Warns
    -----
    AssumptionWarning
        As :func:`npmobilenet.quantize` does.
    """
    if dtype not in (None, *DTYPES):
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r:.40}")
    if images is not None and dtype != "int8":
        raise ValueError("images are for dtype='int8', which finds ranges in them")
    path = Path(path)
    weights, about = model.stored()
    try:
        network, integers = model.graph, {}
        if network.is_quantised:
            raise CheckpointError("the model is of 8 bits: export the one of float32 that it was made of, as 'int8'")
        if dtype == "int8":
            network, weights, integers = model.rounded(images)
        about = _metadata(about, model.architecture)
        size = model.size or _only_size(network, model.preprocessing.crop)
        data = serialised(onnx_graph(network, weights, model.architecture, about, size, integers))
        if len(data) > LARGEST:
            raise CheckpointError(f"would have {len(data)} bytes, and ONNX files have {LARGEST} at most")
        with replacing(path) as file:
            file.write(data)
    except CheckpointError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{printable(path)}: cannot be written ({error.strerror or error})") from error
    return path


def _metadata(about: Mapping[str, Any], architecture: str) -> dict[str, str]:
    told = {name: about[name] for name in ("preprocessing", "classes", "multi_label") if name in about}
    return {METADATA_NAME: json.dumps(told | {"architecture": architecture}, allow_nan=False)}


def onnx_graph(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    name: str,
    metadata: Mapping[str, str] | None = None,
    size: tuple[int, int] | None = None,
    integers: Mapping[str, Integers] | None = None,
) -> OnnxGraph:
    """Return a graph as one of ONNX.

    Parameters
    ----------
    graph : Graph
        As an architecture builds it, or fused.
    weights : mapping of str to float32 array
        By the graph's parameter names, in PyTorch's layout.
    name : str
    metadata : mapping of str to str, optional
    size : (int, int), optional
        The only height and width of images; any if None.
    integers : mapping of str to (int8 array, float array), optional
        Which integers the weights of nodes stand for, and the scale of each output channel: as `passes_rounded` has
        them.

    Raises
    ------
    CheckpointError
        If it has an operation that ONNX does not, such as one of 8 bits.
    ValueError
        If images of this size do not fit it.
    """
    writer = _Writer(graph, weights, integers or {}, size)
    for node in graph:
        writer.add(node)
    outputs = tuple(writer.output(name, node) for name, node in graph.output_nodes.items())
    image = Port(INPUT, "float32", (BATCH, graph.in_channels, *(size or (HEIGHT, WIDTH))))
    return OnnxGraph(name, OPSET, tuple(writer.nodes), writer.constants, (image,), outputs, metadata or {})


class _Writer:
    """Writes one node after the other; tensors have the names of the nodes that make them."""

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, np.ndarray],
        integers: Mapping[str, Integers],
        size: tuple[int, int] | None,
    ) -> None:
        self.weights, self.integers, self.nodes, self.constants = weights, integers, [], {}
        self.ranks = {INPUT: 4}
        shapes = graph.shapes(size or next(filter(partial(_fits, graph), ANY), ANY[-1]))
        self.ranks |= {node.name: 1 + len(shapes[node.name]) for node in graph}
        self.channels = {name: shape[0] for name, shape in shapes.items()}

    def add(self, node: graphs.Node) -> None:
        """Write what a node computes."""
        write = _OPERATIONS.get(node.operation)
        if write is None:
            raise CheckpointError(f"the layer {node.name!r}, {node.operation}, has no operator in ONNX")
        write(self, node)

    def one(self, operator: str, inputs: Sequence[str], makes: str, **attributes: Any) -> str:
        """Write one operator that makes a tensor, and return that one's name."""
        self.nodes.append(Node(makes, operator, tuple(inputs), (makes,), attributes))
        return makes

    def constant(self, name: str, array: Any, dtype: type = np.int64) -> str:
        """Write a tensor that is known, and return its name."""
        self.constants[name] = np.asarray(array, dtype)
        return name

    def parameters(self, node: graphs.Node, *names: str) -> list[str]:
        """Write those parameters that a node has; of several parts as one."""
        if node.name in self.integers:
            return self._integers(node)
        found = []
        for name in names:
            parts = [key for key in node.parameters if key == name or key.partition(".")[2] == name]
            arrays = [self.weights[f"{node.name}.{key}"] for key in parts]
            if arrays:
                array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
                found.append(self.constant(f"{node.name}.{name}", array, np.float32))
        return found

    def _integers(self, node: graphs.Node) -> list[str]:
        """Write a layer's weights as integers, and its bias as one of its sums."""
        integers, scale = self.integers[node.name]
        sums = scale * np.float64(self.weights[f"{node.inputs[0]}.scale"][0])
        bias = [self.weights[f"{node.name}.{name}"] for name in node.parameters if name.endswith("bias")]
        rounded = np.rint(np.concatenate(bias) / sums).astype(np.int32)
        return [
            self.one(
                "DequantizeLinear", [*self.steps(name, scales, np.zeros(len(array), array.dtype), array)], name, axis=0
            )
            for name, scales, array in (
                (f"{node.name}.weight", scale, integers),
                (f"{node.name}.bias", sums, rounded),
            )
        ]

    def steps(self, name: str, scale: Any, zero_point: np.ndarray, array: np.ndarray | None = None) -> Iterator[str]:
        """Write an array, if it is one, and what it stands for."""
        if array is not None:
            yield self.constant(f"{name}.integers", array, array.dtype)
        yield self.constant(f"{name}.scale", scale, np.float32)
        yield self.constant(f"{name}.zero_point", zero_point, zero_point.dtype)

    def output(self, name: str, node: str) -> Port:
        """Write an output under its own name, and return what is said of it."""
        if name != node:
            if any(name in one.outputs for one in self.nodes):
                raise CheckpointError(f"the output {name!r} has the name of another layer")
            self.one("Identity", [node], name)
        spatial = (f"{name}_height", f"{name}_width") if self.ranks[node] == 4 else ()
        return Port(name, "float32", (BATCH, self.channels[node], *spatial))


def _fits(graph: Graph, size: tuple[int, int]) -> bool:
    try:
        graph.shapes(size)
    except ValueError:
        return False
    return True


def _only_size(graph: Graph, crop: tuple[int, int]) -> tuple[int, int] | None:
    """That of its photographs, if images of other sizes do not fit a network; else None."""
    return None if any(_fits(graph, size) for size in ANY) else crop


def _window(node: graphs.Node, kernel: tuple[int, int], dilation: tuple[int, int]) -> dict[str, Any]:
    """The attributes of a window of any operator."""
    stride = node["stride"] or kernel
    return {"kernel_shape": kernel, "strides": stride} | _padding(node["padding"], kernel, stride, dilation)


def _padding(padding: PaddingSpec, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> dict:
    if padding == "same" and tuple(stride) != (1, 1):  # else it is that of any size, and of any dilation
        return {"auto_pad": "SAME_UPPER"}
    (top, bottom), (left, right) = resolve_padding(padding, (1, 1), kernel, stride, dilation)
    return {"pads": (top, left, bottom, right)}


def _convolution(to: _Writer, node: graphs.Node) -> None:
    ((kernel, dilation),) = node.windows
    groups = to.channels[node.inputs[0]] if node.operation == "depthwise_conv2d" else node["groups"]
    window = _window(node, kernel, dilation) | {"dilations": dilation, "group": groups}
    to.one("Conv", [node.inputs[0], *to.parameters(node, "weight", "bias")], node.name, **window)


def _mixed(to: _Writer, node: graphs.Node) -> None:
    parts = [f"{node.name}.{number}" for number in range(len(node["partition"]))]
    cut = [f"{part}.part" for part in parts]
    sizes = to.constant(f"{node.name}.partition", node["partition"])
    to.nodes.append(Node(f"{node.name}.split", "Split", (node.inputs[0], sizes), tuple(cut), {"axis": 1}))
    for part, source, (kernel, dilation), channels in zip(parts, cut, node.windows, node["partition"], strict=True):
        arrays = []
        for name in ("weight", "bias"):
            if f"{part}.{name}" in to.weights:
                arrays.append(to.constant(f"{part}.{name}", to.weights[f"{part}.{name}"], np.float32))
        window = _window(node, kernel, dilation) | {"dilations": dilation, "group": channels}
        to.one("Conv", [source, *arrays], part, **window)
    to.one("Concat", parts, node.name, axis=1)


def _conv_transpose(to: _Writer, node: graphs.Node) -> None:
    window = _window(node, node["kernel"], (1, 1))
    to.one("ConvTranspose", [*node.inputs, *to.parameters(node, "weight", "bias")], node.name, **window)


def _linear(to: _Writer, node: graphs.Node) -> None:
    to.one("Gemm", [*node.inputs, *to.parameters(node, "weight", "bias")], node.name, transB=1)


def _squeeze_excite(to: _Writer, node: graphs.Node) -> None:
    x = to.one("GlobalAveragePool", node.inputs, f"{node.name}.mean")
    for step, function in (("reduce", node["activation"]), ("expand", node["gate"])):
        name = f"{node.name}.{step}"
        weight = to.weights[f"{name}.weight"][:, :, None, None]
        arrays = [to.constant(f"{name}.weight", weight, np.float32), *to.parameters(node, f"{step}.bias")]
        x = _function(to, function, to.one("Conv", [x, *arrays], name), f"{name}.{function}")
    to.one("Mul", [*node.inputs, x], node.name)


def _batch_norm(to: _Writer, node: graphs.Node) -> None:
    arrays = to.parameters(node, "weight", "bias", "running_mean", "running_var")
    to.one("BatchNormalization", [*node.inputs, *arrays], node.name, epsilon=float(node["eps"]))


def _activation(to: _Writer, node: graphs.Node) -> None:
    _function(to, node["function"], node.inputs[0], node.name)


def _function(to: _Writer, function: str, x: str, makes: str) -> str:
    """Write an activation of `npmobilenet.kernels.checks.ACTIVATIONS`."""
    if function == "none":
        return to.one("Identity", [x], makes)
    if function == "relu6":
        bounds = [to.constant(name, value, np.float32) for name, value in (("zero", 0), ("six", 6))]
        return to.one("Clip", [x, *bounds], makes)
    if function == "swish":
        return to.one("Mul", [x, to.one("Sigmoid", [x], f"{makes}.sigmoid")], makes)
    if function == "hard_sigmoid":
        return to.one("HardSigmoid", [x], makes, alpha=1 / 6)
    return to.one({"relu": "Relu", "hard_swish": "HardSwish", "sigmoid": "Sigmoid"}[function], [x], makes)


def _prelu(to: _Writer, node: graphs.Node) -> None:
    slopes = to.weights[f"{node.name}.weight"]
    slopes = slopes.reshape(*slopes.shape, *[1] * (to.ranks[node.name] - 1 - slopes.ndim))
    to.one("PRelu", [*node.inputs, to.constant(f"{node.name}.weight", slopes, np.float32)], node.name)


def _rounding(operator: str, scale: str, zero_point: str) -> Callable[[_Writer, graphs.Node], None]:
    """From numbers to bytes, or back; by one scale if all channels have the same."""

    def write(to: _Writer, node: graphs.Node) -> None:
        arrays = [to.weights[f"{node.name}.{name}"] for name in (scale, zero_point)]
        whole = all(np.all(array == array[0]) for array in arrays)
        arrays = [array[0] if whole else array for array in arrays]
        to.one(operator, [*node.inputs, *to.steps(node.name, *arrays)], node.name, **{} if whole else {"axis": 1})

    return write


def _of_two(operator: str) -> Callable[[_Writer, graphs.Node], None]:
    def write(to: _Writer, node: graphs.Node) -> None:
        x, y = node.inputs
        if to.ranks[y] < to.ranks[x]:  # a vector counts for every pixel
            axes = to.constant("pixels", (2, 3))
            y = to.one("Unsqueeze", [y, axes], f"{node.name}.image")
        to.one(operator, [x, y], node.name)

    return write


def _channel_select(to: _Writer, node: graphs.Node) -> None:
    x = to.one("Concat", node.inputs, f"{node.name}.all", axis=1) if len(node.inputs) > 1 else node.inputs[0]
    to.one("Gather", [x, to.constant(f"{node.name}.indices", node["indices"])], node.name, axis=1)


def _channel_pad(to: _Writer, node: graphs.Node) -> None:
    pixels = [0] * (to.ranks[node.inputs[0]] - 2)
    pads = to.constant(f"{node.name}.pads", [0, node["before"], *pixels, 0, node["after"], *pixels])
    to.one("Pad", [*node.inputs, pads], node.name)


def _global_pool(operator: str) -> Callable[[_Writer, graphs.Node], None]:
    def write(to: _Writer, node: graphs.Node) -> None:
        if node.attributes.get("keepdims"):
            to.one(operator, node.inputs, node.name)
        else:
            to.one("Flatten", [to.one(operator, node.inputs, f"{node.name}.image")], node.name)

    return write


def _average_pool(to: _Writer, node: graphs.Node) -> None:
    window = _window(node, node["kernel"], (1, 1)) | {"count_include_pad": int(node["count_include_pad"])}
    to.one("AveragePool", node.inputs, node.name, **window)


def _resizing(mode: str, coordinates: str) -> dict[str, str]:
    """Return the attributes of a Resize that does as a node ``resize2d`` of this mode and these coordinates."""
    if mode != "nearest":
        return {"mode": "linear", "coordinate_transformation_mode": coordinates}
    # A pixel's place is floor((q + 0.5) * step) here, and rounded from (q + 0.5) * step - 0.5 in ONNX.
    rounding = "floor" if coordinates == "asymmetric" else "round_prefer_ceil"
    return {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}


def _resize(to: _Writer, node: graphs.Node) -> None:
    how = _resizing(node["mode"], node["coordinates"])
    x, *like = node.inputs
    if node["scale"] is not None:
        factors = node["scale"] if isinstance(node["scale"], Sequence) else (node["scale"],) * 2
        scales = to.constant(f"{node.name}.scales", [1, 1, *factors], np.float32)
        to.one("Resize", [x, "", scales], node.name, **how)
        return
    first = to.one("Shape", [x], f"{node.name}.channels", start=0, end=2)
    if like:
        last = to.one("Shape", like, f"{node.name}.like", start=2, end=4)
    else:
        size = node["size"] if isinstance(node["size"], Sequence) else (node["size"],) * 2
        last = to.constant(f"{node.name}.pixels", size)
    sizes = to.one("Concat", [first, last], f"{node.name}.sizes", axis=0)
    to.one("Resize", [x, "", "", sizes], node.name, **how)


def _simple(operator: str, **given: Any) -> Callable[[_Writer, graphs.Node], None]:
    """An operator without parameters; ``given`` are its attributes, or which of the node's they are."""

    def write(to: _Writer, node: graphs.Node) -> None:
        attributes = {key: node[value] if isinstance(value, str) else value for key, value in given.items()}
        to.one(operator, node.inputs, node.name, **attributes)

    return write


def _max_pool(to: _Writer, node: graphs.Node) -> None:
    to.one("MaxPool", node.inputs, node.name, **_window(node, node["kernel"], (1, 1)))


_OPERATIONS: dict[str, Callable[[_Writer, graphs.Node], None]] = {
    "conv2d": _convolution,
    "depthwise_conv2d": _convolution,
    "pointwise_conv2d": _convolution,
    "mixed_depthwise_conv2d": _mixed,
    "conv_transpose2d": _conv_transpose,
    "linear": _linear,
    "squeeze_excite": _squeeze_excite,
    "batch_norm": _batch_norm,
    "activation": _activation,
    "prelu": _prelu,
    "leaky_relu": _simple("LeakyRelu", alpha="slope"),
    "elu": _simple("Elu", alpha="alpha"),
    "tanh": _simple("Tanh"),
    "softmax": _simple("Softmax", axis=1),
    "add": _of_two("Add"),
    "broadcast_add": _of_two("Add"),
    "multiply": _of_two("Mul"),
    "concat": _simple("Concat", axis=1),
    "channel_select": _channel_select,
    "channel_pad": _channel_pad,
    "flatten": _simple("Flatten"),
    "global_average_pool": _global_pool("GlobalAveragePool"),
    "global_max_pool": _global_pool("GlobalMaxPool"),
    "max_pool2d": _max_pool,
    "average_pool2d": _average_pool,
    "resize2d": _resize,
    "quantize": _rounding("QuantizeLinear", "out_scale", "out_zero_point"),
    "dequantize": _rounding("DequantizeLinear", "scale", "zero_point"),
}

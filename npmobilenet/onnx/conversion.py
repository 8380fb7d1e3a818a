"""From nodes of ONNX to this package's graphs, operator by operator.

A region is a graph under construction: it begins at an image (N, C, H, W), and all that is in it is computed of each
image by itself. A node that does not fit, in whatever way, stays a node of ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import NoReturn

import numpy as np

from npmobilenet import graph as graphs
from npmobilenet.graph import INPUT, Graph
from npmobilenet.kernels import checks
from npmobilenet.kernels.geometry import PaddingSpec, resolve_padding
from npmobilenet.onnx.file import Node
from npmobilenet.onnx.names import Names
from npmobilenet.onnx.operator import OPERATORS, as_ints
from npmobilenet.onnx.patterns import clip_bounds, is_hard_sigmoid, pad_edges
from npmobilenet.onnx.shapes import Bound, Coming
from npmobilenet.onnx.windows import transposed_pads, window_pads
from npmobilenet.text import printable

Shape = tuple[int, ...]
REASON = 120  # characters of why a node does not fit
WIDEST_PADDING = 16  # beyond a window: more makes images of nothing but padding, however small they are
CONVERTERS: dict[str, Callable[[Region, Node], None]] = {}


class DoesNotFitError(Exception):
    """A node is not one of this package's operations."""


@dataclass
class Region:
    """A graph under construction.

    Attributes
    ----------
    bound : Bound
    source : str
        The tensor that it begins at.
    names : Names
        Gives nodes names; shared by the regions of a graph.
    nodes, weights
        As of `Graph`.
    made : dict of str to str
        Which of its nodes makes a tensor of ONNX; `INPUT` the source.
    replaced : list of Node
        The nodes of ONNX that it computes.
    absorbed : set of str
        Tensors of ONNX that later nodes make, which are computed already, or need not be.
    refusal : str
        Why the last node that it did not take is not in it.
    """

    bound: Bound
    source: str
    names: Names
    nodes: list[graphs.Node] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    replaced: list[Node] = field(default_factory=list)
    absorbed: set[str] = field(default_factory=set)
    shapes: dict[str, Shape] = field(default_factory=dict)
    refusal: str = ""
    _current: Node | None = None

    def __post_init__(self) -> None:
        self.made[self.source] = INPUT
        self.shapes[INPUT] = self.bound.shape(self.source)[1:]

    def take(self, node: Node) -> bool:
        """Add what a node of ONNX computes, if it is known how."""
        if node.outputs[0] in self.absorbed:
            self.replaced.append(node)
            return True
        convert = CONVERTERS.get(node.operator)
        if convert is None:
            self.refusal = f"{node.operator} has no fast kernel"
            return False
        if not all(isinstance(self.bound.values.get(name), Coming) for name in node.outputs):
            self.refusal = "the shape of its result is known in a call"
            return False
        before = len(self.nodes), dict(self.made)
        self._current = node
        try:
            convert(self, node)
            self._check(node)
        except (DoesNotFitError, ValueError) as error:
            self.refusal = printable(error, REASON) if str(error) else "no fast kernel has its attributes and shapes"
            for added in self.nodes[before[0] :]:
                self.shapes.pop(added.name)
                self.names.give_back(added.name)
                for name in added.tensors:
                    self.weights.pop(name, None)
            del self.nodes[before[0] :]
            self.made = before[1]
            return False
        self.replaced.append(node)
        return True

    def _check(self, node: Node) -> None:
        """What it makes must be what ONNX makes: (N, C, H, W), or (N, C); a vector may stand for (N, C, 1, 1)."""
        images = self.bound.shape(self.source)[0]
        for name in [name for name in node.outputs if name in self.made]:
            value, shape = self.bound.values[name], self.shapes[self.made[name]]
            require(isinstance(value, Coming) and (value.dtype == np.float32 or node.operator == "QuantizeLinear"))
            require(value.shape[:1] == (images,) and value.shape[1:] in (shape, (*shape, 1, 1)))

    @property
    def batch(self) -> int:
        """How many images there are."""
        return self.bound.shape(self.source)[0]

    def x(self, node: Node, at: int = 0) -> str:
        """Return the node of this graph that makes an input."""
        require(len(node.inputs) > at and node.inputs[at] in self.made)
        require(self.bound.values[node.inputs[at]].dtype == np.float32)
        return self.made[node.inputs[at]]

    def shape(self, node: Node, at: int = 0) -> Shape:
        """Return the shape of an input, for one image, as this graph has it."""
        return self.shapes[self.x(node, at)]

    def constant(self, node: Node, at: int) -> np.ndarray | None:
        """Return an input that must be known; None if it is left out."""
        if len(node.inputs) <= at or not node.inputs[at]:
            return None
        array = self.bound.constant(node.inputs[at])
        require(array is not None)
        return array

    def attribute(self, node: Node, name: str) -> object:
        """Return an attribute, or what it is if it is not given."""
        return node.attributes.get(name, OPERATORS[node.operator].attributes[name][2])

    def add(
        self,
        operation: str,
        inputs: Sequence[str],
        parameters: dict[str, np.ndarray] | None = None,
        makes: str | None = None,
        **attributes: object,
    ) -> str:
        """Add a node and return its name; it makes the current node's result, or the tensor ``makes``, unless ""."""
        arrays = {
            name: array if array.dtype == np.uint8 else _float32(array)  # but for a zero point
            for name, array in (parameters or {}).items()
        }
        name, block = self.names.of(self._current)
        shapes = {key: array.shape for key, array in arrays.items()}
        node = graphs.Node(name, operation, tuple(inputs), block, shapes, attributes)
        try:
            self.shapes[name] = node.output_shape(self.shapes)
            if not arrays:
                given = [np.broadcast_to(np.float32(0), (1, *s[1:], *s[:1])) for s in map(self.shapes.get, inputs)]
                getattr(checks, node.kind.kernel(node))(**node.kind.operands(given), **node.kind.keywords(node))
        except ValueError:
            self.shapes.pop(name, None)
            self.names.give_back(name)
            raise
        self.nodes.append(node)
        self.weights |= {f"{name}.{key}": array for key, array in arrays.items()}
        makes = self._current.outputs[0] if makes is None else makes
        if makes:
            self.made[makes] = name
        return name

    def same(self, node: Node) -> None:
        """Let a node make what its first input is."""
        self.made[node.outputs[0]] = self.x(node)

    def graph(self, outputs: dict[str, str]) -> Graph:
        """Return the graph with these outputs."""
        return Graph(tuple(self.nodes), self.shapes[INPUT][0], outputs)


def _float32(array: np.ndarray) -> np.ndarray:
    """In one piece of memory, unless it is one number repeated, which takes none."""
    array = np.asarray(array, np.float32)
    return array if not any(array.strides) else np.ascontiguousarray(array)


def require(condition: bool) -> None:
    """Leave a node to ONNX unless this is so."""
    if not condition:
        refuse()


def refuse() -> NoReturn:
    """Leave a node to ONNX."""
    raise DoesNotFitError


def converts(*operators: str) -> Callable[[Callable[[Region, Node], None]], Callable[[Region, Node], None]]:
    """Enter a function in the table, under the operators that it converts."""

    def enter(function: Callable[[Region, Node], None]) -> Callable[[Region, Node], None]:
        CONVERTERS.update(dict.fromkeys(operators, function))
        return function

    return enter


# Convolutions ------------------------------------------------------------------------------------------------


def _geometry(at: Region, node: Node, kernel: Shape) -> tuple[Shape, Shape, PaddingSpec]:
    """Stride, dilation and padding of a window of two axes."""
    size = at.shape(node)[1:]
    require(len(size) == len(kernel) == 2)
    strides, dilations = (tuple(at.attribute(node, name)) or (1, 1) for name in ("strides", "dilations"))
    auto, pads = at.attribute(node, "auto_pad"), at.attribute(node, "pads")
    require(len(strides) == len(dilations) == 2 and min(strides + dilations) > 0 and len(pads) in (0, 4))
    if auto == "SAME_UPPER":
        return strides, dilations, "same"
    edges = window_pads(auto, pads, size, kernel, strides, dilations)
    for k, d, edge in zip(kernel, dilations, edges, strict=True):
        require(max(edge) <= max(k * d, WIDEST_PADDING))
    return strides, dilations, _plain(edges)


def _plain(pads: Sequence[tuple[int, int]]) -> PaddingSpec:
    """One number for all sides, if it is the same."""
    require(min(min(edge) for edge in pads) >= 0)
    numbers = {number for edge in pads for number in edge}
    return numbers.pop() if len(numbers) == 1 else tuple(map(tuple, pads))


@converts("Conv")
def _conv(at: Region, node: Node) -> None:
    weight, bias, groups = at.constant(node, 1), at.constant(node, 2), at.attribute(node, "group")
    require(weight.ndim == 4 and len(at.shape(node)) == 3)
    kernel, (channels, c_in) = weight.shape[2:], (len(weight), at.shape(node)[0])
    stride, dilation, padding = _geometry(at, node, kernel)
    require(groups > 0 and weight.shape[1] * groups == c_in and channels % groups == 0)
    parameters = {"weight": weight} | ({} if bias is None else {"bias": bias})
    window = {"channels": channels, "kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    one = kernel == stride == (1, 1) and padding in (0, "same")
    x = at.x(node)
    if one and not (x == INPUT and groups == 1):  # a kernel reads the image itself: that of dense convolutions
        if groups > 1:
            parameters = {f"{number}.weight": part for number, part in enumerate(np.split(weight, groups))}
            if bias is not None:
                parameters |= {f"{number}.bias": part for number, part in enumerate(np.split(bias, groups))}
        at.add("pointwise_conv2d", [x], parameters, **window | {"groups": groups})
    elif groups == c_in == channels and groups > 1:
        at.add("depthwise_conv2d", [x], parameters, **window | {"groups": groups})
    else:
        at.add("conv2d", [x], parameters, **window | {"groups": groups})


@converts("ConvTranspose")
def _conv_transpose(at: Region, node: Node) -> None:
    weight, bias = at.constant(node, 1), at.constant(node, 2)
    require(weight.ndim == 4 and at.attribute(node, "group") == 1 and len(at.shape(node)) == 3)
    kernel, size = weight.shape[2:], at.shape(node)[1:]
    strides, dilations, more = (
        tuple(at.attribute(node, name)) or default
        for name, default in (("strides", (1, 1)), ("dilations", (1, 1)), ("output_padding", (0, 0)))
    )
    require(dilations == (1, 1) and more == (0, 0))
    auto, pads, shape = (at.attribute(node, name) for name in ("auto_pad", "pads", "output_shape"))
    padding = _plain(transposed_pads(auto, pads, size, kernel, strides, dilations, more, shape))
    parameters = {"weight": weight} | ({} if bias is None else {"bias": bias})
    window = {"channels": weight.shape[1], "kernel": kernel, "stride": strides, "padding": padding}
    at.add("conv_transpose2d", [at.x(node)], parameters, **window)


@converts("Gemm")
def _gemm(at: Region, node: Node) -> None:
    weight, bias = at.constant(node, 1), at.constant(node, 2)
    require(len(at.shape(node)) == 1 and len(at.bound.shape(node.inputs[0])) == 2 and not at.attribute(node, "transA"))
    weight = weight if at.attribute(node, "transB") else weight.T
    alpha, beta = at.attribute(node, "alpha"), at.attribute(node, "beta")
    parameters = {"weight": weight if alpha == 1 else alpha * weight}
    if bias is not None:
        require(bias.ndim < 2 or bias.shape[0] == 1)
        row = np.broadcast_to(bias.reshape(-1), len(weight))
        parameters["bias"] = row if beta == 1 else beta * row
    at.add("linear", [at.x(node)], parameters, channels=len(weight))


@converts("BatchNormalization")
def _batch_norm(at: Region, node: Node) -> None:
    names = ("weight", "bias", "running_mean", "running_var")
    parameters = {name: at.constant(node, number) for number, name in enumerate(names, 1)}
    at.add("batch_norm", [at.x(node)], parameters, eps=at.attribute(node, "epsilon"))


# Functions of every value ------------------------------------------------------------------------------------


ACTIVATIONS = {
    "Relu": "relu",
    "Clip": "relu6",
    "Sigmoid": "sigmoid",
    "HardSwish": "hard_swish",
    "Swish": "swish",
    "HardSigmoid": "hard_sigmoid",
}


@converts(*ACTIVATIONS)
def _activation(at: Region, node: Node) -> None:
    at.add("activation", [at.x(node)], function=_function(at, node))


def _function(at: Region, node: Node) -> str:
    """Which activation a node is."""
    if node.operator in ("Relu", "Clip"):
        functions = {(0.0, np.inf): "relu", (0.0, 6.0): "relu6"}
        return functions.get(clip_bounds(at.bound, node)) or refuse()
    require(node.operator in ACTIVATIONS)
    require(node.operator != "HardSigmoid" or is_hard_sigmoid(node))
    require(node.operator != "Swish" or at.attribute(node, "alpha") == 1)
    return ACTIVATIONS[node.operator]


@converts("Tanh")
def _tanh(at: Region, node: Node) -> None:
    at.add("tanh", [at.x(node)])


@converts("LeakyRelu")
def _leaky_relu(at: Region, node: Node) -> None:
    at.add("leaky_relu", [at.x(node)], slope=at.attribute(node, "alpha"))


@converts("Elu")
def _elu(at: Region, node: Node) -> None:
    at.add("elu", [at.x(node)], alpha=at.attribute(node, "alpha"))


@converts("PRelu")
def _prelu(at: Region, node: Node) -> None:
    slopes, shape = at.constant(node, 1), at.shape(node)
    if slopes.size == 1:
        slopes = slopes.reshape(1)
    elif slopes.shape == (shape[0], *[1] * (len(shape) - 1)) or (at.bound.opset < 7 and slopes.shape == shape[:1]):
        slopes = slopes.reshape(-1)
    else:
        require(slopes.shape == shape)
    at.add("prelu", [at.x(node)], {"weight": slopes}, slopes=slopes.shape)


@converts("Softmax")
def _softmax(at: Region, node: Node) -> None:
    rank = len(at.bound.shape(node.inputs[0]))
    axis = node.attributes.get("axis", 1 if at.bound.opset < 13 else -1) % rank
    require(axis == 1 and (at.bound.opset >= 13 or prod(at.bound.shape(node.inputs[0])[2:]) == 1))
    at.add("softmax", [at.x(node)])


@converts("Identity", "Dropout")
def _identity(at: Region, node: Node) -> None:
    require(len(node.outputs) == 1)
    at.same(node)


@converts("Cast")
def _cast(at: Region, node: Node) -> None:
    require(node.attributes["to"] in (1, "FLOAT"))
    at.same(node)


# Several tensors ---------------------------------------------------------------------------------------------


@converts("Add", "Sum")
def _add(at: Region, node: Node) -> None:
    _require_plain_broadcast(at, node)
    if len(at.bound.live(node)) == 1 and len(node.inputs) == 2 and node.inputs[0] != node.inputs[1]:
        _scaled(at, node, shift=1)
        return
    last = at.x(node)
    for number in range(1, len(node.inputs)):
        final = None if number == len(node.inputs) - 1 else ""
        last = _joined(at, "add", "broadcast_add", last, at.x(node, number), final)
    if len(node.inputs) == 1:
        at.same(node)


@converts("Mul")
def _multiply(at: Region, node: Node) -> None:
    _require_plain_broadcast(at, node)
    if len(at.bound.live(node)) == 1 and node.inputs[0] != node.inputs[1]:
        _scaled(at, node, factor=1)
        return
    _joined(at, "multiply", "multiply", at.x(node), at.x(node, 1), None)


@converts("Sub", "Div")
def _sub_div(at: Region, node: Node) -> None:
    _require_plain_broadcast(at, node)
    require(at.constant(node, 1) is not None)
    if node.operator == "Sub":
        _scaled(at, node, shift=-1)
    else:
        _scaled(at, node, factor=-1)


def _require_plain_broadcast(at: Region, node: Node) -> None:
    require(not node.attributes.get("broadcast"))


def _joined(at: Region, same: str, broadcast: str, x: str, y: str, makes: str | None) -> str:
    """A sum or product of two tensors of one shape, or of which one broadcasts to the other."""
    one, two = at.shapes[x], at.shapes[y]
    if one == two:
        order = [node.name for node in at.nodes]
        if y != INPUT and (x == INPUT or order.index(y) > order.index(x)):  # into the later one it may be fused
            x, y = y, x
        return at.add(same, [x, y], makes=makes)
    if len(two) > len(one) or prod(two) > prod(one):
        x, y = y, x
    return at.add(broadcast, [x, y], makes=makes)


def _scaled(at: Region, node: Node, factor: int = 0, shift: int = 0) -> None:
    """A number for each channel multiplied or added: a normalisation that is folded into the layer before it."""
    number = 1 if at.bound.constant(node.inputs[1]) is not None else 0
    array, shape = at.constant(node, number), at.shape(node, 1 - number)
    require(len(shape) == 3 and array.dtype == np.float32)
    lengths = (1,) * (4 - array.ndim) + array.shape
    require(len(lengths) == 4 and lengths[0] == lengths[2] == lengths[3] == 1 and lengths[1] in (1, shape[0]))
    values = np.broadcast_to(array.reshape(-1).astype(np.float64), shape[:1])
    ones, zeros = np.ones(shape[0]), np.zeros(shape[0])
    parameters = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}
    if factor:
        parameters["weight"] = values if factor > 0 else 1 / values
    else:
        parameters["bias"] = shift * values
    at.add("batch_norm", [at.x(node, 1 - number)], parameters, eps=0.0)


@converts("Concat")
def _concat(at: Region, node: Node) -> None:
    require(at.attribute(node, "axis") in (1, 1 - len(at.bound.shape(node.inputs[0]))))
    at.add("concat", [at.x(node, number) for number in range(len(node.inputs))])


@converts("Split")
def _split(at: Region, node: Node) -> None:
    """The parts of a mixed convolution, or of anything else."""
    try:
        _mixed(at, node)
    except DoesNotFitError:
        _slice(at, node)


@converts("Slice")
def _slice(at: Region, node: Node) -> None:
    """Some channels, and of all other axes everything."""
    shape, channels = at.bound.shape(node.inputs[0]), []
    rest = [at.constant(node, number) for number in range(1, len(node.inputs))]
    for axis, length in enumerate(shape):  # where along it the values of each output come from
        after = len(shape) - axis - 1
        places = np.broadcast_to(np.arange(length).reshape(-1, *[1] * after), shape)
        parts = OPERATORS[node.operator].compute(node, [places, *rest], at.bound.opset)
        require(all(part.size for part in parts))
        lines = [part[(*[0] * axis, slice(None), *[0] * after)].tolist() for part in parts]
        if axis == 1:
            channels = lines
        else:
            require(all(line == list(range(length)) for line in lines))
    _select(at, node, channels)


@converts("Gather")
def _gather(at: Region, node: Node) -> None:
    indices, channels = at.constant(node, 1), at.shape(node)[0]
    rank = len(at.bound.shape(node.inputs[0]))
    require(indices.ndim == 1 and indices.size and at.attribute(node, "axis") in (1, 1 - rank))
    _select(at, node, [np.where(indices < 0, indices + channels, indices).tolist()])


def _select(at: Region, node: Node, channels: Sequence[Sequence[int]]) -> None:
    """Let each output be some channels of the input."""
    for output, indices in zip(node.outputs, channels, strict=True):
        if tuple(indices) == tuple(range(at.shape(node)[0])):
            at.made[output] = at.x(node)
        else:
            at.add("channel_select", [at.x(node)], makes=output, indices=tuple(indices))


def _mixed(at: Region, node: Node) -> None:
    """Channels cut into parts, each under a convolution of its own, and concatenated: one convolution."""
    convolutions, function, concat = _parts(at, node)
    weights = [at.constant(one, 1) for one in convolutions]
    biases = [at.constant(one, 2) for one in convolutions]
    require(all(weight.ndim == 4 for weight in weights) and len({bias is None for bias in biases}) == 1)
    strides = {tuple(at.attribute(one, "strides")) or (1, 1) for one in convolutions}
    require(len(strides) == 1)
    parameters = {f"{number}.weight": weight for number, weight in enumerate(weights)}
    if biases[0] is not None:
        parameters |= {f"{number}.bias": bias for number, bias in enumerate(biases)}
    widths = [at.bound.shape(name)[1] for name in node.outputs]
    groups = [at.attribute(one, "group") for one in convolutions]
    dilations = tuple(tuple(at.attribute(one, "dilations")) or (1, 1) for one in convolutions)
    kernels = tuple(weight.shape[2:] for weight in weights)
    channels, stride = sum(map(len, weights)), strides.pop()
    makes = "" if function else concat.outputs[0]
    padding = _common_padding(at, node, convolutions, kernels, stride, dilations)
    if groups == widths == list(map(len, weights)):
        shared = {"kernels": kernels, "dilations": dilations, "partition": tuple(widths)}
        shared |= {"channels": channels, "stride": stride, "padding": padding}
        made = at.add("mixed_depthwise_conv2d", [at.x(node)], parameters, makes=makes, **shared)
    else:
        require({*groups} == {1} and {*kernels} == {stride} == {(1, 1)} and len({*widths}) == 1)
        require(len({len(weight) for weight in weights}) == 1 and padding in ("symmetric", "same"))
        shared = {"channels": channels, "groups": len(widths)}
        made = at.add("pointwise_conv2d", [at.x(node)], parameters, makes=makes, **shared)
    if function:
        at.add("activation", [made], makes=concat.outputs[0], function=function)
    at.absorbed.update([*(one.outputs[0] for one in convolutions), *concat.inputs, concat.outputs[0]])


def _parts(at: Region, node: Node) -> tuple[list[Node], str, Node]:
    """The convolutions of a Split's parts, what each ends with, and the concatenation, if there is nothing else."""
    require(at.attribute(node, "axis") in (1, 1 - len(at.bound.shape(node.inputs[0]))))
    convolutions = [_only_reader(at, name) for name in node.outputs]
    ends, function = convolutions, ""
    if _only_reader(at, convolutions[0].outputs[0]).operator in ACTIVATIONS:
        ends = [_only_reader(at, one.outputs[0]) for one in convolutions]
        functions = {_function(at, one) for one in ends}
        require(len(functions) == 1)
        function = functions.pop()
    concat = _only_reader(at, ends[0].outputs[0])
    require({one.operator for one in convolutions} == {"Conv"} and concat.operator == "Concat")
    require(concat.inputs == tuple(one.outputs[0] for one in ends) and at.attribute(concat, "axis") in (1, -3))
    require(all(_only_reader(at, name) is concat for name in concat.inputs))
    return convolutions, function, concat


def _only_reader(at: Region, name: str) -> Node:
    readers = at.bound.readers.get(name, [])
    require(len(readers) == 1 and name not in at.bound.outputs and readers[0].inputs.count(name) == 1)
    return readers[0]


def _common_padding(
    at: Region, node: Node, convolutions: Sequence[Node], kernels: Sequence[Shape], stride: Shape, dilations: Sequence
) -> str:
    """The rule by which every window has its padding."""
    size = at.shape(node)[1:]
    for rule in ("symmetric", "same"):
        for one, kernel, dilation in zip(convolutions, kernels, dilations, strict=True):
            auto, pads = at.attribute(one, "auto_pad"), at.attribute(one, "pads")
            edges = tuple(window_pads(auto, pads, size, kernel, stride, dilation))
            if edges != resolve_padding(rule, size, kernel, stride, dilation):
                break
        else:
            return rule
    refuse()


# Pooling and sizes -------------------------------------------------------------------------------------------


@converts("GlobalAveragePool")
def _global_average_pool(at: Region, node: Node) -> None:
    at.add("global_average_pool", [at.x(node)], keepdims=True)


@converts("GlobalMaxPool")
def _global_max_pool(at: Region, node: Node) -> None:
    at.add("global_max_pool", [at.x(node)])


@converts("ReduceMean")
def _reduce_mean(at: Region, node: Node) -> None:
    axes = node.attributes.get("axes") if len(node.inputs) < 2 else as_ints(at.constant(node, 1))
    require(axes is not None and len(at.shape(node)) == 3 and sorted(axis % 4 for axis in axes) == [2, 3])
    at.add("global_average_pool", [at.x(node)], keepdims=bool(at.attribute(node, "keepdims")))


@converts("MaxPool", "AveragePool")
def _pool(at: Region, node: Node) -> None:
    kernel = tuple(node.attributes["kernel_shape"])
    stride, dilation, padding = _geometry(at, node, kernel)
    require(dilation == (1, 1) and len(node.outputs) == 1)
    window = {"kernel": kernel, "stride": stride, "padding": padding}
    mean = node.operator == "AveragePool"
    if at.attribute(node, "ceil_mode"):  # as if there were more padding at the end, which counts for nothing
        size, out = at.shape(node)[1:], at.bound.shape(node.outputs[0])[2:]
        edges = window_pads("NOTSET", at.attribute(node, "pads"), size, kernel, stride, dilation)
        require(at.attribute(node, "auto_pad") == "NOTSET")
        needed = [(p - 1) * s + k - n - a for p, s, k, n, (a, _) in zip(out, stride, kernel, size, edges, strict=True)]
        wider = [(a, max(b, need)) for need, (a, b) in zip(needed, edges, strict=True)]
        require(wider == edges or not (mean and at.attribute(node, "count_include_pad")))
        window["padding"] = _plain(wider)
    if mean:
        count = bool(at.attribute(node, "count_include_pad")) or window["padding"] == 0
        at.add("average_pool2d", [at.x(node)], **window, count_include_pad=count)
    else:
        at.add("max_pool2d", [at.x(node)], **window)


@converts("Flatten", "Reshape", "Squeeze", "Unsqueeze")
def _reshape(at: Region, node: Node) -> None:
    """From an image to a vector, or nothing: (N, C, 1, 1) is as good as (N, C)."""
    before, after = at.shape(node), at.bound.shape(node.outputs[0])
    require(after[0] == at.batch and prod(after[1:]) == prod(before))
    if after[1:] in (before, (*before, 1, 1)):
        at.same(node)
        return
    require(len(before) == 3 and len(after) == 2)
    at.add("flatten", [at.x(node)])


@converts("Pad")
def _pad(at: Region, node: Node) -> None:
    edges = pad_edges(at.bound, node)
    require(edges is not None and edges[0] == (0, 0) and all(edge == (0, 0) for edge in edges[2:]))
    at.add("channel_pad", [at.x(node)], before=edges[1][0], after=edges[1][1])


@converts("Resize", "Upsample")
def _resize(at: Region, node: Node) -> None:
    old = node.operator == "Upsample" or at.bound.opset < 11
    mode = {"nearest": "nearest", "linear": "bilinear", "bilinear": "bilinear"}.get(at.attribute(node, "mode"))
    size, out = at.shape(node)[1:], at.bound.shape(node.outputs[0])[2:]
    require(mode is not None and len(out) == 2)
    how = "asymmetric" if old else at.attribute(node, "coordinate_transformation_mode")
    if how == "pytorch_half_pixel" and min(out) > 1:
        how = "half_pixel"
    require(how in ("half_pixel", "align_corners", "asymmetric"))
    if mode == "nearest":
        rounding = "floor" if old else at.attribute(node, "nearest_mode")
        nearest = rounding.startswith("round_") and all(q % n == 0 for n, q in zip(size, out, strict=True))
        require((how == "asymmetric" and rounding == "floor") or (how == "half_pixel" and nearest))
        if how == "half_pixel":
            how = "asymmetric"
    if not old:
        require(not (at.attribute(node, "antialias") or at.attribute(node, "exclude_outside")))
        require(at.attribute(node, "axes") is None and at.attribute(node, "keep_aspect_ratio_policy") == "stretch")
    scales = at.constant(node, 1 if old else 2) if node.operator == "Resize" or len(node.inputs) > 1 else None
    if node.operator == "Upsample" and scales is None:
        scales = np.array(node.attributes.get("scales", ()), np.float32)
    if scales is not None and scales.size == 4 and how != "align_corners":
        factors = tuple(float(str(np.float32(scale))) for scale in scales[2:])
        require(scales[0] == scales[1] == 1)
        at.add("resize2d", [at.x(node)], scale=factors, mode=mode, coordinates=how)
    else:  # PyTorch's corners, which are ONNX's where the size is a whole number before it is made one
        factors = None if scales is None or scales.size != 4 else scales[2:]
        require(factors is None or all(abs(n * f - q) < 1e-4 for n, f, q in zip(size, factors, out, strict=True)))
        like = _like(at, node, out)
        size = {} if like else {"size": out}
        at.add("resize2d", [at.x(node), *like], **size, mode=mode, coordinates=how)


def _like(at: Region, node: Node, out: Shape) -> list[str]:
    """The image of this size whose shape the size was computed from, if there is one."""
    whose = {
        at.made[name] for source in node.inputs[1:] for name in at.bound.shapes_of.get(source, ()) if name in at.made
    }
    return [name for name in at.shapes if name in whose and at.shapes[name][1:] == out][:1]

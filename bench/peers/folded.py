"""A network as the exporters see it: few kinds of layers, batch norms folded, all numbers resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from npmobilenet.graph import Graph, Node, Shape
from npmobilenet.kernels.geometry import Pads, Pair, resolve_padding
from npmobilenet.operations import Convolution
from npmobilenet.passes import folded_parameters, fuse

ACTIVATIONS = ("relu", "relu6", "swish", "hard_swish", "sigmoid", "hard_sigmoid", "leaky_relu")
AS_THEY_ARE = ("prelu", "softmax", "add", "multiply", "concat")  # operations that are layers


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes
    ----------
    name : str
        Of its output; a split has one for each part, :attr:`outputs`.
    kind : str
        "convolution", "transposed" (a convolution), "linear", "pool", "squeeze", "max_pool", "resize", "split",
        "concat", "add", "multiply", "activation", "prelu", "softmax".
        Both a pool and a squeeze take the mean of each channel; a squeeze leaves an image of one pixel. That may
        be the second input of a product.
    inputs : tuple of str
        The tensors it reads; ``"input"`` is the image.
    activation : str or None
        Of :data:`ACTIVATIONS`; convolutions and linear layers may have one, and a layer that is nothing else has.
    weight, bias : float32 array or None
        In PyTorch's layout; the slopes of a PReLU.
    kernel : (int, int)
        Of a max pooling.
    stride, dilation, pads, groups
        Of a convolution or a max pooling.
    parts : tuple of int
        The channels of each part that a split makes.
    size : (int, int)
        The image that a resizing makes.
    mode, coordinates : str
        How it does: as `npmobilenet.operations.Resize2d` has them.
    slope : float
        Of a leaky ReLU.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    activation: str | None = None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    groups: int = 1
    parts: tuple[int, ...] = ()
    size: Pair = (0, 0)
    mode: str = ""
    coordinates: str = ""
    slope: float = 0.0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the tensors it makes."""
        return tuple(f"{self.name}.{part}" for part in range(len(self.parts))) or (self.name,)


def folded_layers(graph: Graph, weights: Mapping[str, np.ndarray], size: Pair) -> list[Layer]:
    """Return the layers of a graph for images of ``(H, W)``, in the order of execution.

    Its outputs are the tensors that :func:`output_tensors` names.

    Raises
    ------
    ValueError
        If there is an operation that is not a layer of a MobileNet, alone or fused.
    """
    fused = fuse(graph)
    shapes = fused.shapes(size)
    return [layer for node in fused for layer in _layers(node, weights, shapes)]


def output_tensors(graph: Graph) -> list[str]:
    """Return which tensors of the layers are the outputs of a graph, in its order."""
    return list(fuse(graph).output_nodes.values())


def _layers(node: Node, weights: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> Iterator[Layer]:
    """One node as layers; the last of them has its name."""
    activation = node.attributes.get("activation")
    if node.operation == "activation":
        activation = node["function"]
    if activation not in (None, *ACTIVATIONS):
        raise ValueError(f"cannot be exported: {node.name}, activation {activation}")
    if node.operation == "global_average_pool":
        yield Layer(node.name, "squeeze" if node["keepdims"] else "pool", node.inputs)
    elif node.operation == "activation":
        yield Layer(node.name, "activation", node.inputs, activation)
    elif node.operation == "leaky_relu":
        yield Layer(node.name, "activation", node.inputs, "leaky_relu", slope=node["slope"])
    elif node.operation in AS_THEY_ARE:
        yield Layer(node.name, node.operation, node.inputs, weight=weights.get(f"{node.name}.weight"))
    elif node.operation == "max_pool2d":
        kernel, stride = node["kernel"], node["stride"] or node["kernel"]
        size = shapes[node.inputs[0]][1:]
        axes = zip(size, kernel, stride, resolve_padding(node["padding"], size, kernel, stride), strict=True)
        pads = tuple((before, _reached(*axis, before, after)) for *axis, (before, after) in axes)
        yield Layer(node.name, "max_pool", node.inputs, kernel=kernel, stride=stride, pads=pads)
    elif node.operation == "resize2d":
        how = {"size": shapes[node.name][1:], "mode": node["mode"], "coordinates": node["coordinates"]}
        yield Layer(node.name, "resize", node.inputs[:1], **how)
    elif node.operation == "conv_transpose2d":
        arrays = _single(*folded_parameters(node, weights))
        pads = resolve_padding(node["padding"], shapes[node.name][1:], node["kernel"], node["stride"])
        yield Layer(node.name, "transposed", node.inputs, None, *arrays, stride=node["stride"], pads=pads)
    elif node.operation == "linear":
        yield Layer(node.name, "linear", node.inputs, activation, *_single(*folded_parameters(node, weights)))
    elif node.operation == "squeeze_excite":
        yield from _squeeze_excite(node, weights)
    elif node.operation == "mixed_depthwise_conv2d":
        yield from _mixed(node, weights, shapes)
    elif isinstance(node.kind, Convolution):
        residual = node.inputs[1:]
        name = f"{node.name}.sum" if residual else node.name
        yield _convolution(node, 0, name, node.inputs[0], *folded_parameters(node, weights), shapes)
        if residual:
            yield Layer(node.name, "add", (name, *residual))
    else:
        raise ValueError(f"cannot be exported: {node.name}, {node.operation}")


def _reached(length: int, kernel: int, stride: int, before: int, after: int) -> int:
    """How many of the zeros after an image its last window reaches."""
    last = (before + length + after - kernel) // stride * stride
    return max(0, last + kernel - before - length)


def _single(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.array(array, np.float32, order="C") for array in arrays)


def _convolution(
    node: Node, part: int, name: str, source: str, weight: np.ndarray, bias: np.ndarray, shapes: Mapping[str, Shape]
) -> Layer:
    """The convolution of a node, or a part of a mixed one."""
    kernel, dilation = node.windows[part]
    return Layer(
        name,
        "convolution",
        (source,),
        node.attributes.get("activation"),
        *_single(weight, bias),
        stride=node["stride"],
        dilation=dilation,
        pads=resolve_padding(node["padding"], shapes[node.inputs[0]][1:], kernel, node["stride"], dilation),
        groups=len(weight) if "depthwise" in node.operation else node["groups"],
    )


def _mixed(node: Node, weights: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> Iterator[Layer]:
    """As all frameworks run it: a depthwise convolution for each part of the channels, put together again."""
    split = Layer(f"{node.name}.split", "split", node.inputs, parts=node["partition"])
    yield split
    kernels, bias = folded_parameters(node, weights)
    biases = np.split(bias, np.cumsum(split.parts)[:-1])
    convolutions = [
        _convolution(node, part, f"{node.name}.{part}", source, *arrays, shapes)
        for part, (source, *arrays) in enumerate(zip(split.outputs, kernels, biases, strict=True))
    ]
    yield from convolutions
    yield Layer(node.name, "concat", tuple(layer.name for layer in convolutions))


def _squeeze_excite(node: Node, weights: Mapping[str, np.ndarray]) -> Iterator[Layer]:
    """As frameworks run it: pointwise convolutions on the image of one pixel."""
    name = f"{node.name}.mean"
    yield Layer(name, "squeeze", node.inputs)
    for step, activation in (("reduce", node["activation"]), ("expand", node["gate"])):
        weight, bias = _single(weights[f"{node.name}.{step}.weight"], weights[f"{node.name}.{step}.bias"])
        previous, name = name, f"{node.name}.{step}"
        yield Layer(name, "convolution", (previous,), activation, weight[:, :, None, None], bias)
    yield Layer(node.name, "multiply", (*node.inputs, name))

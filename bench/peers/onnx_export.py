"""A network as an ONNX file, for onnxruntime and OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npmobilenet.bench.peers.folded import Layer
from npmobilenet.onnx.file import Node, OnnxGraph, Port
from npmobilenet.onnx.writing import OPSET, resizing, serialised


def onnx_model(layers: list[Layer], shape: tuple[int, int, int, int], outputs: Sequence[str] = ()) -> bytes:
    """Write layers as ONNX, node by node; input ``"input"``, of this shape, and outputs ``"output0"``, ...

    These are the tensors of such names, of the last layer if none.
    """
    return serialised(_Writer().graph(layers, shape, outputs or [layers[-1].name]))


def _pads(layer: Layer) -> list[int]:
    (top, bottom), (left, right) = layer.pads
    return [top, left, bottom, right]


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def graph(self, layers: list[Layer], shape: tuple[int, int, int, int], outputs: Sequence[str]) -> OnnxGraph:
        for layer in layers:
            getattr(self, layer.kind)(layer)
        for number, name in enumerate(outputs):
            self.node("Identity", [name], f"output{number}")
        ports = tuple(Port(f"output{number}", "float32", None) for number in range(len(outputs)))
        constants = {name: np.asarray(value) for name, value in self.constants.items()}
        image = Port("input", "float32", shape)
        return OnnxGraph("npmobilenet", OPSET, tuple(self.nodes), constants, (image,), ports)

    def node(self, operator: str, inputs: list[str], *outputs: str, **attributes: object) -> None:
        self.nodes.append(Node(outputs[0], operator, tuple(inputs), outputs, attributes))

    def convolution(self, layer: Layer) -> None:
        self.weighted(
            "Conv",
            layer,
            kernel_shape=layer.weight.shape[2:],
            strides=layer.stride,
            dilations=layer.dilation,
            pads=_pads(layer),
            group=layer.groups,
        )

    def transposed(self, layer: Layer) -> None:
        window = {"kernel_shape": layer.weight.shape[2:], "strides": layer.stride, "pads": _pads(layer)}
        self.weighted("ConvTranspose", layer, **window)

    def linear(self, layer: Layer) -> None:
        self.weighted("Gemm", layer, transB=1)

    def weighted(self, operator: str, layer: Layer, **attributes: object) -> None:
        """Add an operator with weights, and its activation."""
        weight, bias = f"{layer.name}.weight", f"{layer.name}.bias"
        self.constants |= {weight: layer.weight, bias: layer.bias}
        name = f"{layer.name}.linear" if layer.activation else layer.name
        self.node(operator, [*layer.inputs, weight, bias], name, **attributes)
        if layer.activation:
            self.activated(name, layer)

    def activation(self, layer: Layer) -> None:
        self.activated(layer.inputs[0], layer)

    def activated(self, name: str, layer: Layer) -> None:
        """Add a layer's activation of a tensor."""
        if layer.activation == "relu":
            self.node("Relu", [name], layer.name)
        elif layer.activation == "relu6":
            self.constants |= {"zero": np.float32(0), "six": np.float32(6)}
            self.node("Clip", [name, "zero", "six"], layer.name)
        elif layer.activation == "sigmoid":
            self.node("Sigmoid", [name], layer.name)
        elif layer.activation == "hard_sigmoid":
            self.node("HardSigmoid", [name], layer.name, alpha=1 / 6)
        elif layer.activation == "hard_swish":
            self.node("HardSwish", [name], layer.name)
        elif layer.activation == "leaky_relu":
            self.node("LeakyRelu", [name], layer.name, alpha=float(layer.slope))
        elif layer.activation == "swish":  # the runtimes know these two as one
            self.node("Sigmoid", [name], f"{layer.name}.sigmoid")
            self.node("Mul", [name, f"{layer.name}.sigmoid"], layer.name)

    def prelu(self, layer: Layer) -> None:
        slopes = layer.weight.reshape(*layer.weight.shape, *[1] * (3 - layer.weight.ndim))
        self.constants[f"{layer.name}.weight"] = slopes
        self.node("PRelu", [*layer.inputs, f"{layer.name}.weight"], layer.name)

    def softmax(self, layer: Layer) -> None:
        self.node("Softmax", [*layer.inputs], layer.name, axis=1)

    def max_pool(self, layer: Layer) -> None:
        window = {"kernel_shape": layer.kernel, "strides": layer.stride, "pads": _pads(layer)}
        self.node("MaxPool", [*layer.inputs], layer.name, **window)

    def resize(self, layer: Layer) -> None:
        first, size = f"{layer.name}.channels", f"{layer.name}.size"
        self.node("Shape", [*layer.inputs], first, start=0, end=2)
        self.constants[size] = np.array(layer.size, np.int64)
        self.node("Concat", [first, size], f"{size}s", axis=0)
        self.node("Resize", [*layer.inputs, "", "", f"{size}s"], layer.name, **resizing(layer.mode, layer.coordinates))

    def pool(self, layer: Layer) -> None:
        self.node("GlobalAveragePool", [*layer.inputs], f"{layer.name}.mean")
        self.node("Flatten", [f"{layer.name}.mean"], layer.name)

    def squeeze(self, layer: Layer) -> None:
        self.node("GlobalAveragePool", [*layer.inputs], layer.name)

    def split(self, layer: Layer) -> None:
        parts = f"{layer.name}.parts"
        self.constants[parts] = np.array(layer.parts, np.int64)
        self.node("Split", [*layer.inputs, parts], *layer.outputs, axis=1)

    def concat(self, layer: Layer) -> None:
        self.node("Concat", [*layer.inputs], layer.name, axis=1)

    def add(self, layer: Layer) -> None:
        self.node("Add", [*layer.inputs], layer.name)

    def multiply(self, layer: Layer) -> None:
        self.node("Mul", [*layer.inputs], layer.name)

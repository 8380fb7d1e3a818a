"""A network as an ONNX file, for onnxruntime and OpenVINO."""

from __future__ import annotations

import numpy as np

from npmobilenet.bench.peers.folded import Layer
from npmobilenet.onnx.file import Node, OnnxGraph, Port
from npmobilenet.onnx.writing import OPSET, serialised


def onnx_model(layers: list[Layer], shape: tuple[int, int, int, int]) -> bytes:
    """Write layers as ONNX, node by node; input ``"input"``, of this shape, and output ``"output"``."""
    return serialised(_Writer().graph(layers, shape))


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def graph(self, layers: list[Layer], shape: tuple[int, int, int, int]) -> OnnxGraph:
        for layer in layers:
            getattr(self, layer.kind)(layer)
        self.node("Identity", [layers[-1].name], "output")
        image, output = Port("input", "float32", shape), Port("output", "float32", (shape[0], len(layers[-1].bias)))
        constants = {name: np.asarray(value) for name, value in self.constants.items()}
        return OnnxGraph("npmobilenet", OPSET, tuple(self.nodes), constants, (image,), (output,))

    def node(self, operator: str, inputs: list[str], *outputs: str, **attributes: object) -> None:
        self.nodes.append(Node(outputs[0], operator, tuple(inputs), outputs, attributes))

    def convolution(self, layer: Layer) -> None:
        (top, bottom), (left, right) = layer.pads
        self.weighted(
            "Conv",
            layer,
            kernel_shape=layer.weight.shape[2:],
            strides=layer.stride,
            dilations=layer.dilation,
            pads=[top, left, bottom, right],
            group=layer.groups,
        )

    def linear(self, layer: Layer) -> None:
        self.weighted("Gemm", layer, transB=1)

    def weighted(self, operator: str, layer: Layer, **attributes: object) -> None:
        """Add an operator with weights, and its activation."""
        weight, bias = f"{layer.name}.weight", f"{layer.name}.bias"
        self.constants |= {weight: layer.weight, bias: layer.bias}
        name = f"{layer.name}.linear" if layer.activation else layer.name
        self.node(operator, [*layer.inputs, weight, bias], name, **attributes)
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
        elif layer.activation == "swish":  # the runtimes know these two as one
            self.node("Sigmoid", [name], f"{layer.name}.sigmoid")
            self.node("Mul", [name, f"{layer.name}.sigmoid"], layer.name)

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

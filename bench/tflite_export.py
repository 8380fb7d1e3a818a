"""A network as a TensorFlow Lite file, for LiteRT. Needs ``ai-edge-litert``, which brings the file's schema."""

from __future__ import annotations

import numpy as np

from npmobilenet.bench.peers.folded import Layer
from npmobilenet.geometry import Pads, resolve_padding


def tflite_model(layers: list[Layer], shape: tuple[int, int, int, int]) -> bytes:
    """Write layers as a TensorFlow Lite file; the input is ``(N, H, W, C)`` of this ``(N, C, H, W)``."""
    return _Writer().write(layers, shape)


class _Writer:
    def __init__(self) -> None:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        self.flatbuffers, self.schema = flatbuffers, schema
        self.buffers = [schema.BufferT()]  # the first one stands for "no data"
        self.tensors, self.operators, self.codes = [], [], []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.index: dict[str, int] = {}

    def write(self, layers: list[Layer], shape: tuple[int, int, int, int]) -> bytes:
        batch, channels, height, width = shape
        self.tensor("input", (batch, height, width, channels))
        for layer in layers:
            getattr(self, layer.kind)(layer)
        schema = self.schema
        graph = schema.SubGraphT(
            self.tensors, [self.index["input"]], [self.index[layers[-1].name]], self.operators, "main"
        )
        # Old readers look for the operator in the deprecated field, where it is a byte.
        codes = [schema.OperatorCodeT(min(code, 127), None, 2, code) for code in self.codes]
        model = schema.ModelT(3, codes, [graph], "npmobilenet", self.buffers)
        builder = self.flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def tensor(self, name: str, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        """Add a tensor: a constant if it has data."""
        buffer = 0
        if data is not None:
            buffer = len(self.buffers)
            self.buffers.append(self.schema.BufferT(np.frombuffer(data.tobytes(), np.uint8)))
        types = self.schema.TensorType
        kind = types.INT32 if data is not None and data.dtype == np.int32 else types.FLOAT32
        self.shapes[name], self.index[name] = shape, len(self.tensors)
        self.tensors.append(self.schema.TensorT(list(shape), kind, buffer, name, self.schema.QuantizationParametersT()))
        return self.index[name]

    def constant(self, name: str, data: np.ndarray) -> str:
        self.tensor(name, data.shape, data)
        return name

    def operator(
        self, name: str, inputs: list[str], output: str, shape: tuple[int, ...], kind: str = "", **options: int
    ) -> None:
        """Add an operator, with the tensor it makes; ``kind`` of its options if that is not its own name."""
        code = getattr(self.schema.BuiltinOperator, name)
        if code not in self.codes:
            self.codes.append(code)
        made = getattr(self.schema, f"{kind}OptionsT")()
        for option, value in options.items():
            setattr(made, option, value)
        self.operators.append(
            self.schema.OperatorT(
                self.codes.index(code),
                [self.index[item] for item in inputs],
                [self.tensor(output, shape)],
                getattr(self.schema.BuiltinOptions, f"{kind}Options"),
                made,
            )
        )

    def convolution(self, layer: Layer) -> None:
        batch, height, width, _ = self.shapes[layer.input]
        window = layer.weight.shape[2:]
        source, pads, padding = layer.input, layer.pads, self.schema.Padding.VALID
        if pads == resolve_padding("same", (height, width), window, layer.stride, layer.dilation):
            padding = self.schema.Padding.SAME
        else:
            source = self.padded(layer, pads)
        height, width = (
            (size + sum(pad) - dilation * (extent - 1) - 1) // stride + 1
            for size, pad, dilation, extent, stride in zip(
                (height, width), pads, layer.dilation, window, layer.stride, strict=True
            )
        )
        depthwise = layer.groups > 1
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)  # TensorFlow Lite's: 1HWC, OHWI
        options = {"depthMultiplier": 1} if depthwise else {}
        name = f"{layer.name}.sum" if layer.residual else layer.name
        self.operator(
            "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
            [
                source,
                self.constant(f"{layer.name}.weight", np.ascontiguousarray(layer.weight.transpose(order))),
                self.constant(f"{layer.name}.bias", layer.bias),
            ],
            name,
            (batch, height, width, len(layer.bias)),
            "DepthwiseConv2D" if depthwise else "Conv2D",
            padding=padding,
            strideH=layer.stride[0],
            strideW=layer.stride[1],
            dilationHFactor=layer.dilation[0],
            dilationWFactor=layer.dilation[1],
            fusedActivationFunction=self.activation(layer),
            **options,
        )
        if layer.residual:
            self.operator("ADD", [name, layer.residual], layer.name, self.shapes[name], "Add")

    def activation(self, layer: Layer) -> int:
        return getattr(self.schema.ActivationFunctionType, (layer.activation or "none").upper())

    def padded(self, layer: Layer, pads: Pads) -> str:
        """Zeros around the image as an operator of its own: a convolution has SAME or none."""
        batch, height, width, channels = self.shapes[layer.input]
        around = self.constant(f"{layer.name}.pads", np.array([(0, 0), *pads, (0, 0)], np.int32))
        name = f"{layer.name}.padded"
        shape = (batch, height + sum(pads[0]), width + sum(pads[1]), channels)
        self.operator("PAD", [layer.input, around], name, shape, "Pad")
        return name

    def pool(self, layer: Layer) -> None:
        batch, _, _, channels = self.shapes[layer.input]
        axes = self.constant(f"{layer.name}.axes", np.array([1, 2], np.int32))
        self.operator("MEAN", [layer.input, axes], layer.name, (batch, channels), "Reducer", keepDims=False)

    def linear(self, layer: Layer) -> None:
        weight, bias = (
            self.constant(f"{layer.name}.weight", layer.weight),
            self.constant(f"{layer.name}.bias", layer.bias),
        )
        shape = (self.shapes[layer.input][0], len(layer.bias))
        self.operator("FULLY_CONNECTED", [layer.input, weight, bias], layer.name, shape, "FullyConnected")

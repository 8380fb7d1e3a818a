"""A network as a TensorFlow Lite file, for LiteRT. Needs ``ai-edge-litert``, which brings the file's schema."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npmobilenet.bench.peers.folded import Layer
from npmobilenet.kernels.geometry import Pads, Pair, output_size, resolve_padding, transposed_size


def tflite_model(layers: list[Layer], shape: tuple[int, int, int, int], outputs: Sequence[str] = ()) -> bytes:
    """Write layers as a TensorFlow Lite file; the input is ``(N, H, W, C)`` of this ``(N, C, H, W)``.

    Outputs are the tensors of such names, of the last layer if none.
    """
    return _Writer().write(layers, shape, outputs or [layers[-1].name])


class _Writer:
    def __init__(self) -> None:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        self.flatbuffers, self.schema = flatbuffers, schema
        self.buffers = [schema.BufferT()]  # the first one stands for "no data"
        self.tensors, self.operators, self.codes = [], [], []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.index: dict[str, int] = {}

    def write(self, layers: list[Layer], shape: tuple[int, int, int, int], outputs: Sequence[str]) -> bytes:
        batch, channels, height, width = shape
        self.tensor("input", (batch, height, width, channels))
        for layer in layers:
            getattr(self, layer.kind)(layer)
        schema = self.schema
        graph = schema.SubGraphT(
            self.tensors, [self.index["input"]], [self.index[name] for name in outputs], self.operators, "main"
        )
        # Old readers look for the operator in the deprecated field, where it is a byte.
        codes = [schema.OperatorCodeT(min(code, 127), None, 1, code) for code in self.codes]
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
        self, name: str, inputs: list[str], output: str, shape: tuple[int, ...], kind: str = "", **options: float
    ) -> None:
        """Add an operator, with the tensor it makes; ``kind`` of its options if it has any."""
        code = getattr(self.schema.BuiltinOperator, name)
        if code not in self.codes:
            self.codes.append(code)
        made = getattr(self.schema, f"{kind}OptionsT")() if kind else None
        for option, value in options.items():
            setattr(made, option, value)
        self.operators.append(
            self.schema.OperatorT(
                self.codes.index(code),
                [self.index[item] for item in inputs],
                [self.tensor(output, shape)],
                getattr(self.schema.BuiltinOptions, f"{kind}Options" if kind else "NONE"),
                made,
            )
        )

    def convolution(self, layer: Layer) -> None:
        (source,) = layer.inputs
        batch, height, width, _ = self.shapes[source]
        window, pads, padding = layer.weight.shape[2:], layer.pads, self.padding(layer, layer.weight.shape[2:])
        if padding is None:
            source, padding = self.padded(layer, pads), self.schema.Padding.VALID
        height, width = (
            output_size(*axis) for axis in zip((height, width), window, layer.stride, pads, layer.dilation, strict=True)
        )
        depthwise = layer.groups == len(layer.weight) > 1
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)  # TensorFlow Lite's: 1HWC, OHWI
        options = {"depthMultiplier": 1} if depthwise else {}
        self.weighted(
            "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
            layer,
            source,
            np.ascontiguousarray(layer.weight.transpose(order)),
            (batch, height, width, len(layer.bias)),
            "DepthwiseConv2D" if depthwise else "Conv2D",
            padding=padding,
            strideH=layer.stride[0],
            strideW=layer.stride[1],
            dilationHFactor=layer.dilation[0],
            dilationWFactor=layer.dilation[1],
            **options,
        )

    def padding(self, layer: Layer, window: Pair) -> int | None:
        """SAME or VALID, if its padding is one of these."""
        size = self.shapes[layer.inputs[0]][1:3]
        if layer.pads == resolve_padding("same", size, window, layer.stride, layer.dilation):
            return self.schema.Padding.SAME
        return None if any(map(any, layer.pads)) else self.schema.Padding.VALID

    def transposed(self, layer: Layer) -> None:
        if any(map(any, layer.pads)):
            raise ValueError(f"cannot be exported: {layer.name}, a transposed convolution with padding")
        batch, height, width, _ = self.shapes[layer.inputs[0]]
        weight = np.ascontiguousarray(layer.weight.transpose(1, 2, 3, 0))
        size = transposed_size((height, width), weight.shape[1:3], layer.stride, 0)
        shape = (batch, *size, len(weight))
        arrays = [self.constant(f"{layer.name}.shape", np.array(shape, np.int32))]
        arrays += [self.constant(f"{layer.name}.weight", weight), *layer.inputs]
        arrays += [self.constant(f"{layer.name}.bias", layer.bias)]
        options = {"padding": self.schema.Padding.VALID, "strideH": layer.stride[0], "strideW": layer.stride[1]}
        self.operator("TRANSPOSE_CONV", arrays, layer.name, shape, "TransposeConv", **options)

    def max_pool(self, layer: Layer) -> None:
        padding = self.padding(layer, layer.kernel)
        if padding is None:
            raise ValueError(f"cannot be exported: {layer.name}, a max pooling with other padding than SAME")
        batch, *size, channels = self.shapes[layer.inputs[0]]
        size = [output_size(*axis) for axis in zip(size, layer.kernel, layer.stride, layer.pads, strict=True)]
        window = {"filterHeight": layer.kernel[0], "filterWidth": layer.kernel[1]}
        steps = {"strideH": layer.stride[0], "strideW": layer.stride[1]}
        shape = (batch, *size, channels)
        self.operator("MAX_POOL_2D", [*layer.inputs], layer.name, shape, "Pool2D", padding=padding, **window, **steps)

    def resize(self, layer: Layer) -> None:
        batch, _, _, channels = self.shapes[layer.inputs[0]]
        name, kind = ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighbor")
        if layer.mode == "bilinear":
            name, kind = "RESIZE_BILINEAR", "ResizeBilinear"
        size = self.constant(f"{layer.name}.size", np.array(layer.size, np.int32))
        how = {"alignCorners": layer.coordinates == "align_corners"}
        how["halfPixelCenters"] = layer.coordinates == "half_pixel"
        shape = (batch, *layer.size, channels)
        self.operator(name, [*layer.inputs, size], layer.name, shape, kind, **how)

    def linear(self, layer: Layer) -> None:
        shape = (self.shapes[layer.inputs[0]][0], len(layer.bias))
        self.weighted("FULLY_CONNECTED", layer, layer.inputs[0], layer.weight, shape, "FullyConnected")

    def weighted(
        self,
        name: str,
        layer: Layer,
        source: str,
        weight: np.ndarray,
        shape: tuple[int, ...],
        kind: str,
        **options: int,
    ) -> None:
        """Add an operator with weights, and its activation: the operator's own, or operators after it."""
        types, bias, after = self.schema.ActivationFunctionType, layer.bias, layer.activation
        own = types.NONE
        if layer.activation in ("relu", "relu6"):
            own, after = getattr(types, layer.activation.upper()), None
        elif layer.activation == "hard_sigmoid":  # min(max(x + 3, 0), 6) / 6
            own, bias = types.RELU6, bias + np.float32(3)
        output = f"{layer.name}.linear" if after else layer.name
        inputs = [source, self.constant(f"{layer.name}.weight", weight), self.constant(f"{layer.name}.bias", bias)]
        self.operator(name, inputs, output, shape, kind, fusedActivationFunction=own, **options)
        if after == "hard_sigmoid":
            sixth = self.constant(f"{layer.name}.sixth", np.array([1 / 6], np.float32))
            self.operator("MUL", [output, sixth], layer.name, shape, "Mul")
        elif after:
            self.activated(output, layer, shape)

    def activation(self, layer: Layer) -> None:
        if layer.activation == "hard_sigmoid":
            raise ValueError(f"cannot be exported: {layer.name}, a hard sigmoid of its own")
        self.activated(layer.inputs[0], layer, self.shapes[layer.inputs[0]])

    def activated(self, name: str, layer: Layer, shape: tuple[int, ...]) -> None:
        """Add a layer's activation of a tensor."""
        if layer.activation == "hard_swish":
            self.operator("HARD_SWISH", [name], layer.name, shape, "HardSwish")
        elif layer.activation == "sigmoid":
            self.operator("LOGISTIC", [name], layer.name, shape)
        elif layer.activation == "swish":
            self.operator("LOGISTIC", [name], f"{layer.name}.sigmoid", shape)
            self.operator("MUL", [name, f"{layer.name}.sigmoid"], layer.name, shape, "Mul")
        elif layer.activation == "leaky_relu":
            self.operator("LEAKY_RELU", [name], layer.name, shape, "LeakyRelu", alpha=layer.slope)
        else:
            self.operator(layer.activation.upper(), [name], layer.name, shape)

    def prelu(self, layer: Layer) -> None:
        slopes = np.moveaxis(layer.weight.reshape(*layer.weight.shape, *[1] * (3 - layer.weight.ndim)), 0, -1)
        name = self.constant(f"{layer.name}.weight", np.ascontiguousarray(slopes))
        self.operator("PRELU", [*layer.inputs, name], layer.name, self.shapes[layer.inputs[0]])

    def softmax(self, layer: Layer) -> None:
        self.operator("SOFTMAX", [*layer.inputs], layer.name, self.shapes[layer.inputs[0]], "Softmax", beta=1.0)

    def padded(self, layer: Layer, pads: Pads) -> str:
        """Zeros around the image as an operator of its own: a convolution has SAME or none."""
        (source,) = layer.inputs
        batch, height, width, channels = self.shapes[source]
        around = self.constant(f"{layer.name}.pads", np.array([(0, 0), *pads, (0, 0)], np.int32))
        name = f"{layer.name}.padded"
        shape = (batch, height + sum(pads[0]), width + sum(pads[1]), channels)
        self.operator("PAD", [source, around], name, shape, "Pad")
        return name

    def pool(self, layer: Layer) -> None:
        self.mean(layer, keep=False)

    def squeeze(self, layer: Layer) -> None:
        self.mean(layer, keep=True)

    def mean(self, layer: Layer, keep: bool) -> None:
        (source,) = layer.inputs
        batch, _, _, channels = self.shapes[source]
        axes = self.constant(f"{layer.name}.axes", np.array([1, 2], np.int32))
        shape = (batch, 1, 1, channels) if keep else (batch, channels)
        self.operator("MEAN", [source, axes], layer.name, shape, "Reducer", keepDims=keep)

    def split(self, layer: Layer) -> None:
        """A slice for each part: XNNPACK splits only into equal parts, and not into many."""
        (source,) = layer.inputs
        first = 0
        for name, channels in zip(layer.outputs, layer.parts, strict=True):
            shape = (*self.shapes[source][:3], channels)
            begin = self.constant(f"{name}.begin", np.array([0, 0, 0, first], np.int32))
            size = self.constant(f"{name}.size", np.array(shape, np.int32))
            self.operator("SLICE", [source, begin, size], name, shape, "Slice")
            first += channels

    def concat(self, layer: Layer) -> None:
        shapes = [self.shapes[name] for name in layer.inputs]
        shape = (*shapes[0][:3], sum(shape[3] for shape in shapes))
        self.operator("CONCATENATION", [*layer.inputs], layer.name, shape, "Concatenation", axis=3)

    def add(self, layer: Layer) -> None:
        self.operator("ADD", [*layer.inputs], layer.name, self.shapes[layer.inputs[0]], "Add")

    def multiply(self, layer: Layer) -> None:
        self.operator("MUL", [*layer.inputs], layer.name, self.shapes[layer.inputs[0]], "Mul")

"""A TensorFlow Lite file of float32 becomes one of 8 bits. Needs ``ai-edge-litert``, which brings the file's schema.

As the format has it: activations int8 with a scale and a zero point for a tensor, weights int8 with a scale for each
output channel, biases int32. Input and output stay float32, behind operators that convert them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

Range = tuple[float, float]

CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}  # of the weights
KEEPS_SCALE = ("PAD", "SLICE", "CONCATENATION")  # operators that copy integers
SMALLEST = 1e-6  # a range that is not less, of a tensor of zeros


def ranges(model: bytes, images: np.ndarray) -> dict[str, Range]:
    """Return the lowest and the highest value of every tensor of a file in float32, for images (N, H, W, C)."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate keeps what is between its layers to itself
    interpreter = Interpreter(
        model_content=model, experimental_op_resolver_type=plain, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    found: dict[str, Range] = {}
    for image in images:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        for tensor in interpreter.get_tensor_details():
            values = interpreter.get_tensor(tensor["index"])
            low, high = found.get(tensor["name"], (0.0, 0.0))
            found[tensor["name"]] = min(low, float(values.min())), max(high, float(values.max()))
    return found


def quantised(model: bytes, ranges: Mapping[str, Range]) -> bytes:
    """Return the file in 8 bits; ``ranges`` are those of the tensors between its operators, by name."""
    return _Quantiser(model, ranges).write()


class _Quantiser:
    def __init__(self, model: bytes, ranges: Mapping[str, Range]) -> None:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        self.flatbuffers, self.schema = flatbuffers, schema
        self.model = schema.ModelT.InitFromPackedBuf(model, 0)
        (self.graph,) = self.model.subgraphs
        self.float32 = {
            index for index, tensor in enumerate(self.graph.tensors) if tensor.type == schema.TensorType.FLOAT32
        }
        self.ranges = {tensor.name.decode(): ranges.get(tensor.name.decode()) for tensor in self.graph.tensors}

    def write(self) -> bytes:
        self._join_ranges()
        for operator in self.graph.operators:
            if self._name(operator) in CHANNEL_AXIS:
                self._weights(operator)
        for index in sorted(self.float32):  # those with weights are done
            self._tensor(index)
        self._convert_ends()
        builder = self.flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _name(self, operator) -> str:
        return self._names[self.model.operatorCodes[operator.opcodeIndex].builtinCode]

    @cached_property
    def _names(self) -> dict[int, str]:
        return {code: name for name, code in vars(self.schema.BuiltinOperator).items() if isinstance(code, int)}

    def _tensor_name(self, index: int) -> str:
        return self.graph.tensors[index].name.decode()

    def _data(self, index: int) -> np.ndarray | None:
        """The numbers of a constant."""
        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        return None if data is None else np.asarray(data, np.uint8).view(np.float32).reshape(tensor.shape)

    def _join_ranges(self) -> None:
        """Give one range to all tensors that a copying operator connects; a logistic function has the format's own."""
        group = {index: {index} for index in self.float32}
        for operator in self.graph.operators:
            if self._name(operator) in KEEPS_SCALE:
                several = [index for index in (*operator.inputs, *operator.outputs) if index in self.float32]
                joined = set().union(*(group[index] for index in several))
                group |= dict.fromkeys(joined, joined)
        found = dict(self.ranges)
        for index, others in group.items():
            several = [found[self._tensor_name(other)] for other in others]
            if None not in several:
                lows, highs = zip(*several, strict=True)
                self.ranges[self._tensor_name(index)] = min(lows), max(highs)
        for operator in self.graph.operators:
            if self._name(operator) == "LOGISTIC":
                self.ranges[self._tensor_name(operator.outputs[0])] = (0.0, 255 / 256)

    def _scale(self, index: int) -> tuple[float, int]:
        """Scale and zero point of an activation."""
        low, high = self.ranges[self._tensor_name(index)]
        scale = max(high - low, SMALLEST) / 255
        return scale, int(np.clip(np.rint(-128 - low / scale), -128, 127))

    def _tensor(self, index: int) -> None:
        data = self._data(index)
        if data is None:
            scale, zero_point = self._scale(index)
            self._set(index, "INT8", [scale], [zero_point])
        else:
            scale = max(float(np.abs(data).max()), SMALLEST) / 127
            self._set(index, "INT8", [scale], [0], data=np.rint(data / scale).astype(np.int8))

    def _weights(self, operator) -> None:
        source, weight, bias = operator.inputs
        axis, data = CHANNEL_AXIS[self._name(operator)], self._data(weight)
        others = tuple(each for each in range(data.ndim) if each != axis)
        scale = np.maximum(np.abs(data).max(axis=others), SMALLEST) / 127
        along = scale.reshape([-1 if each == axis else 1 for each in range(data.ndim)])
        zeros = [0] * len(scale)
        self._set(weight, "INT8", scale.tolist(), zeros, axis, np.rint(data / along).astype(np.int8))
        steps = scale * self._scale(source)[0]
        largest = np.iinfo(np.int32).max
        integers = np.clip(np.rint(self._data(bias) / steps), -largest, largest).astype(np.int32)
        self._set(bias, "INT32", steps.tolist(), zeros, 0, integers)
        self.float32 -= {weight, bias}

    def _set(
        self, index: int, kind: str, scale: list, zero_point: list, axis: int = 0, data: np.ndarray | None = None
    ) -> None:
        tensor = self.graph.tensors[index]
        tensor.type = getattr(self.schema.TensorType, kind)
        tensor.quantization = self.schema.QuantizationParametersT(
            scale=scale, zeroPoint=zero_point, quantizedDimension=axis
        )
        if data is not None:
            self.model.buffers[tensor.buffer].data = np.frombuffer(data.tobytes(), np.uint8)

    def _convert_ends(self) -> None:
        """Between the caller's float32 and the integers."""
        (source,), (result,) = self.graph.inputs, self.graph.outputs
        self.graph.inputs = [self._twin(source)]
        self.graph.outputs = [self._twin(result)]
        first = self._operator("QUANTIZE", "Quantize", self.graph.inputs[0], source)
        last = self._operator("DEQUANTIZE", "Dequantize", result, self.graph.outputs[0])
        self.graph.operators = [first, *self.graph.operators, last]

    def _twin(self, index: int) -> int:
        """Add the float32 tensor beside one of integers."""
        tensor = self.graph.tensors[index]
        name = f"{tensor.name.decode()}.float32"
        none = self.schema.QuantizationParametersT()
        self.graph.tensors.append(
            self.schema.TensorT(list(tensor.shape), self.schema.TensorType.FLOAT32, 0, name, none)
        )
        return len(self.graph.tensors) - 1

    def _operator(self, name: str, kind: str, source: int, result: int):
        code = getattr(self.schema.BuiltinOperator, name)
        self.model.operatorCodes.append(self.schema.OperatorCodeT(min(code, 127), None, 1, code))
        options = getattr(self.schema, f"{kind}OptionsT")()
        which = getattr(self.schema.BuiltinOptions, f"{kind}Options")
        return self.schema.OperatorT(len(self.model.operatorCodes) - 1, [source], [result], which, options)

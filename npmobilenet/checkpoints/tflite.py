"""TFLite: the constants that are weights, under PyTorch's names and axes, told by the operations that read them.

    Model        1 operator codes, 2 subgraphs, 4 buffers: 0 bytes
    code         0 and 3 which operation (the larger counts), 1 the name of a custom one
    subgraph     0 tensors, 3 operators
    tensor       0 shape, 1 type, 2 buffer, 3 name
    operator     0 code, 1 and 2 the tensors that it reads and makes (-1: none)

Only the first subgraph is read, and nothing is run. Float16 weights are made float32 by an operation of their own,
which is looked through.

Source: tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

from __future__ import annotations

from math import prod

from npmobilenet.checkpoints.flatbuffer import Table, root
from npmobilenet.checkpoints.layer_roles import ADD, MULTIPLY, Operation, parameters
from npmobilenet.checkpoints.numpy_array import place_array
from npmobilenet.checkpoints.stored_tensor import MAX_DIMENSIONS, MAX_ELEMENTS, Tensor, UnreadableTensor
from npmobilenet.checkpoints.tensorflow_names import Axes
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

MOST_TABLES = 100_000
MOST_TENSORS = 1000  # of one operation
FLOATS = {0: "<f4", 1: "<f2"}  # tensor types
QUANTISED = {3: "uint8", 7: "int16", 9: "int8"}

DEQUANTIZE = 6
KINDS = {0: ADD, 18: MULTIPLY, 3: "conv", 4: "depthwise", 9: "linear", 67: "transposed"}
CUSTOM = {"Convolution2DTransposeBias": "transposed"}
LAYERS: dict[str, dict[int, Axes]] = {
    "conv": {4: (0, 3, 1, 2)},
    "depthwise": {4: (3, 0, 1, 2)},
    "linear": {2: (0, 1)},
    "transposed": {4: (3, 0, 1, 2)},
}


def read_tflite(data: bytes) -> dict[str, Tensor]:
    """Return the weights in a TFLite model.

    Raises
    ------
    CheckpointError
        If the file is damaged, or has no weights.
    """
    model = root(data)
    graphs, buffers = model.tables(2, MOST_TABLES), model.tables(4, MOST_TABLES)
    if not graphs:
        raise CheckpointError("is a TFLite model without a graph; the file is damaged")
    tensors = graphs[0].tables(0, MOST_TABLES)
    names = _names(tensors)
    constants = {
        name: stored
        for name, tensor in zip(names, tensors, strict=True)
        if (stored := _constant(name, tensor, buffers)) is not None
    }
    codes = [_kind(code) for code in model.tables(1, MOST_TABLES)]
    operations: list[Operation] = []
    same: dict[str, str] = {}  # what is a constant made float32, and which that is
    for operator in graphs[0].tables(3, MOST_TABLES):
        number = operator.number(0, "<I")
        if number >= len(codes):
            raise CheckpointError("has an operation of an unknown kind; the file is damaged")
        inputs, outputs = (_named(operator.numbers(field, MOST_TENSORS), names) for field in (1, 2))
        inputs = tuple(same.get(name, name) for name in inputs)
        if codes[number] == str(DEQUANTIZE) and len(inputs) == len(outputs) == 1 and inputs[0] in constants:
            same[outputs[0]] = inputs[0]
        operations.append(Operation(codes[number], outputs, inputs))
    found = parameters(operations, constants, LAYERS)
    if not found:
        raise CheckpointError("is a TFLite model without weights")
    return found


def _names(tensors: list[Table]) -> list[str]:
    """What each tensor is called; of several of one name the others by their numbers too."""
    seen: set[str] = set()
    names = []
    for number, tensor in enumerate(tensors):
        name = tensor.text(3) or "tensor"
        if name in seen:
            name = f"{name}/{number}"
        seen.add(name)
        names.append(name)
    return names


def _constant(name: str, tensor: Table, buffers: list[Table]) -> Tensor | None:
    """A tensor of numbers with a fraction, and more than one; quantised ones cannot be read."""
    kind, buffer, shape = tensor.number(1, "<b"), tensor.number(2, "<I"), tensor.numbers(0, MAX_DIMENSIONS)
    if buffer >= len(buffers):
        raise CheckpointError(f"tensor {quote(name)} has no buffer; the file is damaged")
    content = buffers[buffer].bytes(0)
    if not content or not shape or (kind not in FLOATS and kind not in QUANTISED):
        return None
    if kind in QUANTISED:
        if prod(shape) < 2 or len(shape) < 2:
            return None
        return UnreadableTensor(f"quantised ({QUANTISED[kind]})", "weights of float32 and float16 are read")
    if not all(0 <= size <= MAX_ELEMENTS for size in shape):
        raise CheckpointError(f"tensor {quote(name)} has an impossible shape; the file is damaged")
    return place_array(f"tensor {quote(name)}", FLOATS[kind], False, shape, content)


def _kind(code: Table) -> str:
    """Which kind of operation a code is."""
    custom = code.text(1)
    number = max(code.number(0, "<b"), code.number(3, "<i"))
    return CUSTOM.get(custom, custom) if custom else KINDS.get(number, str(number))


def _named(numbers: tuple[int, ...], names: list[str]) -> tuple[str, ...]:
    if not all(-1 <= number < len(names) for number in numbers):
        raise CheckpointError("has an operation that reads a tensor which is not there; the file is damaged")
    return tuple(names[number] for number in numbers if number >= 0)

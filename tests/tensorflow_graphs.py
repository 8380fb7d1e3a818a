"""TensorFlow's frozen graphs, byte by byte; `npmobilenet.checkpoints.tensorflow_graph` has the format."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

# PyTorch's name at the end of a tensor's to TensorFlow's, and the axes there
OF_NORMS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def varint(value: int) -> bytes:
    """7 bits a byte."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    """A number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def node(name: str, operation: str, attributes: bytes = b"") -> bytes:
    """A node of a graph."""
    return field(1, field(1, name.encode()) + field(2, operation.encode()) + attributes)


def constant(name: str, values: np.ndarray, repeated: bool = False) -> bytes:
    """A node with a tensor; ``repeated``: its first value stands for all."""
    shape = b"".join(field(2, field(1, size)) for size in values.shape)
    kind, content = (19, field(4, values.tobytes())) if values.dtype == np.float16 else (1, field(4, values.tobytes()))
    if repeated:
        content = field(5, values.ravel()[:1].tobytes())
    tensor = field(1, kind) + field(2, shape) + content
    return node(name, "Const", field(5, field(1, b"value") + field(2, field(8, tensor))))


def graph_of(tensors: Mapping[str, np.ndarray], repeated: Collection[str] = ()) -> bytes:
    """The graph in which these tensors of PyTorch stand under TensorFlow's names and axes."""
    out = node("image_tensor", "Placeholder") + constant("Preprocessor/sub/x", np.float32([1]))
    for key, values in tensors.items():
        values = np.asarray(values, np.float32)
        module, _, last = key.rpartition(".")
        if module.endswith("BatchNorm"):
            name = OF_NORMS[last]
        elif last == "bias":
            name = "biases"
        elif values.ndim == 4 and values.shape[1] == 1:
            name, values = "depthwise_weights", values.transpose(2, 3, 0, 1)
        else:
            name, values = "weights", values.transpose(2, 3, 1, 0)
        out += constant(f"{module}.{name}".replace(".", "/"), np.ascontiguousarray(values), key in repeated)
    return out + node("detection_boxes", "Identity")

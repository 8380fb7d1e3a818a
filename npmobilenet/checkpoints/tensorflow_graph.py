"""TensorFlow's frozen graphs (``.pb``): the constants that are weights, under PyTorch's names and axes.

A graph is a message of nodes; a node that is a constant holds a tensor. What a constant is for, the end of its name
says (`tensorflow_names`). Nothing of the graph is run.

    GraphDef       1 node
    NodeDef        1 name, 2 operation, 3 inputs, 5 attributes
    attribute      1 name, 2 value: 8 tensor
    TensorProto    1 type, 2 shape: 2 dimension: 1 size; 4 bytes, or 5 floats, the last of which stands for all others

Source: tensorflow/core/framework/{graph,node_def,attr_value,tensor,tensor_shape,types}.proto
"""

from __future__ import annotations

import re
from math import prod

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.numpy_array import place_array
from npmobilenet.checkpoints.protobuf import Value, fields, gathered, message, only, text
from npmobilenet.checkpoints.stored_tensor import BFLOAT16, MAX_DIMENSIONS, StoredTensor, Tensor
from npmobilenet.checkpoints.tensorflow_names import parameter, with_axes
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

TYPES = {1: "<f4", 2: "<f8", 19: "<f2", 14: BFLOAT16}  # others are no weights
MOST_NODES = 1_000_000

# A graph begins with a node, and a node with its name
BEGINNING = re.compile(rb"\x0a[\x00-\xff]{1,4}?\x0a([\x01-\x7f])[A-Za-z0-9.][A-Za-z0-9_./>-]*", re.DOTALL)


def looks_like_a_graph(head: bytes) -> bool:
    """Whether a file that begins so may be one."""
    found = BEGINNING.match(head)
    return bool(found) and found.end() - found.end(1) >= found[1][0]


def read_graph(data: bytes, allowance: Allowance) -> dict[str, Tensor]:
    """Return the weights in a frozen graph.

    Raises
    ------
    CheckpointError
        If the file is damaged, or has no weights: a graph that is not frozen.
    """
    tensors: dict[str, Tensor] = {}
    for count, (number, node) in enumerate(fields(memoryview(data))):
        if count >= MOST_NODES:
            raise CheckpointError(f"has more than {MOST_NODES} nodes; the file is damaged")
        if number == 1:
            found = _constant(node, allowance)
            if found:
                tensors[found[0]] = found[1]
    if not tensors:
        raise CheckpointError(
            "is a TensorFlow graph without weights: freeze it (its variables become constants), or export them to .npz"
        )
    return tensors


def _constant(node: Value, allowance: Allowance) -> tuple[str, Tensor] | None:
    """The name and the tensor of a node, if it is a weight."""
    about = gathered(message(node))
    known = parameter(text(only(about, 1, b"")))
    if bytes(message(only(about, 2, b""))) != b"Const" or known is None:
        return None
    name, axes = known
    for attribute in about.get(5, ()):
        value = gathered(message(attribute))
        if bytes(message(only(value, 1, b""))) == b"value":
            tensor = only(gathered(message(only(value, 2, b""))), 8, b"")
            stored = _tensor(name, message(tensor), allowance)
            return (name, with_axes(name, stored, axes)) if stored else None
    return None


def _tensor(name: str, stored: memoryview, allowance: Allowance) -> StoredTensor | None:
    about = gathered(stored)
    descr = TYPES.get(only(about, 1, 0))
    if descr is None:
        return None
    dimensions = gathered(message(only(about, 2, b""))).get(2, ())
    shape = tuple(only(gathered(message(each)), 1, 0) for each in dimensions)
    if len(shape) > MAX_DIMENSIONS or not all(isinstance(size, int) for size in shape):
        raise CheckpointError(f"tensor {quote(name)} has an impossible shape; the file is damaged")
    if 4 in about:
        return place_array(f"tensor {quote(name)}", descr, False, shape, message(only(about, 4, b"")))
    data = b"".join(bytes(message(part)) for part in about.get(5, ()))
    if descr != "<f4" or not data or len(data) % 4:
        raise CheckpointError(f"tensor {quote(name)} has no values that can be read; the file is damaged")
    missing = 4 * prod(shape) - len(data)
    allowance.take(max(missing, 0), f"tensor {quote(name)}")
    return place_array(f"tensor {quote(name)}", descr, False, shape, data + data[-4:] * (missing // 4))

"""A network in a file that says which one it is: its graph in the metadata, its parameters as tensors.

So `export_weights` stores a model. The metadata has, under ``"network"``, ``{"version": 1, "architecture": ...,
"width": ..., "in_channels": 3, "nodes": [...], "outputs": {...}, "merged": {...}}``. A node is ``[name, operation,
inputs, block, attributes]``; the parameters of the node ``"block2.expand"`` are the tensors ``"block2.expand.weight"``,
``"block2.expand.scale"``, ... What they are: `npmobilenet.operations` and `npmobilenet.operations_int8`. A YOLO has
``"heads"`` too: a list with an object for each, whose fields are those of `architectures.yolo.Head`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

import numpy as np

from npmobilenet import operations
from npmobilenet.architectures.yolo import Head
from npmobilenet.checkpoints.reader import NETWORK, Checkpoint
from npmobilenet.errors import CheckpointError
from npmobilenet.graph import INPUT, Graph, Node, Shape
from npmobilenet.image.preprocessing import is_size
from npmobilenet.kernels import checks
from npmobilenet.operations import INT8_OPERATIONS
from npmobilenet.operations_int8 import input_dtype
from npmobilenet.passes import kernel_arguments
from npmobilenet.text import printable, quote

VERSION = 1
MOST_NODES, LONGEST_NAME, LARGEST_NUMBER = 10_000, 200, 1 << 16
DTYPES = {"zero_point": ("uint8",), "out_zero_point": ("uint8",)}  # of parameters, else float32; of weights:
OF_WEIGHTS = {"depthwise_conv2d_int8": ("int8", "int16"), "mixed_depthwise_conv2d_int8": ("int8", "int16")}
LARGEST_WIDE = 16383  # of 15 bits
MOST_OF_IMAGE = 65536  # magnitudes that meet 16 bits, added up: times 32767 less than 2**31
MOST_OF_BYTES = (2**31 - 1) // 255
MOST_VALUES = 1 << 26  # of a tensor
SMALL_IMAGE, LARGE_IMAGE = (32, 32), (224, 224)


@dataclass(frozen=True)
class StoredNetwork:
    """What a file holds: `weights` by the graph's parameter names."""

    graph: Graph
    weights: dict[str, np.ndarray]
    architecture: str
    width: float
    heads: tuple[Head, ...] = ()


def described(graph: Graph, architecture: str, width: float, heads: tuple[Head, ...] = ()) -> dict[str, Any]:
    """Return what stands in the metadata."""
    nodes = [[node.name, node.operation, node.inputs, node.block, _given(node)] for node in graph]
    about = {"version": VERSION, "architecture": architecture, "width": width, "in_channels": graph.in_channels}
    about |= {"heads": [asdict(head) for head in heads]} if heads else {}
    return {NETWORK: {**about, "nodes": nodes, "outputs": dict(graph.outputs), "merged": dict(graph.merged)}}


def _given(node: Node) -> dict[str, Any]:
    usual = {"activation": "none", "residual": False, **node.kind.attributes}
    return {name: value for name, value in node.attributes.items() if name in usual and value != usual[name]}


def read_network(checkpoint: Checkpoint, where: str) -> StoredNetwork:
    """Return the network, after a look at everything that could make computing it go wrong.

    Raises
    ------
    CheckpointError
        If the description or a tensor is not as it must be.
    """
    try:
        return _read(checkpoint.metadata[NETWORK], checkpoint.tensors, _sizes(checkpoint.metadata))
    except (CheckpointError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        text = f"{error}" if isinstance(error, (CheckpointError, ValueError)) else f"damaged ({error!r:.80})"
        raise CheckpointError(f"{where}: its network: {printable(text, 300)}") from None


def _sizes(metadata: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Images of which one at least must fit: any, or those that the weights were made for."""
    photo = metadata.get("preprocessing")
    crop = photo.get("crop") if isinstance(photo, dict) else None
    own = tuple(crop) if isinstance(crop, list) else None
    return [SMALL_IMAGE, LARGE_IMAGE, *([own] if is_size(own) else [])]


def _read(about: Any, tensors: Mapping[str, np.ndarray], sizes: Sequence[tuple[int, int]]) -> StoredNetwork:
    if not isinstance(about, dict) or about.get("version") != VERSION:
        version = about.get("version") if isinstance(about, dict) else None
        raise CheckpointError(f"is of version {version!r:.20}, and {VERSION} is known: export it anew")
    entries = about.get("nodes")
    if not isinstance(entries, list) or not 0 < len(entries) <= MOST_NODES:
        raise CheckpointError(f"must have 1 to {MOST_NODES} nodes")
    width = about.get("width")
    if not isinstance(width, (int, float)) or not 0 < width < 1000:
        raise CheckpointError("its width must be a number")
    channels = _whole(about.get("in_channels"), "in_channels", 1)
    parameters = _by_node([entry[0] for entry in entries if isinstance(entry, list) and entry], tensors)
    nodes = tuple(_node(entry, parameters) for entry in entries)
    outputs, merged = (_names(about.get(part), part) for part in ("outputs", "merged"))
    graph = Graph(nodes, channels, outputs, merged)
    shapes, dtypes = _shapes(graph, sizes), {INPUT: "float32"}
    for node in graph:
        _check_inputs(node, dtypes)
        _check_arrays(node, {name: tensors[f"{node.name}.{name}"] for name in node.parameters})
        inputs = [_stand_in(shapes[name], dtypes[name]) for name in node.inputs]
        arguments = {**node.kind.operands(inputs), **kernel_arguments(node, tensors), **node.kind.keywords(node)}
        getattr(checks, node.kind.kernel(node))(**arguments)
        dtypes[node.name] = node.kind.result_dtype(node)
    heads = tuple(_head(each, graph) for each in about.get("heads", ()))
    return StoredNetwork(graph, dict(tensors), _text(about.get("architecture"), "architecture"), float(width), heads)


def _head(entry: Any, graph: Graph) -> Head:
    """A detecting layer, of which nothing is believed either."""
    known = {field.name for field in fields(Head)}
    if not isinstance(entry, dict) or entry.keys() != known:
        raise CheckpointError(f"a head must have the fields {', '.join(sorted(known))}")
    try:
        head = Head(**{name: _value(value, name) for name, value in entry.items()})
        numbers = [*(side for anchor in head.anchors for side in anchor), *head.stride, head.spread, head.most_overlap]
        right = all(len(pair) == 2 for pair in (*head.anchors, head.stride)) and all(0 < each < 1e6 for each in numbers)
        right &= graph.channels_of(graph.outputs[head.output]) == len(head.anchors) * head.values
    except (TypeError, KeyError):
        right = False
    if not right:
        raise CheckpointError("a head is not what one can be, or does not fit its output")
    return head


def _shapes(graph: Graph, sizes: Sequence[tuple[int, int]]) -> dict[str, Shape]:
    """Shapes for an image of some size: padding and strides may be too much for a small one."""
    for size in sizes:
        try:
            shapes = graph.shapes(size)
            break
        except ValueError:
            if size == sizes[-1]:
                raise
    for name, shape in shapes.items():
        if prod(shape) > MOST_VALUES:
            raise CheckpointError(f"the node {quote(name)} makes {prod(shape):,} values of a small image")
    return shapes


def _stand_in(shape: Shape, dtype: str) -> np.ndarray:
    """A tensor as kernels take it, of one value: it takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), (1, *shape[1:], shape[0]))


def _check_inputs(node: Node, dtypes: Mapping[str, str]) -> None:
    for number, name in enumerate(node.inputs):
        wanted = input_dtype(node, number)
        if dtypes[name] != wanted:
            raise CheckpointError(f"the node {quote(node.name)} reads {quote(name)} as {wanted}, not {dtypes[name]}")


def _check_arrays(node: Node, arrays: Mapping[str, np.ndarray]) -> None:
    """Nothing is missing, and everything is of its type, finite, and so small that sums stay within int32."""
    needed = {name for name, parameter in node.kind.parameters.items() if not parameter.optional}
    if node.kind.result_dtype(node) == "uint8":
        needed |= {"out_scale", "out_zero_point"}
    for name in sorted(needed - arrays.keys()):
        if name != "weight" or not any(_is_weight(key) for key in arrays):
            raise CheckpointError(f"tensor {quote(f'{node.name}.{name}')} is missing")
    for name, array in arrays.items():
        key = quote(f"{node.name}.{name}")
        integers = node.operation in INT8_OPERATIONS and _is_weight(name)
        dtypes = _weight_dtypes(node) if integers else DTYPES.get(name, ("float32",))
        if array.dtype.name not in dtypes:
            raise CheckpointError(f"tensor {key} must be {' or '.join(dtypes)}, got {array.dtype.name}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(f"tensor {key} holds what is no finite number")
        if integers:
            magnitudes = np.abs(array.reshape(len(array), -1).astype(np.int64))
            of_image = node.operation == "conv2d_int8" and array.dtype == np.int16
            if array.dtype == np.int16 and not of_image and magnitudes.max() > LARGEST_WIDE:
                raise CheckpointError(f"tensor {key} has weights of more than 15 bits")
            if magnitudes.sum(axis=1).max() > (MOST_OF_IMAGE if of_image else MOST_OF_BYTES):
                raise CheckpointError(f"tensor {key} has weights whose sums could pass 32 bits")


def _weight_dtypes(node: Node) -> tuple[str, ...]:
    if node.operation == "conv2d_int8" and node["steps"] is not None:
        return ("int16",)
    return OF_WEIGHTS.get(node.operation, ("int8",))


def _is_weight(name: str) -> bool:
    """Whether a parameter is the weight, or that of a part."""
    part, _, rest = name.partition(".")
    return (rest if part.isdecimal() else name) == "weight"


def _by_node(names: list[Any], tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, tuple[int, ...]]]:
    """The parameters of each node, by their own names: the node is the longest one that a tensor's name begins with."""
    found: dict[str, dict[str, tuple[int, ...]]] = {name: {} for name in names if isinstance(name, str)}
    for key, array in tensors.items():
        node, local = key, ""
        while node and node not in found:
            node, _, last = node.rpartition(".")
            local = f"{last}.{local}" if local else last
        if not node or not local:
            raise CheckpointError(f"tensor {quote(key, 60)} belongs to no node")
        found[node][local] = array.shape
    return found


def _node(entry: Any, parameters: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Node:
    if not isinstance(entry, list) or len(entry) != 5:
        raise CheckpointError("a node must be [name, operation, inputs, block, attributes]")
    name, operation, inputs, block, attributes = entry
    name, block = _text(name, "name of a node"), _text(block, "block")
    if not isinstance(inputs, list) or not inputs or not isinstance(attributes, dict):
        raise CheckpointError(f"the node {quote(name)} must have a list of inputs and an object of attributes")
    kind = operations.get(_text(operation, "operation"))
    unknown = attributes.keys() - {*kind.attributes, "activation", "residual"}
    if unknown:
        raise CheckpointError(f"the node {quote(name)} has the attribute {quote(min(unknown), 40)}, which is not known")
    given = {key: _value(value, key) for key, value in attributes.items()}
    if given.get("activation", "none") not in checks.ACTIVATIONS:
        raise CheckpointError(f"the node {quote(name)} ends with {quote(str(given['activation']), 40)}")
    own = parameters[name]
    for local in own:
        try:
            kind.parameter(local)
        except KeyError:
            raise CheckpointError(f"tensor {quote(f'{name}.{local}', 80)} is no parameter of {operation}") from None
    return Node(name, operation, tuple(_text(each, "input") for each in inputs), block, own, given)


def _value(value: Any, name: str, depth: int = 0) -> Any:
    """An attribute: lists as the tuples that they were, numbers of a size that no network passes."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, (int, float)):
        if not abs(value) <= (LARGEST_NUMBER if isinstance(value, int) else np.finfo(np.float32).max):
            raise CheckpointError(f"attribute {quote(name, 40)} is {value!r:.40}, which is too much")
        return value
    if isinstance(value, list) and depth < 3 and len(value) <= 64:
        return tuple(_value(each, name, depth + 1) for each in value)
    raise CheckpointError(f"attribute {quote(name, 40)} is not what one can be")


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise CheckpointError(f"{what} must be text of 1 to {LONGEST_NAME} printable characters")
    return value


def _whole(value: Any, what: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST_NUMBER:
        raise CheckpointError(f"{what} must be an integer of at least {least}")
    return value


def _names(value: Any, what: str) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 4 * MOST_NODES:
        raise CheckpointError(f"{what} must be an object of names")
    return {_text(key, what): _text(each, what) for key, each in value.items()}

"""An ONNX file as nodes and arrays. Nothing of it is run, and nothing of the package ``onnx`` is needed.

    ModelProto      1 ir_version, 2 producer_name, 7 graph, 8 opset_import (1 domain, 2 version), 14 metadata_props
                    (1 key, 2 value), 25 functions
    GraphProto      1 node, 2 name, 5 initializer, 11 input, 12 output, 15 sparse_initializer
    NodeProto       1 input, 2 output, 3 name, 4 op_type, 5 attribute, 7 domain
    AttributeProto  1 name, 20 type, and by type: 2 f, 3 i, 4 s, 5 t, 7 floats, 8 ints, 9 strings
    ValueInfoProto  1 name, 2 type: 1 tensor: 1 elem_type, 2 shape: 1 dim: 1 dim_value, 2 dim_param

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.protobuf import Value, fields, gathered, integer, integers, message, only, text
from npmobilenet.checkpoints.reader import read_bytes
from npmobilenet.checkpoints.stored_tensor import MAX_DIMENSIONS
from npmobilenet.errors import CheckpointError
from npmobilenet.onnx.narrow import NARROW
from npmobilenet.onnx.tensors import CODES, COMPUTED_IN, Beside, read_tensor, type_name
from npmobilenet.text import printable, quote

MOST_NODES = 100_000
STANDARD = ("", "ai.onnx")  # the domain of the operators that are known here
MICROSOFT = "com.microsoft"  # onnxruntime's own: such operators have the domain in their names
Dimension = int | str | None  # a length, the name of one, or nothing is said


@dataclass(frozen=True)
class Node:
    """One operator with what it reads and makes.

    Attributes
    ----------
    name : str
        May be empty, and that of several nodes.
    operator : str
    inputs, outputs : tuple of str
        Names of tensors; empty where an optional one is left out.
    attributes : mapping of str to value
        Numbers, texts, arrays, or tuples of them; what cannot be is a `Refused`.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How an error speaks of it."""
        return f"node {quote(self.name or next(filter(None, self.outputs), ''), 100)} ({printable(self.operator, 60)})"


@dataclass(frozen=True)
class Refused:
    """An attribute of a kind that is not read: a graph, a sparse tensor, a type."""

    kind: str


@dataclass(frozen=True)
class Port:
    """An input or an output of a model.

    Attributes
    ----------
    name : str
    dtype : str
        As ONNX calls it, also one that is computed in another.
    shape : tuple of Dimension, or None
        None where nothing is said of it.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{quote(self.name)}, {self.dtype}"
        lengths = ", ".join("?" if size is None else printable(str(size), 40) for size in self.shape)
        return f"{quote(self.name)}, {self.dtype} ({lengths})"


@dataclass(frozen=True)
class OnnxGraph:
    """What an ONNX file describes.

    Attributes
    ----------
    name : str
    opset : int
        The version of the operators.
    nodes : tuple of Node
        In the order of execution.
    constants : mapping of str to array
        Initializers; read-only.
    inputs, outputs : tuple of Port
        Inputs that an initializer gives are none.
    metadata : mapping of str to str
    bytes : int
        Of the file and of those beside it.
    """

    name: str
    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    bytes: int = 0


def read_model(path: str | os.PathLike) -> OnnxGraph:
    """Read an ONNX file, and the files beside it in which it keeps tensors.

    Raises
    ------
    CheckpointError
        If it cannot be read, is damaged, or has parts that are not supported. The message is one line that begins with
        the path.
    """
    path = Path(path)
    try:
        data = read_bytes(path)
        return parse_model(data, Beside(path.parent, Allowance(len(data))))
    except CheckpointError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error.__cause__
    except MemoryError as error:
        raise CheckpointError(f"{printable(path)}: needs more memory than this machine has") from error


def parse_model(data: bytes, beside: Beside) -> OnnxGraph:
    """Return the graph in an ONNX file's bytes.

    Raises
    ------
    CheckpointError
        As :func:`read_model`, without the path.
    """
    about = gathered(memoryview(data))
    if 25 in about:
        first = gathered(message(about[25][0]))
        raise CheckpointError(
            f"has functions of its own ({quote(text(only(first, 1, b'')))}), which are not supported: inline them "
            "(onnx.inliner.inline_local_functions)"
        )
    if 7 not in about:
        raise CheckpointError("has no graph; the file is damaged, or no ONNX model")
    opset = None
    for entry in about.get(8, ()):
        version = gathered(message(entry))
        if text(only(version, 1, b"")) in STANDARD:
            opset = integer(only(version, 2, 0))
    if opset is None:
        raise CheckpointError("does not say of which version its operators are; the file is damaged")
    metadata = {}
    for entry in about.get(14, ()):
        pair = gathered(message(entry))
        metadata[text(only(pair, 1, b""))] = text(only(pair, 2, b""))
    graph = _graph(message(only(about, 7, b"")), opset, metadata, beside)
    return replace(graph, bytes=len(data) + beside.bytes)


def _graph(data: memoryview, opset: int, metadata: Mapping[str, str], beside: Beside) -> OnnxGraph:
    about = gathered(data)
    if 15 in about:
        raise CheckpointError("has sparse tensors, which are not supported: store them as dense ones")
    if len(about.get(1, ())) > MOST_NODES:
        raise CheckpointError(f"has more than {MOST_NODES} nodes")
    constants: dict[str, np.ndarray] = {}
    types: dict[str, str] = {}
    for tensor in about.get(5, ()):
        name, dtype, array = read_tensor(message(tensor), beside, "a tensor without a name")
        if not name or name in constants:
            raise CheckpointError(f"has {'two tensors ' + quote(name) if name else 'a tensor without a name'}")
        constants[name], types[name] = array, dtype
    inputs, outputs = ([_port(message(one)) for one in about.get(number, ())] for number in (11, 12))
    graph = OnnxGraph(
        text(only(about, 2, b"")),
        opset,
        _typed(
            (_node(message(node), beside) for node in about.get(1, ())), types | {one.name: one.dtype for one in inputs}
        ),
        constants,
        tuple(port for port in inputs if port.name not in constants),
        tuple(outputs),
        metadata,
    )
    _check_order(graph)
    return graph


def _typed(nodes: Iterable[Node], types: dict[str, str]) -> tuple[Node, ...]:
    """Nodes whose result has the type of an input, with that type as an attribute: arrays do not tell all types."""
    found = []
    for node in nodes:
        like = types.get(node.inputs[-1]) if node.operator in _TYPED_BY_INPUT and len(node.inputs) > 1 else None
        if like in COMPUTED_IN:
            operator, attribute = _TYPED_BY_INPUT[node.operator]
            inputs = node.inputs[: 1 if operator == "Cast" else None]
            node = replace(
                node, operator=operator, inputs=inputs, attributes={**node.attributes, attribute: CODES[like]}
            )
        code = node.attributes.get("to", node.attributes.get("output_dtype"))
        types.update(dict.fromkeys(node.outputs, type_name(code) if isinstance(code, int) else ""))
        found.append(node)
    return tuple(found)


_TYPED_BY_INPUT = {"CastLike": ("Cast", "to"), "QuantizeLinear": ("QuantizeLinear", "output_dtype")}


def _check_order(graph: OnnxGraph) -> None:
    """Every tensor is made once, before it is read."""
    known = {"", *graph.constants}
    for port in graph.inputs:
        if port.name in known:
            raise CheckpointError(f"has two inputs {quote(port.name)}")
        known.add(port.name)
    for node in graph.nodes:
        for name in node.inputs:
            if name not in known:
                raise CheckpointError(f"{node.title} reads {quote(name)}, which nothing before it makes")
        for name in filter(None, node.outputs):
            if name in known:
                raise CheckpointError(f"{node.title} makes {quote(name)}, which is there already")
            known.add(name)
    if not graph.outputs:
        raise CheckpointError("has no outputs")
    for port in graph.outputs:
        if port.name not in known or not port.name:
            raise CheckpointError(f"has the output {quote(port.name)}, which nothing makes")


def _node(data: memoryview, beside: Beside) -> Node:
    about = gathered(data)
    names = {number: tuple(text(one) for one in about.get(number, ())) for number in (1, 2)}
    node = Node(text(only(about, 3, b"")), text(only(about, 4, b"")), names[1], names[2])
    domain = text(only(about, 7, b""))
    if domain == MICROSOFT:
        node = replace(node, operator=f"{domain}.{node.operator}")
    elif domain not in STANDARD:
        raise CheckpointError(f"{node.title}: operators of the domain {quote(domain)} are not supported")
    attributes = {}
    for attribute in about.get(5, ()):
        name, value = _attribute(message(attribute), beside, node)
        attributes[name] = value
    return replace(node, attributes=attributes)


def _attribute(data: memoryview, beside: Beside, node: Node) -> tuple[str, Any]:
    about = gathered(data)
    name = text(only(about, 1, b""))
    if 21 in about:
        raise CheckpointError(f"{node.title}: attribute {quote(name)} refers to one of a function")
    kind = integer(only(about, 20, 0)) or next((kind for kind, number in _BY_KIND.items() if number in about), 0)
    what = f"{node.title}: attribute {quote(name)}"
    try:
        if kind == 1:
            return name, decimal(message(only(about, 2, b"\0\0\0\0")))
        if kind == 2:
            return name, integer(only(about, 3, 0))
        if kind == 3:
            return name, text(only(about, 4, b""))
        if kind == 4:
            _, dtype, array = read_tensor(message(only(about, 5, b"")), beside, what)
            if dtype in NARROW:
                raise ValueError(f"is a tensor of {dtype}, which is not supported here: an initializer may be one")
            return name, array
        if kind == 6:
            return name, tuple(_decimals(about.get(7, ())))
        if kind == 7:
            return name, tuple(integers(about.get(8, ())).tolist())
        if kind == 8:
            return name, tuple(text(one) for one in about.get(9, ()))
    except ValueError as error:
        raise CheckpointError(f"{what} {error}") from None
    return name, Refused(_OTHER_KINDS.get(kind, f"of the unknown kind {kind}"))


_BY_KIND = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 10: 11}  # where the type is not said
_OTHER_KINDS = {
    5: "a graph", 9: "several tensors", 10: "several graphs", 11: "a sparse tensor", 12: "several sparse tensors",
    13: "a type", 14: "several types",
}  # fmt: skip


def decimal(data: memoryview) -> float:
    """Return the shortest decimal number that these four bytes are the float32 of: what was meant, 1e-05."""
    if len(data) != 4:
        raise CheckpointError("is a number of other than 4 bytes; the file is damaged")
    return float(str(np.frombuffer(data, "<f4")[0]))


def _decimals(values: list[Value] | tuple) -> Iterator[float]:
    for part in map(message, values):
        if len(part) % 4:
            raise CheckpointError("has a part of a number; the file is damaged")
        yield from (decimal(part[at : at + 4]) for at in range(0, len(part), 4))


def _port(data: memoryview) -> Port:
    about = gathered(data)
    name = text(only(about, 1, b""))
    kinds = list(fields(message(only(about, 2, b""))))
    if not kinds:  # nothing is said of it
        return Port(name, "float32", None)
    number = next((number for number, _ in kinds if number != 6), 0)  # 6: what the type denotes
    if number != 1:
        raise CheckpointError(f"has {quote(name)}, which is no tensor but {_NO_TENSORS.get(number, 'something else')}")
    tensor = gathered(message(next(value for number, value in kinds if number == 1)))
    shape = None
    if 2 in tensor:
        dims = gathered(message(only(tensor, 2, b""))).get(1, ())
        if len(dims) > MAX_DIMENSIONS:
            raise CheckpointError(f"{quote(name)} has an impossible shape; the file is damaged")
        shape = tuple(_dimension(message(dim)) for dim in dims)
    return Port(name, type_name(integer(only(tensor, 1, 0))), shape)


_NO_TENSORS = {4: "a sequence", 5: "a map", 8: "a sparse tensor", 9: "optional", 7: "opaque"}


def _dimension(data: memoryview) -> Dimension:
    about = gathered(data)
    if 1 in about:
        size = integer(only(about, 1, 0))
        return size if size > 0 else None  # some exporters write -1 or 0 for what is not known
    return text(only(about, 2, b"")) or None

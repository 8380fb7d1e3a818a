"""A graph for inputs of certain shapes: what follows from shapes and constants is computed, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np

from npmobilenet.errors import CheckpointError
from npmobilenet.onnx.file import Node, OnnxGraph
from npmobilenet.onnx.operator import OPERATORS, Operator
from npmobilenet.onnx.room import (
    MOST_VALUES,
    RoomError,
    at_most,
    check_together,
    of_constants,
    of_repeated,
    of_shapes,
    of_tensors,
    room,
)


@dataclass(frozen=True)
class Coming:
    """A tensor whose values are known in a call."""

    shape: tuple[int, ...]
    dtype: np.dtype


Value = np.ndarray | Coming | None  # None: its shape is known in a call


@dataclass(frozen=True)
class Bound:
    """What is left to compute of a graph.

    Attributes
    ----------
    nodes : tuple of Node
    values : mapping of str to Value
        Of every tensor.
    outputs : tuple of str
    opset : int
    shapes_of : mapping of str to set of str
        Of tensors that follow from shapes: whose.
    most : int
        Values that a tensor may have.
    folded : mapping of str to Node
        Of constants that were computed: by which node.
    reasons : mapping of str to str
        Why NumPy computes a node, by its first output.
    """

    nodes: tuple[Node, ...]
    values: Mapping[str, Value]
    outputs: tuple[str, ...]
    opset: int
    shapes_of: Mapping[str, frozenset[str]] = field(default_factory=dict)
    most: int = MOST_VALUES
    folded: Mapping[str, Node] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def constant(self, name: str) -> np.ndarray | None:
        """Return a tensor that is known, else None."""
        value = self.values.get(name)
        return value if isinstance(value, np.ndarray) else None

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor, if it is known."""
        return getattr(self.values.get(name), "shape", None)

    @cached_property
    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers.setdefault(name, []).append(node)
        return readers

    def live(self, node: Node) -> list[str]:
        """The inputs of a node that are known in a call, each once."""
        return list(dict.fromkeys(name for name in node.inputs if name and self.constant(name) is None))

    def with_nodes(self, nodes: Iterable[Node], values: Mapping[str, Value] | None = None) -> Bound:
        """Return the same graph with other nodes; those that no output needs are left out."""
        kept, needed = [], set(self.outputs)
        for node in reversed(list(nodes)):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        return replace(self, nodes=tuple(reversed(kept)), values={**self.values, **(values or {})})


def bind(graph: OnnxGraph, inputs: Mapping[str, Coming]) -> Bound:
    """Return what is to be computed for inputs of these shapes.

    Raises
    ------
    CheckpointError
        If a node does not fit; the message names it.
    """
    shapes = {name: value.shape for name, value in inputs.items()}
    most = of_tensors(graph, shapes)
    with at_most(most):
        for port in graph.inputs:
            try:
                room(inputs[port.name].shape)
            except ValueError as error:
                raise CheckpointError(f"the input {port} {error}") from None
        nodes, values, shapes_of, folded = _folded(graph, inputs, most, of_shapes(shapes))
    outputs = tuple(port.name for port in graph.outputs)
    return Bound((), values, outputs, graph.opset, shapes_of, most, folded).with_nodes(nodes)


def _folded(
    graph: OnnxGraph, inputs: Mapping[str, Coming], most: int, for_shapes: int
) -> tuple[list[Node], dict[str, Value], dict[str, frozenset[str]], dict[str, Node]]:
    """The nodes that remain; of tensors what is known, whose shapes they follow from, and which nodes computed them."""
    values: dict[str, Value] = {"": None, **graph.constants, **inputs}
    left, repeated, together = of_constants(graph), of_repeated(graph), 0
    nodes: list[Node] = []
    shapes_of: dict[str, frozenset[str]] = {}
    folded: dict[str, Node] = {}
    for node in graph.nodes:
        operator = OPERATORS[node.operator]
        found = [values[name] if name else None for name in node.inputs]
        given = [value for name, value in zip(node.inputs, found, strict=True) if name]
        if all(isinstance(value, np.ndarray) for value in given) and operator.kind != "dynamic":
            with at_most((repeated if operator.kind == "view" else left) // 4):
                results = operator.compute(node, found, graph.opset)
            if operator.kind == "view":
                repeated -= max(sum(array.nbytes for array in results) - sum(array.nbytes for array in given), 0)
            else:
                left -= sum(array.nbytes for array in results)
            if min(left, repeated) < 0:
                raise CheckpointError(f"{node.title}: its constants become more than this file may take")
            folded |= dict.fromkeys(node.outputs, node)
        elif operator.kind == "shape" and given[0] is not None:
            results = operator.compute(node, [_stand_in(found[0], found[0].shape)], graph.opset)
        else:
            results = _coming(operator, node, found, graph.opset, for_shapes)
            nodes.append(node)
            try:
                together += sum(prod(room(result.shape)) for result in results if result is not None)
                check_together(together, most)
            except ValueError as error:
                raise CheckpointError(f"{node.title}: {error}") from None
        whose = {source for name in node.inputs for source in shapes_of.get(name, ())}
        whose |= {node.inputs[0]} if node.operator == "Shape" else set()
        shapes_of |= dict.fromkeys(node.outputs, frozenset(whose)) if whose else {}
        for name, result in zip(node.outputs, results, strict=False):
            values[name] = result
    return nodes, values, shapes_of, folded


def _coming(operator: Operator, node: Node, inputs: list[Value], opset: int, for_shapes: int) -> tuple[Value, ...]:
    """What a node makes, as far as it can be told without values: it is computed of zeros."""
    unknown = operator.kind == "dynamic" or any(
        name and value is None for name, value in zip(node.inputs, inputs, strict=True)
    )
    decided = all(isinstance(inputs[at], np.ndarray) for at in operator.decides if at < len(inputs) and node.inputs[at])
    if unknown or not decided:
        return (None,) * len(node.outputs)
    if operator.kind == "elementwise":
        shapes = [value.shape for value in inputs if value is not None]
        try:
            shape = shapes[0] if node.attributes.get("broadcast") else np.broadcast_shapes(*shapes)
        except ValueError as error:
            raise CheckpointError(f"{node.title}: {error}") from None
        results = operator.compute(node, [_stand_in(value, ()) for value in inputs], opset)
        return tuple(Coming(shape, result.dtype) for result in results)
    if operator.kind == "like":
        return (Coming(inputs[0].shape, inputs[0].dtype),)
    if operator.kind == "along":
        return _along(operator, node, inputs, opset)
    if operator.kind == "windows":
        return _of_images(operator, node, inputs, 1, opset)
    if operator.kind == "joined" and node.attributes.get("axis", 1) % max(len(inputs[0].shape), 1):
        return _of_images(operator, node, inputs, len(inputs), opset)
    free = operator.kind == "view"
    if not free and sum(prod(value.shape) for value in inputs if isinstance(value, Coming)) > for_shapes:
        return (None,) * len(node.outputs)
    try:
        with nullcontext() if free else at_most(for_shapes):
            results = operator.compute(node, [_stand_in(value) for value in inputs], opset)
    except CheckpointError as error:
        if free or not isinstance(error.__cause__, RoomError):
            raise
        return (None,) * len(node.outputs)
    return tuple(Coming(result.shape, result.dtype) for result in results)


def _along(operator: Operator, node: Node, inputs: list[Value], opset: int) -> tuple[Value, ...]:
    """What it makes first has the first input's shape; types, and whether inputs fit, are told by one line of it."""
    shape, axis = inputs[0].shape, node.attributes.get("axis", 1)
    line = tuple(length if at in (axis, axis + len(shape)) else 1 for at, length in enumerate(shape))
    first, *more = operator.compute(node, [_stand_in(inputs[0], line), *map(_stand_in, inputs[1:])], opset)
    return Coming(shape, first.dtype), *(Coming(one.shape, one.dtype) for one in more)


def _of_images(operator: Operator, node: Node, inputs: list[Value], cut: int, opset: int) -> tuple[Value, ...]:
    """What it makes of so many images as the first inputs have, told by what it makes of none."""
    images = inputs[0].shape[:1]
    if any(value.shape[:1] != images for value in inputs[:cut]):
        shapes = ", ".join(str(value.shape) for value in inputs[:cut])
        raise CheckpointError(f"{node.title}: tensors of shapes {shapes} do not fit")
    none = [_stand_in(value, (0, *value.shape[1:])) for value in inputs[:cut]]
    results = operator.compute(node, none + [_stand_in(value) for value in inputs[cut:]], opset)
    return tuple(Coming((*images, *result.shape[1:]), result.dtype) for result in results)


def _stand_in(value: Value, shape: tuple[int, ...] | None = None) -> np.ndarray | None:
    """Zeros in place of a tensor that is not known, or which is wanted in another shape: they take no memory."""
    if value is None or (isinstance(value, np.ndarray) and shape is None):
        return value
    return np.broadcast_to(np.zeros((), value.dtype), value.shape if shape is None else shape)

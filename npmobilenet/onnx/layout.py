"""Images whose channels come last, as TensorFlow's: computed with channels first, as far as that is the same.

A tensor (N, H, W, C) that is a Transpose of one (N, C, H, W) has that as its twin, and so has what is computed of it
value by value, along an axis, or with something around it. Where a node wants channels first, as a convolution does, it
then reads the twin: transposing there and back disappears. An input whose twin is wanted is transposed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from npmobilenet.onnx.file import Node
from npmobilenet.onnx.operator import OPERATORS, as_ints
from npmobilenet.onnx.shapes import Bound, Coming, Value

FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # (N, H, W, C) to (N, C, H, W), and back
AXES = {axis: FIRST.index(axis) for axis in range(4)}  # where an axis of a tensor is in its twin


def channels_first(bound: Bound) -> Bound:
    """Return the graph with twins in place of what is transposed there and back."""
    if not any(_is_transpose(node, FIRST) for node in bound.nodes):
        return bound
    made = {name for node in bound.nodes for name in node.outputs}
    read = dict.fromkeys(name for node in bound.nodes for name in bound.live(node) if name not in made)
    images = [name for name in read if len(bound.shape(name) or ()) == 4]
    wanted = [name for name in images if _Twins(bound, [name]).wanted[name]]
    return _Twins(bound, wanted).bound()


def _is_transpose(node: Node, order: tuple[int, ...]) -> bool:
    return node.operator == "Transpose" and tuple(node.attributes.get("perm", ())) == order


class _Twins:
    """The nodes of a graph, with twins as far as there are any, given inputs that are made to have some."""

    def __init__(self, bound: Bound, inputs: Sequence[str]) -> None:
        self._bound, self._twins, self.opset = bound, {}, bound.opset
        self._values: dict[str, Value] = {}
        self._nodes: list[Node] = []
        self._of = {}  # the inputs that a twin is computed from
        self.wanted = dict.fromkeys(inputs, False)
        for name in inputs:
            self._twins[name], self._of[name] = self._new(name), {name}
            self._nodes.append(Node("", "Transpose", (name,), (self._twins[name],), {"perm": FIRST}))
        for node in bound.nodes:
            self._add(node)

    def bound(self) -> Bound:
        """Return the graph."""
        return self._bound.with_nodes(self._nodes, self._values)

    def _new(self, name: str) -> str:
        about, twin = self._bound.values[name], f"{name}/channels first"
        self._values[twin] = Coming(tuple(about.shape[axis] for axis in FIRST), about.dtype)
        return twin

    def _add(self, node: Node) -> None:
        source = node.inputs[0] if node.inputs else ""
        if _is_transpose(node, LAST) and len(self._bound.shape(source) or ()) == 4:
            self._twins[node.outputs[0]], self._of[node.outputs[0]] = source, set()
        elif _is_transpose(node, FIRST) and source in self._twins:
            self.wanted |= dict.fromkeys(self._of[source], True)
            node = Node(node.name, "Identity", (self._twins[source],), node.outputs)
        elif any(name in self._twins for name in node.inputs):
            self._add_twin(node)
            return
        self._nodes.append(node)

    def _add_twin(self, node: Node) -> None:
        """What is computed of twins, and that transposed back, which nothing may read."""
        rule = RULES.get(node.operator) or (_elementwise if OPERATORS[node.operator].kind == "elementwise" else None)
        found = rule(self, node) if rule else None
        if found is None:
            self._nodes.append(node)
            return
        inputs, attributes = found
        inputs = tuple(self._constant(name) if isinstance(name, np.ndarray) else name for name in inputs)
        if all(len(self._bound.shape(name) or ()) == 4 for name in node.outputs):
            of = {origin for name in node.inputs for origin in self._of.get(name, ())}
            for name in node.outputs:
                self._twins[name], self._of[name] = self._new(name), of
            twins = tuple(self._twins[name] for name in node.outputs)
            self._nodes.append(replace(node, inputs=inputs, outputs=twins, attributes=attributes))
            self._nodes += [
                Node("", "Transpose", (twin,), (name,), {"perm": LAST})
                for name, twin in zip(node.outputs, twins, strict=True)
            ]
        else:  # no longer images: the same of either
            self._nodes.append(replace(node, inputs=inputs, attributes=attributes))

    def _constant(self, array: np.ndarray) -> str:
        name = f"channels first/{len(self._values)}"
        self._values[name] = array
        return name

    def constant(self, name: str) -> np.ndarray | None:
        """Return a tensor that is known."""
        return self._bound.constant(name) if name else None

    def twin(self, name: str) -> str | np.ndarray | None:
        """Return the twin of a tensor, of a constant as an array; None if there is none."""
        array = self.constant(name)
        if array is None:
            return self._twins.get(name)
        if array.size == 1:
            return name
        if array.ndim > 4:
            return None
        return np.ascontiguousarray(array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(FIRST))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, of channels last."""
        return self._bound.shape(name)


Rule = Callable[[_Twins, Node], tuple[Sequence[str | np.ndarray], dict] | None]


def _elementwise(twins: _Twins, node: Node) -> tuple[Sequence[str | np.ndarray], dict] | None:
    inputs = [twins.twin(name) if name else "" for name in node.inputs]
    if any(name is None for name in inputs) or "broadcast" in node.attributes:
        return None
    return inputs, dict(node.attributes)


def _along_axis(twins: _Twins, node: Node) -> tuple[Sequence[str | np.ndarray], dict] | None:
    """Concat, Softmax, Split: ``axis`` is that of tensors, of which none is a constant."""
    tensors = node.inputs[:1] if node.operator == "Split" else node.inputs
    inputs = [None if twins.constant(name) is not None else twins.twin(name) for name in tensors]
    axis = node.attributes.get("axis")
    if axis is None or None in inputs or (twins.opset < 13 and node.operator in ("Softmax", "LogSoftmax")):
        return None  # of old, a softmax was over all axes that follow, too
    return [*inputs, *node.inputs[len(tensors) :]], node.attributes | {"axis": AXES[axis % 4]}


def _of_axes(twins: _Twins, node: Node) -> tuple[Sequence[str | np.ndarray], dict] | None:
    """Reduce and Squeeze: ``axes`` is an attribute or an input. What axes remain must stand in the same order."""
    given = twins.constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    axes = node.attributes.get("axes") if given is None else as_ints(given)
    if axes is None:
        return None
    axes = [axis % 4 for axis in axes]
    left = [axis for axis in range(4) if axis not in axes]
    keeps = node.operator != "Squeeze" and node.attributes.get("keepdims", 1)
    if not keeps and [AXES[axis] for axis in left] != sorted(AXES[axis] for axis in left):
        return None
    new = [AXES[axis] for axis in axes]
    if given is None:
        return [twins.twin(node.inputs[0])], node.attributes | {"axes": tuple(new)}
    return [twins.twin(node.inputs[0]), np.int64(new)], dict(node.attributes)


def _reshape(twins: _Twins, node: Node) -> tuple[Sequence[str | np.ndarray], dict] | None:
    """Of images of one pixel, whose values stand in the same order either way."""
    _, height, width, _ = twins.shape(node.inputs[0])
    shape = twins.shape(node.outputs[0])
    if height * width != 1 or shape is None or len(shape) == 4:
        return None
    if node.operator == "Flatten":
        return ([twins.twin(node.inputs[0])], dict(node.attributes)) if node.attributes.get("axis", 1) == 1 else None
    return [twins.twin(node.inputs[0]), np.int64(shape)], dict(node.attributes)


def _pad(twins: _Twins, node: Node) -> tuple[Sequence[str | np.ndarray], dict] | None:
    given = twins.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    pads = node.attributes.get("pads") if given is None else as_ints(given)
    if pads is None or len(pads) != 8 or any(node.inputs[3:]):
        return None
    new = [pads[side + axis] for side in (0, 4) for axis in FIRST]
    if given is None:
        return [twins.twin(node.inputs[0])], node.attributes | {"pads": tuple(new)}
    return [twins.twin(node.inputs[0]), np.int64(new), *node.inputs[2:]], dict(node.attributes)


def _resize(twins: _Twins, node: Node) -> tuple[Sequence[str | np.ndarray], dict] | None:
    inputs: list[str | np.ndarray] = [twins.twin(node.inputs[0])]
    for name in node.inputs[1:]:
        array = twins.constant(name)
        if name and (array is None or array.size not in (0, 4, 8)):
            return None
        order = [*FIRST, *(4 + axis for axis in FIRST)][: 0 if array is None else array.size]
        inputs.append(np.ascontiguousarray(array[order]) if order else name)
    return None if "axes" in node.attributes else (inputs, dict(node.attributes))


RULES: dict[str, Rule] = {
    "PRelu": _elementwise,
    **dict.fromkeys(("Concat", "Softmax", "LogSoftmax", "Split"), _along_axis),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "Squeeze"), _of_axes),
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    "Pad": _pad,
    "Resize": _resize,
}

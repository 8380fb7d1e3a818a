"""Operators that compute with bytes, as operators of numbers between DequantizeLinear and QuantizeLinear.

QLinearConv, QLinearMatMul and what onnxruntime has beside them (QLinearAdd, QGemm) say of every tensor what its bytes
stand for. What only moves bytes (MaxPool, Reshape, Concat) does not, and is the same of the numbers. So there is one
form in which a graph says how it is rounded, which `npmobilenet.onnx.qdq` reads.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from npmobilenet.errors import CheckpointError
from npmobilenet.onnx.file import MICROSOFT, Node, OnnxGraph

OF_ONE = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearReduceMean": "ReduceMean",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
}
OF_TWO = {"QLinearAdd": "Add", "QLinearMul": "Mul"}
MOVING = ("MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Concat", "Identity")
CUTTING = ("Relu",)  # makes numbers 0
SINCE_AXES = {"ReduceMean": 18}  # from which version on axes are an input, and no attribute
SOFTMAX_OF_ONE_AXIS = 13

Steps = tuple[str, str]  # the tensors that are a scale and a zero point


def normalised(graph: OnnxGraph) -> OnnxGraph:
    """Return the graph without onnxruntime's operators of bytes, and without others whose weights are constants.

    Raises
    ------
    CheckpointError
        If one of onnxruntime's cannot be computed as it is meant; the message names the node.
    """
    writer = _Writer(graph)
    for node in graph.nodes:
        writer.write(node)
    if not writer.changed:
        return graph
    return replace(graph, nodes=tuple(writer.nodes), constants={**graph.constants, **writer.constants})


@dataclass
class _Writer:
    """The nodes so far."""

    graph: OnnxGraph
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    steps: dict[str, Steps] = field(default_factory=dict)  # of tensors of bytes that have one scale
    known: set[str] = field(default_factory=set)  # what follows from constants
    read: dict[tuple[str, ...], str] = field(default_factory=dict)  # numbers of bytes, by these and their steps
    made: dict[str, Node] = field(default_factory=dict)  # which node makes a tensor
    on_steps: dict[str, tuple] = field(default_factory=dict)  # numbers that bytes of such steps would be as well
    instead: dict[str, str] = field(default_factory=dict)  # what is read in place of a tensor that is the same
    changed: bool = False

    def __post_init__(self) -> None:
        self.known.update(self.graph.constants)
        self.outputs = {port.name for port in self.graph.outputs}

    def write(self, node: Node) -> None:
        """Add a node, or what it stands for."""
        node = replace(node, inputs=tuple(self.instead.get(name, name) for name in node.inputs))
        domain, _, name = node.operator.rpartition(".")
        if all(input_ in self.known for input_ in node.inputs if input_):
            self.known.update(node.outputs)
        if domain == MICROSOFT:
            self._of_onnxruntime(node, name)
        elif node.operator in ("QLinearConv", "QLinearMatMul") and self._are_known(node):
            (_convolution if node.operator == "QLinearConv" else _product)(self, node)
        elif node.operator in MOVING and self._moves_bytes(node):
            self._move(node)
        else:
            self.put(node)

    def _of_onnxruntime(self, node: Node, name: str) -> None:
        if name in ("QuantizeLinear", "DequantizeLinear"):
            self.changed = True
            self.write(replace(node, operator=name))
            return
        expand = EXPANDED.get(name)
        if expand is None:
            raise CheckpointError(f"{node.title}: this operator is not supported")
        expand(self, node)

    def _are_known(self, node: Node) -> bool:
        """Whether all but the first input follows from constants."""
        return len(node.inputs) >= 8 and all(name in self.known for name in node.inputs[1:] if name)

    # Tensors -----------------------------------------------------------------------------------------------

    def number(self, tensor: str, scale: str, zero_point: str, **attributes: Any) -> str:
        """Return the tensor of numbers that bytes stand for."""
        key = (tensor, scale, zero_point, *map(str, attributes.values()))
        if key not in self.read:
            self.read[key] = self.add(
                "DequantizeLinear", (tensor, scale, zero_point), f"{tensor}/numbers", **attributes
            )
        return self.read[key]

    def add(self, operator: str, inputs: Sequence[str], makes: str, name: str = "", **attributes: Any) -> str:
        """Add a node that makes a tensor of a name like this one, which is returned."""
        self.changed = True
        makes = f"{makes}/{len(self.nodes)}"
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        self.put(Node(name, operator, tuple(inputs), (makes,), attributes))
        return self.instead.get(makes, makes)

    def put(self, node: Node) -> None:
        """Add a node as it is, unless it reads numbers that are there already."""
        steps = self._steps(node)
        if node.operator == "QuantizeLinear" and steps:
            self.steps[node.outputs[0]] = steps
        elif node.operator == "DequantizeLinear" and steps:
            values, rounding = self._values(steps), self.made.get(node.inputs[0])
            if rounding is not None and rounding.operator == "QuantizeLinear" and self._steps(rounding):
                before = rounding.inputs[0]
                same = self.on_steps.get(before) == values == self._values(self._steps(rounding))
                if same and node.outputs[0] not in self.outputs:
                    self.instead[node.outputs[0]], self.changed = before, True
                    return
            self.on_steps[node.outputs[0]] = values
        elif node.operator in (*MOVING, *CUTTING):
            known = {self.on_steps.get(name) for name in self._moved(node)}
            if len(known) == 1 and None not in known:
                self.on_steps.update(dict.fromkeys(node.outputs, *known))
        self.made.update(dict.fromkeys(node.outputs, node))
        self.nodes.append(node)

    def round(self, node: Node, numbers: str, steps: Steps, output: int = 0) -> None:
        """Let a node of the file make the bytes of numbers."""
        bytes_ = node.outputs[output]
        inputs = (numbers, *steps) if steps[1] else (numbers, steps[0])
        self.put(Node(f"{node.name}/bytes" if node.name else "", "QuantizeLinear", inputs, (bytes_,)))

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add a constant of a name like this one, which is returned."""
        name = f"{name}/{len(self.constants)}"
        self.constants[name] = array
        self.known.add(name)
        return name

    def per_axis(self, scale: str, axis: int) -> dict[str, int]:
        """The attribute that says along which axis there are several scales."""
        array = self.graph.constants.get(scale)
        return {} if array is not None and array.size == 1 else {"axis": axis}

    # What moves bytes --------------------------------------------------------------------------------------

    def _steps(self, node: Node) -> Steps | None:
        """The one scale and zero point of a QuantizeLinear or DequantizeLinear, where they are constants."""
        steps = tuple([*node.inputs[1:], ""][:2])
        known = node.attributes.keys() <= {"axis", "saturate"}
        return steps if known and steps[0] and all(not name or self._size(name) == 1 for name in steps) else None

    def _size(self, name: str) -> int:
        array = self.graph.constants.get(name)
        return 0 if array is None else array.size

    @staticmethod
    def _moved(node: Node) -> tuple[str, ...]:
        return node.inputs if node.operator == "Concat" else node.inputs[:1]

    def _moves_bytes(self, node: Node) -> bool:
        known = [self.steps.get(name) for name in self._moved(node)]
        return None not in known and len({self._values(steps) for steps in known}) == 1

    def _values(self, steps: Steps) -> tuple:
        arrays = [self.graph.constants[name] for name in steps if name]
        return tuple((array.dtype.name, array.item()) for array in arrays)

    def _move(self, node: Node) -> None:
        moved, steps = self._moved(node), self.steps[node.inputs[0]]
        inputs = [self.number(name, *self.steps[name]) for name in moved]
        makes = tuple(f"{name}/numbers/{len(self.nodes)}" for name in node.outputs)
        self.changed = True
        self.put(replace(node, inputs=(*inputs, *node.inputs[len(moved) :]), outputs=makes))
        for output, numbers in enumerate(makes):
            self.round(node, numbers, steps, output)


def _taken(node: Node, least: int, *dropped: str) -> tuple[list[str], dict[str, Any]]:
    """The inputs of a node of onnxruntime's, and its attributes but those that mean nothing elsewhere."""
    if len(node.inputs) < least:
        raise CheckpointError(f"{node.title}: has {len(node.inputs)} inputs, needs {least}")
    if node.attributes.get("channels_last", 0):
        raise CheckpointError(f"{node.title}: attribute 'channels_last' must be 0")
    attributes = {key: value for key, value in node.attributes.items() if key not in (*dropped, "channels_last")}
    return [*node.inputs, *[""] * 10], attributes


def _convolution(to: _Writer, node: Node) -> None:
    x, x_scale, x_zero, weight, scale, zero, y_scale, y_zero, *bias = node.inputs
    along = to.per_axis(scale, 0)
    inputs = [to.number(x, x_scale, x_zero), to.number(weight, scale, zero, **along)]
    if bias and bias[0]:
        inputs.append(_bias(to, bias[0], x_scale, scale, along))
    numbers = to.add("Conv", inputs, f"{node.outputs[0]}/numbers", node.name, **node.attributes)
    to.round(node, numbers, (y_scale, y_zero))


def _bias(to: _Writer, bias: str, x_scale: str, scale: str, along: Mapping[str, int]) -> str:
    """The numbers of a bias of 32 bits, whose scale is that of the sums."""
    of_sums = to.add("Mul", (x_scale, scale), f"{bias}/scale")
    to.known.add(of_sums)
    return to.number(bias, of_sums, "", **{name: 0 for name in along})


def _product(to: _Writer, node: Node) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs[:8]
    inputs = to.number(a, a_scale, a_zero), to.number(b, b_scale, b_zero, **to.per_axis(b_scale, -1))
    to.round(node, to.add("MatMul", inputs, f"{node.outputs[0]}/numbers", node.name), (y_scale, y_zero))


def _gemm(to: _Writer, node: Node) -> None:
    inputs, attributes = _taken(node, 6)
    a, a_scale, a_zero, b, b_scale, b_zero, bias, y_scale, y_zero = inputs[:9]
    along = to.per_axis(b_scale, 0 if attributes.get("transB", 0) else 1)
    numbers = [to.number(a, a_scale, a_zero), to.number(b, b_scale, b_zero, **along)]
    if bias:
        scale = b_scale
        if attributes.get("alpha", 1.0) != 1:
            alpha = to.constant(f"{bias}/alpha", np.float32(attributes["alpha"]))
            scale = to.add("Mul", (b_scale, alpha), f"{bias}/scaled")
        numbers.append(_bias(to, bias, a_scale, scale, along))
    makes, name = (f"{node.outputs[0]}/numbers", node.name)
    if not y_scale:  # its result is not rounded
        to.put(Node(node.name, "Gemm", tuple(numbers), node.outputs, attributes))
        to.changed = True
        return
    to.round(node, to.add("Gemm", numbers, makes, name, **attributes), (y_scale, y_zero))


def _of_one(operator: str) -> Callable[[_Writer, Node], None]:
    def expand(to: _Writer, node: Node) -> None:
        (x, x_scale, x_zero, y_scale, y_zero, *_), attributes = _taken(node, 4, "opset")
        inputs = [to.number(x, x_scale, x_zero)]
        opset = to.graph.opset
        if operator == "Softmax" and (node.attributes.get("opset", opset) < SOFTMAX_OF_ONE_AXIS) != (
            opset < SOFTMAX_OF_ONE_AXIS
        ):
            raise CheckpointError(f"{node.title}: attribute 'opset' must be that of the file, {opset}")
        if "axes" in attributes and opset >= SINCE_AXES.get(operator, opset + 1):
            inputs.append(to.constant(f"{x}/axes", np.array(attributes.pop("axes"), np.int64)))
        numbers = to.add(operator, inputs, f"{node.outputs[0]}/numbers", node.name, **attributes)
        to.round(node, numbers, (y_scale, y_zero))

    return expand


def _of_two(operator: str) -> Callable[[_Writer, Node], None]:
    def expand(to: _Writer, node: Node) -> None:
        (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero, *_), attributes = _taken(node, 7)
        inputs = to.number(a, a_scale, a_zero), to.number(b, b_scale, b_zero)
        numbers = to.add(operator, inputs, f"{node.outputs[0]}/numbers", node.name, **attributes)
        to.round(node, numbers, (y_scale, y_zero))

    return expand


def _concat(to: _Writer, node: Node) -> None:
    inputs, attributes = _taken(node, 5)
    y_scale, y_zero, *parts = inputs[: len(node.inputs)]
    if len(parts) % 3:
        raise CheckpointError(f"{node.title}: has {len(node.inputs)} inputs, needs two, and three for each tensor")
    tensors = [to.number(*parts[at : at + 3]) for at in range(0, len(parts), 3)]
    to.round(node, to.add("Concat", tensors, f"{node.outputs[0]}/numbers", node.name, **attributes), (y_scale, y_zero))


def _where(to: _Writer, node: Node) -> None:
    (condition, x, x_scale, x_zero, y, y_scale, y_zero, scale, zero, *_), attributes = _taken(node, 8)
    inputs = condition, to.number(x, x_scale, x_zero), to.number(y, y_scale, y_zero)
    numbers = to.add("Where", inputs, f"{node.outputs[0]}/numbers", node.name, **attributes)
    to.round(node, numbers, (scale, zero))


EXPANDED: dict[str, Callable[[_Writer, Node], None]] = {
    **{name: _of_one(operator) for name, operator in OF_ONE.items()},
    **{name: _of_two(operator) for name, operator in OF_TWO.items()},
    "QGemm": _gemm,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
}

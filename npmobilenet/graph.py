"""A network as a list of operations: names, shapes, parameters, outputs. No kernels, no weights.

What each operation is stands in `operations`. Shapes are those of one image: ``(C, H, W)``, or ``(C,)`` after the
global pooling. Parameter shapes are PyTorch's: ``(C_out, C_in / G, K_h, K_w)`` for a convolution, ``(C_out, C_in)`` for
a linear layer. A convolution that its source computes in several parts (a mixed one, a pointwise one with groups) has a
weight for each: ``"0.weight"``, ``"1.weight"``, ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

from npmobilenet import operations, operations_int8  # noqa: F401 - the latter adds to the former's table
from npmobilenet.kernels.geometry import Pair
from npmobilenet.operations import REQUIRED, Convolution, Operation, Shape, Windows
from npmobilenet.text import listed, printable

WINDOWED = tuple(name for name, kind in operations.OPERATIONS.items() if isinstance(kind, Convolution))
INPUT = "input"  # the image


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes
    ----------
    name : str
        Unique; the parameters are called ``name.parameter``, so ``block2.expand.weight``.
    operation : str
        One of `operations.OPERATIONS`, or of a quantised graph `operations_int8`.
    inputs : tuple of str
        Names of the nodes it reads; ``"input"`` is the image. A fused residual is the second input.
    block : str
        The row of the paper's table it came from: ``"stem"``, ``"block1"``, ..., ``"classifier"``.
    parameters : mapping of str to shape
        Local parameter names and their shapes.
    attributes : mapping
        The operation's class says which, and what they are if they are not given; after fusion (`passes.fuse`) also
        ``norm`` (the folded batch norm), ``activation`` and ``residual``.

    Raises
    ------
    ValueError
        If there is no such operation, or it must have an attribute that is not given.
    """

    name: str
    operation: str
    inputs: tuple[str, ...]
    block: str
    parameters: Mapping[str, Shape] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", {**self.kind.attributes, **self.attributes})
        missing = [name for name, value in self.attributes.items() if value is REQUIRED]
        if missing:
            raise ValueError(f"the node {self.name!r}, {self.operation}, must have the attribute {missing[0]!r}")

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes[attribute]

    @property
    def kind(self) -> Operation:
        """What its operation is."""
        return operations.get(self.operation)

    def with_attributes(self, **attributes: Any) -> Node:
        """Return a copy with these attributes added or replaced."""
        return replace(self, attributes={**self.attributes, **attributes})

    @property
    def tensors(self) -> dict[str, Shape]:
        """Full parameter names and shapes, those of a folded batch norm included."""
        own = {f"{self.name}.{name}": shape for name, shape in self.parameters.items()}
        norm = self.attributes.get("norm")
        return {**own, **norm.tensors} if norm else own

    @property
    def windows(self) -> Windows:
        """Kernel size and dilation of what slides over the image: one window, or one for each part of a mixed one."""
        return self.kind.windows(self)

    def output_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """Return the output shape, given the shapes of the inputs by name.

        Raises
        ------
        ValueError
            If they do not fit the operation, or its parameters.
        """
        inputs = [shapes[name] for name in self.inputs]
        output = self.kind.output_shape(self, *inputs)
        expected = self.kind.parameter_shapes(inputs[0][0], self.attributes, optional=True)
        for name, shape in self.parameters.items():
            if shape != expected.get(name):
                raise ValueError(f"its {name} has shape {shape}, expected {expected.get(name)}")
        return output

    def macs(self, output: Shape) -> int:
        """Multiply-adds for an output of this shape; only convolutions and linear layers have any."""
        return self.kind.macs(self, output)

    @property
    def parameter_count(self) -> int:
        """Learned values: weights, biases, batch norm's scale and shift (not its running statistics)."""
        norm = self.attributes.get("norm")
        own = (prod(shape) for name, shape in self.parameters.items() if self.kind.parameter(name).learned)
        return sum(own) + (norm.parameter_count if norm else 0)

    @property
    def weight_count(self) -> int:
        """Values of convolution and linear kernels alone: what TensorFlow's tables call parameters."""
        return sum(prod(shape) for name, shape in self.parameters.items() if self.kind.parameter(name).multiplied)


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of execution, each of which reads nodes before it.

    Attributes
    ----------
    nodes : tuple of Node
    in_channels : int
        Channels of the image, ``"input"``.
    outputs : mapping of str to str
        The names of the outputs, and which node each one is. If empty, the last node is the only output, called
        ``"logits"`` if it is the classifier, else by the name of its block.
    merged : mapping of str to str
        Nodes that are no more, because another one computes them at its end (`passes.fuse`), and which that is.

    Raises
    ------
    ValueError
        If two nodes have one name, a node reads what is not before it, or an output is no node.
    """

    nodes: tuple[Node, ...]
    in_channels: int = 3
    outputs: Mapping[str, str] = field(default_factory=dict)
    merged: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {INPUT}
        for node in self.nodes:
            unknown = [name for name in node.inputs if name not in known]
            if unknown or node.name in known:
                what = f"reads {unknown[0]!r}, which is no node before it" if unknown else "is there twice"
                raise ValueError(f"the node {node.name!r} {what}")
            known.add(node.name)
        for name, node in self.outputs.items():
            if node == INPUT or node not in known:
                raise ValueError(f"the output {name!r} is the node {node!r}, which is not there")

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def blocks(self) -> dict[str, list[Node]]:
        """The nodes of each block, in order."""
        blocks: dict[str, list[Node]] = {}
        for node in self.nodes:
            blocks.setdefault(node.block, []).append(node)
        return blocks

    @property
    def is_quantised(self) -> bool:
        """Whether there are 8-bit operations in it."""
        return any(node.operation in operations.INT8_OPERATIONS for node in self.nodes)

    @property
    def tensors(self) -> dict[str, Shape]:
        """Every parameter's full name and shape."""
        return {name: shape for node in self.nodes for name, shape in node.tensors.items()}

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return tuple(self.output_nodes)

    @property
    def output_nodes(self) -> dict[str, str]:
        """The outputs by their names, and which node each one is."""
        last = self.nodes[-1]
        return dict(self.outputs) or {"logits" if last.block == "classifier" else last.block: last.name}

    @property
    def main_output(self) -> str:
        """``"logits"`` of a classifier, else the first output."""
        return "logits" if "classifier" in self.blocks or "logits" in self.outputs else self.output_names[0]

    def node_of(self, output: str) -> str:
        """Return which node an output is: a named one of the graph, ``"logits"``, the last node of a block, or a node.

        Raises
        ------
        ValueError
            If there is nothing of that name; the message lists the nearest names.
        """
        known = self._known
        if output in known:
            return known[output]
        from difflib import get_close_matches  # of errors alone

        there = ", ".join(listed(list(dict.fromkeys([*self.blocks, *self.output_nodes])), 50))
        nearest = ", ".join(listed(get_close_matches(str(output), known, 3)))
        near = f"; the nearest: {nearest}" if nearest else ""
        raise ValueError(f"no block {printable(output)!r}; there are: {there}, and the layers inside{near}")

    @cached_property
    def _known(self) -> dict[str, str]:
        """All that an output may be called, and which node it is; asked for at every call of a network."""
        blocks = {block: nodes[-1].name for block, nodes in self.blocks.items()}
        known = {node.name: node.name for node in self.nodes} | dict(self.merged) | blocks
        known |= {"logits": blocks["classifier"]} if "classifier" in blocks else {}
        return known | self.output_nodes

    def channels_of(self, name: str) -> int:
        """Return the channels of a node's result, where it or what it reads first was made with a number of them."""
        node = self[name]
        return node["channels"] if "channels" in node.attributes else self.channels_of(node.inputs[0])

    def shapes(self, size: Pair) -> dict[str, Shape]:
        """Return the shape of every tensor by the name of the node that makes it, for an image of ``(H, W)``.

        Raises
        ------
        ValueError
            If the image is too small for some window.
        """
        shapes: dict[str, Shape] = {INPUT: (self.in_channels, *size)}
        for node in self.nodes:
            try:
                shapes[node.name] = node.output_shape(shapes)
            except ValueError as error:
                raise ValueError(f"an input of {size[0]}x{size[1]} does not fit {node.name}: {error}") from None
        return shapes

    def up_to(self, *outputs: str) -> Graph:
        """Return the part that computes certain outputs, which are then its own: see :meth:`node_of`."""
        wanted = {output: self.node_of(output) for output in outputs}
        needed = set(wanted.values())
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        nodes = tuple(node for node in self.nodes if node.name in needed)
        merged = {name: node for name, node in self.merged.items() if node in needed}
        return replace(self, nodes=nodes, outputs=wanted, merged=merged)

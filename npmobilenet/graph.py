"""A network as a list of operations: names, shapes, parameters, multiply-adds. No kernels, no weights.

Shapes are those of one image: ``(C, H, W)``, or ``(C,)`` after the global pooling. Parameter shapes are
PyTorch's: ``(C_out, C_in / G, K_h, K_w)`` for a convolution, ``(C_out, C_in)`` for a linear layer. A convolution
that its source computes in several parts (a mixed one, a pointwise one with groups) has a weight for each:
``"0.weight"``, ``"1.weight"``, ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from npmobilenet.kernels.geometry import Pair, output_size, resolve_padding

Shape = tuple[int, ...]

CONVOLUTIONS = ("conv2d", "depthwise_conv2d", "pointwise_conv2d")  # of one window
WINDOWED = (*CONVOLUTIONS, "mixed_depthwise_conv2d")
OPERATIONS = (*WINDOWED, "batch_norm", "activation", "add", "squeeze_excite", "global_average_pool", "linear")


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes
    ----------
    name : str
        Unique; the parameters are called ``name.parameter``, so ``block2.expand.weight``.
    operation : str
        One of :data:`OPERATIONS`.
    inputs : tuple of str
        Names of the nodes it reads; ``"input"`` is the image. A fused residual is the second input.
    block : str
        The row of the paper's table it came from: ``"stem"``, ``"block1"``, ..., ``"classifier"``.
    parameters : mapping of str to shape
        Local parameter names and their shapes.
    attributes : mapping
        ``channels`` (out), and for convolutions ``kernel``, ``stride``, ``dilation``, ``groups``,
        ``padding``; a mixed one has ``kernels``, ``dilations`` and ``partition`` (channels), one per part, in
        place of ``kernel`` and ``dilation``; ``reduced`` (channels), ``activation`` and ``gate`` of a
        squeeze-and-excitation; ``function`` of an activation; ``eps`` of a batch norm; after fusion
        (`passes.fuse`) ``norm`` (the folded batch norm), ``activation`` and ``residual``.
    """

    name: str
    operation: str
    inputs: tuple[str, ...]
    block: str
    parameters: Mapping[str, Shape] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes[attribute]

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
    def windows(self) -> tuple[tuple[Pair, Pair], ...]:
        """Kernel size and dilation of a convolution: one window, or one for each part of a mixed one."""
        if self.operation in CONVOLUTIONS:
            return ((self["kernel"], self["dilation"]),)
        if self.operation in WINDOWED:
            return tuple(zip(self["kernels"], self["dilations"], strict=True))
        return ()

    @property
    def weight_shapes(self) -> tuple[Shape, ...]:
        """Of the convolution's or linear layer's kernels, or of both of a squeeze-and-excitation."""
        if self.operation == "batch_norm":
            return ()
        return tuple(shape for name, shape in self.parameters.items() if name.endswith("weight"))

    def output_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """Return the output shape, given the shapes of the inputs by name."""
        first = shapes[self.inputs[0]]
        if self.operation in WINDOWED:
            sizes = [self._window_positions(first[1:], *window) for window in self.windows]
            if len(set(sizes)) > 1:
                kernels = ", ".join(f"{kernel[0]}x{kernel[1]}" for kernel, _ in self.windows)
                raise ValueError(f"kernels {kernels} give images of different sizes with padding {self['padding']!r}")
            return (self["channels"], *sizes[0])
        if self.operation == "global_average_pool":
            return first[:1]
        if self.operation == "linear":
            return (self["channels"],)
        return first

    def _window_positions(self, size: Pair, kernel: Pair, dilation: Pair) -> Pair:
        pads = resolve_padding(self["padding"], size, kernel, self["stride"], dilation)
        window = zip(size, kernel, self["stride"], pads, dilation, strict=True)
        return tuple(output_size(*axis) for axis in window)

    def macs(self, output: Shape) -> int:
        """Multiply-adds for an output of this shape; only convolutions and linear layers have any."""
        positions = prod(output[1:]) if self.operation in WINDOWED else 1
        return positions * self.weight_count

    @property
    def parameter_count(self) -> int:
        """Learned values: weights, biases, batch norm's scale and shift (not its running statistics)."""
        return sum(prod(shape) for name, shape in self.tensors.items() if ".running_" not in name)

    @property
    def weight_count(self) -> int:
        """Values of convolution and linear kernels alone: what TensorFlow's tables call parameters."""
        return sum(map(prod, self.weight_shapes))


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of execution; the last one is the output.

    Attributes
    ----------
    nodes : tuple of Node
    in_channels : int
        Channels of the image.
    """

    nodes: tuple[Node, ...]
    in_channels: int = 3

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
    def tensors(self) -> dict[str, Shape]:
        """Every parameter's full name and shape."""
        return {name: shape for node in self.nodes for name, shape in node.tensors.items()}

    def shapes(self, size: Pair) -> dict[str, Shape]:
        """Return the shape of every tensor by the name of the node that makes it, for an image of ``(H, W)``.

        Raises
        ------
        ValueError
            If the image is too small for some window.
        """
        shapes: dict[str, Shape] = {"input": (self.in_channels, *size)}
        for node in self.nodes:
            try:
                shapes[node.name] = node.output_shape(shapes)
            except ValueError as error:
                raise ValueError(f"an input of {size[0]}x{size[1]} does not fit {node.name}: {error}") from None
        return shapes

    def up_to(self, name: str) -> Graph:
        """Return the part that computes a block's or a node's output.

        Raises
        ------
        ValueError
            If there is neither a block nor a node of that name; the message lists the blocks.
        """
        wanted = self.blocks[name][-1].name if name in self.blocks else name
        if wanted not in {node.name for node in self.nodes}:
            raise ValueError(f"no block {name!r}; there are: {', '.join(self.blocks)}")
        needed = {wanted}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        return replace(self, nodes=tuple(node for node in self.nodes if node.name in needed))

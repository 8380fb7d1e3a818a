"""What a network costs, counted from its graph: parameters, multiply-adds, activation memory.

The conventions of the papers: a multiply-add (MAC) is counted for convolutions and the classifier only.
Memory is counted in values (multiply by 4 for float32), for one image, with batch norm, activation and
residual add done in place by the convolution before them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from npmobilenet.graph import Graph, Node, Shape
from npmobilenet.kernels.geometry import Pair
from npmobilenet.passes import fuse


@dataclass(frozen=True)
class LayerCount:
    """A convolution with all that is fused into it, a squeeze-and-excitation, the pooling or a linear layer."""

    name: str
    block: str
    operation: str
    text: str
    """What a table says of it: its windows, or what else tells it from others."""
    kernels: tuple[Pair, ...]
    """One of a convolution, several of a mixed one."""
    dilations: tuple[Pair, ...]
    stride: Pair | None
    input: Shape
    output: Shape
    parameters: int
    weights: int
    macs: int
    memory: int
    """Values that must be held while it runs: all its inputs and its output."""


@dataclass(frozen=True)
class Counts:
    """Layers and totals of a network for one input size.

    Attributes
    ----------
    layers : list of LayerCount
    parameters : int
        What ``sum(p.numel() for p in model.parameters())`` gives in PyTorch.
    weights : int
        Convolution and linear kernels alone, what TensorFlow's tables call parameters.
    macs : int
    op_by_op_memory : int
        ``max over operations of (sum |inputs| + |output|)`` (1801.04381 section 5.1, equation 2).
    block_memory : int
        The same with every block computed as one operation whose inner tensors are never whole in memory
        (1801.04381 section 5.1): only its input and its output count.
    op_by_op_traffic, block_traffic : int
        Values read and written in all, each operation (or block) touching each of its tensors once.
    """

    layers: list[LayerCount]
    parameters: int
    weights: int
    macs: int
    op_by_op_memory: int
    block_memory: int
    op_by_op_traffic: int
    block_traffic: int


def count(graph: Graph, size: Pair) -> Counts:
    """Count a network for one image of ``(H, W)``.

    Raises
    ------
    ValueError
        If the image is too small for some window.
    """
    fused = fuse(graph)
    shapes = fused.shapes(size)
    layers = [_count_layer(node, shapes) for node in fused]
    blocks = [_block_memory(nodes, shapes) for nodes in fused.blocks.values()]
    operations = [layer.memory for layer in layers]
    return Counts(
        layers,
        parameters=sum(layer.parameters for layer in layers),
        weights=sum(layer.weights for layer in layers),
        macs=sum(layer.macs for layer in layers),
        op_by_op_memory=max(operations),
        block_memory=max(blocks),
        op_by_op_traffic=sum(operations),
        block_traffic=sum(blocks),
    )


def _count_layer(node: Node, shapes: dict[str, Shape]) -> LayerCount:
    output = shapes[node.name]
    return LayerCount(
        node.name,
        node.block,
        node.operation,
        node.kind.text(node),
        tuple(kernel for kernel, _ in node.windows),
        tuple(dilation for _, dilation in node.windows),
        node.attributes.get("stride"),
        shapes[node.inputs[0]],
        output,
        node.parameter_count,
        node.weight_count,
        node.macs(output),
        _values(node.inputs, shapes) + prod(output),
    )


def _block_memory(nodes: list[Node], shapes: dict[str, Shape]) -> int:
    inside = {node.name for node in nodes}
    outer_inputs = {name for node in nodes for name in node.inputs} - inside
    return _values(outer_inputs, shapes) + prod(shapes[nodes[-1].name])


def _values(names: Iterable[str], shapes: dict[str, Shape]) -> int:
    return sum(prod(shapes[name]) for name in names)


def materialised_bytes(size: int, channels: int, bytes_per_value: int = 2) -> int:
    """Bytes of a square tensor between two blocks: an entry of 1801.04381, Table 3 (16-bit values)."""
    return size * size * channels * bytes_per_value

"""A graph as launches on a CUDA device: which kernels, on which tensors, with which weights.

Like `plan`, a place where graphs and kernels meet. Weights do not depend on the size of the image
(:func:`packed_weights`); the launches do (:func:`lower`), since kernels choose their grids by the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from npmobilenet.errors import NpmobilenetError
from npmobilenet.graph import Graph, Node, Shape
from npmobilenet.kernels.cuda import (
    activation,
    convolution,
    depthwise,
    inverted_residual,
    linear,
    mixed,
    pointwise,
    pooling,
    squeeze_excite,
)
from npmobilenet.kernels.cuda.launch import Launch
from npmobilenet.passes import kernel_arguments

_PREPARE: dict[str, Callable[..., Launch]] = {
    "conv2d": convolution.prepare_conv2d,
    "depthwise_conv2d": depthwise.prepare_depthwise_conv2d,
    "mixed_depthwise_conv2d": mixed.prepare_mixed_depthwise_conv2d,
    "linear": linear.prepare_linear,
}


class UnsupportedGraphError(NpmobilenetError):
    """There is no CUDA kernel for an operation of this graph."""


def packed_weights(graph: Graph, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights of a fused graph as launches take them: flat, by ``"node:argument"``."""
    packed = {
        f"{node.name}:{name}": mixed.pack_weights(array) if isinstance(array, list) else array
        for node in graph
        for name, array in kernel_arguments(node, weights).items()
    }
    return {name: np.ravel(array) for name, array in packed.items()}


@dataclass(frozen=True)
class Step:
    """One launch.

    Attributes
    ----------
    output : str
        The tensor that it writes: a node's name, or ``"node/part"``.
    launch : Launch
    operands : tuple of str
        Its arrays in the launch's order: tensors, ``output`` among them, and weights, whose names have a colon.
    """

    output: str
    launch: Launch
    operands: tuple[str, ...]

    @property
    def tensors(self) -> list[str]:
        """The tensors that it reads and the one that it writes."""
        return [name for name in self.operands if ":" not in name]


def lower(
    graph: Graph, shapes: Mapping[str, Shape], dtype: np.dtype, fused: bool = True
) -> tuple[list[Step], dict[str, Shape]]:
    """Return the launches of a fused graph, in order, and the shapes of all tensors.

    Parameters
    ----------
    shapes : mapping of str to shape
        ``(N, H, W, C)`` or ``(N, C)`` of ``"input"`` and of every node's output.
    dtype : float32 or float16
        Of all that is stored.
    fused : bool
        Whether an inverted residual becomes one launch where that pays. Without, every layer can be seen.

    Raises
    ------
    UnsupportedGraphError
        If there is no kernel for an operation.
    """
    lowering = _Lowering(graph, shapes, dtype)
    return list(lowering.steps(fused)), lowering.shapes


class _Lowering:
    """The launches of one graph; a method for each operation, of the operation's name."""

    def __init__(self, graph: Graph, shapes: Mapping[str, Shape], dtype: np.dtype) -> None:
        self.nodes, self.shapes, self.dtype = graph.nodes, dict(shapes), dtype
        self.readers: dict[str, list[Node]] = {node.name: [] for node in graph} | {"input": []}
        for node in graph:
            for name in node.inputs:
                self.readers[name].append(node)
        self.unscaled: dict[str, tuple[str, str]] = {}  # tensors that are never made, only what they are products of

    def steps(self, fused: bool) -> Iterator[Step]:
        nodes = self.nodes
        while nodes:
            block = self.inverted_residual(nodes[:3]) if fused else None
            if block:
                yield block
                nodes = nodes[3:]
                continue
            try:
                lower = getattr(self, nodes[0].operation)
            except AttributeError:
                raise UnsupportedGraphError(
                    f"the backend 'cuda' has no kernel for {nodes[0].name}, {nodes[0].operation}; backend='auto' has"
                ) from None
            yield from lower(nodes[0])
            nodes = nodes[1:]

    def weighted(self, node: Node) -> Iterator[Step]:
        (source,), kind = node.inputs, node.kind
        shape = self.shapes[source]
        weight_shape, options = kind.weight_shape(node, shape[-1]), kind.keywords(node)
        launch = _PREPARE[node.operation](shape, weight_shape, **options, dtype=self.dtype)
        yield Step(node.name, launch, (source, *_weights(node), node.name))

    conv2d = depthwise_conv2d = mixed_depthwise_conv2d = linear = weighted

    def pointwise_conv2d(self, node: Node) -> Iterator[Step]:
        source, *residual = node.inputs
        source, *scale = self.unscaled.get(source, (source,))
        shape = self.shapes[source]
        launch = pointwise.prepare_pointwise_conv2d(
            shape,
            node.kind.weight_shape(node, shape[-1]),
            **node.kind.keywords(node),
            residual=bool(residual),
            scale=bool(scale),
            dtype=self.dtype,
        )
        yield Step(node.name, launch, (source, *_weights(node), node.name, *residual, *scale))

    def squeeze_excite(self, node: Node) -> Iterator[Step]:
        """Means, then scales; a convolution that alone reads the product computes it as it loads."""
        (source,) = node.inputs
        n, *_, channels = shape = self.shapes[source]
        means, scales = f"{node.name}/means", f"{node.name}/scales"
        self.shapes |= {means: (n, channels), scales: (n, channels)}
        yield self.pool(source, means)
        gate = squeeze_excite.prepare_gate(n, channels, node["reduced"], **node.kind.keywords(node), dtype=self.dtype)
        yield Step(scales, gate, (means, *_weights(node), scales))
        readers = self.readers[node.name]
        if [(reader.operation, reader.inputs[0]) for reader in readers] == [("pointwise_conv2d", node.name)]:
            self.unscaled[node.name] = source, scales
        else:
            scale = squeeze_excite.prepare_scale(shape, dtype=self.dtype)
            yield Step(node.name, scale, (source, scales, node.name))

    def global_average_pool(self, node: Node) -> Iterator[Step]:
        yield self.pool(node.inputs[0], node.name, **node.kind.keywords(node))

    def pool(self, source: str, output: str, **options: bool) -> Step:
        launch = pooling.prepare_global_average_pool(self.shapes[source], **options, dtype=self.dtype)
        return Step(output, launch, (source, output))

    def activation(self, node: Node) -> Iterator[Step]:
        (source,) = node.inputs
        launch = activation.prepare_map(self.shapes[source], node["function"], dtype=self.dtype)
        yield Step(node.name, launch, (source, node.name))

    def add(self, node: Node) -> Iterator[Step]:
        launch = activation.prepare_add(self.shapes[node.name], dtype=self.dtype)
        yield Step(node.name, launch, (*node.inputs, node.name))

    def inverted_residual(self, nodes: tuple[Node, ...]) -> Step | None:
        """One launch for expansion, depthwise convolution and projection, where these are such and it pays."""
        if [node.operation for node in nodes] != ["pointwise_conv2d", "depthwise_conv2d", "pointwise_conv2d"]:
            return None
        expand, depthwise, project = nodes
        source, *residual = expand.inputs[0], *project.inputs[1:]
        if (
            self.readers[expand.name] != [depthwise]
            or self.readers[depthwise.name] != [project]
            or project.inputs[0] != depthwise.name
            or residual not in ([], [source])
            or len(expand.inputs) > 1
            or source in self.unscaled
            or depthwise["dilation"] != (1, 1)
            or (expand["groups"], project["groups"]) != (1, 1)
        ):
            return None
        launch = inverted_residual.prepare_inverted_residual(
            self.shapes[source],
            expand["channels"],
            depthwise["kernel"],
            project["channels"],
            stride=depthwise["stride"],
            padding=depthwise["padding"],
            expand_activation=_activation(expand),
            depthwise_activation=_activation(depthwise),
            project_activation=_activation(project),
            residual=bool(residual),
            dtype=self.dtype,
        )
        weights = (name for node in nodes for name in _weights(node))
        return launch and Step(project.name, launch, (source, *weights, project.name))


def _activation(node: Node) -> str:
    return node.attributes.get("activation", "none")


def _weights(node: Node) -> list[str]:
    """The names of its weights, in the order of the kernels' arguments."""
    return [f"{node.name}:{node.kind.argument(name)}" for name in node.kind.parameters]

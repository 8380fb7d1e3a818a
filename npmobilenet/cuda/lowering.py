"""A graph as launches on a CUDA device: which kernels, on which tensors, with which weights.

Like `plan`, a place where graphs and kernels meet. Weights do not depend on the size of the image
(:func:`packed_weights`); the launches do (:func:`lower`), since kernels choose their grids by the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from npmobilenet.errors import NpmobilenetError
from npmobilenet.graph import Graph, Node, Shape
from npmobilenet.kernels.checks import ACTIVATIONS
from npmobilenet.kernels.cuda import (
    batch_norm,
    channels,
    conv_transpose,
    convolution,
    depthwise,
    elementwise,
    inverted_residual,
    linear,
    mixed,
    pointwise,
    pooling,
    resize2d,
    squeeze_excite,
)
from npmobilenet.kernels.cuda.launch import Launch
from npmobilenet.passes import kernel_arguments

# By the kernel's name. All take a node's keywords; the first ones also the shapes of the input and of the weight, ...
_WEIGHTED: dict[str, Callable[..., Launch]] = {
    "conv2d": convolution.prepare_conv2d,
    "depthwise_conv2d": depthwise.prepare_depthwise_conv2d,
    "mixed_depthwise_conv2d": mixed.prepare_mixed_depthwise_conv2d,
    "conv_transpose2d": conv_transpose.prepare_conv_transpose2d,
    "linear": linear.prepare_linear,
}
# ... and these the shapes of what the node reads.
_OTHERS: dict[str, Callable[..., Launch]] = {
    "batch_norm": batch_norm.prepare_batch_norm,
    "global_average_pool": pooling.prepare_global_average_pool,
    "global_max_pool": pooling.prepare_global_max_pool,
    "max_pool2d": pooling.prepare_max_pool2d,
    "average_pool2d": pooling.prepare_average_pool2d,
    "channel_pad": channels.prepare_channel_pad,
    "flatten": channels.prepare_flatten,
    "softmax": linear.prepare_softmax,
    "leaky_relu": elementwise.prepare_leaky_relu,
    "elu": elementwise.prepare_elu,
    "tanh": elementwise.prepare_tanh,
    "broadcast_add": elementwise.prepare_broadcast_add,
    "multiply": elementwise.prepare_multiply,
    **{name: partial(elementwise.prepare_map, activation=name) for name in ACTIVATIONS},
}


class UnsupportedGraphError(NpmobilenetError):
    """There is no CUDA kernel for an operation of this graph."""


def packed_weights(graph: Graph, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights of a fused graph as launches take them: flat, by ``"node:argument"``."""
    packed = {}
    for node in graph:
        arrays = kernel_arguments(node, weights)
        if "bias" in node.kind.parameters and "bias" not in arrays:
            arrays["bias"] = np.zeros(node["channels"])
        for name, array in arrays.items():
            packed[f"{node.name}:{name}"] = np.ravel(mixed.pack_weights(array) if isinstance(array, list) else array)
    return packed


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
    graph: Graph, shapes: Mapping[str, Shape], dtype: np.dtype, fused: bool = True, network: Graph | None = None
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
    network : Graph, optional
        Of which the graph is the part that computes some outputs. Which layers are computed together depends on the
        whole, so that an output has the same bits whatever else is asked for.

    Raises
    ------
    UnsupportedGraphError
        If there is no kernel for an operation.
    """
    lowering = _Lowering(graph, shapes, dtype, network or graph, fused)
    return list(lowering.steps()), lowering.shapes


class _Lowering:
    """The launches of one graph; a method for each operation that takes more than a line of the tables above."""

    def __init__(self, graph: Graph, shapes: Mapping[str, Shape], dtype: np.dtype, network: Graph, fused: bool) -> None:
        self.graph, self.shapes, self.dtype = graph, dict(shapes), dtype
        self.nodes = {node.name: node for node in network}
        self.wanted = set(graph.output_nodes.values())
        # Who reads a tensor; None is the caller, of what the network itself gives.
        self.readers: dict[str, list[Node | None]] = {name: [] for name in ("input", *self.nodes)}
        for node in network:
            for name in node.inputs:
                self.readers[name].append(node)
        for name in network.outputs.values():
            self.readers[name].append(None)
        # Tensors that a convolution computes as it loads them, and what they are products of.
        self.unscaled = {
            node.name: (node.inputs[0], f"{node.name}/scales")
            for node in network
            if node.operation == "squeeze_excite" and self._only_scales(node.name)
        }
        blocks = {node.name: self.inverted_residual(node) for node in graph} if fused else {}
        self.blocks = {name: block for name, block in blocks.items() if block}

    def _only_scales(self, name: str) -> bool:
        """Whether one pointwise convolution reads it, and nobody else."""
        readers = [reader for reader in self.readers[name] if reader]
        return [(reader.operation, reader.inputs[0]) for reader in readers] == [("pointwise_conv2d", name)]

    def steps(self) -> Iterator[Step]:
        needed = set(self.wanted)  # what is inside a block that is one launch, only where it is an output
        for node in reversed(self.graph.nodes):
            if node.name in needed:
                needed.update(self.blocks[node.name].operands[:1] if node.name in self.blocks else node.inputs)
        for node in self.graph:
            if node.name in self.blocks:
                yield self.blocks[node.name]
            elif node.name in needed:
                yield from self.lowered(node)

    def lowered(self, node: Node) -> Iterator[Step]:
        kernel = node.kind.kernel(node)
        if kernel in _WEIGHTED:
            (shape,) = (self.shapes[name] for name in node.inputs)
            yield self.step(node, _WEIGHTED[kernel], shape, node.kind.weight_shape(node, shape[-1]))
        elif kernel in _OTHERS:
            yield self.step(node, _OTHERS[kernel], *(self.shapes[name] for name in node.inputs))
        elif hasattr(self, node.operation):
            yield from getattr(self, node.operation)(node)
        else:
            raise UnsupportedGraphError(
                f"the backend 'cuda' has no kernel for {node.name}, {kernel}; backend='auto' has"
            )

    def step(self, node: Node, prepare: Callable[..., Launch], *shapes: Shape) -> Step:
        """One launch for a node, of a kernel that is prepared for these shapes."""
        launch = prepare(*shapes, **node.kind.keywords(node), dtype=self.dtype)
        return Step(node.name, launch, (*node.inputs, *_weights(node), node.name))

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
        yield Step(means, pooling.prepare_global_average_pool(shape, dtype=self.dtype), (source, means))
        gate = squeeze_excite.prepare_gate(n, channels, node["reduced"], **node.kind.keywords(node), dtype=self.dtype)
        yield Step(scales, gate, (means, *_weights(node), scales))
        if node.name not in self.unscaled or node.name in self.wanted:
            scale = elementwise.prepare_multiply(shape, (n, channels), dtype=self.dtype)
            yield Step(node.name, scale, (source, scales, node.name))

    def add(self, node: Node) -> Iterator[Step]:
        yield self.step(node, elementwise.prepare_add, self.shapes[node.name])

    def prelu(self, node: Node) -> Iterator[Step]:
        channels, *image = node.parameters["weight"]
        yield self.step(node, elementwise.prepare_prelu, self.shapes[node.name], (*image, channels))

    def resize2d(self, node: Node) -> Iterator[Step]:
        source, *like = node.inputs
        options = node.kind.keywords(node)
        if like:
            options["size"] = self.shapes[like[0]][1:3]
        launch = resize2d.prepare_resize2d(self.shapes[source], **options, dtype=self.dtype)
        yield Step(node.name, launch, (source, node.name))

    def concat(self, node: Node) -> Iterator[Step]:
        launches = channels.prepare_concat([self.shapes[name] for name in node.inputs], dtype=self.dtype)
        for name, launch in zip(node.inputs, launches, strict=True):
            yield Step(node.name, launch, (name, node.name))

    def inverted_residual(self, project: Node) -> Step | None:
        """One launch for expansion, depthwise convolution and projection, where these are such and it pays."""
        depthwise = self.nodes.get(project.inputs[0])
        expand = depthwise and self.nodes.get(depthwise.inputs[0])
        nodes = (expand, depthwise, project)
        if [node and node.operation for node in nodes] != ["pointwise_conv2d", "depthwise_conv2d", "pointwise_conv2d"]:
            return None
        source, *residual = expand.inputs[0], *project.inputs[1:]
        if (
            self.readers[expand.name] != [depthwise]
            or self.readers[depthwise.name] != [project]
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

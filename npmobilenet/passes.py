"""Graph to graph: what can be computed together becomes one node.

Batch norm, activation and residual add disappear into the convolution before them. The structure changes in
:func:`fuse`; the numbers follow in :func:`folded_parameters`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from npmobilenet.graph import INPUT, Graph, Node
from npmobilenet.kernels.checks import ACTIVATIONS


def fuse(graph: Graph) -> Graph:
    """Merge each batch norm, activation and residual add into the convolution before it, where it may go.

    A convolution gains the attributes ``norm`` (the batch norm node), ``activation`` (its name) and
    ``residual`` (true if its second input is added to its result, after the activation); a linear layer only
    ``activation``. What is an output of the graph stays one.
    """
    readers = Counter([*(name for node in graph for name in node.inputs), *graph.output_nodes.values()])
    nodes: dict[str, Node] = {}  # the fused graph so far, in order of execution
    gives = {INPUT: INPUT}  # which of its nodes gives the output of an original node
    merged: dict[str, str] = {}  # which original node is the last that a node took in
    for node in graph:
        inputs = tuple(gives[name] for name in node.inputs)
        into = nodes.get(inputs[0])
        if into and readers[node.inputs[0]] == 1 and _may_take(into, node) and _ready(nodes, into, inputs[1:]):
            nodes[into.name] = _merged(into, node, inputs)
            gives[node.name], merged[into.name] = into.name, node.name
        else:
            nodes[node.name] = replace(node, inputs=inputs)
            gives[node.name] = node.name
    outputs = {output: gives[name] for output, name in graph.output_nodes.items()}
    last = {original: name for name, original in merged.items()}
    return replace(graph, nodes=tuple(nodes.values()), outputs=outputs, merged={**graph.merged, **last})


_ENDS = {"batch_norm": "norm", "activation": "activation", "add": "residual"}


def _may_take(into: Node, node: Node) -> bool:
    """Each end of a layer once, in the order that its operation has, and of activations those that kernels end with."""
    ends, end = into.kind.ends, _ENDS.get(node.operation)
    if end == "activation" and node["function"] not in ACTIVATIONS:
        return False
    return end in ends and not any(later in into.attributes for later in ends[ends.index(end) :])


def _ready(nodes: Mapping[str, Node], into: Node, others: tuple[str, ...]) -> bool:
    """Whether the other inputs are computed before ``into`` is."""
    before = [INPUT, *nodes]
    return all(before.index(name) < before.index(into.name) for name in others)


def _merged(into: Node, node: Node, inputs: tuple[str, ...]) -> Node:
    if node.operation == "batch_norm":
        return into.with_attributes(norm=node)
    if node.operation == "activation":
        return into.with_attributes(activation=node["function"])
    return replace(into.with_attributes(residual=True), inputs=(*into.inputs, *inputs[1:]))


def folded_parameters(
    node: Node, weights: Mapping[str, np.ndarray], dtype: type = np.float64
) -> tuple[np.ndarray | list[np.ndarray], np.ndarray]:
    """Return ``(weight, bias)`` of a convolution or linear node with its batch norm folded in.

    Batch norm computes ``(y - mean) / sqrt(variance + eps) * gamma + beta``; with ``y = w x + b`` that is
    again a convolution, of weight ``w * s`` and bias ``beta + (b - mean) * s``, where
    ``s = gamma / sqrt(variance + eps)`` (1502.03167, section 3.1). Computed in float64, to be rounded once.

    Returns
    -------
    weight : array of ``dtype``, or list of them
        In PyTorch's layout, C_out first. A mixed convolution has an array (C_part, 1, K_h, K_w) for each part; the
        groups of a pointwise convolution make one array (C_out, C_in / G, 1, 1).
    bias : float64 array (C_out,)
    """
    parts = [weights[f"{node.name}.{name}"] for name in node.parameters if name.endswith("weight")]
    biases = [weights[f"{node.name}.{name}"].astype(np.float64) for name in node.parameters if name.endswith("bias")]
    bias = np.concatenate(biases) if biases else np.zeros(sum(map(len, parts)))
    norm = node.attributes.get("norm")
    if norm:
        scale = norm_scale(norm, weights)
        beta, mean = (weights[f"{norm.name}.{name}"].astype(np.float64) for name in ("bias", "running_mean"))
        scales = np.split(scale, np.cumsum([len(part) for part in parts])[:-1])
        parts = [_scaled(w, s, dtype) for w, s in zip(parts, scales, strict=True)]
        bias = beta + (bias - mean) * scale
    else:
        parts = [part.astype(dtype, copy=False) for part in parts]
    if node.operation == "mixed_depthwise_conv2d":
        return parts, bias
    return parts[0] if len(parts) == 1 else np.concatenate(parts), bias


def without_norms(graph: Graph, weights: Mapping[str, np.ndarray]) -> tuple[Graph, dict[str, np.ndarray]]:
    """Fold batch norms into the layers before them, as :func:`fuse` would; all else stays as it is.

    Returns
    -------
    graph : Graph
    weights : dict of str to array
        Of that graph, and of the norms that are no more.
    """
    layers = {node.name: node for node in fuse(graph) if node.attributes.get("norm")}
    gone = {node["norm"].name: node.name for node in layers.values()}
    nodes, folded = [], dict(weights)
    for node in graph:
        if node.name in gone:
            continue
        if node.name in layers:
            names = [name for name in node.parameters if name.endswith("weight")]
            kernels, bias = folded_parameters(layers[node.name], weights)
            ends = np.cumsum([node.parameters[name][0] for name in names])[:-1]
            kernels = kernels if isinstance(kernels, list) else np.split(kernels, ends)
            shapes = dict(node.parameters)
            for name, kernel, part in zip(names, kernels, np.split(bias, ends), strict=True):
                for parameter, array in ((name, kernel), (f"{name.removesuffix('weight')}bias", part)):
                    folded[f"{node.name}.{parameter}"] = array.astype(np.float32)
                    shapes[parameter] = array.shape
            node = replace(node, parameters=shapes)
        nodes.append(replace(node, inputs=tuple(gone.get(name, name) for name in node.inputs)))
    outputs = {output: gone.get(name, name) for output, name in graph.output_nodes.items()}
    return replace(graph, nodes=tuple(nodes), outputs=outputs), folded


def norm_scale(norm: Node, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return by what a batch norm multiplies each channel, in float64."""
    gamma, variance = (weights[f"{norm.name}.{name}"].astype(np.float64) for name in ("weight", "running_var"))
    return gamma / np.sqrt(variance + norm["eps"])


def _scaled(weight: np.ndarray, scale: np.ndarray, dtype: type) -> np.ndarray:
    """Return the products with a factor of each output channel, computed in float64 and rounded once."""
    products = np.empty(weight.shape, dtype)
    return np.multiply(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)), out=products, casting="same_kind")


def kernel_arguments(node: Node, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray | list[np.ndarray]]:
    """Return a node's parameters as kernels take them, by the names and in the axes that these have; a norm folded in.

    A list has an array for each part of a mixed convolution.
    """
    if node.kind.ends:
        arrays = dict(zip(("weight", "bias"), folded_parameters(node, weights), strict=True))
    else:
        arrays = {
            name: weights[f"{node.name}.{name}"] for name in node.parameters if name not in node.kind.unread(node)
        }
    return node.kind.arguments(arrays)

"""Graph to graph: what can be computed together becomes one node.

Batch norm, activation and residual add disappear into the convolution before them. The structure changes in
:func:`fuse`; the numbers follow in :func:`folded_parameters`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from npmobilenet.graph import CONVOLUTIONS, Graph, Node


def fuse(graph: Graph) -> Graph:
    """Merge each batch norm, activation and residual add into the convolution before it, where it may go.

    A convolution gains the attributes ``norm`` (the batch norm node), ``activation`` (its name) and
    ``residual`` (true if its second input is added to its result, after the activation).
    """
    readers = Counter(name for node in graph for name in node.inputs)
    nodes: dict[str, Node] = {}  # the fused graph so far, in order of execution
    gives = {"input": "input"}  # which of its nodes gives the output of an original node
    for node in graph:
        inputs = tuple(gives[name] for name in node.inputs)
        into = nodes.get(inputs[0])
        if into and readers[node.inputs[0]] == 1 and _may_take(into, node) and _ready(nodes, into, inputs[1:]):
            nodes[into.name] = _merged(into, node, inputs)
            gives[node.name] = into.name
        else:
            nodes[node.name] = replace(node, inputs=inputs)
            gives[node.name] = node.name
    return replace(graph, nodes=tuple(nodes.values()))


def _may_take(into: Node, node: Node) -> bool:
    """A convolution does, in this order: multiply-adds, batch norm, activation, residual add; each once."""
    done = into.attributes
    if into.operation not in CONVOLUTIONS or done.get("residual"):
        return False
    if node.operation == "batch_norm":
        return "norm" not in done and "activation" not in done
    if node.operation == "activation":
        return "activation" not in done
    return node.operation == "add" and into.operation == "pointwise_conv2d"


def _ready(nodes: Mapping[str, Node], into: Node, others: tuple[str, ...]) -> bool:
    """Whether the other inputs are computed before ``into`` is."""
    before = ["input", *nodes]
    return all(before.index(name) < before.index(into.name) for name in others)


def _merged(into: Node, node: Node, inputs: tuple[str, ...]) -> Node:
    if node.operation == "batch_norm":
        return into.with_attributes(norm=node)
    if node.operation == "activation":
        return into.with_attributes(activation=node["function"])
    return replace(into.with_attributes(residual=True), inputs=(*into.inputs, *inputs[1:]))


def folded_parameters(node: Node, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(weight, bias)`` of a convolution or linear node with its batch norm folded in.

    Batch norm computes ``(y - mean) / sqrt(variance + eps) * gamma + beta``; with ``y = w x + b`` that is
    again a convolution, of weight ``w * s`` and bias ``beta + (b - mean) * s``, where
    ``s = gamma / sqrt(variance + eps)`` (1502.03167, section 3.1). Computed in float64, to be rounded once.

    Returns
    -------
    weight : float64 array of the node's weight shape (C_out first)
    bias : float64 array (C_out,)
    """
    weight = weights[f"{node.name}.weight"].astype(np.float64)
    bias = np.zeros(len(weight))
    if "bias" in node.parameters:
        bias = weights[f"{node.name}.bias"].astype(np.float64)
    norm = node.attributes.get("norm")
    if norm is None:
        return weight, bias
    gamma, beta, mean, variance = (
        weights[f"{norm.name}.{name}"].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + norm["eps"])
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), beta + (bias - mean) * scale

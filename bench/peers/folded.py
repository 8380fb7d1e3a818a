"""A network as the exporters see it: few kinds of layers, batch norms folded, all numbers resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from npmobilenet.geometry import Pads, Pair, resolve_padding
from npmobilenet.graph import CONVOLUTIONS, Graph
from npmobilenet.passes import folded_parameters, fuse

KINDS = {**dict.fromkeys(CONVOLUTIONS, "convolution"), "global_average_pool": "pool", "linear": "linear"}


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes
    ----------
    name : str
    kind : {"convolution", "pool", "linear"}
    input : str
        The layer it reads, or ``"input"``.
    residual : str or None
        The layer whose output is added last, after the activation.
    activation : {"relu", "relu6"} or None
    weight, bias : float32 array or None
        In PyTorch's layout.
    stride, dilation, pads, groups
        Of a convolution.
    """

    name: str
    kind: str
    input: str
    residual: str | None = None
    activation: str | None = None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    groups: int = 1


def folded_layers(graph: Graph, weights: Mapping[str, np.ndarray], size: Pair) -> list[Layer]:
    """Return the layers of a graph for images of ``(H, W)``, in the order of execution.

    Raises
    ------
    ValueError
        If there is an operation that is not a layer of a MobileNet, alone or fused.
    """
    fused = fuse(graph)
    shapes = fused.shapes(size)
    layers = []
    for node in fused:
        activation = node.attributes.get("activation")
        if node.operation not in KINDS or activation not in (None, "relu", "relu6"):
            raise ValueError(f"cannot be exported: {node.name}, {node.operation}, activation {activation}")
        values = {}
        if node.parameters:
            weight, bias = folded_parameters(node, weights)
            values = {"weight": np.ascontiguousarray(weight, np.float32), "bias": bias.astype(np.float32)}
        if node.operation in CONVOLUTIONS:
            window = {name: node[name] for name in ("stride", "dilation")}
            pads = resolve_padding(node["padding"], shapes[node.inputs[0]][1:], node["kernel"], **window)
            values |= window | {"pads": pads, "groups": node["groups"], "activation": activation}
        residual = node.inputs[1] if node.attributes.get("residual") else None
        layers.append(Layer(node.name, KINDS[node.operation], node.inputs[0], residual, **values))
    return layers

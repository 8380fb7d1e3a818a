"""A graph for the blocked CPU kernels: what they can compute, and its weights as they read them.

Like `npmobilenet.plan`, a place where graphs and kernels meet. What depends on the image size is in `blocked.plan`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from npmobilenet.blocked.plan import BlockedPlan
from npmobilenet.graph import WINDOWED, Graph, Node
from npmobilenet.kernels.blocked import depthwise, library, linear, mixed, pointwise, squeeze_excite, stem
from npmobilenet.kernels.blocked.activation import CLAMPS, ZERO_PRESERVING
from npmobilenet.kernels.blocked.layout import Packed, gathered
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.vector.target import Target, host
from npmobilenet.machine import numba_is_on
from npmobilenet.passes import folded_parameters, fuse


class UnsupportedGraphError(Exception):
    """The blocked kernels cannot run this graph; the plain ones can."""


class BlockedProgram:
    """A graph lowered for the blocked kernels, for images of any size.

    Parameters
    ----------
    graph : Graph
        As the architecture builds it; fused here.
    weights : mapping of str to float32 array
        By the graph's parameter names, in PyTorch's layout.
    target : Target, optional
        The CPU; this machine's if None.

    Raises
    ------
    UnsupportedGraphError
        If there is an operation that these kernels do not compute.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray], target: Target | None = None) -> None:
        self.graph = fuse(graph)
        self.target = target or host()
        self._check()
        packed = {node.name: self._pack(node, weights) for node in self.graph if node.parameters}
        self.weights = dict(zip(packed, gathered(packed.values()), strict=True))  # in the order of execution

    def _check(self) -> None:
        if not numba_is_on():
            raise UnsupportedGraphError("Numba is switched off")
        readers = Counter(name for node in self.graph for name in node.inputs)
        for number, node in enumerate(self.graph):
            problem = self._problem(node, number, readers)
            if problem:
                raise UnsupportedGraphError(f"{node.name}: {problem}")

    def _problem(self, node: Node, number: int, readers: Mapping[str, int]) -> str | None:
        """What these kernels cannot compute."""
        if "input" in node.inputs and (number or node.operation != "conv2d"):
            return f"{node.operation} of the image"
        function = node.attributes.get("activation", "none")
        if node.operation in WINDOWED:
            if function not in (*CLAMPS, *ZERO_PRESERVING):
                return f"a convolution with the activation {function}"
            if function not in CLAMPS and node.attributes.get("residual"):
                return f"the activation {function} before a residual add"
            if node.operation == "conv2d" and (number or (node["kernel"], node["stride"]) != library.STEM_WINDOW):
                return "a dense convolution that is not the stem"
        elif node.operation == "squeeze_excite":
            if readers[node.inputs[0]] != 1:
                return "squeeze-and-excitation of a tensor that is needed unscaled"
        elif node.operation not in ("global_average_pool", "linear"):
            return node.operation
        return None

    def _pack(self, node: Node, weights: Mapping[str, np.ndarray]) -> Packed:
        if node.operation == "squeeze_excite":
            names = ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
            return squeeze_excite.pack(self.target, *(weights[f"{node.name}.{name}"].T for name in names))
        weight, bias = folded_parameters(node, weights)
        if node.operation == "linear":
            return linear.pack(self.target, weight.T, bias)
        if node.operation == "mixed_depthwise_conv2d":
            parts = [part[:, 0].transpose(1, 2, 0) for part in weight]
            return mixed.pack(self.target, parts, bias, node["stride"], node["dilations"])
        if node.operation == "depthwise_conv2d":
            window = weight[:, 0].transpose(1, 2, 0)
            return depthwise.pack(self.target, window, bias, node["stride"], node["dilation"])
        if node.operation == "pointwise_conv2d":
            return pointwise.pack(self.target, weight[:, :, 0, 0].T, bias, node["groups"])
        return stem.pack(self.target, weight.transpose(2, 3, 1, 0), bias, node["stride"])

    def plan(
        self,
        size: Pair,
        output: str | None = None,
        threads: int = 1,
        fused: bool = True,
        split: int | None = None,
    ) -> BlockedPlan:
        """Return the plan for images of ``(H, W)`` that computes a block's or node's output, or the logits.

        Without ``fused`` every layer is a call of its own: slower, but each can be seen. With ``split`` the channels
        that a block expands are computed in that many parts (1801.04381, section 5.1), not as is best here.
        """
        graph = self.graph if output is None else self.graph.up_to(output)
        return BlockedPlan(graph, self.weights, self.target, size, threads, fused, split)

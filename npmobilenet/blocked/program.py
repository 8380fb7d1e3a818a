"""A graph for the blocked CPU kernels: what they can compute, and its weights as they read them.

Like `npmobilenet.plan`, a place where graphs and kernels meet. What depends on the image size is in `blocked.plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from npmobilenet.blocked import int8
from npmobilenet.blocked.calls import BETWEEN, is_stem
from npmobilenet.blocked.plan import BlockedPlan
from npmobilenet.graph import INPUT, WINDOWED, Graph, Node
from npmobilenet.kernels import blocked
from npmobilenet.kernels.blocked import depthwise, elementwise, linear, pointwise, stem
from npmobilenet.kernels.blocked.layout import Packed, gathered
from npmobilenet.kernels.geometry import Pair, resolve_padding
from npmobilenet.kernels.vector.target import Target, host
from npmobilenet.machine import numba_is_on
from npmobilenet.passes import folded_parameters, fuse, kernel_arguments
from npmobilenet.plan import Code, lower

WITHOUT_WEIGHTS = ("global_average_pool", "global_max_pool", "max_pool2d", "average_pool2d", "resize2d")


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
    strict : bool
        Whether to raise an error where plain kernels would have to compute a layer.

    Attributes
    ----------
    problems : dict of str to str
        The nodes that plain kernels compute, and why these do not.

    Raises
    ------
    UnsupportedGraphError
        If there are such nodes and it is to be strict, or if there are no others.
    """

    def __init__(
        self, graph: Graph, weights: Mapping[str, np.ndarray], target: Target | None = None, strict: bool = True
    ) -> None:
        if not numba_is_on():
            raise UnsupportedGraphError("Numba is switched off")
        self.graph = fuse(graph)
        self.target = target or host()
        self.problems = problems(self.graph)
        if self.problems and (strict or len(self.problems) == len(self.graph.nodes)):
            raise UnsupportedGraphError(*(f"{name}: {problem}" for name, problem in list(self.problems.items())[:1]))
        self.plain = {node.name: lower(node, weights, "plain") for node in self.graph if node.name in self.problems}
        self.codes = {node.name: Code.of(node, weights) for node in self.graph if Code.is_result_of(node)}
        fast = [node for node in self.graph if node.parameters and node.name not in self.plain]
        packed = {node.name: self._pack(node, weights) for node in fast}
        self.weights = dict(zip(packed, gathered(packed.values()), strict=True))  # in the order of execution

    @staticmethod
    def _problem(node: Node, first: Node) -> str | None:
        """What these kernels cannot compute."""
        read = node.inputs[:1] if node.operation == "resize2d" else node.inputs  # of another one only the size
        of_16_bits = node is not first and any(map(int8.is_int8, (node, first)))  # one alone makes these of the image
        if INPUT in read and (of_16_bits or not is_stem(node)):
            return f"{node.operation} of the image"
        if int8.is_int8(node):
            return int8.problem(node)
        operation = node.kind.kernel(node)
        if operation not in (*WINDOWED, *WITHOUT_WEIGHTS, "conv_transpose2d", "squeeze_excite", "linear", *BETWEEN):
            return operation
        if is_stem(node) and (node["dilation"] != (1, 1) or node["groups"] != 1):
            return "a convolution of the image with dilation or groups"
        if is_stem(node) and prod(node["kernel"]) > stem.MOST_TAPS:
            return f"a convolution of the image with more than {stem.MOST_TAPS} taps"
        return None

    def _pack(self, node: Node, weights: Mapping[str, np.ndarray]) -> Packed:
        if int8.is_int8(node):
            return int8.pack(self.target, node, weights)
        if node.operation == "squeeze_excite":
            return blocked.squeeze_excite.pack(self.target, **kernel_arguments(node, weights))
        if node.operation in elementwise.OPERATIONS:
            return elementwise.pack(
                self.target, node.operation, **kernel_arguments(node, weights), **node.kind.keywords(node)
            )
        if node.operation == "conv_transpose2d":
            pads = resolve_padding(node["padding"], (1, 1), node["kernel"])  # numbers, whatever the size
            return blocked.conv_transpose.pack(
                self.target, **kernel_arguments(node, weights), stride=node["stride"], pads=pads
            )
        weight, bias = folded_parameters(node, weights, np.float32)
        if node.operation == "linear":
            return linear.pack(self.target, weight.T, bias)
        if node.operation == "mixed_depthwise_conv2d":
            parts = [part[:, 0].transpose(1, 2, 0) for part in weight]
            return blocked.mixed.pack(self.target, parts, bias, node["stride"], node["dilations"])
        if node.operation == "depthwise_conv2d":
            window = weight[:, 0].transpose(1, 2, 0)
            return depthwise.pack(self.target, window, bias, node["stride"], node["dilation"])
        if node.operation == "pointwise_conv2d":
            return pointwise.pack(self.target, weight[:, :, 0, 0].T, bias, node["groups"])
        weight = weight.transpose(2, 3, 1, 0)
        if is_stem(node):
            return stem.pack(self.target, weight, bias, node["stride"])
        return blocked.convolution.pack(self.target, weight, bias, node["stride"], node["dilation"], node["groups"])

    def plan(
        self,
        size: Pair,
        output: str | tuple[str, ...] | None = None,
        threads: int = 1,
        fused: bool = True,
        split: int | None = None,
    ) -> BlockedPlan:
        """Return the plan for images of ``(H, W)`` that computes one or more outputs (`Graph.node_of`), or the logits.

        Without ``fused`` every layer is a call of its own: slower, but each can be seen. With ``split`` the channels
        that a block expands are computed in that many parts (1801.04381, section 5.1), not as is best here.
        """
        output = output or self.graph.main_output
        graph = self.graph.up_to(*([output] if isinstance(output, str) else output))
        return BlockedPlan(graph, self.weights, self.plain, self.codes, self.target, size, threads, fused, split)


def problems(graph: Graph) -> dict[str, str]:
    """Return the nodes of a fused graph that plain kernels have to compute, and why."""
    found = {node.name: BlockedProgram._problem(node, graph.nodes[0]) for node in graph}
    return {name: problem for name, problem in found.items() if problem}

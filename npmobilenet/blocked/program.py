"""A graph for the blocked CPU kernels: what they can compute, and its weights as they read them.

Like `npmobilenet.plan`, a place where graphs and kernels meet. What depends on the image size is in `blocked.plan`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from npmobilenet.blocked.plan import BlockedPlan
from npmobilenet.graph import WINDOWED, Graph, Node
from npmobilenet.kernels.blocked import activation, library, linear, mixed
from npmobilenet.kernels.blocked.layout import (
    CLAMPS,
    aligned,
    pack_channels,
    pack_grouped,
    pack_pointwise,
    pack_stem,
)
from npmobilenet.kernels.geometry import Pads, Pair
from npmobilenet.kernels.simd import Target, host
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
        self.panel_inputs: dict[str, np.ndarray] = {}  # of grouped pointwise convolutions
        self.mixed_weights: dict[str, list[np.ndarray]] = {}
        self._mixed: dict[tuple, tuple[np.ndarray, int, list[np.ndarray]]] = {}
        packed = {node.name: self._pack(node, weights) for node in self.graph if node.parameters}
        # One arena in the order of execution, so that weights stream.
        sizes = [array.size for arrays in packed.values() for array in arrays]
        self.weights = aligned(sum(-(-size // 16) * 16 for size in sizes))
        self.addresses: dict[str, tuple[int, ...]] = {}
        start = 0
        for name, arrays in packed.items():
            places = []
            for array in arrays:
                self.weights[start : start + array.size] = array
                places.append(self.weights.ctypes.data + 4 * start)
                start += -(-array.size // 16) * 16
            self.addresses[name] = tuple(places)
        self.clamps = {name: np.array(bounds, np.float32) for name, bounds in CLAMPS.items()}

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
        function = node.attributes.get("activation", "none")
        if node.operation in WINDOWED:
            if function not in (*CLAMPS, *activation.ZERO_PRESERVING):
                return f"a convolution with the activation {function}"
            if function not in CLAMPS and node.attributes.get("residual"):
                return f"the activation {function} before a residual add"
            if node.operation == "conv2d" and (number or (node["kernel"], node["stride"]) != library.STEM_WINDOW):
                return "a dense convolution that is not the stem"
            if node.operation != "conv2d" and node.inputs[0] == "input":
                return f"{node.operation} of the image"
        elif node.operation == "squeeze_excite":
            if readers[node.inputs[0]] != 1:
                return "squeeze-and-excitation of a tensor that is needed unscaled"
        elif node.operation not in ("global_average_pool", "linear"):
            return node.operation
        return None

    def _pack(self, node: Node, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        if node.operation == "squeeze_excite":
            reduce, reduce_bias, expand, expand_bias = (
                weights[f"{node.name}.{name}"].T
                for name in ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
            )
            return *linear.pack_linear(self.target, reduce, reduce_bias), *linear.pack_linear(
                self.target, expand, expand_bias
            )
        weight, bias = folded_parameters(node, weights)
        if node.operation == "linear":
            return linear.pack_linear(self.target, weight.T, bias)
        channels = pack_channels(self.target, bias)
        if node.operation == "mixed_depthwise_conv2d":
            self.mixed_weights[node.name] = [part[:, 0].transpose(1, 2, 0).astype(np.float32) for part in weight]
            return (channels,)
        if node.operation == "depthwise_conv2d":
            return pack_channels(self.target, weight[:, 0].transpose(1, 2, 0)), channels
        if node.operation == "pointwise_conv2d":
            matrix = weight[:, :, 0, 0].T
            if node["groups"] == 1:
                return pack_pointwise(self.target, matrix), channels
            packed, inputs = pack_grouped(self.target, np.split(matrix, node["groups"], axis=1))
            self.panel_inputs[node.name] = np.array([panel.row() for panel in inputs], np.int64)
            return packed, channels
        return pack_stem(self.target, weight.transpose(2, 3, 1, 0)), channels

    def mixed_table(self, node: Node, pads: tuple[Pads, ...]) -> tuple[int, int]:
        """Return the address of the runs of a mixed convolution, and the rows that its widest window reaches over.

        ``pads`` are those of each part: under TensorFlow's padding they depend on the size of the image.
        """
        key = (node.name, pads)
        if key not in self._mixed:
            runs = mixed.runs(self.target, self.mixed_weights[node.name], pads, node["dilations"])
            packed = [run.packed(self.target) for run in runs]
            addresses = [library.blocks_function(run.kernel, node["stride"], self.target) for run in runs]
            table = mixed.table([
                run.row(function, weights.ctypes.data, self.target)
                for run, function, weights in zip(runs, addresses, packed, strict=True)
            ])  # fmt: skip
            self._mixed[key] = table, max(run.reach[0] for run in runs), packed
        table, reach, _ = self._mixed[key]
        return table.ctypes.data, reach

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
        return BlockedPlan(self, graph, size, threads, fused, split)

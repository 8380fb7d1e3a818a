"""Lowering: a graph becomes a list of kernel calls for one backend and one image size.

This is the only place where graphs and kernels meet. Weights are packed once per backend (:class:`Program`);
a plan for a new image size is a matter of milliseconds and compiles nothing. Activations are NHWC and live in
one arena, at offsets planned so that tensors which are never needed at the same time share memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from time import perf_counter
from typing import Any

import numpy as np

from npmobilenet.graph import Graph, Node, Shape
from npmobilenet.idle import Idle
from npmobilenet.kernels import registry
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.registry import Kernel
from npmobilenet.passes import folded_parameters, fuse

ARENA_ALIGNMENT = 16  # values: a cache line of float32, so that no tensor shares one with its neighbour

# PyTorch's weight axes to the kernels' (see kernels/reference.py).
_WEIGHT_LAYOUT = {
    "conv2d": lambda weight: weight.transpose(2, 3, 1, 0),
    "depthwise_conv2d": lambda weight: weight[:, 0].transpose(1, 2, 0),
    "mixed_depthwise_conv2d": lambda parts: [part[:, 0].transpose(1, 2, 0) for part in parts],
    "pointwise_conv2d": lambda weight: weight[:, :, 0, 0].T,
    "linear": lambda weight: weight.T,
}

# What a kernel takes as a keyword, under the name of the node's attribute.
_OPTIONS = {
    "conv2d": ("stride", "padding", "dilation", "groups"),
    "depthwise_conv2d": ("stride", "padding", "dilation"),
    "mixed_depthwise_conv2d": ("stride", "padding"),
    "pointwise_conv2d": ("groups",),
    "squeeze_excite": ("gate",),
}


@dataclass(frozen=True)
class Operation:
    """One fused node with the kernel chosen for it and its packed weights; independent of the image size."""

    node: Node
    kernel: Kernel
    weights: tuple[np.ndarray | list[np.ndarray], ...]
    options: Mapping[str, Any]


class Program:
    """A graph lowered for one backend.

    Parameters
    ----------
    graph : Graph
        As the architecture builds it; fused here.
    weights : mapping of str to float32 array
        By the graph's parameter names, in PyTorch's layout.
    backend : str
        "plain" or "reference"; the latter computes in float64 throughout.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray], backend: str) -> None:
        self.graph = fuse(graph)
        self.dtype = np.float64 if backend == "reference" else np.float32
        self.operations = {node.name: self._lower(node, weights, backend) for node in self.graph}

    def _lower(self, node: Node, weights: Mapping[str, np.ndarray], backend: str) -> Operation:
        operation = node["function"] if node.operation == "activation" else node.operation
        options = {name: node[name] for name in ("activation", *_OPTIONS.get(operation, ())) if name in node.attributes}
        if operation == "mixed_depthwise_conv2d":
            options["dilation"] = list(node["dilations"])
        packed = tuple(self._packed(array) for array in _arrays(node, weights))
        return Operation(node, registry.best(operation, backend, **options), packed, options)

    def _packed(self, array: np.ndarray | list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        if isinstance(array, list):
            return [self._packed(part) for part in array]
        return np.ascontiguousarray(array, self.dtype)

    def plan(self, size: Pair, output: str | None = None, threads: int = 1) -> Plan:
        """Return the plan for images of ``(H, W)`` that computes a block's or node's output, or the logits.

        Raises
        ------
        ValueError
            If the image is too small or there is no block of that name.
        """
        graph = self.graph if output is None else self.graph.up_to(output)
        shapes = {name: (1, *shape[1:], shape[0]) for name, shape in graph.shapes(size).items()}
        steps = [self.operations[node.name] for node in graph]
        return Plan(steps, shapes, *plan_arena(graph, shapes), self.dtype, threads)


def _arrays(node: Node, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray | list[np.ndarray], ...]:
    """A node's weights in the order and the layout that kernels take."""
    if node.operation in _WEIGHT_LAYOUT:
        weight, bias = folded_parameters(node, weights)
        return _WEIGHT_LAYOUT[node.operation](weight), bias
    if node.operation == "squeeze_excite":
        names = ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
        return tuple(weights[f"{node.name}.{name}"].T for name in names)
    return ()


@dataclass
class Plan:
    """Kernel calls in order, and where each tensor of one image lies in the arena.

    Attributes
    ----------
    steps : list of Operation
    shapes : dict of str to shape
        ``(1, H, W, C)`` or ``(1, C)`` of every tensor, by the node that makes it.
    offsets : dict of str to int
        Where it starts in the arena, in values.
    arena_values : int
        Size of the arena.
    """

    steps: list[Operation]
    shapes: dict[str, Shape]
    offsets: dict[str, int]
    arena_values: int
    dtype: type
    threads: int

    def __post_init__(self) -> None:
        self._idle = Idle(self.memory)

    @property
    def output_shape(self) -> Shape:
        """``(C, P, Q)`` or ``(C,)``."""
        shape = self.shapes[self.steps[-1].node.name]
        return (shape[-1], *shape[1:-1])

    @property
    def memory(self) -> int:
        """Bytes of activations while one image is computed."""
        return self.arena_values * np.dtype(self.dtype).itemsize

    def run(self, image: np.ndarray) -> np.ndarray:
        """Compute one image, ``(C, H, W)`` to ``(C, P, Q)`` or ``(C,)``.

        May be called from several Python threads at once: each takes an arena of its own.
        """
        tensors = self._idle.take() or self._new_arena()
        tensors["input"][0] = image.transpose(1, 2, 0)
        for step in self.steps:
            self._compute(step, tensors)
        result = tensors[self.steps[-1].node.name][0]
        result = (result.transpose(2, 0, 1) if result.ndim == 3 else result).copy()
        self._idle.append(tensors)
        return result

    @property
    def groups(self) -> list[tuple[Node, ...]]:
        """The nodes of every call: one each."""
        return [(step.node,) for step in self.steps]

    def time_groups(self) -> dict[str, float]:
        """Compute the last image once more and return the seconds of each call, by its node's name."""
        tensors = self._idle.take() or self._new_arena()
        times = [perf_counter()]
        for step in self.steps:
            self._compute(step, tensors)
            times.append(perf_counter())
        self._idle.append(tensors)
        return {
            step.node.name: after - before for step, (before, after) in zip(self.steps, pairwise(times), strict=True)
        }

    def _compute(self, step: Operation, tensors: Mapping[str, np.ndarray]) -> None:
        source, *residual = (tensors[name] for name in step.node.inputs)
        also = {"residual": residual[0]} if step.node.attributes.get("residual") else {}
        operands = (source,) if also else (source, *residual)
        step.kernel.function(
            *operands,
            *step.weights,
            **also,
            **step.options,
            out=tensors[step.node.name],
            threads=self.threads,
        )

    def _new_arena(self) -> dict[str, np.ndarray]:
        arena = np.empty(self.arena_values, self.dtype)
        return {
            name: arena[self.offsets[name] : self.offsets[name] + prod(shape)].reshape(shape)
            for name, shape in self.shapes.items()
        }


def plan_arena(graph: Graph, shapes: Mapping[str, Shape]) -> tuple[dict[str, int], int]:
    """Give every tensor of a graph an offset in one arena; see :func:`arrange`."""
    lifetimes = {"input": (0, 0)}
    for time, node in enumerate(graph):
        for name in (*node.inputs, node.name):
            lifetimes[name] = (lifetimes.get(name, (time, time))[0], time)
    return arrange(lifetimes, {name: prod(shapes[name]) for name in lifetimes})


def arrange(lifetimes: Mapping[str, Pair], sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Give every tensor an offset such that tensors alive at the same time do not overlap.

    Greedy, the largest tensor first, each at the lowest offset that is free for as long as it lives
    (2001.03288, section 5).

    Parameters
    ----------
    lifetimes : mapping of str to (int, int)
        The first and the last step that needs the tensor.
    sizes : mapping of str to int
        In values.

    Returns
    -------
    offsets : dict of str to int
        In values, multiples of `ARENA_ALIGNMENT`.
    arena_values : int
    """
    offsets: dict[str, int] = {}
    ends: dict[str, int] = {}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        first, last = lifetimes[name]
        size = -(-sizes[name] // ARENA_ALIGNMENT) * ARENA_ALIGNMENT
        offset = 0
        for other in sorted(offsets, key=offsets.__getitem__):
            together = lifetimes[other][0] <= last and first <= lifetimes[other][1]
            if together and offset + size > offsets[other]:
                offset = max(offset, ends[other])
        offsets[name], ends[name] = offset, offset + size
    return offsets, max(ends.values())

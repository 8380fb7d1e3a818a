"""Lowering: a graph becomes a list of kernel calls for one backend and one image size.

This is the only place where graphs and kernels meet. Weights are packed once per backend (:class:`Program`);
a plan for a new image size is a matter of milliseconds and compiles nothing. Activations are NHWC and live in
one arena, at offsets planned so that tensors which are never needed at the same time share memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from npmobilenet.graph import INPUT, Graph, Node, Shape
from npmobilenet.idle import Idle
from npmobilenet.kernels.geometry import Pair
from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.tensor import FLOAT32
from npmobilenet.passes import fuse, kernel_arguments

if TYPE_CHECKING:
    from npmobilenet.kernels.registry import Kernel

ARENA_ALIGNMENT = 16  # values: a cache line of float32, so that no tensor shares one with its neighbour


class Step(NamedTuple):
    """One fused node with the kernel chosen for it; independent of the image size.

    Attributes
    ----------
    node : Node
    kernel : Kernel
    arguments : mapping of str to array or list of them
        Its parameters, by the kernel's names for them.
    options : mapping
        What the kernel takes beside arrays.
    """

    node: Node
    kernel: Kernel
    arguments: Mapping[str, np.ndarray | list[np.ndarray]]
    options: Mapping[str, Any]

    def run(self, tensors: Mapping[str, np.ndarray], threads: int) -> None:
        """Compute it, from tensors to a tensor."""
        operands, out = self.node.kind.operands([tensors[name] for name in self.node.inputs]), tensors[self.node.name]
        given = {**operands, **self.arguments, **self.options, "threads": threads}
        if self.kernel.backend == "reference" and out.dtype == np.float32:  # rounds what is defined in float64
            out[...] = self.kernel.function(**given)
        else:
            self.kernel.function(**given, out=out)


class Code(NamedTuple):
    """What a tensor of uint8 stands for: ``(q - zero_point) * scale``, an entry of both for each channel."""

    scale: np.ndarray
    zero_point: np.ndarray

    @staticmethod
    def is_result_of(node: Node) -> bool:
        """Whether a node's result is of uint8."""
        return node.kind.result_dtype(node) == "uint8"

    @classmethod
    def of(cls, node: Node, weights: Mapping[str, np.ndarray]) -> Code:
        """Return that of a node's result."""
        return cls(weights[f"{node.name}.out_scale"], weights[f"{node.name}.out_zero_point"])

    def real(self, x: np.ndarray) -> np.ndarray:
        """Return the float32 values of (..., C)."""
        return (np.int32(x) - np.int32(self.zero_point)).astype(np.float32) * self.scale


def lower(node: Node, weights: Mapping[str, np.ndarray], backend: str, dtype: type = np.float32) -> Step:
    """Choose a fused node's kernel, and bring its parameters into the axes that it takes."""
    from npmobilenet.kernels import registry  # here: the fastest kernels need no table of all

    def packed(array: np.ndarray | list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        if isinstance(array, list):
            return [packed(part) for part in array]
        return np.ascontiguousarray(array, dtype if array.dtype.kind == "f" else None)

    options = node.kind.keywords(node)
    arguments = {name: packed(array) for name, array in kernel_arguments(node, weights).items()}
    return Step(node, registry.best(node.kind.kernel(node), backend, **options), arguments, options)


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
        # A quantised network is exact in float32, whoever computes it.
        self.dtype = np.float64 if backend == "reference" and not graph.is_quantised else np.float32
        self.codes = {node.name: Code.of(node, weights) for node in self.graph if Code.is_result_of(node)}
        self.steps = {node.name: lower(node, weights, backend, self.dtype) for node in self.graph}

    def plan(self, size: Pair, output: str | tuple[str, ...] | None = None, threads: int = 1) -> Plan:
        """Return the plan for images of ``(H, W)`` that computes one or more outputs (`Graph.node_of`), or the logits.

        Raises
        ------
        ValueError
            If the image is too small or there is no output of that name.
        """
        output = output or self.graph.main_output
        graph = self.graph.up_to(*([output] if isinstance(output, str) else output))
        shapes = {name: (1, *shape[1:], shape[0]) for name, shape in graph.shapes(size).items()}
        steps = [self.steps[node.name] for node in graph]
        dtypes = {name: np.dtype(np.uint8 if name in self.codes else self.dtype) for name in shapes}
        placed = plan_arena(graph, {name: prod(shape) * dtypes[name].itemsize for name, shape in shapes.items()})
        return Plan(steps, tuple(graph.outputs.values()), shapes, *placed, dtypes, self.codes, threads)


@dataclass
class Plan:
    """Kernel calls in order, and where each tensor of one image lies in the arena.

    Attributes
    ----------
    steps : list of Step
    outputs : tuple of str
        The nodes whose tensors are wanted.
    shapes : dict of str to shape
        ``(1, H, W, C)`` or ``(1, C)`` of every tensor, by the node that makes it.
    offsets : dict of str to int
        Where it starts in the arena, in bytes.
    memory : int
        Bytes of activations while one image is computed: the arena.
    dtypes : dict of str to dtype
        Of every tensor.
    codes : mapping of str to Code
        What those of uint8 stand for.
    """

    steps: list[Step]
    outputs: tuple[str, ...]
    shapes: dict[str, Shape]
    offsets: dict[str, int]
    memory: int
    dtypes: dict[str, np.dtype]
    codes: Mapping[str, Code]
    threads: int

    def __post_init__(self) -> None:
        self._idle = Idle(self.memory)

    @property
    def output_shape(self) -> Shape:
        """``(C, P, Q)`` or ``(C,)`` of the first output."""
        return self.output_shapes[0]

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """That of every output."""
        shapes = [self.shapes[name] for name in self.outputs]
        return tuple((shape[-1], *shape[1:-1]) for shape in shapes)

    def run(self, image: np.ndarray) -> np.ndarray:
        """Compute the first output of one image, ``(C, H, W)`` to ``(C, P, Q)`` or ``(C,)``."""
        results = [np.empty(shape, np.float32) for shape in self.output_shapes]
        self.run_into(image, results)
        return results[0]

    def run_into(self, image: np.ndarray, results: Sequence[np.ndarray]) -> None:
        """Compute all outputs of one image, every node once.

        May be called from several Python threads at once: each takes an arena of its own. An image with a NaN or an
        infinity gives NaN where tensors are of 8 bits.

        Parameters
        ----------
        image : float array (C, H, W), or (1, C, H, W)
        results : sequence of float32 array
            For each output (C, P, Q) or (C,), or with one more axis.
        """
        if self.codes and not np.isfinite(image).all():  # 8 bits have nothing that would say so further on
            for result in results:
                result[...] = np.nan
            return
        tensors = self._idle.take() or self._new_arena()
        tensors[INPUT][...] = np.moveaxis(image, -3, -1)
        for step in self.steps:
            step.run(tensors, self.threads)
        for name, result in zip(self.outputs, results, strict=True):
            found = self.codes[name].real(tensors[name]) if name in self.codes else tensors[name]
            result[...] = np.moveaxis(found[0], -1, 0)
        self._idle.append(tensors)

    @property
    def groups(self) -> list[tuple[Node, ...]]:
        """The nodes of every call: one each."""
        return [(step.node,) for step in self.steps]

    def time_groups(self) -> dict[str, float]:
        """Compute the last image once more and return the seconds of each call, by its node's name."""
        tensors = self._idle.take() or self._new_arena()
        times = [perf_counter()]
        for step in self.steps:
            step.run(tensors, self.threads)
            times.append(perf_counter())
        self._idle.append(tensors)
        return {
            step.node.name: after - before for step, (before, after) in zip(self.steps, pairwise(times), strict=True)
        }

    def _new_arena(self) -> dict[str, np.ndarray]:
        arena = aligned(self.memory, np.uint8)
        spans = {name: prod(shape) * self.dtypes[name].itemsize for name, shape in self.shapes.items()}
        return {
            name: arena[self.offsets[name] : self.offsets[name] + spans[name]].view(self.dtypes[name]).reshape(shape)
            for name, shape in self.shapes.items()
        }


def plan_arena(graph: Graph, sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Give every tensor of a graph, of so many bytes, an offset in one arena, in bytes too; see :func:`arrange`.

    Outputs live to the end.
    """
    lifetimes = {INPUT: (0, 0)}
    for time, node in enumerate(graph):
        for name in (*node.inputs, node.name):
            lifetimes[name] = (lifetimes.get(name, (time, time))[0], time)
    for name in graph.output_nodes.values():
        lifetimes[name] = (lifetimes[name][0], len(graph.nodes))
    offsets, values = arrange(lifetimes, {name: -(-sizes[name] // FLOAT32.itemsize) for name in lifetimes})
    return {name: FLOAT32.itemsize * offset for name, offset in offsets.items()}, FLOAT32.itemsize * values


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
    return offsets, max(ends.values(), default=0)

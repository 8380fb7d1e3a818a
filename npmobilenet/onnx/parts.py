"""Which nodes make a graph for the fast kernels, which NumPy computes between them, and how these are run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np

from npmobilenet.backends import DEFAULT
from npmobilenet.engine import Engine
from npmobilenet.errors import CheckpointError
from npmobilenet.graph import INPUT, WINDOWED, Graph
from npmobilenet.kernels.sharing import give_lock
from npmobilenet.onnx import arrangement, elementwise, integers, qdq, reductions, resizing, windows  # noqa: F401 - enter
from npmobilenet.onnx.blocks import with_blocks
from npmobilenet.onnx.conversion import Region
from npmobilenet.onnx.elementwise import converted
from npmobilenet.onnx.file import Node, OnnxGraph, Port
from npmobilenet.onnx.layout import FIRST, channels_first
from npmobilenet.onnx.names import Names
from npmobilenet.onnx.operator import OLDEST_OPSET, OPERATORS, check_node
from npmobilenet.onnx.patterns import simplified
from npmobilenet.onnx.room import FIXED, at_most, check_together
from npmobilenet.onnx.shapes import Bound, Coming, bind
from npmobilenet.onnx.tensors import COMPUTED_IN, TYPES
from npmobilenet.passes_qdq import lowered
from npmobilenet.text import quote

SIZES_KEPT = 8  # combinations of input shapes whose parts are kept for the next call
OTHER_SIZES = ((0, 0), (64, 32), (61, 35))  # by how much images differ for which a graph must be the same
SOME_BATCH = 3  # in place of one that is not said: a number that hardly stands for anything else
WITH_WEIGHTS = (*WINDOWED, "conv_transpose2d")


@dataclass(frozen=True)
class Part:
    """Nodes that the fast kernels compute together.

    Attributes
    ----------
    graph : Graph
        Its outputs have the names of ONNX's tensors.
    weights : mapping of str to array
    source : str
        The tensor that it begins at.
    replaced : tuple of Node
        The nodes of ONNX that it stands for.
    floats : mapping of str to str
        Of a part of 8 bits: the layers that stay float32, and why.
    """

    graph: Graph
    weights: Mapping[str, np.ndarray]
    source: str
    replaced: tuple[Node, ...]
    floats: Mapping[str, str] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """In which its weights are stored."""
        return "int8" if self.graph.is_quantised else "float32"


def divided(graph: OnnxGraph, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Bound, list[Part | Node]]:
    """Return what is computed for inputs of these shapes, one after the other.

    Raises
    ------
    CheckpointError
        If a node does not fit.
    """
    inputs = {port.name: Coming(tuple(shapes[port.name]), _dtype(port)) for port in graph.inputs}
    bound = simplified(channels_first(bind(graph, inputs)))
    names, regions, steps, reasons = Names(), {}, [], {}
    for node in bound.nodes:
        region = _region_for(node, bound, regions, names)
        if region is not None and region.take(node):
            if not any(step is region for step in steps):
                steps.append(region)
                regions[region.source] = region
        else:
            reasons[node.outputs[0]] = (
                "it reads no image, or tensors of several parts" if region is None else region.refusal
            )
            steps.append(node)
    steps = _settled(bound, steps)
    alone = {step.outputs[0]: "no convolution beside it" for step in steps if isinstance(step, Node)}
    return replace(bound, reasons=alone | reasons), steps


def _region_for(node: Node, bound: Bound, regions: Mapping[str, Region], names: Names) -> Region | None:
    """The region in which a node would be: one that has all it reads, or a new one at the image that it reads."""
    live = bound.live(node)
    for region in regions.values():
        if node.outputs[0] in region.absorbed or (live and all(name in region.made for name in live)):
            return region
    if len(live) != 1 or any(live[0] in region.made for region in regions.values()):
        return None
    value = bound.values[live[0]]
    is_image = (
        isinstance(value, Coming) and len(value.shape) == 4 and value.dtype == np.float32 and min(value.shape[1:]) > 0
    )
    return Region(bound, live[0], names) if is_image else None


def _settled(bound: Bound, steps: list[Region | Node]) -> list[Part | Node]:
    """Regions without a convolution are left to NumPy; the others get the outputs that are read outside of them."""
    order = {id(node): at for at, node in enumerate(bound.nodes)}
    settled: list[tuple[int, Region | Node]] = []
    for step in steps:
        if isinstance(step, Node):
            settled.append((order[id(step)], step))
        elif any(node.operation in WITH_WEIGHTS for node in step.nodes):
            settled.append((order[id(step.replaced[0])], step))
        else:
            settled += [(order[id(node)], node) for node in step.replaced]
    read = {*bound.outputs}
    for _, step in settled:
        read.update([step.source] if isinstance(step, Region) else step.inputs)
    for _, step in list(settled):  # what is only another name of its source is no result of a region
        same = [node for node in step.replaced if _is_source(step, node)] if isinstance(step, Region) else []
        if any(read.intersection(node.outputs) for node in same):
            settled += [(order[id(node)], node) for node in same]
    kept = [step for _, step in sorted(settled, key=lambda each: each[0])]
    found: list[Part | Node] = []
    for step in kept:
        if isinstance(step, Node):
            found.append(step)
            continue
        outputs = {name: made for name, made in step.made.items() if name in read and made != INPUT}
        channels = {name: shape[0] for name, shape in step.shapes.items()}
        graph, weights = with_blocks(_needed(step.graph(outputs)), step.weights, channels)
        floats: dict[str, str] = {}
        if graph.is_quantised:
            graph, weights, floats = lowered(graph, weights, qdq.integers_of(step))
        weights = {name: weights[name] for name in graph.tensors}
        found.append(Part(graph, weights, step.source, tuple(step.replaced), floats))
    return found


def _is_source(region: Region, node: Node) -> bool:
    """Whether all that a node of a region makes is what the region begins at."""
    return all(region.made.get(name) == INPUT for name in node.outputs)


def _needed(graph: Graph) -> Graph:
    """The graph without what no output needs."""
    return replace(graph.up_to(*graph.outputs), outputs=graph.outputs)


def _dtype(port: Port) -> np.dtype:
    return np.dtype(COMPUTED_IN.get(port.dtype, port.dtype))


def check(graph: OnnxGraph) -> None:
    """Refuse a graph that cannot be computed as it is meant, before anything is.

    Raises
    ------
    CheckpointError
        If there is no such operator, attribute, or type; the message names the node.
    """
    if graph.opset < OLDEST_OPSET:
        raise CheckpointError(
            f"has operators of version {graph.opset}, and {OLDEST_OPSET} is the oldest known: export it anew, or "
            "convert it (onnx.version_converter)"
        )
    for node in graph.nodes:
        check_node(node, graph.opset)
    for port in graph.inputs:
        if port.dtype not in TYPES.values():
            raise CheckpointError(f"its input {port} is of a type that is not supported")


class Session:
    """Runs an ONNX graph, part by part, for inputs of any shape that it allows.

    Parameters
    ----------
    graph : OnnxGraph
    backend, keep_bytes
        As for `Engine`.
    """

    def __init__(self, graph: OnnxGraph, backend: str = DEFAULT, keep_bytes: int | None = None) -> None:
        self.graph, self.backend, self.keep_bytes = graph, backend, keep_bytes
        self._sized: OrderedDict[tuple, _Sized] = OrderedDict()
        self._engines: list[tuple[Part, Engine]] = []
        give_lock(self)

    def __getstate__(self) -> tuple:
        return self.graph, self.backend, self.keep_bytes

    def __setstate__(self, state: tuple) -> None:
        self.__init__(*state)

    def run(self, inputs: Mapping[str, np.ndarray], threads: int = 1) -> dict[str, np.ndarray]:
        """Compute all outputs.

        Raises
        ------
        ValueError
            If an input is missing, of another type, or of a shape that does not fit.
        """
        arrays = {port.name: array for port, array in zip(self.graph.inputs, self._checked(inputs), strict=True)}
        sized = self.sized({name: array.shape for name, array in arrays.items()})
        values = sized.run(arrays, threads)
        return {port.name: _as_declared(values[port.name], port) for port in self.graph.outputs}

    def sized(self, shapes: Mapping[str, tuple[int, ...]]) -> _Sized:
        """Return what computes inputs of these shapes."""
        key = tuple(shapes[port.name] for port in self.graph.inputs)
        with self._lock:
            found = self._sized.pop(key, None)
            if found is None:
                bound, steps = divided(self.graph, shapes)
                found = _Sized(bound, [self._with_engine(step) if isinstance(step, Part) else step for step in steps])
            self._sized[key] = found
            while len(self._sized) > SIZES_KEPT:
                self._sized.popitem(last=False)
        return found

    def _with_engine(self, part: Part) -> tuple[Part, Engine]:
        """A part with what computes it, which may be that of another size."""
        for other, engine in self._engines:
            if part.graph == other.graph and all(
                np.array_equal(array, other.weights[name]) for name, array in part.weights.items()
            ):
                return part, engine
        engine = Engine(part.graph, part.weights, self.backend, part.dtype, self.keep_bytes)
        self._engines.append((part, engine))
        while len(self._engines) > 4 * SIZES_KEPT:
            self._engines.pop(0)
        return part, engine

    def release(self) -> None:
        """Let all working memory go."""
        for _, engine in self._engines:
            engine.release()

    @property
    def fallback(self) -> list[str]:
        """What the engines that there are say of layers that plain loops compute."""
        return [engine.fallback for _, engine in self._engines if engine.fallback]

    def _checked(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        known = [port.name for port in self.graph.inputs]
        missing, strange = (
            [name for name in known if name not in inputs],
            [name for name in inputs if name not in known],
        )
        if missing or strange:
            wrong = (
                f"no input {quote(missing[0])}" if missing else f"an input {quote(strange[0])} that it does not have"
            )
            there = "; ".join(map(str, self.graph.inputs)) or "none"
            raise ValueError(f"{wrong} was given; the network's inputs: {there}")
        named: dict[str, int] = {}
        return [_checked_input(port, inputs[port.name], named) for port in self.graph.inputs]


@dataclass(frozen=True)
class _Sized:
    """The parts of a graph for inputs of one shape each."""

    bound: Bound
    steps: Sequence[tuple[Part, Engine] | Node]

    @cached_property
    def _last(self) -> dict[str, int]:
        """The last step that reads each tensor."""
        last = {}
        for at, step in enumerate(self.steps):
            for name in step.inputs if isinstance(step, Node) else [step[0].source]:
                last[name] = at
        return last

    def run(self, inputs: Mapping[str, np.ndarray], threads: int) -> dict[str, np.ndarray]:
        """Compute the outputs."""
        values: dict[str, np.ndarray] = {
            name: value for name, value in self.bound.values.items() if isinstance(value, np.ndarray)
        } | dict(inputs)
        together = 0
        for at, step in enumerate(self.steps):
            if isinstance(step, Node):
                arrays = [values[name] if name else None for name in step.inputs]
                with at_most(self.bound.most):
                    results = OPERATORS[step.operator].compute(step, arrays, self.bound.opset)
                together += sum(result.size for result in results)
                check_together(together, self.bound.most)
                values.update(zip(step.outputs, results, strict=False))
                read = step.inputs
            else:
                part, engine = step
                read = [part.source]
                x = np.ascontiguousarray(values[part.source])
                for name, array in engine.outputs(x, tuple(part.graph.outputs), threads).items():
                    values[name] = array.reshape(len(x), *self.bound.shape(name)[1:])
            for name in read:
                if self._last[name] == at and name not in self.bound.outputs:
                    values.pop(name, None)
        return values


def _as_declared(array: np.ndarray, port: Port) -> np.ndarray:
    """An output in the type that the file says, as an array of its own."""
    if port.dtype == "bfloat16":
        return converted(array, port.dtype)
    return np.array(array, "float16" if port.dtype == "float16" else _dtype(port))


def _checked_input(port: Port, value: object, named: dict[str, int]) -> np.ndarray:
    """An input as it is computed with: of its type, and of a shape that the file allows."""
    array = np.asarray(value)
    held = _dtype(port)
    if array.dtype != held and not (held.kind == "f" and array.dtype.kind == "f"):
        raise ValueError(f"the input {port} is needed, got {array.dtype} {array.shape}")
    fits = port.shape is None or len(port.shape) == array.ndim
    for wanted, length in zip(port.shape or (), array.shape, strict=False) if fits else ():
        if isinstance(wanted, int) or wanted in named:
            fits = fits and length == (wanted if isinstance(wanted, int) else named[wanted])
        elif isinstance(wanted, str):
            named[wanted] = length
    if not fits:
        same = f" (with {', '.join(f'{name}={size}' for name, size in named.items())})" if named else ""
        raise ValueError(f"the input {port} is needed{same}, got {array.dtype} {array.shape}")
    return array.astype(_dtype(port), copy=False)


@dataclass(frozen=True)
class Whole:
    """An ONNX graph that is one of this package's, for images of any size, or of one.

    Attributes
    ----------
    part : Part
    size : (int, int) or None
        The only one that the file allows.
    channels_last : bool
        Whether its image is (N, H, W, C).
    """

    part: Part
    size: tuple[int, int] | None
    channels_last: bool = False


def whole(graph: OnnxGraph, size: tuple[int, int]) -> Whole | None:
    """Return the graph as one part, if all of it is, and the same for images of every size that the file allows."""
    if len(graph.inputs) != 1 or not graph.nodes:
        return None
    (port,) = graph.inputs
    shape = port.shape
    if shape is None or len(shape) != 4:
        return None
    channels_last = has_channels_last(graph)
    batch, channels, *sides = (shape[axis] for axis in FIRST) if channels_last else shape
    if not isinstance(channels, int):
        return None
    fixed = tuple(sides) if all(isinstance(length, int) for length in sides) else None
    found: list[Part] = []
    for height, width in [fixed] if fixed else [(size[0] + more, size[1] + other) for more, other in OTHER_SIZES]:
        images = batch if isinstance(batch, int) else SOME_BATCH
        lengths = [
            length if isinstance(length, int) else one for length, one in zip(sides, (height, width), strict=True)
        ]
        image = (images, *lengths, channels) if channels_last else (images, channels, *lengths)
        if prod(image) > FIXED:
            return None
        try:
            bound, steps = divided(graph, {port.name: image})
        except CheckpointError:
            if fixed and isinstance(batch, int):
                raise
            if found and not any(node.operation == "resize2d" and len(node.inputs) > 1 for node in found[0].graph):
                continue  # an image of this size does not fit, and sizes are not compared
            return None
        part = _only_part(steps, port.name)
        if part is None or set(part.graph.outputs) != set(bound.outputs) or not _same_shapes(bound, part, lengths):
            return None
        found.append(part)
    if any(part.graph != found[0].graph for part in found):
        return None
    part = found[0]
    ordered = {one.name: part.graph.outputs[one.name] for one in graph.outputs}
    return Whole(replace(part, graph=replace(part.graph, outputs=ordered)), fixed, channels_last)


def has_channels_last(graph: OnnxGraph) -> bool:
    """Whether the first input is an image (N, H, W, C): told by how many channels images have, and by a Transpose."""
    shape = graph.inputs[0].shape if graph.inputs else None
    if shape is None or len(shape) != 4 or shape[3] not in (1, 3) or shape[1] in (1, 3):
        return False
    return any(tuple(node.attributes.get("perm", ())) == FIRST for node in graph.nodes if node.operator == "Transpose")


def _only_part(steps: Sequence[Part | Node], image: str) -> Part | None:
    """The part that all is, but that an image's channels may first be put in front."""
    if len(steps) == 2 and isinstance(steps[0], Node):
        node, *steps = steps
        if node.operator != "Transpose" or node.inputs != (image,) or tuple(node.attributes.get("perm", ())) != FIRST:
            return None
        (image,) = node.outputs
    if len(steps) != 1 or not isinstance(steps[0], Part) or steps[0].source != image:
        return None
    return steps[0]


def _same_shapes(bound: Bound, part: Part, size: Sequence[int]) -> bool:
    """Whether every output has the shape that ONNX gives it, not one of other axes."""
    shapes = part.graph.shapes(tuple(size))
    return all(bound.shape(name)[1:] == shapes[node] for name, node in part.graph.outputs.items())

"""The layers of real networks as kernel calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.graph import Graph
from npmobilenet.image import IMAGENET
from npmobilenet.kernels import registry
from npmobilenet.kernels.geometry import equal_partition
from npmobilenet.kernels.prepared import prepare_of
from npmobilenet.kernels.registry import Kernel
from npmobilenet.plan import Program
from npmobilenet.quantisation import quantised

BLOCK = "inverted_residual"
TOLERANCE = 2e-5  # of the largest value: what rounding may do in float32


def largest_error(output: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error, as a part of the largest expected value (at least 1): nothing wrong is timed.

    Raises
    ------
    ValueError
        If it is more than rounding.
    """
    if output.shape != expected.shape:
        raise ValueError(f"a result has shape {output.shape}, the reference {expected.shape}: not measured")
    error = float(np.abs(np.subtract(output, expected, dtype=np.float64)).max() / max(1, np.abs(expected).max()))
    if not error <= TOLERANCE:  # so that NaN does not pass
        raise ValueError(f"a result differs from the reference by {error:.1e} of the largest value: not measured")
    return error


@dataclass(frozen=True)
class Layer:
    """One layer of a network: an operation and the shapes of its arrays."""

    network: str
    name: str
    operation: str
    shape: tuple[int, ...]
    weights: dict[str, np.ndarray | list[np.ndarray]]
    options: dict[str, Any]

    @property
    def variation(self) -> str:
        """What asks for a kernel of its own: ``k3``, ``mixed-k3.5.7``, ``2groups``; empty for most operations."""
        if self.operation == "mixed_depthwise_conv2d":
            return f"mixed-k{'.'.join(str(len(kernel)) for kernel in self.weights['weights'])}"
        if self.operation in (BLOCK, "depthwise_conv2d", "depthwise_conv2d_int8"):
            return f"k{len(self.weights['weight'])}"
        groups = self.options.get("groups", 1)
        return f"{groups}groups" if groups > 1 else ""

    @property
    def title(self) -> str:
        """Such as ``block2.depthwise-k3-1x112x112x96-s2``; of a block with its expanded and output channels."""
        stride = (self.options.get("stride") or (1, 1))[0]
        inner = self.weights["project_weight"].shape if self.operation == BLOCK else ()
        shape = "x".join(map(str, (*self.shape, *inner)))
        return "-".join(filter(None, (self.name, self.variation, shape, f"s{stride}" * (stride > 1))))

    @property
    def dtype(self) -> str:
        """Of the network that it is of."""
        return "int8" if self.operation in registry.INT8_OPERATIONS else "float32"

    @property
    def reads_bytes(self) -> bool:
        """Whether its input is uint8, not float32 that is quantised on entry."""
        return self.dtype == "int8" and not {"zero_point", "steps"} & self.options.keys()

    @property
    def channels(self) -> int:
        """Of the output; of a block the expanded ones."""
        return len(self.weights["expand_bias" if self.operation == BLOCK else "bias"])

    def narrowed(self, macs: int) -> Layer:
        """The same with only so many :attr:`channels` that there are about so many multiply-adds, of a convolution.

        Every channel costs the same, at the border too: what a narrow layer takes tells what the whole one takes.
        """
        part = min(1.0, macs / self.macs)

        def kept(channels: int) -> int:
            return max(1, int(channels * part))

        def cut(array: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(array[..., : kept(array.shape[-1])])

        if self.operation == BLOCK:
            inner = {name: cut(array) for name, array in self.weights.items() if not name.startswith("project")}
            project = self.weights["project_weight"][: kept(self.channels)]
            return replace(self, weights={**self.weights, **inner, "project_weight": project})
        name = "weights" if "weights" in self.weights else "weight"
        weight = self.weights[name]
        weight = [cut(one) for one in weight] if isinstance(weight, list) else cut(weight)
        channels = sum(one.shape[-1] for one in weight) if isinstance(weight, list) else weight.shape[-1]
        ends = {key: self.weights[key][:channels] for key in self.weights if key not in (name, "zero_point")}
        if "zero_point" in self.weights:  # of the input
            ends["zero_point"] = self.weights["zero_point"][: channels if "depthwise" in self.operation else None]
        shape = (*self.shape[:-1], channels) if "depthwise" in self.operation else self.shape
        return replace(self, shape=shape, weights={name: weight, **ends})

    def arguments(self) -> dict[str, np.ndarray | list[np.ndarray]]:
        """The arrays, by the kernels' names for them; the input is random."""
        random = np.random.default_rng(0)
        x = random.standard_normal(self.shape, np.float32)
        if self.reads_bytes:
            x = random.integers(0, 256, self.shape, np.uint8)
        return {"x": x, **self.weights}

    def reference(self) -> np.ndarray:
        """What the reference computes."""
        return registry.best(self.operation, "reference").function(**self.arguments(), **self.options)

    def kernels(self) -> list[Kernel]:
        """Every compiled kernel that can compute it."""
        return [
            kernel for kernel in registry.kernels(self.operation, registry.ON_CPU) if kernel.supports(**self.options)
        ]

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return registry.macs(self.operation, **self.arguments(), **self.options)

    @property
    def bytes(self) -> int:
        """Least memory traffic."""
        return registry.bytes_moved(self.operation, **self.arguments(), **self.options)


@dataclass(frozen=True)
class Call:
    """A kernel on a layer, ready to be timed: what it computes has been compared with the reference.

    Attributes
    ----------
    run : callable
        The kernel; of one that can be prepared, without packing.
    error : float
        The largest, as a part of the largest value.
    prepared : bool
        Whether packing is left out.
    between : int or None
        Bytes of what it keeps between input and result, if it tells.
    """

    run: Callable[[], object]
    error: float
    prepared: bool
    between: int | None = None

    @classmethod
    def of(cls, kernel: Kernel, layer: Layer, threads: int, expected: np.ndarray | None = None) -> Call:
        """Make it; ``expected``, what the layer's :meth:`~Layer.reference` gives, need not be computed again.

        Raises
        ------
        ValueError
            If the kernel computes something else.
        """
        expected = layer.reference() if expected is None else expected
        arguments, prepare = layer.arguments(), prepare_of(kernel.function)
        if prepare:
            ready = prepare(**arguments, **layer.options, threads=threads)
            ready.run()
            packs = getattr(ready, "packs", True)
            return cls(ready.run, largest_error(ready.result(), expected), packs, getattr(ready, "between", None))
        floats = expected.dtype.kind == "f"  # whose reference is float64
        out = np.full(expected.shape, np.nan, np.float32) if floats else np.ones(expected.shape, expected.dtype)
        run = partial(kernel.function, **arguments, **layer.options, threads=threads, out=out)
        between = getattr(kernel.function, "between", None)
        kept = between(**arguments, **layer.options, threads=threads) if between else None
        return cls(run, largest_error(run(), expected), False, kept)


@cache
def layers(network: str, size: int = 224, dtype: str = "float32") -> list[Layer]:
    """Return the different layers of a network: of equal ones the first. What reads several tensors is left out."""
    return list(_layers(network, size, dtype))


def network_of(name: str, dtype: str) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return a network with random weights, quantised if ``dtype`` is "int8"."""
    graph = get_architecture(name).graph()
    weights = random_weights(graph)
    if dtype == "float32":
        return graph, weights
    made = quantised(graph, weights, IMAGENET)
    return made.graph, made.weights


def _layers(network: str, size: int, dtype: str) -> Iterator[Layer]:
    plan = Program(*network_of(network, dtype), "plain").plan((size, size))
    seen = set()
    for step in plan.steps:
        if {"y", "xs"} & set(step.node.kind.inputs):
            continue
        shape = plan.shapes[step.node.inputs[0]]
        output = plan.shapes[step.node.name]
        layer = Layer(network, step.node.name, step.kernel.operation, shape, step.arguments, step.options)
        case = (layer.operation, layer.variation, shape, output, str(step.options))
        if case not in seen:
            seen.add(case)
            yield layer


@cache
def blocks(network: str, size: int = 224) -> list[Layer]:
    """Return the inverted residuals of a network, those that are nothing but three convolutions."""
    graph = get_architecture(network).graph()
    plan = Program(graph, random_weights(graph), "plain").plan((size, size))
    found = []
    for steps in zip(plan.steps, plan.steps[1:], plan.steps[2:], strict=False):
        expand, middle, project = nodes = [step.node for step in steps]
        kinds = ["pointwise_conv2d", "depthwise_conv2d", "pointwise_conv2d"]
        if [node.operation for node in nodes] != kinds or len({node.block for node in nodes}) > 1:
            continue
        plain = expand["groups"] == project["groups"] == 1 and middle["dilation"] == (1, 1)
        if not plain or project.inputs[1:] not in ((), expand.inputs[:1]):
            continue
        options = {
            "stride": middle["stride"],
            "padding": middle["padding"],
            "residual": len(project.inputs) > 1,
            "expand_activation": expand.attributes.get("activation", "none"),
            "depthwise_activation": middle.attributes.get("activation", "none"),
            "project_activation": project.attributes.get("activation", "none"),
        }
        weights = {
            f"{prefix}{name}": array
            for prefix, step in zip(("expand_", "", "project_"), steps, strict=True)
            for name, array in step.arguments.items()
        }
        found.append(Layer(network, expand.block, BLOCK, plan.shapes[expand.inputs[0]], weights, options))
    return found


def find_layer(operation: str, text: str) -> Layer:
    """Return a layer of a network (``mobilenet_v2/block3.depthwise``), or one of a shape (``3-56x56x144-s2``).

    A shape is written as kernel size, height x width x channels, and stride where it is not 1. A mixed convolution
    has several kernel sizes (``3.5.7-28x28x240``), a dense one output channels too (``3-224x224x3x32-s2``), and a
    pointwise one no kernel size (``28x28x192x32``). An inverted residual is a block of a network
    (``mobilenet_v2/block2``), or is written with its input, expanded and output channels (``3-112x112x16x96x24-s2``).

    Raises
    ------
    ValueError
        If there is no such layer, or it is another operation.
    """
    if "/" in text:
        network, name = text.split("/", 1)
        dtype = "int8" if operation in registry.INT8_OPERATIONS else "float32"
        candidates = blocks(network) if operation == BLOCK else layers(network, dtype=dtype)
        found = {layer.name: layer for layer in candidates if layer.operation == operation}
        if name not in found:
            raise ValueError(
                f"{network} has no {operation} layer {name!r} unlike others; there are: {', '.join(found)}"
            )
        return found[name]
    if operation == BLOCK:
        return _written_block(text)
    pattern = r"(?:(\d+(?:\.\d+)*)-)?(\d+)x(\d+)x(\d+)(?:x(\d+))?(?:-s(\d+))?"
    match = re.fullmatch(pattern, text)
    kernels, *numbers, c_out, stride = match.groups() if match else [None] * 6
    sizes = [int(size) for size in (kernels or "1").split(".")]
    of_bytes, kind = operation in registry.INT8_OPERATIONS, operation.removesuffix("_int8")
    example = {
        "conv2d": "3-224x224x3x32-s2",
        "depthwise_conv2d": "3-56x56x144",
        "mixed_depthwise_conv2d": "3.5.7-28x28x240-s2",
    }.get(kind, "28x28x192x32")
    dense, mixed = "depthwise" not in operation, operation.startswith("mixed")
    fits = match and dense == (c_out is not None) and (mixed or len(sizes) == 1) and (kernels or dense)
    if not fits or 0 in (*map(int, numbers), *sizes, int(c_out or 1), int(stride or 1)):
        raise ValueError(f"a {operation} is written as {example}, or as a network's layer, got {text!r}")
    height, width, channels = map(int, numbers)
    random, outputs = np.random.default_rng(1), int(c_out or channels)

    def weight(size: int, *channels: int) -> np.ndarray:
        window = (size, size) if kind != "pointwise_conv2d" else ()
        if of_bytes:
            return random.integers(-127, 128, (*window, *channels)).astype(np.int8)
        return random.standard_normal((*window, *channels), np.float32)

    if mixed:
        weights = [weight(size, part) for size, part in zip(sizes, equal_partition(channels, len(sizes)), strict=True)]
    else:
        weights = weight(sizes[0], *((channels, outputs) if dense else (channels,)))
    options = {"activation": "none", "dtype": "uint8"} if of_bytes else {"activation": "relu6"}
    if kind != "pointwise_conv2d":
        options |= {"stride": (int(stride or 1),) * 2, "padding": "symmetric"}
    arrays = {"weights" if mixed else "weight": weights, "bias": random.standard_normal(outputs, np.float32)}
    if of_bytes:  # most results lie within the 8 bits
        arrays["scale"] = np.full(outputs, 1 / (150 * np.sqrt(weights[..., 0].size)), np.float32)
        arrays["bias"] = 128 + arrays["bias"]
    return Layer("", "", operation, (1, height, width, channels), arrays, options)


def _written_block(text: str) -> Layer:
    match = re.fullmatch(r"(\d+)-(\d+)x(\d+)x(\d+)x(\d+)x(\d+)(?:-s(\d+))?", text)
    numbers = [int(number or 1) for number in match.groups()] if match else [0]
    if 0 in numbers:
        raise ValueError(f"a {BLOCK} is written as 3-112x112x16x96x24-s2, or as a network's block, got {text!r}")
    kernel, height, width, c_in, expanded, c_out, stride = numbers
    random = np.random.default_rng(1)
    shapes = {
        "expand_weight": (c_in, expanded),
        "expand_bias": (expanded,),
        "weight": (kernel, kernel, expanded),
        "bias": (expanded,),
        "project_weight": (expanded, c_out),
        "project_bias": (c_out,),
    }
    weights = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    options = {"stride": (stride, stride), "padding": "symmetric", "residual": False}
    layer = Layer("", "", BLOCK, (1, height, width, c_in), weights, options)
    # As in MobileNetV2: where the result has the shape of the input, the input is added (1801.04381, figure 4d).
    residual = registry.output_shape(BLOCK, **layer.arguments(), **options) == layer.shape
    return replace(layer, options={**options, "residual": residual})

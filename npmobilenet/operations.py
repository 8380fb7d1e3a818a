"""What the operations of a graph are: one class each, with all that can be said of it without computing anything.

A class says which tensors and parameters its operation reads and what their axes mean, which attributes it has, how
large its result is, how many multiply-adds it takes, and how a network's table names it. Counting, fusing, lowering
for each backend and ``npmobilenet inspect`` ask it. What the operation computes is in `kernels.reference`, under the
same name.

Letters: C channels (C_in, C_out), K kernel size, G groups, R reduced channels, H W height and width, P Q those of the
result. Shapes are those of one image: ``(C, H, W)``, or ``(C,)`` of what has no pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from npmobilenet.kernels.geometry import Pair, output_size, resized, resolve_padding, transposed_size
from npmobilenet.text import dimensions

if TYPE_CHECKING:
    from npmobilenet.graph import Node

Shape = tuple[int, ...]
Windows = tuple[tuple[Pair, Pair], ...]

REQUIRED = object()  # the default of an attribute that has none
OPERATIONS: dict[str, Operation] = {}
INT8_OPERATIONS: dict[str, Operation] = {}  # `operations_int8`


@dataclass(frozen=True)
class Parameter:
    """One learned array.

    Attributes
    ----------
    axes : str
        As PyTorch stores it, such as ``"C_out C_in/G K_h K_w"``; ``1`` is an axis of length 1.
    kernel_axes : str
        As kernels take it; what is missing here has length 1 there.
    argument : str
        What kernels call it, if it is not its name with ``_`` for the dots.
    multiplied : bool
        Whether its values are the factors of multiply-adds: TensorFlow's tables count these alone.
    learned : bool
        Running statistics are not.
    optional : bool
    """

    axes: str
    kernel_axes: str
    argument: str = ""
    multiplied: bool = False
    learned: bool = True
    optional: bool = False

    def of_kernel(self, array: np.ndarray) -> np.ndarray:
        """PyTorch's axes to the kernels'."""
        source, target = self.axes.split(), self.kernel_axes.split()
        dropped = [axis for axis, letter in enumerate(source) if letter not in target]
        order = [source.index(letter) for letter in target]
        return array.transpose(*order, *dropped)[(..., *[0] * len(dropped))]

    def shape(self, sizes: Mapping[str, int]) -> Shape:
        """In PyTorch, where the letters stand for these sizes."""
        return tuple(sizes[letter] for letter in self.axes.split())

    def kernel_shape(self, sizes: Mapping[str, int]) -> Shape:
        """In kernels."""
        return tuple(sizes[letter] for letter in self.kernel_axes.split())


class Operation:
    """One operation; its methods take the node whose operation it is.

    Attributes
    ----------
    name : str
        Of the operation, and of the function in `kernels.reference` that defines it.
    inputs : tuple of str
        What kernels call the tensors that it reads; a node may lack the last one.
    parameters : mapping of str to Parameter
    attributes : mapping of str to value
        Their defaults; `REQUIRED` of those that a node must have.
    options : tuple of str
        The attributes that kernels take as keywords.
    ends : tuple of str
        What `passes.fuse` may put at its end, in this order: ``"norm"``, ``"activation"``, ``"residual"``.
    """

    name: ClassVar[str] = ""
    inputs: ClassVar[tuple[str, ...]] = ("x",)
    parameters: ClassVar[Mapping[str, Parameter]] = {}
    attributes: ClassVar[Mapping[str, Any]] = {}
    options: ClassVar[tuple[str, ...]] = ()
    ends: ClassVar[tuple[str, ...]] = ()
    table: ClassVar[dict[str, Operation]] = OPERATIONS

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            cls.name = name
            cls.table[name] = cls()

    # What it makes, and what that costs --------------------------------------------------------------------

    def output_shape(self, node: Node, *inputs: Shape) -> Shape:
        """Return the shape of the result for inputs of these shapes; the first one's unless it says otherwise.

        Raises
        ------
        ValueError
            If they do not fit.
        """
        return inputs[0]

    def result_dtype(self, node: Node) -> str:
        """In which type the result is stored."""
        return "float32"

    def windows(self, node: Node) -> Windows:
        """Kernel size and dilation of each window that slides over the image."""
        return ()

    def macs(self, node: Node, output: Shape) -> int:
        """Multiply-adds for a result of this shape: one for each factor, at every position of a window."""
        return node.weight_count * (prod(output[1:]) if self.windows(node) else 1)

    def terms(self, node: Node, *inputs: Shape) -> int:
        """How many terms a value of the result is the sum of, for inputs of these shapes."""
        factors = (shape for name, shape in node.parameters.items() if self.parameter(name).multiplied)
        return max((prod(shape[1:]) for shape in factors), default=1)

    def text(self, node: Node) -> str:
        """What a table of layers says of it: ``3x3``, ``3x3+5x5`` of a mixed one, ``3x3d3`` if dilated by three."""
        return "+".join(
            dimensions(kernel) + (f"d{dilation[0]}" if dilation[0] > 1 else "")
            for kernel, dilation in self.windows(node)
        )

    # Parameters --------------------------------------------------------------------------------------------

    def parts(self, attributes: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The attributes of each part that has a weight of its own: ``"0.weight"``, ``"1.weight"``, ..."""
        return (attributes,)

    def parameter_shapes(
        self, channels: int, attributes: Mapping[str, Any], optional: bool = False
    ) -> dict[str, Shape]:
        """Return PyTorch's shapes of the parameters, by name, for an input of so many channels.

        With ``optional`` a bias is among them that the operation may do without.
        """
        sizes = [self._sizes(channels, part) for part in self.parts({**self.attributes, **attributes})]
        return {
            f"{number}.{name}" if len(sizes) > 1 else name: parameter.shape(of_part)
            for name, parameter in self.parameters.items()
            if optional or not parameter.optional
            for number, of_part in enumerate(sizes)
        }

    def _sizes(self, channels: int, attributes: Mapping[str, Any]) -> dict[str, int]:
        kernel = attributes.get("kernel", (1, 1))
        return {
            "1": 1,
            "C": channels,
            "C_in": channels,
            "C_in/G": channels // attributes.get("groups", 1),
            "C_out": attributes.get("channels", channels),
            "R": attributes.get("reduced", 0),
            "K_h": kernel[0],
            "K_w": kernel[1],
        }

    def parameter(self, local_name: str) -> Parameter:
        """Return what a node's parameter is: that of a part what that of the whole would be."""
        part, _, rest = local_name.partition(".")
        return self.parameters[rest if part.isdecimal() else local_name]

    def weight_shape(self, node: Node, channels: int) -> Shape | list[Shape]:
        """Return the kernels' shape of the weight, for an input of so many channels; a list has one for each part."""
        return self.parameters["weight"].kernel_shape(self._sizes(channels, node.attributes))

    # How kernels are called --------------------------------------------------------------------------------

    def kernel(self, node: Node) -> str:
        """The operation under which `kernels.registry` lists the kernels."""
        return self.name

    def keywords(self, node: Node) -> dict[str, Any]:
        """What kernels take beside arrays."""
        ended = {"activation": node["activation"]} if "activation" in node.attributes else {}
        return ended | {name: node[name] for name in self.options}

    def operands(self, tensors: Sequence[Any]) -> dict[str, Any]:
        """The tensors that a node reads, by the names that kernels have for them."""
        return dict(zip(self.inputs, tensors, strict=False))

    def argument(self, name: str) -> str:
        """What kernels call a parameter."""
        return self.parameters[name].argument or name.replace(".", "_")

    def unread(self, node: Node) -> Sequence[str]:
        """Parameters that a node's kernels do not take."""
        return ()

    def arguments(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Parameters, by their names, as kernels take them: by the names and in the axes that these have."""
        return {self.argument(name): self.parameters[name].of_kernel(array) for name, array in arrays.items()}


def get(name: str) -> Operation:
    """Return an operation by its name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    found = OPERATIONS.get(name) or INT8_OPERATIONS.get(name)
    if found is None:
        raise ValueError(f"no operation {name!r}; there are {', '.join(OPERATIONS)}")
    return found


def image(shape: Shape) -> Shape:
    """Return a shape that has height and width; others are refused."""
    if len(shape) != 3:
        raise ValueError(f"it takes an image (C, H, W), got {shape}")
    return shape


def vector(shape: Shape) -> Shape:
    """Return a shape of channels alone; others are refused."""
    if len(shape) != 1:
        raise ValueError(f"it takes a vector (C,), got {shape}")
    return shape


def positions(node: Node, size: Pair, kernel: Pair, dilation: Pair = (1, 1)) -> Pair:
    """Return how many positions a node's window has in an image of ``(H, W)``."""
    pads = resolve_padding(node["padding"], size, kernel, node["stride"], dilation)
    return tuple(output_size(*axis) for axis in zip(size, kernel, node["stride"], pads, dilation, strict=True))


# Convolutions ------------------------------------------------------------------------------------------------

BIAS = Parameter("C_out", "C_out", optional=True)


class Convolution(Operation):
    """Any of them: windows over the image, a batch norm and an activation at its end."""

    attributes: ClassVar = {
        "channels": REQUIRED,
        "kernel": REQUIRED,
        "stride": (1, 1),
        "padding": 0,
        "dilation": (1, 1),
        "groups": 1,
    }
    options = ("stride", "padding", "dilation")
    ends = ("norm", "activation")

    def output_shape(self, node: Node, x: Shape, residual: Shape | None = None) -> Shape:
        sizes = [positions(node, image(x)[1:], *window) for window in self.windows(node)]
        if len(set(sizes)) > 1:
            kernels = ", ".join(dimensions(kernel) for kernel, _ in self.windows(node))
            raise ValueError(f"kernels {kernels} give images of different sizes with padding {node['padding']!r}")
        return (node["channels"], *sizes[0])

    def windows(self, node: Node) -> Windows:
        return ((node["kernel"], node["dilation"]),)


class Conv2d(Convolution, name="conv2d"):
    """Dense convolution."""

    parameters: ClassVar = {
        "weight": Parameter("C_out C_in/G K_h K_w", "K_h K_w C_in/G C_out", multiplied=True),
        "bias": BIAS,
    }
    options = ("stride", "padding", "dilation", "groups")


class DepthwiseConv2d(Convolution, name="depthwise_conv2d"):
    """One filter for each channel."""

    parameters: ClassVar = {"weight": Parameter("C 1 K_h K_w", "K_h K_w C", multiplied=True), "bias": BIAS}


class MixedDepthwiseConv2d(Convolution, name="mixed_depthwise_conv2d"):
    """Depthwise with windows of several sizes: ``kernels``, ``dilations`` and ``partition`` have one entry per part."""

    parameters: ClassVar = {
        "weight": Parameter("C_out 1 K_h K_w", "K_h K_w C_out", argument="weights", multiplied=True),
        "bias": BIAS,
    }
    attributes: ClassVar = {
        "channels": REQUIRED,
        "kernels": REQUIRED,
        "dilations": REQUIRED,
        "partition": REQUIRED,
        "stride": (1, 1),
        "padding": "symmetric",
    }
    options = ("stride", "padding")

    def windows(self, node: Node) -> Windows:
        return tuple(zip(node["kernels"], node["dilations"], strict=True))

    def parts(self, attributes: Mapping[str, Any] | Node) -> Sequence[Mapping[str, Any]]:
        parts = zip(attributes["kernels"], attributes["partition"], strict=True)
        return [{"kernel": kernel, "channels": channels} for kernel, channels in parts]

    def weight_shape(self, node: Node, channels: int) -> list[Shape]:
        weight = self.parameters["weight"]
        return [weight.kernel_shape(self._sizes(channels, part)) for part in self.parts(node)]

    def keywords(self, node: Node) -> dict[str, Any]:
        return super().keywords(node) | {"dilation": list(node["dilations"])}

    def arguments(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        weight = self.parameters["weight"]
        return {"weights": [weight.of_kernel(part) for part in arrays["weight"]], "bias": arrays["bias"]}


class PointwiseConv2d(Convolution, name="pointwise_conv2d"):
    """A window of one pixel."""

    inputs = ("x", "residual")
    parameters: ClassVar = {
        "weight": Parameter("C_out C_in/G 1 1", "C_in/G C_out", multiplied=True),
        "bias": BIAS,
    }
    attributes: ClassVar = {**Convolution.attributes, "kernel": (1, 1)}
    options = ("groups",)
    ends = ("norm", "activation", "residual")

    def output_shape(self, node: Node, x: Shape, residual: Shape | None = None) -> Shape:
        shape = super().output_shape(node, x)
        return shape if residual is None else same_shape(shape, residual)

    def parts(self, attributes: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        groups = attributes["groups"]
        return [{**attributes, "channels": attributes["channels"] // groups}] * groups


class ConvTranspose2d(Operation, name="conv_transpose2d"):
    """Transposed convolution: each pixel adds its window to a larger image, of which ``padding`` is cut off."""

    parameters: ClassVar = {
        "weight": Parameter("C_in C_out K_h K_w", "K_h K_w C_in C_out", multiplied=True),
        "bias": BIAS,
    }
    attributes: ClassVar = {"channels": REQUIRED, "kernel": REQUIRED, "stride": (1, 1), "padding": 0}
    options = ("stride", "padding")

    def output_shape(self, node: Node, x: Shape) -> Shape:
        size = transposed_size(image(x)[1:], node["kernel"], node["stride"], node["padding"])
        return (node["channels"], *size)

    def macs(self, node: Node, output: Shape) -> int:
        pads = resolve_padding(node["padding"], output[1:], node["kernel"])
        sizes = zip(output[1:], node["kernel"], node["stride"], pads, strict=True)
        return node.weight_count * prod(output_size(*axis) for axis in sizes)

    def terms(self, node: Node, *inputs: Shape) -> int:
        return inputs[0][0] * prod(node["kernel"])

    def text(self, node: Node) -> str:
        return f"{dimensions(node['kernel'])} transposed"


# Other layers with weights -----------------------------------------------------------------------------------


class Linear(Operation, name="linear"):
    """Fully connected layer."""

    parameters: ClassVar = {"weight": Parameter("C_out C_in", "C_in C_out", multiplied=True), "bias": BIAS}
    attributes: ClassVar = {"channels": REQUIRED}
    ends = ("activation",)

    def output_shape(self, node: Node, x: Shape) -> Shape:
        vector(x)
        return (node["channels"],)


class SqueezeExcite(Operation, name="squeeze_excite"):
    """The mean over the pixels, through two linear layers with ``activation`` and ``gate``, scales each channel."""

    parameters: ClassVar = {
        "reduce.weight": Parameter("R C", "C R", multiplied=True),
        "reduce.bias": Parameter("R", "R"),
        "expand.weight": Parameter("C R", "R C", multiplied=True),
        "expand.bias": Parameter("C", "C"),
    }
    attributes: ClassVar = {"channels": REQUIRED, "reduced": REQUIRED, "activation": "relu", "gate": "sigmoid"}
    options = ("activation", "gate")

    def output_shape(self, node: Node, x: Shape) -> Shape:
        return image(x)

    def terms(self, node: Node, *inputs: Shape) -> int:
        return prod(inputs[0][1:]) + node["channels"] + node["reduced"]  # three sums after each other


class BatchNorm(Operation, name="batch_norm"):
    """Batch normalisation with stored statistics."""

    parameters: ClassVar = {
        "weight": Parameter("C", "C"),
        "bias": Parameter("C", "C"),
        "running_mean": Parameter("C", "C", argument="mean", learned=False),
        "running_var": Parameter("C", "C", argument="variance", learned=False),
    }
    attributes: ClassVar = {"eps": 1e-5}
    options = ("eps",)

    def output_shape(self, node: Node, x: Shape) -> Shape:
        return image(x)


# Without weights ---------------------------------------------------------------------------------------------


class Activation(Operation, name="activation"):
    """A function of every value, which may stand at the end of a layer too: ``function`` says which."""

    attributes: ClassVar = {"function": REQUIRED}

    def kernel(self, node: Node) -> str:
        return node["function"]

    def text(self, node: Node) -> str:
        return node["function"]


class PReLU(Operation, name="prelu"):
    """``max(x, 0) + slope * min(x, 0)``; ``slopes`` is their shape: (C,), (1,), or (C, H, W) for each element."""

    parameters: ClassVar = {"weight": Parameter("C", "C")}
    attributes: ClassVar = {"slopes": None}

    def output_shape(self, node: Node, x: Shape) -> Shape:
        if node["slopes"] not in (None, (1,), x[:1], x):
            raise ValueError(f"its slopes must have the shape (1,), {x[:1]} or {x}, got {node['slopes']}")
        return x

    def parameter_shapes(
        self, channels: int, attributes: Mapping[str, Any], optional: bool = False
    ) -> dict[str, Shape]:
        return {"weight": attributes.get("slopes") or (channels,)}

    def arguments(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"weight": np.moveaxis(arrays["weight"], 0, -1)}


class LeakyReLU(Operation, name="leaky_relu"):
    """A small slope below zero."""

    attributes: ClassVar = {"slope": 0.01}
    options = ("slope",)


class ELU(Operation, name="elu"):
    """An exponential below zero."""

    attributes: ClassVar = {"alpha": 1.0}
    options = ("alpha",)


class Tanh(Operation, name="tanh"):
    """Hyperbolic tangent."""


class Softmax(Operation, name="softmax"):
    """Over the channels, of each pixel by itself."""

    def terms(self, node: Node, *inputs: Shape) -> int:
        return inputs[0][0]


class Add(Operation, name="add"):
    """Sum of two tensors of one shape."""

    inputs = ("x", "y")

    def output_shape(self, node: Node, x: Shape, y: Shape) -> Shape:
        return same_shape(x, y)


class BroadcastAdd(Operation, name="broadcast_add"):
    """Sum in which the second tensor stands for one of the first's shape: of length 1 in some axes, or a vector."""

    inputs = ("x", "y")

    def output_shape(self, node: Node, x: Shape, y: Shape) -> Shape:
        if len(y) > len(x) or not all(mine in (1, length) for mine, length in zip(y, x, strict=False)):
            raise ValueError(f"it takes a second tensor that broadcasts to the first, {x}, got {y}")
        return x


class Multiply(BroadcastAdd, name="multiply"):
    """Product, likewise."""


class Concat(Operation, name="concat"):
    """The channels of several tensors one after the other."""

    inputs = ("xs",)

    def output_shape(self, node: Node, *xs: Shape) -> Shape:
        if len({x[1:] for x in xs}) > 1:
            raise ValueError(f"it takes tensors that differ in nothing but channels, got {', '.join(map(str, xs))}")
        return (sum(x[0] for x in xs), *xs[0][1:])

    def operands(self, tensors: Sequence[Any]) -> dict[str, Any]:
        return {"xs": list(tensors)}


class ChannelSelect(Concat, name="channel_select"):
    """Channels of several tensors, counted one tensor after the other, in any order: ``indices`` says which."""

    attributes: ClassVar = {"indices": REQUIRED}
    options = ("indices",)

    def output_shape(self, node: Node, *xs: Shape) -> Shape:
        channels, *size = super().output_shape(node, *xs)
        if not node["indices"] or not 0 <= min(node["indices"]) <= max(node["indices"]) < channels:
            raise ValueError(f"its indices must be channels from 0 to {channels - 1}")
        return (len(node["indices"]), *size)


class ChannelPad(Operation, name="channel_pad"):
    """Channels of zeros, ``before`` and ``after`` the others."""

    attributes: ClassVar = {"before": 0, "after": 0}
    options = ("before", "after")

    def output_shape(self, node: Node, x: Shape) -> Shape:
        return (node["before"] + x[0] + node["after"], *x[1:])


class Flatten(Operation, name="flatten"):
    """The image as a vector in PyTorch's order, channel after channel."""

    def output_shape(self, node: Node, x: Shape) -> Shape:
        return (prod(image(x)),)


class GlobalAveragePool(Operation, name="global_average_pool"):
    """Mean over all pixels: a vector, or with ``keepdims`` an image of one pixel."""

    attributes: ClassVar = {"keepdims": False}
    options = ("keepdims",)

    def output_shape(self, node: Node, x: Shape) -> Shape:
        return (*image(x)[:1], *(1, 1)[: 2 * node["keepdims"]])

    def terms(self, node: Node, *inputs: Shape) -> int:
        return prod(inputs[0][1:])


class Pool2d(Operation):
    """One value of every window; the ``stride`` is the window's size unless given."""

    attributes: ClassVar = {"kernel": REQUIRED, "stride": None, "padding": 0}
    options = ("stride", "padding")

    def output_shape(self, node: Node, x: Shape) -> Shape:
        node = node if node["stride"] else node.with_attributes(stride=node["kernel"])
        return (x[0], *positions(node, image(x)[1:], node["kernel"]))

    def windows(self, node: Node) -> Windows:
        return ((node["kernel"], (1, 1)),)

    def keywords(self, node: Node) -> dict[str, Any]:
        return super().keywords(node) | {"kernel_size": node["kernel"]}


class MaxPool2d(Pool2d, name="max_pool2d"):
    """Maximum of every window."""


class AveragePool2d(Pool2d, name="average_pool2d"):
    """Mean of every window, in which zeros of the padding count or not."""

    attributes: ClassVar = {**Pool2d.attributes, "count_include_pad": True}
    options = ("stride", "padding", "count_include_pad")

    def terms(self, node: Node, *inputs: Shape) -> int:
        return prod(node["kernel"])


class GlobalMaxPool(Operation, name="global_max_pool"):
    """Maximum of all pixels."""

    def output_shape(self, node: Node, x: Shape) -> Shape:
        return image(x)[:1]


class Resize2d(Operation, name="resize2d"):
    """The image at another ``size``, or by a ``scale``, or as large as a second tensor, of which nothing else is read.

    :func:`~npmobilenet.kernels.geometry.resize_taps` says how.
    """

    inputs = ("x", "like")
    attributes: ClassVar = {"size": None, "scale": None, "mode": "bilinear", "coordinates": "half_pixel"}
    options = ("size", "scale", "mode", "coordinates")

    def output_shape(self, node: Node, x: Shape, like: Shape | None = None) -> Shape:
        return (x[0], *resized(image(x)[1:], node["size"], node["scale"], like and image(like)[1:]))

    def text(self, node: Node) -> str:
        return node["mode"]


def same_shape(x: Shape, y: Shape) -> Shape:
    """Return the shape of two tensors that must have one; others are refused."""
    if x != y:
        raise ValueError(f"it takes two tensors of one shape, got {x} and {y}")
    return x

"""YOLOv3 and its kin from the sections of a Darknet configuration (1804.02767; Gaussian YOLOv3, 1904.04620).

Layers are counted from 0, as Darknet counts them, and called ``layer0``, ``layer1``, ...; what a detecting layer reads
is an output of the graph, under that layer's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from npmobilenet import operations
from npmobilenet.graph import INPUT, Graph, Node, Shape
from npmobilenet.text import quote

LEAKY_SLOPE = 0.1
BN_EPS = 1e-6  # Darknet divides by the root of the variance, plus this
MOST_CHANNELS, MOST_SIDE, MOST_VALUES = 65536, 4096, 1 << 28
OPERATIONS = {"relu": "relu", "relu6": "relu6", "logistic": "sigmoid", "swish": "swish"}  # as activations
OTHERS = {"leaky": ("leaky_relu", {"slope": LEAKY_SLOPE}), "elu": ("elu", {}), "tanh": ("tanh", {})}
BOX_VALUES = {"yolo": 5, "gaussian_yolo": 9}  # of each anchor, before its classes
REFUSED = ("binary", "xnor", "flipped", "new_coords", "group_id", "antialiasing", "maxpool_depth", "reverse")


@dataclass(frozen=True)
class Section:
    """A section of a configuration: ``[kind]``, in which line, and its options as text."""

    kind: str
    line: int
    options: Mapping[str, str]

    def text(self, name: str, default: str) -> str:
        """An option as it stands there."""
        return self.options.get(name, default)

    def whole(self, name: str, default: int | None, least: int = 0, most: int = MOST_CHANNELS) -> int:
        """An option that is an integer; it must be there if there is no default."""
        text = self.options.get(name)
        if text is None and default is not None:
            return default
        try:
            value = int(text) if text is not None and len(text) < 10 else None
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise self.wrong(name, f"an integer from {least} to {most}")
        return value

    def numbers(self, name: str, default: str | None = None, most: int = 1000) -> list[float]:
        """An option that is a list of numbers, with commas between them."""
        text = self.options.get(name, default)
        try:
            values = [float(each) for each in text.split(",") if each.strip()] if text is not None else []
        except ValueError:
            values = []
        if not 0 < len(values) <= most or not all(isfinite(value) and abs(value) < 1e6 for value in values):
            raise self.wrong(name, "numbers with commas between them")
        return values

    def wrong(self, name: str, expected: str) -> ValueError:
        """The error of an option."""
        given = quote(self.options[name], 40) if name in self.options else "nothing"
        return ValueError(f"[{self.kind}] in line {self.line}: {name} must be {expected}, got {given}")


@dataclass(frozen=True)
class Head:
    """One detecting layer.

    Attributes
    ----------
    output : str
        Of the graph, which it reads.
    anchors : tuple of (width, height)
        In pixels of the network's input.
    classes : int
    stride : (vertical, horizontal)
        Pixels of the input for each of the layer's.
    gaussian : bool
        Whether boxes have uncertainties.
    spread : float
        Centres are spread over a pixel and its borders by this factor (``scale_x_y``).
    most_overlap : float
        Of boxes of a class that remain.
    """

    output: str
    anchors: tuple[tuple[float, float], ...]
    classes: int
    stride: tuple[float, float]
    gaussian: bool = False
    spread: float = 1.0
    most_overlap: float = 0.45

    @property
    def values(self) -> int:
        """Channels of an anchor: of its box, whether there is a thing, and of the classes."""
        return BOX_VALUES["gaussian_yolo" if self.gaussian else "yolo"] + self.classes


@dataclass
class Yolo:
    """A network, made of its sections.

    Attributes
    ----------
    graph : Graph
    heads : list of Head
    size : (height, width)
        Of the input.
    convolutions : list of (node, whether a batch norm follows)
        In the order in which a file has their weights.

    Raises
    ------
    ValueError
        If a section or an option is not known, or layers do not fit each other.
    """

    sections: Sequence[Section]
    bn_eps: float = BN_EPS
    heads: list[Head] = field(default_factory=list)
    convolutions: list[tuple[str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        net, *layers = self.sections
        if net.kind not in ("net", "network"):
            raise ValueError(f"begins with [{net.kind}] in line {net.line}, expected [net]")
        self.size = net.whole("height", None, 1, MOST_SIDE), net.whole("width", None, 1, MOST_SIDE)
        channels = net.whole("channels", 3, 1, 3)
        if channels == 2:
            raise net.wrong("channels", "3 or 1")
        self._nodes: list[Node] = []
        self._shapes: dict[str, Shape] = {INPUT: (channels, *self.size)}
        self._last, self._ends = INPUT, []  # of each layer, the node that gives its result
        outputs = {}
        for number, section in enumerate(layers):
            build = _KINDS.get(section.kind)
            if build is None:
                known = ", ".join(f"[{kind}]" for kind in _KINDS)
                raise ValueError(f"layer {number} in line {section.line} is [{section.kind}]; known are {known}")
            for option in REFUSED:
                if section.text(option, "0").strip() not in ("0", ""):
                    raise section.wrong(option, "0, for others are not known here")
            self._layer = f"layer{number}"
            if section.kind in BOX_VALUES:
                outputs[self._layer] = self._last
            try:
                build(self, section)
            except ValueError as error:
                at = f"[{section.kind}] in line {section.line}"
                text = str(error)
                raise ValueError(text if text.startswith(at) else f"{at}: {text}") from None
            self._ends.append(self._last)
        if not self.heads:
            raise ValueError("has no [yolo] or [gaussian_yolo], so that it finds nothing")
        classes = {head.classes for head in self.heads}
        if len(classes) > 1:
            raise ValueError(f"its detecting layers have different numbers of classes, {sorted(classes)}")
        self.graph = Graph(tuple(self._nodes), channels, outputs)

    def _add(self, name: str, operation: str, inputs: tuple[str, ...] = (), **rest: Any) -> None:
        node = Node(name, operation, inputs or (self._last,), self._layer, **rest)
        shape = node.output_shape(self._shapes)
        if shape[0] > MOST_CHANNELS or shape[0] * shape[1] * shape[2] > MOST_VALUES:
            raise ValueError(f"its result of {'x'.join(map(str, shape))} values is more than any network's")
        self._nodes.append(node)
        self._shapes[name], self._last = shape, name

    def _activation(self, section: Section, default: str) -> None:
        name = section.text("activation", default)
        node = f"{self._layer}.activation"
        if name in OPERATIONS:
            self._add(node, "activation", attributes={"function": OPERATIONS[name]})
        elif name in OTHERS:
            operation, attributes = OTHERS[name]
            self._add(node, operation, attributes=attributes)
        elif name != "linear":
            raise section.wrong("activation", f"one of linear, {', '.join((*OTHERS, *OPERATIONS))}")

    def _convolutional(self, section: Section) -> None:
        kernel, stride = section.whole("size", 1, 1, 256), section.whole("stride", 1, 1, 256)
        filters, groups = section.whole("filters", 1, 1), section.whole("groups", 1, 1)
        pad = kernel // 2 if section.whole("pad", 0, 0, 1) else section.whole("padding", 0, 0, 256)
        dilation = section.whole("dilation", 1, 1, 256)
        channels = self._shapes[self._last][0]
        if channels % groups or filters % groups:
            raise section.wrong("groups", f"a number that divides {channels} channels and {filters} filters")
        attributes = {"channels": filters, "kernel": (kernel, kernel), "stride": (stride, stride), "groups": groups}
        attributes |= {"padding": pad, "dilation": (dilation, dilation)}
        operation = "conv2d"
        if groups == channels == filters > 1:
            operation = "depthwise_conv2d"
        elif (kernel, stride, pad, groups) == (1, 1, 0, 1):
            operation = "pointwise_conv2d"
        norm = bool(section.whole("batch_normalize", 0, 0, 1))
        shapes = operations.get(operation).parameter_shapes(channels, attributes, not norm)
        self._add(self._layer, operation, parameters=shapes, attributes=attributes)
        self.convolutions.append((self._layer, norm))
        if norm:
            shapes = operations.get("batch_norm").parameter_shapes(filters, {})
            self._add(f"{self._layer}.norm", "batch_norm", parameters=shapes, attributes={"eps": self.bn_eps})
        self._activation(section, "logistic")

    def _maxpool(self, section: Section) -> None:
        stride = section.whole("stride", 1, 1, 256)
        kernel = section.whole("size", stride, 1, 256)
        pad = section.whole("padding", kernel - 1, 0, 256)
        pads = (pad // 2, pad - pad // 2)
        window = {"kernel": (kernel, kernel), "stride": (stride, stride), "padding": (pads, pads)}
        self._add(self._layer, "max_pool2d", attributes=window)

    def _upsample(self, section: Section) -> None:
        if section.numbers("scale", "1") != [1.0]:
            raise section.wrong("scale", "1")
        factor = section.whole("stride", 2, 1, 64)
        self._add(self._layer, "resize2d", attributes={"scale": float(factor), "mode": "nearest"})

    def _shortcut(self, section: Section) -> None:
        for other in self._earlier(section, "from"):
            self._add(f"{self._layer}.add" if self._last == other else self._layer, "add", (self._last, other))
        self._activation(section, "linear")

    def _route(self, section: Section) -> None:
        if section.whole("groups", 1, 1) != 1:
            raise section.wrong("groups", "1, for parts of a layer are not known here")
        layers = self._earlier(section, "layers")
        if len(layers) > 1:
            self._add(self._layer, "concat", tuple(layers))
        else:
            self._last = layers[0]

    def _earlier(self, section: Section, option: str) -> list[str]:
        """The results of earlier layers, by their numbers, or by how far before this one they are."""
        found = []
        for value in section.numbers(option, most=64):
            at = int(value) if value >= 0 else len(self._ends) + int(value)
            if value != int(value) or not 0 <= at < len(self._ends):
                raise section.wrong(option, f"numbers of layers before it, 0 to {len(self._ends) - 1}")
            found.append(self._ends[at])
        return found

    def _yolo(self, section: Section) -> None:
        classes = section.whole("classes", 20, 1)
        flat = section.numbers("anchors")
        pairs = list(zip(flat[::2], flat[1::2], strict=False))
        if len(flat) % 2 or min(flat) <= 0:
            raise section.wrong("anchors", "pairs of positive numbers")
        mask = section.numbers("mask", ",".join(map(str, range(len(pairs)))))
        if not all(value == int(value) and 0 <= value < len(pairs) for value in mask):
            raise section.wrong("mask", f"numbers of its anchors, 0 to {len(pairs) - 1}")
        channels, height, width = self._shapes[self._last]
        values = BOX_VALUES[section.kind] + classes
        if channels != len(mask) * values:
            raise ValueError(
                f"it reads {channels} channels, and {len(mask)} anchors of {classes} classes take {len(mask) * values}"
            )
        (spread, *_) = section.numbers("scale_x_y", "1")
        self.heads.append(
            Head(
                self._layer,
                tuple(pairs[int(at)] for at in mask),
                classes,
                (self.size[0] / height, self.size[1] / width),
                section.kind == "gaussian_yolo",
                spread,
            )
        )


_KINDS = {
    "convolutional": Yolo._convolutional,
    "maxpool": Yolo._maxpool,
    "upsample": Yolo._upsample,
    "shortcut": Yolo._shortcut,
    "route": Yolo._route,
    "yolo": Yolo._yolo,
    "gaussian_yolo": Yolo._yolo,
}

"""The language in which a network is written, and the builder that makes a graph of it.

A network is the paper's table, one short string per row, in the spirit of the block strings of MnasNet and
MixNet: a kind followed by its numbers.

=================================  ===========================================================================
``conv_k3_s2_c32``                 dense convolution, batch norm, activation
``separable_r2_k3_s2_c128``        depthwise k×k, then pointwise, each with batch norm and activation
                                   (MobileNetV1, 1704.04861 section 3.1)
``inverted_r2_k3_s2_e6_c24``       inverted residual: expand, depthwise k×k, project; the projection has no
                                   activation (MobileNetV2, 1801.04381 section 3); no expansion where e is 1
``parallel_k3.7_s2_e3_c48``        inverted residuals of these kernel sizes side by side, one after the other in
                                   the result's channels
``maxpool_k2_s2``, ``avgpool_...`` pooling of windows (VGG, 1409.1556 section 2.1)
``pool``                           global average pooling, and an activation if the row names one
``linear_c1280``                   linear layer with bias and activation (MobileNetV3, 1905.02244 section 5.1)
``linear``                         the classifier, with bias
``aspp_d12.24.36_c256``            atrous spatial pyramid pooling: a pointwise convolution, 3×3 ones of these
                                   dilations, if it names any, and the mean of the image side by side, then a
                                   pointwise one over all of them (DeepLabV3, 1706.05587 section 3.3);
                                   ``meanfirst``: the mean stands before the others
``segment_k3_c256``                scores for every pixel of the image: a dense convolution (not without ``c``), a
                                   pointwise one with a bias to the classes, resized to the image
``lraspp_c128_from4``              likewise, from the last block, gated by the mean of the image, and from an
                                   earlier one (MobileNetV3, 1905.02244 section 6.4)
``extra_k3_s2_c512``               a smaller feature map: pointwise to half of the channels, then as ``separable``
                                   (SSDLite, 1801.04381 section 6.2); ``dense``: then one dense convolution (SSD)
``ssdlite_k3_n3.6_from14``         boxes and scores: on the expansion of block14 (the block, if it has none), the
                                   last block before the first ``extra`` and every ``extra``, each a depthwise k×k
                                   and a pointwise one, for so many anchors at each pixel
``ssd_k1_n3.6_from11``             likewise, each by one dense convolution (SSD, 1512.02325 section 2.1)
``pooled_k3_s2_c32``               max pooling 2×2, then depthwise k×k and pointwise with one activation
``yolo_n5``                        boxes and scores of so many anchors at each pixel: max pooling 2×2 with stride 1, a
                                   pointwise convolution (YOLOv2, 1612.08242)
``summed_k3_s2_c64``               separable convolutions without activation between: one, where there is a stride,
                                   and three that each read the rectified sum of all before
``gated_c128``                     a pointwise convolution, multiplied by the gate that another one makes of the mean
``join_c24_from3``                 resized to block3's result, plus this under a gate that the mean of their sum makes;
                                   then a pointwise convolution and a depthwise 3×3 one, added to it
``upward_c64_within4``             two separable convolutions, 3×3 and 5×5, added and resized to the expansion of
                                   block4; as many channels again that a pointwise and a separable one make of that
``centers``                        boxes and scores for every pixel, of features under a gate: a separable convolution
                                   each (CenterNet, 1904.07850)
``attributes_c256``                of a face: a linear layer with activation, then gender and age (two named outputs)
``mask_k2_s2``                     scores for every pixel of the image: a transposed convolution and a sigmoid
=================================  ===========================================================================

=================================  ===========================================================================
``r3``                             repeats, of which the first alone has the stride; a depth multiplier scales
                                   them, but not a row without ``r``
``k3``, ``k3.5.7``                 kernel size; several: a mixed depthwise convolution, each size on a part of
                                   the channels (MixNet, 1907.09595 section 3.1), equal parts unless it says
                                   ``exponential`` or the parts, ``g24.12.12``
``dilated``                        at stride 1 each k×k kernel is 3×3 with dilation (k - 1) / 2 instead
``s2``                             stride
``d2``                             dilation
``from4``                          reads block4, not what stands before; block 0 is the stem
``within4``                        reads the expansion of block4
``dense``                          an ``extra`` has one dense convolution instead
``pad1``                           zeros on each side of a dense convolution, where they are not the padding's
``e6``, ``e4.5``                   expanded channels per input channel, rounded as all channels are
``expands``                        the expansion is there even where e is 1
``a1.1``, ``p1.1``                 the expansion (a) or the projection (p) in two groups
``se0.25``                         squeeze-and-excitation (1709.01507) after the depthwise convolution, with
                                   this part of the channels that :class:`Squeeze` says
``c24``                            output channels at width 1; ``wide``: a width multiplier below 1 leaves
                                   them alone; ``fixed``: every one does; ``scaled``: none does
``x6``                             a width multiplier scales a sixth of the channels, and so many times that there are
``relu``, ``relu6``, ``swish``,    activation, where it is not the network's
``hardswish``, ``prelu``
``noskip``                         no residual add
``shortcut``                       where the stride is 1 and the table's channels change, a pointwise convolution
                                   and batch norm lead around the block
``shortcuts``                      likewise wherever the stride is 1, and with a ReLU
=================================  ===========================================================================

Of two tokens that say the same thing the later counts, so that a variant of a network is its rows with words
appended (`Architecture.varied`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from itertools import count
from math import ceil
from typing import Any, NamedTuple

from npmobilenet import operations
from npmobilenet.graph import INPUT, Graph, Node, Shape
from npmobilenet.kernels.geometry import PaddingSpec, Pair, equal_partition, exponential_partition


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _dotted(values: tuple[int, ...]) -> str:
    return ".".join(map(str, values))


def _groups(text: str) -> int:
    if set(_integers(text)) != {1}:
        raise ValueError
    return len(_integers(text))


# The tokens: a letter before numbers, with the field it sets, how it is read and how it is written; and words.
_NUMBERS: dict[str, tuple[str, Callable[[str], Any], Callable[[Any], str]]] = {
    "r": ("repeats", int, str),
    "k": ("kernels", _integers, _dotted),
    "g": ("partition", _integers, _dotted),
    "s": ("stride", int, str),
    "d": ("dilations", _integers, _dotted),
    "from": ("source", int, str),
    "within": ("inside", int, str),
    "n": ("anchors", _integers, _dotted),
    "pad": ("pad", int, str),
    "e": ("expansion", float, "{:g}".format),
    "a": ("expand_groups", _groups, lambda groups: _dotted((1,) * groups)),
    "p": ("project_groups", _groups, lambda groups: _dotted((1,) * groups)),
    "se": ("squeeze", float, "{:g}".format),
    "c": ("channels", int, str),
    "x": ("times", int, str),
}
_WORDS: dict[str, tuple[str, Any]] = {
    "exponential": ("exponential", True),
    "dilated": ("dilated", True),
    "expands": ("expands", True),
    "scaled": ("width_from", 0.0),
    "wide": ("width_from", 1.0),
    "fixed": ("width_from", None),
    "relu": ("activation", "relu"),
    "relu6": ("activation", "relu6"),
    "swish": ("activation", "swish"),
    "hardswish": ("activation", "hard_swish"),
    "prelu": ("activation", "prelu"),
    "dense": ("dense", True),
    "meanfirst": ("mean_first", True),
    "noskip": ("skip", False),
    "shortcut": ("shortcut", "changed"),
    "shortcuts": ("shortcut", "every"),
}


@dataclass(frozen=True)
class Row:
    """One row of a network's table; see the module's table for what its fields mean."""

    kind: str
    repeats: int | None = None
    kernels: tuple[int, ...] = (1,)
    partition: tuple[int, ...] = ()
    exponential: bool = False
    dilated: bool = False
    stride: int = 1
    dilations: tuple[int, ...] = (1,)
    source: int | None = None
    inside: int | None = None
    anchors: tuple[int, ...] = ()
    pad: int | None = None
    expansion: float = 1.0
    expands: bool = False
    expand_groups: int = 1
    project_groups: int = 1
    squeeze: float = 0.0
    channels: int = 0
    times: int = 1
    width_from: float | None = 0.0
    """A width multiplier below this counts as this; None: any counts as 1."""
    activation: str | None = None
    dense: bool = False
    mean_first: bool = False
    skip: bool = True
    shortcut: str | None = None
    """Which blocks of stride 1 have a convolution around them: those whose channels are "changed", or "every" one."""

    @classmethod
    @lru_cache(maxsize=1024)
    def parse(cls, text: str) -> Row:
        """Read a row such as ``"inverted_r2_k3_s2_e6_c24"``.

        Raises
        ------
        ValueError
            If the kind or one of the tokens is not of the language.
        """
        kind, *tokens = text.split("_")
        if kind not in _KINDS:
            raise ValueError(f"row {text!r}: unknown kind {kind!r}; there are {', '.join(_KINDS)}")
        values: dict[str, Any] = {}
        for token in tokens:
            number = re.fullmatch(r"([a-z]+)([\d.]+)", token)
            try:
                if token in _WORDS:
                    name, value = _WORDS[token]
                else:
                    name, read, _ = _NUMBERS[number[1]]
                    value = read(number[2])
            except (KeyError, TypeError, ValueError):
                letters, words = ", ".join(_NUMBERS), ", ".join(_WORDS)
                raise ValueError(f"row {text!r}: {token!r} is none of {letters} with a number, or {words}") from None
            values[name] = value
        row = cls(kind, **values)
        if len(row.kernels) > 1 and kind not in (*DEPTHWISE_KINDS, "parallel"):
            raise ValueError(f"row {text!r}: only {' and '.join(DEPTHWISE_KINDS)} blocks take several kernel sizes")
        if len(row.dilations) > 1 and kind != "aspp":
            raise ValueError(f"row {text!r}: only aspp blocks take several dilations")
        return row

    def __str__(self) -> str:
        defaults = {each.name: each.default for each in fields(self)}
        tokens = [self.kind]
        for letter, (name, _, write) in _NUMBERS.items():
            value = getattr(self, name)
            if value != defaults[name]:
                tokens.append(letter + write(value))
        words = {word: name for word, (name, value) in _WORDS.items() if getattr(self, name) == value}
        return "_".join(tokens + [word for word, name in words.items() if getattr(self, name) != defaults[name]])

    @property
    def has_expansion(self) -> bool:
        """Whether an inverted residual begins with a pointwise convolution."""
        return self.expands or self.expansion != 1

    def scaled_channels(self, width: float, rounding: str = "nearest") -> int:
        """Output channels under a width multiplier."""
        if self.width_from is None:
            return self.channels
        return self.times * ROUNDINGS[rounding](self.channels // self.times, max(self.width_from, width))


DEPTHWISE_KINDS = ("separable", "inverted")  # with a depthwise convolution
OUTPUTS = {"segmentation": "logits", "auxiliary": "auxiliary"}  # of heads for every pixel, by their blocks
POOLINGS = {"maxpool": "max_pool2d", "avgpool": "average_pool2d"}
DETECTOR_KINDS = ("ssd", "ssdlite")  # with boxes and scores
ENDS = ("yolo", "centers", "attributes", "mask", *DETECTOR_KINDS)  # kinds that make outputs of classes
OWN_NAME = ("pool", "aspp", *ENDS)  # kinds of which there is one block, called so
OF_CLASSES = ("classifier", *ENDS, *OUTPUTS)  # blocks whose channels the classes decide
LEAK = 0.1  # the slope of leaky ReLU


class Squeeze(NamedTuple):
    """How a network's blocks squeeze and excite (1709.01507, section 3).

    Attributes
    ----------
    expanded : bool
        Whether the row's ratio is of the expanded channels, rounded as all channels are (MobileNetV3), or of
        the block's input channels (MnasNet, EfficientNet, MixNet).
    activation : str or None
        Between the two linear layers; None: the block's.
    gate : {"sigmoid", "hard_sigmoid"}
    place : {"after", "before", "projected"}
        After the depthwise convolution's activation; before it in blocks that expand; or after the projection,
        whose channels it then counts and scales.
    rounding : str
        Of the part of the expanded channels, one of `ROUNDINGS`.
    """

    expanded: bool = False
    activation: str | None = None
    gate: str = "sigmoid"
    place: str = "after"
    rounding: str = "nearest"


def round_channels(channels: float, divisor: int = 8) -> int:
    """Round to a multiple of ``divisor``, never more than 10 % down.

    The rule of the reference implementations of MobileNetV2 and its relatives (tensorflow/models,
    torchvision, timm).
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


# How a table's channels become a network's under a width multiplier.
ROUNDINGS: dict[str, Callable[[float, float], int]] = {
    "nearest": lambda channels, width: round_channels(channels * width),
    "nearest, by 4 at width 0.1": lambda channels, width: round_channels(channels * width, 4 if width == 0.1 else 8),
    "up": lambda channels, width: ceil(channels * width / 8) * 8,
    "down": lambda channels, width: int(channels * width),
    "down, at least 8": lambda channels, width: max(int(channels * width), 8),
}


class Conventions(NamedTuple):
    """What an implementation of a paper's table decides for itself, and its weights depend on.

    Attributes
    ----------
    rounding : str
        Of channels under a width multiplier, one of `ROUNDINGS`.
    expansion_of : {"block", "table"}
        What the ratio of an expansion multiplies: the block's input channels, or the table's, and then the width
        multiplier scales the product.
    bias : bool
        Whether convolutions have a bias before their batch norm.
    norms : bool
        Whether there are batch norms; without, they are folded into convolutions with a bias.
    folded : tuple of str
        Operations whose batch norms are, where others have theirs.
    linear_eps : float, optional
        Of the batch norms that no activation follows, where it is not that of the others.
    head_eps : float, optional
        Of the batch norms of heads for every pixel, likewise.
    pixel_slopes : bool
        Whether a PReLU has a slope for every pixel of a channel (Keras' default), so that the network takes images of
        one size.
    coordinates : str
        How heads for every pixel resize their scores to the image: `geometry.resize_taps`.
    """

    rounding: str = "nearest"
    expansion_of: str = "block"
    bias: bool = False
    norms: bool = True
    folded: tuple[str, ...] = ()
    linear_eps: float | None = None
    head_eps: float | None = None
    pixel_slopes: bool = False
    coordinates: str = "half_pixel"


class Block(NamedTuple):
    """One block of a network: one repeat of a row.

    Attributes
    ----------
    name : str
    row : Row
    stride : int
        The row's for its first repeat, then 1.
    stage, place : int
        Consecutive blocks of a kind with the same channels are a stage, as in the papers' tables; stages are
        counted from 1, places in a stage from 0. Stem, head, pooling and linear layers have stage 0.
    """

    name: str
    row: Row
    stride: int
    stage: int = 0
    place: int = 0


def name_blocks(rows: Sequence[Row], depth: float = 1.0) -> list[Block]:
    """Return the blocks of a network in order: stem, block1, block2, ..., head, pool, hidden, classifier."""
    blocks: list[Block] = []
    stage, place, of_stage = 0, 0, None
    numbered = {"extra": count(1), "pool": count(1)}
    numbers = count(0)
    for row in rows:
        for repeat in range(1 if row.repeats is None else ceil(depth * row.repeats)):
            stride = row.stride if repeat == 0 else 1
            counted = "pool" if row.kind in POOLINGS else row.kind
            if counted in numbered and row.kind != "pool":
                blocks.append(Block(f"{counted}{next(numbered[counted])}", row, stride))
                of_stage = None
                continue
            name, number = name_outside(row, first=not blocks), next(numbers)
            if name:
                blocks.append(Block(name, row, stride))
                continue
            if (row.kind, row.channels) != of_stage:
                stage, place, of_stage = stage + 1, 0, (row.kind, row.channels)
            blocks.append(Block(f"block{number}", row, stride, stage, place))
            place += 1
    return blocks


def name_outside(row: Row, first: bool) -> str | None:
    """The name of what is not one of the numbered blocks."""
    if row.kind == "linear":
        return "hidden" if row.channels else "classifier"
    if row.kind in OWN_NAME:
        return row.kind
    if row.kind in ("segment", "lraspp"):
        return "auxiliary" if row.kind == "segment" and row.source else "segmentation"
    if first:
        return "stem"
    return "head" if row.kind == "gated" or (row.kind == "conv" and row.kernels == (1,)) else None


@dataclass
class Builder:
    """Makes the graph of a list of blocks.

    Parameters
    ----------
    width : float
        Width multiplier (1704.04861 section 3.3): scales the channels of every row.
    num_classes : int
    activation : str
        Of every convolution but linear bottlenecks, where its row does not name one: "relu", "relu6",
        "swish", "hard_swish".
    padding : "symmetric" or "same"
        PyTorch's or TensorFlow's, a property of the checkpoint (see `geometry.resolve_padding`).
    bn_eps : float
        Added to a batch norm's variance: 1e-5 in PyTorch, 1e-3 in TensorFlow.
    squeeze : Squeeze
    conventions : Conventions
    in_channels : int
    size : (H, W), optional
        Of the image, where parameters depend on it.
    """

    width: float
    num_classes: int
    activation: str
    padding: PaddingSpec
    bn_eps: float
    squeeze: Squeeze = field(default_factory=Squeeze)
    conventions: Conventions = field(default_factory=Conventions)
    in_channels: int = 3
    size: Pair | None = None
    nodes: list[Node] = field(default_factory=list)

    def build(self, blocks: Sequence[Block], outputs: Mapping[str, str] | None = None) -> Graph:
        """Return the graph of these blocks; ``outputs``: names for what some of them compute."""
        self.channels, self.last = self.in_channels, "input"
        self.table_channels = self.in_channels  # those of the table, before the block that is being built
        self.ends: dict[str, tuple[str, int]] = {}  # of each block, its last node and the channels of that
        self.expansions: dict[str, tuple[str, int]] = {}  # likewise, of those that expand
        self.outputs: dict[str, str] = {}  # where they have names
        self.shapes: dict[str, Shape] = {INPUT: (self.in_channels, *self.size)} if self.size else {}
        for block in blocks:
            self.block, self.function = block.name, block.row.activation or self.activation
            channels = block.row.scaled_channels(self.width, self.conventions.rounding)
            try:
                _KINDS[block.row.kind](self, block.row, channels, block.stride)
            except ValueError as error:
                raise ValueError(f"{block.name} ({block.row}): {error}") from None
            if block.row.kind == "pool" and block.row.activation:
                self._activation("pool")
            self.table_channels = block.row.channels or self.table_channels
            self.ends[block.name] = self.last, self.channels
        self.outputs |= {name: self.ends[block][0] for name, block in (outputs or {}).items() if block in self.ends}
        return Graph(tuple(self.nodes), self.in_channels, self.outputs)

    def _add(self, name: str, operation: str, inputs: tuple[str, ...] = (), **rest: dict) -> None:
        self.nodes.append(Node(name, operation, inputs or (self.last,), self.block, **rest))
        self.last = name
        if self.size:
            self.shapes[name] = self.nodes[-1].output_shape(self.shapes)

    def _parameterised(self, name: str, operation: str, biases: bool = False, **attributes: Any) -> None:
        shapes = operations.get(operation).parameter_shapes(self.channels, attributes, biases)
        self._add(name, operation, parameters=shapes, attributes=attributes)
        self.channels = attributes.get("channels", self.channels)

    def _normalised(self, name: str, operation: str, channels: int, *, active: bool = True, **attributes: Any) -> None:
        """Add a convolution, its batch norm and, unless it is linear, its activation."""
        normed = self.conventions.norms and operation not in self.conventions.folded
        biases = self.conventions.bias or not normed
        attributes = {"channels": channels, "stride": (1, 1), "padding": self.padding, **attributes}
        self._parameterised(name, operation, biases, **attributes)
        if normed:
            of_heads = self.conventions.head_eps if self.block in (*OUTPUTS, "aspp") else None
            eps = of_heads or (None if active else self.conventions.linear_eps) or self.bn_eps
            self._parameterised(f"{name}.norm", "batch_norm", eps=eps)
        if active:
            self._activation(name)

    def _activation(self, name: str, function: str | None = None) -> None:
        function = function or self.function
        if function == "prelu":
            self._parameterised(f"{name}.activation", "prelu", slopes=self.shapes.get(self.last))
        elif function == "leaky_relu":
            self._add(f"{name}.activation", function, attributes={"slope": LEAK})
        else:
            self._add(f"{name}.activation", "activation", attributes={"function": function})

    def _dense(
        self, name: str, channels: int, kernel: int, stride: int = 1, pad: int | None = None, dilation: int = 1
    ) -> None:
        self._normalised(
            name,
            "conv2d",
            channels,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            padding=self.padding if pad is None else pad,
            dilation=(dilation, dilation),
            groups=1,
        )

    def _pointwise(self, name: str, channels: int, groups: int = 1, active: bool = True) -> None:
        for what in (self.channels, channels):
            if what % groups:
                raise ValueError(f"a pointwise convolution of {groups} groups must divide its {what} channels")
        window = {"kernel": (1, 1), "dilation": (1, 1), "groups": groups}
        self._normalised(name, "pointwise_conv2d", channels, active=active, **window)

    def _depthwise(self, name: str, row: Row, stride: int, active: bool = True) -> None:
        channels, sizes, rates = self.channels, row.kernels, row.dilations * len(row.kernels)
        if row.dilated:
            if any(size < 3 or size % 2 == 0 for size in sizes):
                raise ValueError(f"the dilated variant needs odd kernel sizes from 3, got {_dotted(sizes)}")
            if stride == 1:  # with a stride, the paper's networks keep their large kernels
                sizes, rates = (3,) * len(sizes), tuple(row.dilations[0] * (size - 1) // 2 for size in sizes)
        kernels, dilations = [(size, size) for size in sizes], [(rate, rate) for rate in rates]
        if len(kernels) == 1:
            operation = "depthwise_conv2d"
            window = {"kernel": kernels[0], "dilation": dilations[0]}
        else:
            operation, partition = "mixed_depthwise_conv2d", _partition(row, channels)
            window = {"kernels": tuple(kernels), "dilations": tuple(dilations), "partition": partition}
        window |= {"stride": (stride, stride), "groups": channels}
        self._normalised(name, operation, channels, active=active, **window)

    def _squeeze_excite(self, row: Row, in_channels: int) -> None:
        """1709.01507, section 3: the mean over the pixels, through two linear layers, scales each channel."""
        channels, squeeze = self.channels, self.squeeze
        if squeeze.expanded:
            reduced = ROUNDINGS[squeeze.rounding](channels, row.squeeze)
        else:
            reduced = round(in_channels * row.squeeze)
        self._parameterised(
            f"{self.block}.squeeze",
            "squeeze_excite",
            channels=channels,
            reduced=reduced,
            activation=squeeze.activation or self.function,
            gate=squeeze.gate,
        )

    def _conv(self, row: Row, channels: int, stride: int) -> None:
        (kernel,) = row.kernels
        if (kernel, stride, row.pad) == (1, 1, None):
            self._pointwise(self.block, channels)
        else:
            self._dense(self.block, channels, kernel, stride, row.pad, *row.dilations)

    def _separable(self, row: Row, channels: int, stride: int) -> None:
        self._depthwise(f"{self.block}.depthwise", row, stride)
        self._pointwise(f"{self.block}.pointwise", channels)

    def _inverted(self, row: Row, channels: int, stride: int) -> None:
        block, before, in_channels, squeeze = self.block, self.last, self.channels, self.squeeze
        changes = self.table_channels != row.channels  # at any width, for names do not depend on it
        around = stride == 1 and (row.shortcut == "every" or (row.shortcut and changes))
        shortcut = self._shortcut(row, channels) if around else before
        self.last, self.channels = before, in_channels
        if row.has_expansion:
            self._pointwise(f"{block}.expand", self._expanded(row), row.expand_groups)
            self.expansions[block] = self.last, self.channels
        squeezed_first = bool(row.squeeze) and squeeze.place == "before" and row.has_expansion
        self._depthwise(f"{block}.depthwise", row, stride, active=not squeezed_first)
        if row.squeeze and squeeze.place != "projected":
            self._squeeze_excite(row, in_channels)
        if squeezed_first:
            self._activation(self.last)
        self._pointwise(f"{block}.project", channels, row.project_groups, active=False)
        if row.squeeze and squeeze.place == "projected":
            self._squeeze_excite(row, in_channels)
        if around or (row.skip and stride == 1 and in_channels == channels):
            self._add(f"{block}.add", "add", (self.last, shortcut))

    def _shortcut(self, row: Row, channels: int) -> str:
        """The convolution around a block, and the name of its output."""
        name = f"{self.block}.shortcut"
        self._pointwise(name, channels, active=False)
        if row.shortcut == "every":
            self._activation(name, "relu")
        return self.last

    def _expanded(self, row: Row) -> int:
        """The channels of an expansion."""
        scale = ROUNDINGS[self.conventions.rounding]
        if self.conventions.expansion_of == "block":
            return scale(self.channels * row.expansion, 1.0)
        return scale(round_channels(self.table_channels * row.expansion), self.width)

    def _parallel(self, row: Row, channels: int, stride: int) -> None:
        image, branches = (self.last, self.channels), []
        for number, kernel in enumerate(row.kernels, 1):
            self.last, self.channels = image
            name = f"{self.block}.branch{number}"
            self._dense(f"{name}.expand", self._expanded(row), 1)  # of the image, which pointwise kernels do not read
            self._depthwise(f"{name}.depthwise", replace(row, kernels=(kernel,)), stride)
            self._pointwise(f"{name}.project", channels, active=False)
            branches.append(self.last)
        self._add(f"{self.block}.concat", "concat", tuple(branches))
        self.channels = channels * len(branches)

    def _pool(self, row: Row, channels: int, stride: int) -> None:
        self._add("pool", "global_average_pool")

    def _window_pool(self, row: Row, channels: int, stride: int) -> None:
        (kernel,) = row.kernels
        window = {"kernel": (kernel, kernel), "stride": (stride, stride)}
        self._add(self.block, POOLINGS[row.kind], attributes=window)

    def _linear(self, row: Row, channels: int, stride: int) -> None:
        channels = channels if row.channels else self.num_classes
        self._parameterised(self.block, "linear", biases=True, channels=channels)
        if row.channels:
            self._activation(self.block)

    def _aspp(self, row: Row, channels: int, stride: int) -> None:
        image, branches = (self.last, self.channels), []
        self._pointwise("aspp.point", channels)
        branches.append(self.last)
        for number, dilation in enumerate(row.dilations if row.dilations != (1,) else (), 1):
            self.last, self.channels = image
            self._dense(f"aspp.rate{number}", channels, 3, dilation=dilation)
            branches.append(self.last)
        self.last, self.channels = image
        self._mean("aspp.mean")
        self._pointwise("aspp.pooled", channels)
        self._resize("aspp.spread", image[0])
        branches.insert(0 if row.mean_first else len(branches), self.last)
        self._add("aspp.concat", "concat", tuple(branches))
        self.channels = channels * len(branches)
        self._pointwise("aspp.project", channels)

    def _segment(self, row: Row, channels: int, stride: int) -> None:
        if row.source:
            self.last, self.channels = self._block(self.ends, row.source)
        if row.channels:
            self._dense(f"{self.block}.conv", channels, *row.kernels)
        self._scores(f"{self.block}.scores")
        self._to_image()

    def _lraspp(self, row: Row, channels: int, stride: int) -> None:
        (earlier, earlier_channels), name = self._block(self.ends, row.source or 1), self.block
        image = self.last, self.channels
        self._pointwise(f"{name}.conv", channels)
        high = self.last
        self.last, self.channels = image
        self._mean(f"{name}.mean")
        self._scores(f"{name}.gate", channels, bias=False)
        self._activation(f"{name}.gate", "sigmoid")
        self._add(f"{name}.scale", "multiply", (high, self.last))
        self._resize(f"{name}.upsample", earlier)
        self._scores(f"{name}.scores")
        scores = self.last
        self.last, self.channels = earlier, earlier_channels
        self._scores(f"{name}.earlier_scores")
        self._add(f"{name}.add", "add", (self.last, scores))
        self._to_image()

    def _to_image(self) -> None:
        """Scores for every pixel of the image: an output."""
        self._resize(f"{self.block}.resize", INPUT)
        self.outputs[OUTPUTS[self.block]] = self.last

    def _extra(self, row: Row, channels: int, stride: int) -> None:
        self._pointwise(f"{self.block}.reduce", channels // 2)
        if row.dense:
            self._dense(f"{self.block}.conv", channels, *row.kernels, stride)
        else:
            self._separable(row, channels, stride)

    def _detect(self, row: Row, channels: int, stride: int) -> None:
        blocks = list(self.ends)
        extras = [number for number, block in enumerate(blocks) if block.startswith("extra")]
        first = extras[0] - 1 if extras else -1
        source = row.source or 1
        maps = [self.expansions.get(f"block{source}") or self._block(self.ends, source)]
        maps += [self.ends[block] for block in blocks[first:]]
        if len(maps) != len(row.anchors):
            raise ValueError(f"it has anchors for {len(row.anchors)} feature maps, and there are {len(maps)}")
        for what, values in (("boxes", 4), ("scores", self.num_classes)):
            for number, (features, anchors) in enumerate(zip(maps, row.anchors, strict=True)):
                self.last, self.channels = features
                name = f"{self.block}.{what}{number}"
                if row.kind == "ssdlite":
                    self._depthwise(f"{name}.depthwise", row, 1)
                self._scores(name, anchors * values, kernel=1 if row.kind == "ssdlite" else row.kernels[0])
                self.outputs[f"{what}{number}"] = self.last

    @staticmethod
    def _block(nodes: dict[str, tuple[str, int]], number: int) -> tuple[str, int]:
        """The node of a block, and its channels."""
        try:
            return nodes[f"block{number}" if number else "stem"]
        except KeyError:
            raise ValueError(f"there is no block{number} before it") from None

    def _scores(self, name: str, channels: int | None = None, bias: bool = True, kernel: int = 1) -> None:
        """A convolution without norm, to the classes."""
        channels = channels or self.num_classes
        if kernel == 1:
            self._parameterised(name, "pointwise_conv2d", bias, channels=channels)
        else:
            self._parameterised(name, "conv2d", bias, channels=channels, kernel=(kernel, kernel), padding=self.padding)

    def _pooled(self, row: Row, channels: int, stride: int) -> None:
        self._max_pool(stride)
        self._linear_separable("", row.kernels[0], channels)
        self._activation(self.last)

    def _yolo(self, row: Row, channels: int, stride: int) -> None:
        self._max_pool(1)
        (anchors,) = row.anchors
        self._scores(f"{self.block}.cells", anchors * 5)  # x, y, width, height, score
        self.outputs["cells"] = self.last

    def _max_pool(self, stride: int) -> None:
        window = {"kernel": (2, 2), "stride": (stride, stride), "padding": self.padding}
        self._add(f"{self.block}.pool", "max_pool2d", attributes=window)

    def _linear_separable(self, number: str, kernel: int, channels: int, stride: int = 1) -> None:
        """Depthwise and pointwise with one bias at the end."""
        window = {"kernel": (kernel, kernel), "stride": (stride, stride), "padding": self.padding}
        groups = self.channels
        self._parameterised(
            f"{self.block}.depthwise{number}", "depthwise_conv2d", channels=groups, groups=groups, **window
        )
        self._scores(f"{self.block}.pointwise{number}", channels)

    def _summed(self, row: Row, channels: int, stride: int) -> None:
        if stride > 1:
            self._linear_separable("0", row.kernels[0], channels, stride)
            self._activation(self.last, "relu")
        total = self.last
        for number in range(1, 4):
            self._linear_separable(str(number), row.kernels[0], channels)
            self._add(f"{self.block}.sum{number}", "add", (total, self.last))
            total = self.last
            self._activation(total, "relu")

    def _gated(self, row: Row, channels: int, stride: int) -> None:
        image = self.last, self.channels
        self._pointwise(f"{self.block}.conv", channels)
        features = self.last
        self.last, self.channels = image
        self._gate(features, channels)

    def _gate(self, features: str, channels: int, reduced: int = 0, bias: bool = True) -> None:
        """Multiply features by what the mean of the last node makes of itself."""
        self._mean(f"{self.block}.mean")
        if reduced:
            self._scores(f"{self.block}.reduce", reduced)
            self._activation(f"{self.block}.reduce", "relu")
        self._scores(f"{self.block}.gate", channels, bias)
        self._activation(f"{self.block}.gate", "sigmoid")
        self._add(f"{self.block}.scale", "multiply", (features, self.last))

    def _join(self, row: Row, channels: int, stride: int) -> None:
        earlier, _ = self._block(self.ends, 1 if row.source is None else row.source)
        self._resize(f"{self.block}.resize", earlier)
        self._scores(f"{self.block}.up", channels)
        larger = self.last
        self._add(f"{self.block}.both", "add", (larger, earlier))
        self._gate(earlier, channels, channels)
        self._add(f"{self.block}.add", "add", (self.last, larger))
        self._pointwise(f"{self.block}.refine", channels)
        refined = f"{self.block}.refine.activation"
        self._depthwise(f"{self.block}.depthwise", replace(row, kernels=(3,)), 1)
        self._add(f"{self.block}.sum", "add", (self.last, refined))

    def _upward(self, row: Row, channels: int, stride: int) -> None:
        block, before, channels = self.block, (self.last, self.channels), channels // 2
        earlier = self._block(self.ends if row.inside is None else self.expansions, row.inside or row.source or 1)
        self._linear_separable("3", 3, channels)
        first = self.last
        self.last, self.channels = before
        self._linear_separable("5", 5, channels)
        self._add(f"{block}.both", "add", (first, self.last))
        self._add(f"{block}.resize", "resize2d", (self.last, earlier[0]), attributes={"coordinates": "asymmetric"})
        larger = self.last
        self.last, self.channels = earlier
        self._scores(f"{block}.reduce", self.channels // 4)
        self._activation(f"{block}.reduce", "relu")
        self._linear_separable("", 5, channels)
        self._add(f"{block}.concat", "concat", (self.last, larger))
        self.channels = 2 * channels
        self._activation(f"{block}.concat", "relu")

    def _centers(self, row: Row, channels: int, stride: int) -> None:
        features = self.channels
        self._gate(self.last, features, features // 4, bias=False)
        gated = self.last, features
        for what, values in (("boxes", 4), ("scores", self.num_classes)):
            self.last, self.channels = gated
            name = f"{self.block}.{what}"
            window = {"kernel": (3, 3), "stride": (1, 1), "padding": self.padding}
            self._parameterised(f"{name}.depthwise", "depthwise_conv2d", channels=features, groups=features, **window)
            self._scores(name, values)
            if what == "scores":
                self._activation(name, "sigmoid")
            self.outputs[f"center_{what}"] = self.last

    def _attributes(self, row: Row, channels: int, stride: int) -> None:
        pooled = self.last
        self._parameterised("attributes.hidden", "linear", biases=True, channels=channels)
        self._activation("attributes.hidden", "relu")
        hidden = self.last, channels
        self._parameterised("attributes.gender", "linear", biases=True, channels=1)
        self._activation("attributes.gender", "sigmoid")
        gender = self.last
        self.last, self.channels = hidden
        self._parameterised("attributes.age", "linear", biases=True, channels=100)
        self._add("attributes.age.probabilities", "softmax")
        self.outputs |= {"gender_pred": gender, "global_pooling": pooled, "age_pred": self.last}

    def _mask(self, row: Row, channels: int, stride: int) -> None:
        (kernel,) = row.kernels
        window = {"kernel": (kernel, kernel), "stride": (stride, stride)}
        self._parameterised("mask", "conv_transpose2d", True, channels=self.num_classes, **window)
        self._activation("mask", "sigmoid")
        self.outputs["scores"] = self.last

    def _mean(self, name: str) -> None:
        self._add(name, "global_average_pool", attributes={"keepdims": True})

    def _resize(self, name: str, like: str) -> None:
        self._add(name, "resize2d", (self.last, like), attributes={"coordinates": self.conventions.coordinates})


def _partition(row: Row, channels: int) -> tuple[int, ...]:
    """The channels of each kernel size of a mixed convolution."""
    if row.partition:
        if len(row.partition) != len(row.kernels) or sum(row.partition) != channels or min(row.partition) < 1:
            raise ValueError(
                f"a partition must give each of {len(row.kernels)} kernels its part of {channels} channels, "
                f"got {_dotted(row.partition)} ({sum(row.partition)} channels)"
            )
        return row.partition
    divide = exponential_partition if row.exponential else equal_partition
    return tuple(divide(channels, len(row.kernels)))


_KINDS: dict[str, Callable[[Builder, Row, int, int], None]] = {
    "conv": Builder._conv,
    "separable": Builder._separable,
    "inverted": Builder._inverted,
    "parallel": Builder._parallel,
    "maxpool": Builder._window_pool,
    "avgpool": Builder._window_pool,
    "pool": Builder._pool,
    "linear": Builder._linear,
    "aspp": Builder._aspp,
    "segment": Builder._segment,
    "lraspp": Builder._lraspp,
    "extra": Builder._extra,
    "ssdlite": Builder._detect,
    "ssd": Builder._detect,
    "pooled": Builder._pooled,
    "yolo": Builder._yolo,
    "summed": Builder._summed,
    "gated": Builder._gated,
    "join": Builder._join,
    "upward": Builder._upward,
    "centers": Builder._centers,
    "attributes": Builder._attributes,
    "mask": Builder._mask,
}

"""The language in which a network is written, and the builder that makes a graph of it.

A network is the paper's table, one short string per row, in the spirit of the block strings of MnasNet and
MixNet: a kind followed by its numbers.

=================================  ===========================================================================
``conv_k3_s2_c32``                 dense convolution, batch norm, activation
``separable_r2_k3_s2_c128``        depthwise k×k, then pointwise, each with batch norm and activation
                                   (MobileNetV1, 1704.04861 section 3.1)
``inverted_r2_k3_s2_e6_c24``       inverted residual: expand, depthwise k×k, project; the projection has no
                                   activation (MobileNetV2, 1801.04381 section 3); no expansion where e is 1
``pool``                           global average pooling
``linear``                         the classifier, with bias
=================================  ===========================================================================

``r`` repeats (the stride holds for the first), ``k`` kernel size, ``s`` stride, ``e`` expansion, ``c`` output
channels at width 1, ``wide`` channels that a width multiplier below 1 leaves alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from npmobilenet.geometry import PaddingSpec
from npmobilenet.graph import Graph, Node

_NUMBERS = {"r": "repeats", "k": "kernel", "s": "stride", "e": "expansion", "c": "channels"}


@dataclass(frozen=True)
class Row:
    """One row of a network's table."""

    kind: str
    repeats: int = 1
    kernel: int = 1
    stride: int = 1
    expansion: int = 1
    channels: int = 0
    wide: bool = False

    @classmethod
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
        values: dict[str, int | bool] = {}
        for token in tokens:
            number = re.fullmatch(r"([a-z])(\d+)", token)
            if token == "wide":
                values["wide"] = True
            elif number and number[1] in _NUMBERS:
                values[_NUMBERS[number[1]]] = int(number[2])
            else:
                raise ValueError(f"row {text!r}: {token!r} is none of r, k, s, e, c with a number, or 'wide'")
        return cls(kind, **values)

    def scaled_channels(self, width: float) -> int:
        """Output channels under a width multiplier."""
        return round_channels(self.channels * (max(1.0, width) if self.wide else width))


def round_channels(channels: float, divisor: int = 8) -> int:
    """Round to a multiple of ``divisor``, never more than 10 % down.

    The rule of the reference implementations of MobileNetV2 and its relatives (tensorflow/models,
    torchvision, timm).
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


@dataclass(frozen=True)
class Block:
    """One block of a network: the n-th repeat of a row."""

    name: str
    row: Row
    row_index: int
    repeat: int

    @property
    def stride(self) -> int:
        """The row's stride for the first repeat, then 1."""
        return self.row.stride if self.repeat == 0 else 1


def name_blocks(rows: Sequence[Row]) -> list[Block]:
    """Return the blocks of a network in order: stem, block1, block2, ..., head, pool, classifier."""
    blocks: list[Block] = []
    for index, row in enumerate(rows):
        for repeat in range(row.repeats):
            if row.kind in ("pool", "linear"):
                name = {"pool": "pool", "linear": "classifier"}[row.kind]
            elif not blocks:
                name = "stem"
            elif row.kind == "conv" and row.kernel == 1:
                name = "head"
            else:
                name = f"block{len(blocks)}"
            blocks.append(Block(name, row, index, repeat))
    return blocks


@dataclass
class Builder:
    """Makes the graph of a list of rows.

    Parameters
    ----------
    width : float
        Width multiplier (1704.04861 section 3.3): scales the channels of every row.
    num_classes : int
    activation : str
        Of every convolution but linear bottlenecks: "relu", "relu6", "swish", "hard_swish".
    padding : "symmetric" or "same"
        PyTorch's or TensorFlow's, a property of the checkpoint (see `geometry.resolve_padding`).
    bn_eps : float
        Added to a batch norm's variance: 1e-5 in PyTorch, 1e-3 in TensorFlow.
    """

    width: float
    num_classes: int
    activation: str
    padding: PaddingSpec
    bn_eps: float
    in_channels: int = 3
    nodes: list[Node] = field(default_factory=list)

    def build(self, blocks: Sequence[Block]) -> Graph:
        """Return the graph of these blocks."""
        self.channels, self.last = self.in_channels, "input"
        for block in blocks:
            self.block = block.name
            channels = block.row.scaled_channels(self.width)
            _KINDS[block.row.kind](self, block.row, channels, block.stride)
        return Graph(tuple(self.nodes), self.in_channels)

    def _add(self, name: str, operation: str, inputs: tuple[str, ...] = (), **rest: dict) -> None:
        self.nodes.append(Node(name, operation, inputs or (self.last,), self.block, **rest))
        self.last = name

    def convolution(
        self,
        name: str,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        active: bool = True,
    ) -> None:
        """Add a convolution without bias, its batch norm and, unless it is linear, its activation."""
        operation = "depthwise_conv2d" if depthwise else "pointwise_conv2d" if kernel == 1 else "conv2d"
        groups = self.channels if depthwise else 1
        self._add(
            name,
            operation,
            parameters={"weight": (channels, self.channels // groups, kernel, kernel)},
            attributes={
                "channels": channels,
                "kernel": (kernel, kernel),
                "stride": (stride, stride),
                "dilation": (1, 1),
                "groups": groups,
                "padding": self.padding,
            },
        )
        statistics = ("weight", "bias", "running_mean", "running_var")
        self._add(
            f"{name}.norm",
            "batch_norm",
            parameters=dict.fromkeys(statistics, (channels,)),
            attributes={"eps": self.bn_eps},
        )
        if active:
            self._add(f"{name}.activation", "activation", attributes={"function": self.activation})
        self.channels = channels

    def _conv(self, row: Row, channels: int, stride: int) -> None:
        self.convolution(self.block, channels, row.kernel, stride)

    def _separable(self, row: Row, channels: int, stride: int) -> None:
        self.convolution(f"{self.block}.depthwise", self.channels, row.kernel, stride, depthwise=True)
        self.convolution(f"{self.block}.pointwise", channels)

    def _inverted(self, row: Row, channels: int, stride: int) -> None:
        block, shortcut, in_channels = self.block, self.last, self.channels
        expanded = in_channels * row.expansion
        if row.expansion != 1:
            self.convolution(f"{block}.expand", expanded)
        self.convolution(f"{block}.depthwise", expanded, row.kernel, stride, depthwise=True)
        self.convolution(f"{block}.project", channels, active=False)
        if stride == 1 and in_channels == channels:
            self._add(f"{block}.add", "add", (self.last, shortcut))

    def _pool(self, row: Row, channels: int, stride: int) -> None:
        self._add("pool", "global_average_pool")

    def _linear(self, row: Row, channels: int, stride: int) -> None:
        shapes = {"weight": (self.num_classes, self.channels), "bias": (self.num_classes,)}
        self._add("classifier", "linear", parameters=shapes, attributes={"channels": self.num_classes})


_KINDS: dict[str, Callable[[Builder, Row, int, int], None]] = {
    "conv": Builder._conv,
    "separable": Builder._separable,
    "inverted": Builder._inverted,
    "pool": Builder._pool,
    "linear": Builder._linear,
}

"""A network's definition: the paper's table, and what makes a graph of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from npmobilenet.architectures.blocks import (
    DEPTHWISE_KINDS,
    OF_CLASSES,
    Block,
    Builder,
    Conventions,
    Row,
    Squeeze,
    name_blocks,
    name_outside,
)
from npmobilenet.graph import Graph
from npmobilenet.kernels.geometry import PaddingSpec
from npmobilenet.text import shown

PARTITIONS = ("equal", "exponential")


@dataclass(frozen=True)
class Architecture:
    """One network family member, as data.

    Attributes
    ----------
    name : str
    paper : str
        Paper, arXiv number and table.
    rows : tuple of str
        The table in the language of `architectures.blocks`.
    activation : str
        Of every convolution but linear bottlenecks, where its row does not name one.
    squeeze : Squeeze
        How its blocks squeeze and excite, if they do.
    conventions : Conventions
        What implementations decide for themselves.
    width, depth : float
        What makes it of the table (1905.11946, section 3.3): multiply the channels, and the repeats, rounded up.
    resolution : int
        Height and width of the images it was made for; it takes any.
    classes : int
        As many as it was made for, those of its background included; it may have any number.
    """

    name: str
    paper: str
    rows: tuple[str, ...]
    activation: str
    squeeze: Squeeze = field(default_factory=Squeeze)
    conventions: Conventions = field(default_factory=Conventions)
    width: float = 1.0
    depth: float = 1.0
    resolution: int = 224
    classes: int = 1000

    @cached_property
    def blocks(self) -> list[Block]:
        """The blocks in order; names do not depend on the width."""
        return name_blocks([Row.parse(row) for row in self.rows], self.depth)

    def graph(
        self,
        width: float = 1.0,
        num_classes: int = 1000,
        padding: PaddingSpec = "symmetric",
        bn_eps: float = 1e-5,
    ) -> Graph:
        """Build the graph, for images of any size.

        Parameters
        ----------
        width : float
            Width multiplier, on top of the architecture's own; channels are rounded as the conventions say.
        num_classes : int
        padding : {"symmetric", "same"}
        bn_eps : float

        Raises
        ------
        ValueError
            If a number is out of range, the padding is unknown, or a block has fewer channels than its row
            wants to divide.
        """
        if not (isinstance(num_classes, (int, np.integer)) and num_classes >= 1):
            raise ValueError(f"num_classes must be an integer >= 1, got {num_classes!r}")
        if padding not in ("symmetric", "same"):
            raise ValueError(f"padding must be 'symmetric' (PyTorch) or 'same' (TensorFlow), got {padding!r}")
        if not (isinstance(bn_eps, (int, float)) and 0 < bn_eps < 1):
            raise ValueError(f"bn_eps must be a number between 0 and 1 (1e-5 or 1e-3), got {bn_eps!r}")
        of_network = (self.activation, padding, float(bn_eps), self.squeeze, self.conventions)
        return Builder(self._width(width), int(num_classes), *of_network).build(self.blocks)

    def channels(self, width: float = 1.0) -> dict[str, int]:
        """Return the output channels, by name, of the blocks that do not depend on the number of classes."""
        channels: dict[str, int] = {}
        last, width = 0, self._width(width)
        for block in self.blocks:
            if block.row.channels:
                last = block.row.scaled_channels(width, self.conventions.rounding)
            if block.name not in OF_CLASSES:
                channels[block.name] = last
        return channels

    def _width(self, width: float) -> float:
        """What multiplies the table's channels."""
        if not (isinstance(width, (int, float)) and 0 < width <= 100):
            raise ValueError(
                f"width must be a number above 0 (1.0 is the paper's network) and up to 100, got {shown(width)}"
            )
        return self.width * width

    def varied(
        self,
        rows: Mapping[str, str | tuple[str, ...]],
        squeeze: Mapping[str, Any] | None = None,
        conventions: Mapping[str, Any] | None = None,
        activation: str | None = None,
    ) -> Architecture:
        """Return a variant of this network, as an implementation or a training set wants it.

        Parameters
        ----------
        rows : mapping
            A key chooses rows: ``"stem"``, ``"head"``, ``"pool"``, ``"hidden"``, ``"classifier"``, ``"first"`` (the
            first row of blocks), a kind of row, or channels such as ``"c24"``. Its value: words to append to these
            rows (`blocks` has the language), or a tuple of the rows that stand in their place.
        squeeze, conventions : mapping, optional
            Fields of `Squeeze` and `Conventions`.
        activation : str, optional
        """
        varied: list[str] = []
        for number, text in enumerate(self.rows):
            row = Row.parse(text)
            place = name_outside(row, not number) or ("first" if number == 1 else "")
            changes = [rows[key] for key in (row.kind, place, f"c{row.channels}") if key in rows]
            instead = [change for change in changes if isinstance(change, tuple)]
            if instead:
                varied += instead[0]
            else:
                varied.append("_".join([text, *changes]))
        return replace(
            self,
            rows=tuple(varied),
            squeeze=replace(self.squeeze, **(squeeze or {})),
            conventions=replace(self.conventions, **(conventions or {})),
            activation=activation or self.activation,
        )

    def with_mixed(
        self,
        kernels: int | Sequence[int],
        layers: Iterable[str] | None = None,
        partition: str | Sequence[int] = "equal",
        dilated: bool = False,
    ) -> Architecture:
        """Return this network with mixed depthwise convolutions in place of its own.

        The substitution of the MixConv paper's study of MobileNets (1907.09595, section 3): in all layers or
        in some, with several kernel sizes or a single larger one.

        Parameters
        ----------
        kernels : int or sequence of int
            Kernel sizes, one per group of channels; one alone makes a plain depthwise convolution.
        layers : iterable of str, optional
            Names of blocks; all that have a depthwise convolution if None.
        partition : {"equal", "exponential"} or sequence of int
            The channels of each group (`geometry.equal_partition`, `geometry.exponential_partition`).
        dilated : bool
            3x3 kernels with dilation ``(k - 1) / 2`` in place of kernels of size k, where the stride is 1;
            blocks of ``layers=None`` with another stride keep the large kernels.

        Raises
        ------
        ValueError
            If an argument is out of range, there is no such block, or a block named has a stride and cannot be
            dilated.
        """
        kernels = tuple(kernels) if isinstance(kernels, Sequence) else (kernels,)
        if not kernels or not all(isinstance(kernel, (int, np.integer)) and kernel >= 1 for kernel in kernels):
            raise ValueError(f"kernels must be sizes, integers >= 1, got {kernels}")
        chosen = self._depthwise_blocks(layers, dilated)
        if isinstance(partition, str) and partition not in PARTITIONS:
            raise ValueError(f"partition must be {' or '.join(map(repr, PARTITIONS))} or numbers, got {partition!r}")
        mixed = {
            "kernels": kernels,
            "partition": () if isinstance(partition, str) else tuple(partition),
            "exponential": partition == "exponential",
            "dilated": dilated,
        }
        rows = [  # a row for each block
            replace(block.row, repeats=None, stride=block.stride, **(mixed if block.name in chosen else {}))
            for block in self.blocks
        ]
        name = f"{self.name}, mixed {','.join(map(str, kernels))}"
        return replace(self, name=name, rows=tuple(map(str, rows)), depth=1.0)

    def _depthwise_blocks(self, layers: Iterable[str] | None, dilated: bool) -> set[str]:
        """The names of the blocks to change, checked."""
        strides = {block.name: block.stride for block in self.blocks if block.row.kind in DEPTHWISE_KINDS}
        if not strides:
            raise ValueError(f"{self.name} has no depthwise convolutions")
        if layers is None:
            return set(strides)
        chosen = set(layers)
        unknown = sorted(chosen - set(strides))
        if unknown:
            raise ValueError(
                f"{self.name} has no block {unknown[0]!r} with a depthwise convolution; there are: {', '.join(strides)}"
            )
        strided = [f"{name} (stride {stride})" for name, stride in strides.items() if name in chosen and stride != 1]
        if dilated and strided:
            raise ValueError(f"a dilated convolution has stride 1, and cannot be in {', '.join(strided)}")
        return chosen


def random_weights(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Return float32 weights with the statistics of a trained network, from a seed: for tests and benchmarks.

    Kernels have variance ``2 / fan_in`` (He initialisation, 1502.01852), batch norms a scale near 1 and
    statistics that are not the identity. The stream is NumPy's PCG64, the same on every platform.

    That factor 2 counts on a rectifier before every convolution, and an expansion has none: with an activation
    that has no upper bound signals would grow from block to block, so the norms of projections make up for it.
    """
    random = np.random.default_rng(seed)
    bounded = {node["function"] for node in graph if node.operation == "activation"} <= {"relu6"}
    weights = {}
    for name, shape in graph.tensors.items():
        if len(shape) > 1:
            values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("norm.weight") or name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, shape)
            if name.endswith("project.norm.weight") and not bounded:
                values *= np.sqrt(1 / 2)
        else:
            values = random.uniform(-0.5, 0.5, shape)
        weights[name] = values.astype(np.float32)
    return weights

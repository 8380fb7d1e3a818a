"""A network's definition: the paper's table, and what makes a graph of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npmobilenet.architectures.blocks import Block, Builder, Row, name_blocks
from npmobilenet.geometry import PaddingSpec
from npmobilenet.graph import Graph


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
        Of every convolution but linear bottlenecks.
    """

    name: str
    paper: str
    rows: tuple[str, ...]
    activation: str

    @cached_property
    def blocks(self) -> list[Block]:
        """The blocks in order; names do not depend on the width."""
        return name_blocks([Row.parse(row) for row in self.rows])

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
            Width multiplier; channels are rounded to multiples of 8 (`blocks.round_channels`).
        num_classes : int
        padding : {"symmetric", "same"}
        bn_eps : float

        Raises
        ------
        ValueError
            If a number is out of range or the padding is unknown.
        """
        if not (isinstance(width, (int, float)) and 0 < width <= 100):
            raise ValueError(f"width must be a number above 0 (1.0 is the paper's network), got {width!r}")
        if not (isinstance(num_classes, (int, np.integer)) and num_classes >= 1):
            raise ValueError(f"num_classes must be an integer >= 1, got {num_classes!r}")
        if padding not in ("symmetric", "same"):
            raise ValueError(f"padding must be 'symmetric' (PyTorch) or 'same' (TensorFlow), got {padding!r}")
        if not (isinstance(bn_eps, (int, float)) and 0 < bn_eps < 1):
            raise ValueError(f"bn_eps must be a number between 0 and 1 (1e-5 or 1e-3), got {bn_eps!r}")
        return Builder(float(width), int(num_classes), self.activation, padding, float(bn_eps)).build(self.blocks)


def random_weights(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Return float32 weights with the statistics of a trained network, from a seed: for tests and benchmarks.

    Kernels have variance ``2 / fan_in`` (He initialisation, 1502.01852), batch norms a scale near 1 and
    statistics that are not the identity. The stream is NumPy's PCG64, the same on every platform.
    """
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in graph.tensors.items():
        if len(shape) > 1:
            values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("norm.weight") or name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, shape)
        else:
            values = random.uniform(-0.5, 0.5, shape)
        weights[name] = values.astype(np.float32)
    return weights

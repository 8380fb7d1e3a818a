"""What is known of the values between layers before an image is seen: from batch norms, or measured on images.

A batch norm promises that its result has, over the images of the training, the mean ``bias`` and the standard
deviation ``weight`` in each channel. Taken for normally distributed, that tells which values the activation behind it
gives, and their mean: Nagel et al. 2019, arXiv 1906.04721, sections 4.1.1 and 4.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from npmobilenet.graph import INPUT, WINDOWED, Graph, Node
from npmobilenet.kernels import reference
from npmobilenet.passes import kernel_arguments

SPREAD = np.linspace(-12, 12, 769)  # in standard deviations
DENSITY = np.exp(-(SPREAD**2) / 2) / np.exp(-(SPREAD**2) / 2).sum()
SMALLEST = 1e-3  # a range that is not less, for channels that are always 0


@dataclass(frozen=True)
class Values:
    """Of a tensor, per channel: the lowest and the highest value to be expected, and the mean; None where unknown."""

    low: np.ndarray | None = None
    high: np.ndarray | None = None
    mean: np.ndarray | None = None

    def joined(self, other: Values | None) -> Values:
        """Both ranges in one, and the sum of the means."""
        if other is None:
            return self
        return Values(np.minimum(self.low, other.low), np.maximum(self.high, other.high), self.mean + other.mean)

    def of_images(self, count: int) -> Values:
        """What so many images have in the mean, of their sum."""
        return Values(self.low, self.high, self.mean / count)

    def including(self, found: Values, limit: Values) -> Values:
        """The same with a range that includes another, as far as a limit."""
        if self.low is None:
            return self
        low, high = np.maximum(found.low, limit.low), np.minimum(found.high, limit.high)
        return Values(np.minimum(self.low, low), np.maximum(self.high, high), self.mean)

    def wider(self, factor: float) -> Values:
        """The same with a larger range."""
        return Values(factor * self.low, factor * self.high, self.mean)


UNKNOWN = Values()


def has_statistics(node: Node, weights: Mapping[str, np.ndarray]) -> bool:
    """Whether a layer ends with a batch norm that its publisher has not folded: one with a mean or a variance."""
    norm = node.attributes.get("norm")
    if norm is None:
        return False
    mean, variance = (weights[f"{norm.name}.{name}"] for name in ("running_mean", "running_var"))
    return bool(np.any(mean) or np.ptp(variance))


def promised(graph: Graph, weights: Mapping[str, np.ndarray], deviations: float = 12.0) -> dict[str, Values]:
    """Return what the batch norms of a fused graph promise of every tensor.

    A range goes as far as so many standard deviations from the mean, 12 at most.
    """
    known: dict[str, Values] = {INPUT: Values(mean=np.zeros(graph.in_channels))}
    for node in graph:
        known[node.name] = _result(node, weights, [known[name] for name in node.inputs], deviations)
    return known


def _result(node: Node, weights: Mapping[str, np.ndarray], inputs: list[Values], deviations: float) -> Values:
    function = reference.ACTIVATIONS[node.attributes.get("activation", "none")]
    if node.operation in WINDOWED and has_statistics(node, weights):
        norm = node["norm"].name
        middle, deviation = (weights[f"{norm}.{name}"].astype(np.float64) for name in ("bias", "weight"))
        spread = function(middle[:, None] + np.abs(deviation)[:, None] * SPREAD)
        mean = spread @ DENSITY
        if not node.attributes.get("residual"):
            near = spread[:, np.abs(SPREAD) <= deviations]
            return Values(near.min(axis=1), near.max(axis=1), mean)
        return Values(mean=None if inputs[1].mean is None else mean + inputs[1].mean)
    mean = inputs[0].mean
    if mean is None:
        return UNKNOWN
    if node.operation == "add":
        return Values(mean=None if inputs[1].mean is None else mean + inputs[1].mean)
    if node.operation == "global_average_pool":
        return inputs[0]
    if node.operation in ("squeeze_excite", "linear"):  # of the mean vector
        arguments = {**kernel_arguments(node, weights), **node.kind.keywords(node)}
        if node.operation == "squeeze_excite":
            return Values(mean=getattr(reference, node.operation)(mean[None, None, None], **arguments)[0, 0, 0])
        return Values(mean=reference.linear(mean[None], **arguments)[0])
    return UNKNOWN


def measured(results: Mapping[str, np.ndarray]) -> dict[str, Values]:
    """Return what is found in tensors (N, C, H, W) or (N, C)."""
    found = {}
    for name, values in results.items():
        over = (0, *range(2, values.ndim))
        low, high = (each(axis=over).astype(np.float64) for each in (values.min, values.max))
        found[name] = Values(np.minimum(low, 0), np.maximum(high, 0), values.mean(axis=over, dtype=np.float64))
    return found

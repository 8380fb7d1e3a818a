"""Which layers of a network stay float32 because 8 bits are too coarse for it.

What a layer's rounding costs is measured: it alone is of 8 bits, all others of float32. The noise of layers adds up, as
far as it is small. So those stay float32 that bring the most noise for the time that 8 bits save in them, as few as
leave the outputs what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from npmobilenet.engine import Engine
from npmobilenet.graph import Graph
from npmobilenet.machine import numba_is_on

Network = tuple[Graph, Mapping[str, np.ndarray]]
ALONE = 2  # of so many images a layer alone is measured


@dataclass(frozen=True)
class Judge:
    """Compares networks of 8 bits with that of float32 on images.

    Attributes
    ----------
    outputs : sequence of str
    images : sequence of float32 array (C, H, W)
    exact : sequence of dict
        The outputs of each image in float32.
    """

    outputs: Sequence[str]
    images: Sequence[np.ndarray]
    exact: Sequence[Mapping[str, np.ndarray]]

    @classmethod
    def of(cls, graph: Graph, weights: Mapping[str, np.ndarray], images: Sequence[np.ndarray]) -> Judge:
        """Compute what is exact."""
        names, engine = graph.output_names, Engine(graph, weights, _backend())
        return cls(names, images, [engine.outputs(image[None], names) for image in images])

    def decibels(self, network: Network, count: int | None = None) -> float:
        """The signal to noise of the output, and of the image among the first so many, that has the least."""
        graph, weights = network
        engine = Engine(graph, weights, _backend(), "int8" if graph.is_quantised else "float32")
        return min(
            signal_to_noise(near[name], exact[name])
            for image, exact in zip(self.images[:count], self.exact, strict=False)
            for near in (engine.outputs(image[None], self.outputs),)
            for name in self.outputs
        )


def layers_kept(
    judge: Judge,
    made: Callable[[Collection[str]], Network],
    multiply_adds: Mapping[str, int],
    decibels: float,
) -> frozenset[str]:
    """Return the layers that stay float32 so that every output has so many decibels.

    Parameters
    ----------
    judge : Judge
    made : callable
        The network of 8 bits in which these layers stay float32.
    multiply_adds : mapping of str to int
        Of the layers that may.
    decibels : float
    """
    noise = {
        name: 10 ** (-judge.decibels(made(multiply_adds.keys() - {name}), ALONE) / 10) / max(1, cost)
        for name, cost in multiply_adds.items()
    }
    noisiest = sorted(noise, key=noise.__getitem__, reverse=True)
    few, many = 0, len(noisiest) - 1  # one at least has 8 bits
    while few < many:
        middle = (few + many) // 2
        enough = judge.decibels(made(noisiest[:middle])) >= decibels
        few, many = (few, middle) if enough else (middle + 1, many)
    return frozenset(noisiest[:few])


def signal_to_noise(near: np.ndarray, exact: np.ndarray) -> float:
    """Return the ratio of what is right to what is wrong in decibels."""
    exact = np.float64(exact)
    noise, signal = ((near - exact) ** 2).sum(), (exact**2).sum()
    return float(10 * np.log10(signal / noise)) if noise and signal else float("inf") if not noise else float("-inf")


def _backend() -> str:
    return "auto" if numba_is_on() else "reference"

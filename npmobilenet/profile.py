"""How long a network takes, and each of its layers, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from npmobilenet.architectures import random_weights
from npmobilenet.blocked_program import BlockedProgram
from npmobilenet.geometry import Pair
from npmobilenet.graph import Graph

ROUNDS = 25


@dataclass(frozen=True)
class Profile:
    """Seconds for one image on one thread, medians.

    Attributes
    ----------
    network : float
        As a model runs it, blocks fused.
    layers : dict of str to float
        By the name of the layer, each computed by itself: together they take longer than the network.
    """

    network: float
    layers: dict[str, float]


def profile(graphs: Sequence[Graph], size: Pair, rounds: int = ROUNDS) -> list[Profile]:
    """Measure networks in turns, with random weights.

    Parameters
    ----------
    graphs : sequence of Graph
    size : (H, W)
    rounds : int

    Raises
    ------
    UnsupportedGraphError
        If the vector kernels cannot run one of them, or Numba is switched off.
    """
    programs = [BlockedProgram(graph, random_weights(graph)) for graph in graphs]
    plans = [(program.plan(size), program.plan(size, fused=False)) for program in programs]
    image = np.random.default_rng(0).standard_normal((graphs[0].in_channels, *size), np.float32)
    networks: list[list[float]] = [[] for _ in graphs]
    layers: list[list[dict[str, float]]] = [[] for _ in graphs]
    for number in range(rounds + 1):
        for index, (whole, parts) in enumerate(plans):
            before = perf_counter()
            whole.run(image)
            seconds = perf_counter() - before
            if number == 0:  # the first round compiles, and warms the caches up
                parts.run(image)
                continue
            networks[index].append(seconds)
            layers[index].append(parts.time_groups())
    return [
        Profile(median(network), {name: median(one[name] for one in found) for name in found[0]})
        for network, found in zip(networks, layers, strict=True)
    ]

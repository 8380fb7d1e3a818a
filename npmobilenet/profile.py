"""How long a network takes, and each of its layers, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from npmobilenet.architectures import random_weights
from npmobilenet.blocked_program import BlockedProgram
from npmobilenet.geometry import Pair
from npmobilenet.graph import Graph

ROUNDS = 25

Seconds = dict[str, float]


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
    layers: Seconds


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
    image = np.random.default_rng(0).standard_normal((graphs[0].in_channels, *size), np.float32)
    runs = {}
    for number, graph in enumerate(graphs):
        program = BlockedProgram(graph, random_weights(graph))
        whole, parts = program.plan(size), program.plan(size, fused=False)
        parts.run(image)
        runs[number, "network"] = timed(lambda whole=whole: whole.run(image))
        runs[number, "layers"] = parts.time_groups
    found = in_turns(runs, range(rounds))
    return [
        Profile(medians(found[number, "network"])["seconds"], medians(found[number, "layers"]))
        for number in range(len(graphs))
    ]


def timed(call: Callable[[], object]) -> Callable[[], Seconds]:
    """Make a call a measurement of ``"seconds"``."""

    def measure() -> Seconds:
        before = perf_counter()
        call()
        return {"seconds": perf_counter() - before}

    return measure


def settled(run: Callable[[], Seconds]) -> Callable[[], Seconds]:
    """Make a measurement twice and take the second: the first brings back what others took from the caches."""

    def measure() -> Seconds:
        run()
        return run()

    return measure


def in_turn(names: Iterable[object], number: int) -> list:
    """Return the names in the order of this round: nobody is always the first."""
    order = list(names)
    first = number % len(order)
    return order[first:] + order[:first]


def in_turns(runs: Mapping[object, Callable[[], Seconds]], rounds: Iterable[int]) -> dict[object, list[Seconds]]:
    """Make measurements in rounds, so that what disturbs one disturbs all alike.

    One more round goes first, and is forgotten: it compiles, and warms the caches up.
    """
    for run in runs.values():
        run()
    found: dict[object, list[Seconds]] = {name: [] for name in runs}
    for number in rounds:
        for name in in_turn(runs, number):
            found[name].append(runs[name]())
    return found


def medians(rounds: Sequence[Seconds]) -> Seconds:
    """The median of the rounds, by name."""
    return {name: median(one[name] for one in rounds) for name in rounds[0]}

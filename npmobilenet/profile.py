"""How long a network takes, and each of its layers, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, thread_time
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.architectures import random_weights
from npmobilenet.blocked_program import BlockedProgram
from npmobilenet.geometry import Pair
from npmobilenet.graph import Graph

if TYPE_CHECKING:
    from npmobilenet.blocked_plan import BlockedPlan

ROUNDS = 25
NOISY = 0.2  # how much longer than the shortest round the middle one takes where the machine was busy
WAITING = 0.1  # part of the time in which other processes had this thread's CPU


@dataclass(frozen=True)
class Timing:
    """How long a call takes, in seconds.

    Attributes
    ----------
    best : float
        The shortest round: what other processes add, they add to the others.
    typical : float
        The median.
    waiting : float
        Part of all rounds in which the calling thread did not run.
    """

    best: float
    typical: float
    waiting: float = 0.0

    @classmethod
    def of(cls, seconds: Sequence[float], running: float | None = None) -> Timing:
        """Sum up rounds; ``running`` is how long the thread had a CPU in them, if known."""
        waiting = 0.0 if running is None else max(0.0, 1 - running / sum(seconds))
        return cls(min(seconds), median(seconds), waiting)


def time_in_turns(calls: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[Timing]:
    """Measure calls, on this thread, in turns: what slows the machine down for a while slows all of them alike."""
    for call in calls:  # compiles, and warms the caches up
        call()
    found: list[list[float]] = [[] for _ in calls]
    running = [0.0] * len(calls)
    for _ in range(rounds):
        for number, call in enumerate(calls):
            before, ran_before = perf_counter(), thread_time()
            call()
            found[number].append(perf_counter() - before)
            running[number] += thread_time() - ran_before
    return [Timing.of(seconds, ran) for seconds, ran in zip(found, running, strict=True)]


def time_layers(plan: BlockedPlan, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Measure the calls of a plan, on one thread, by the name of the last layer of each."""
    plan.time_groups()
    found = [plan.time_groups() for _ in range(rounds)]
    return {name: Timing.of([seconds[name] for seconds in found]) for name in found[0]}


def noise(timings: Sequence[Timing]) -> str | None:
    """Return a warning if other processes disturbed the measurement so much that times say little."""
    if not timings:
        return None
    waiting = median(timing.waiting for timing in timings)
    excess = median(timing.typical / timing.best - 1 for timing in timings)
    if waiting >= WAITING:
        problem = f"other processes had the CPU for {100 * waiting:.0f} % of the time"
    elif excess >= NOISY:
        problem = f"half of the rounds took {100 * excess:.0f} % longer than the shortest, or more"
    else:
        return None
    return f"the machine was busy: {problem}; measure again when it is idle"


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

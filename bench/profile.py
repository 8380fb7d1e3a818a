"""How long a network takes, and each of its layers, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, thread_time
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.architectures import random_weights
from npmobilenet.blocked.program import BlockedProgram
from npmobilenet.graph import Graph
from npmobilenet.kernels.geometry import Pair

if TYPE_CHECKING:
    from npmobilenet.blocked.plan import BlockedPlan

ROUNDS = 25
NOISY = 0.2  # how much longer than the shortest round the middle one takes where the machine was busy
WAITING = 0.1  # part of the time in which other processes had this thread's CPU

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


@dataclass(frozen=True)
class Timing:
    """How long a call takes, in seconds.

    Attributes
    ----------
    best : float
        The shortest round: what other processes add, they add to the others.
    typical : float
        The median.
    waiting : float or None
        Part of all rounds in which the calling thread did not run, if known.
    """

    best: float
    typical: float
    waiting: float | None = None

    @classmethod
    def of(cls, seconds: Sequence[float], running: float | None = None) -> Timing:
        """Sum up rounds; ``running`` is how long the thread had a CPU in them, if known."""
        waiting = None if running is None else max(0.0, 1 - running / sum(seconds))
        return cls(min(seconds), median(seconds), waiting)


def time_in_turns(calls: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[Timing]:
    """Measure calls, on this thread, in turns."""

    def watched(call: Callable[[], object]) -> Callable[[], Seconds]:
        measure = timed(call)

        def both() -> Seconds:
            before = thread_time()
            return {**measure(), "running": thread_time() - before}

        return both

    found = in_turns({number: watched(call) for number, call in enumerate(calls)}, range(rounds))
    return [Timing.of([one["seconds"] for one in each], sum(one["running"] for one in each)) for each in found.values()]


def time_layers(plan: BlockedPlan, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Measure the calls of a plan, on one thread, by the name of the last layer of each."""
    began, ran = perf_counter(), thread_time()
    (found,) = in_turns({"layers": plan.time_groups}, range(rounds)).values()
    running = (thread_time() - ran) / (perf_counter() - began)
    times = {name: [seconds[name] for seconds in found] for name in found[0]}
    return {name: Timing.of(seconds, running * sum(seconds)) for name, seconds in times.items()}


def noise(timings: Sequence[Timing]) -> str | None:
    """Return a warning if other processes disturbed the measurement so much that times say little."""
    if not timings:
        return None
    waiting = median([timing.waiting for timing in timings if timing.waiting is not None] or [0.0])
    excess = median(timing.typical / timing.best - 1 for timing in timings)
    if waiting >= WAITING:
        problem = f"other processes had the CPU for {100 * waiting:.0f} % of the time"
    elif excess >= NOISY:
        problem = f"half of the rounds took {100 * excess:.0f} % longer than the shortest, or more"
    else:
        return None
    return f"the machine was busy: {problem}; measure again when it is idle"

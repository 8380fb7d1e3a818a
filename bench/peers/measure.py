"""The measurements: rounds in which every runtime has its turn, start-up, memory.

Two things would falsify a comparison. Many runtimes' threads go on spinning after a call, and take a CPU from
whoever runs next: each runtime has a process of its own, and the next one's turn comes when its threads sleep.
And a machine's speed changes from minute to minute: times are compared within a round, and the median of the
rounds' ratios is what counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median

import numpy as np

from npmobilenet.bench import machine_limits
from npmobilenet.bench.machine import package_version
from npmobilenet.bench.noise import spread
from npmobilenet.bench.peers.networks import Network
from npmobilenet.bench.peers.workers import PeerError, Worker
from npmobilenet.bench.profile import in_turn
from npmobilenet.bench.runtimes import RUNTIMES

OURS = "npmobilenet"
TOLERANCE = 1e-4  # of the largest logit

Say = Callable[[str], None]


def difference(result: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, as a part of the largest expected value.

    Raises
    ------
    PeerError
        If it is too large, or the shapes differ.
    """
    if result.shape != expected.shape:
        raise PeerError(f"its output has shape {result.shape}, not {expected.shape}")
    found = float(np.abs(result - expected).max() / np.abs(expected).max())
    if not found <= TOLERANCE:  # so that NaN does not pass
        raise PeerError(f"its output differs by {found:.1e} of the largest: not measured")
    return found


def agreement(network: Network, batch: int, result: np.ndarray, ours: np.ndarray) -> dict:
    """Return how near a runtime's result is: to ours, or, in 8 bits, to that of float32.

    Raises
    ------
    PeerError
        If it is too far, or the shapes differ.
    """
    return network.agreement(result, batch) if network.dtype == "int8" else {"difference": difference(result, ours)}


def compare(
    network: Network,
    names: Sequence[str],
    threads: int,
    batch: int,
    *,
    rounds: int,
    seconds: float,
    peak: float,
    say: Say,
) -> dict:
    """Measure one network on one number of threads at one batch size.

    Parameters
    ----------
    names : sequence of str
        Of `runtimes.RUNTIMES`. One that is missing, fails or disagrees is left out with a word of why.
    seconds : float
        Length of a turn.
    peak : float
        The highest rate of multiply-adds seen so far, in 10^9 operations per second, of floating-point numbers or of
        bytes as the network has them; every round tries again, since the machine may have been busy.

    Returns
    -------
    dict
        What the JSON file says of it.
    """
    with ExitStack() as stack:
        workers = _start(stack, network, names, threads, batch, say)
        turns: dict[str, list[dict]] = {name: [] for name in workers}
        peaks = []
        for number in range(rounds):
            peaks.append(machine_limits.product_rate(network.dtype, threads) / 1e9)
            for name in in_turn(turns, number):
                try:
                    turns[name].append(workers[name].burst(seconds))
                except PeerError as error:
                    _leave_out(name, error, say)
                    del turns[name]
    peak = max(peak, *peaks)
    rows = []
    for name, bursts in turns.items():
        row = _summary(bursts, turns[OURS], batch)
        rate = 2 * network.macs * row["images_per_second"] / 1e9
        rows.append(
            {
                "runtime": name,
                "version": package_version(RUNTIMES[name].package),
                **row,
                "gflops": rate,
                "of_peak": rate / peak,
                **agreement(network, batch, workers[name].result, workers[OURS].result),
            }
        )
    return {
        "network": network.title,
        "dtype": network.dtype,
        "weights": "shipped" if network.shipped else network.checkpoint.name if network.checkpoint else "random",
        "threads": threads,
        "batch": batch,
        "macs": network.macs,
        "peak_gflops": peak,
        "peak_spread": spread(peaks),
        "round_peaks": peaks,
        "rows": sorted(rows, key=lambda row: row["milliseconds"]),
    }


def _start(
    stack: ExitStack, network: Network, names: Sequence[str], threads: int, batch: int, say: Say
) -> dict[str, Worker]:
    """Start every runtime, ours first; those that compute the same."""
    workers: dict[str, Worker] = {}
    for name in [OURS, *(name for name in names if name != OURS)]:
        try:
            worker = stack.enter_context(Worker(name, network, batch, threads))
            agreement(network, batch, worker.result, workers.get(OURS, worker).result)
            workers[name] = worker
        except PeerError as error:
            _leave_out(name, error, say)
    return workers


def _leave_out(name: str, error: PeerError, say: Say) -> None:
    """Go on without a runtime, but not without ours."""
    if name.startswith(OURS):
        raise error
    say(f"{name} left out: {error}")


def _summary(bursts: list[dict], ours: list[dict], batch: int) -> dict:
    """What the bursts of a runtime say; ratios are of the same round."""
    medians = [burst["median"] for burst in bursts]
    ratios = [mine["median"] / its for mine, its in zip(ours, medians, strict=True)]
    return {
        "milliseconds": 1e3 * median(medians),
        "least_milliseconds": 1e3 * min(burst["least"] for burst in bursts),
        "images_per_second": batch / median(medians),
        "ours_over_this": median(ratios),
        "spread": spread(medians),
        "round_milliseconds": [1e3 * time for time in medians],
    }


def processes(network: Network, names: Sequence[str], threads: int, rounds: int, say: Say) -> list[dict]:
    """Measure fresh processes, in turns: time from the start to the first result of one image, and memory.

    This package is measured twice, the second time with an empty folder of compiled kernels. The peers keep
    nothing on disk; of several ways to use one of them the first is measured. The files of all are in the
    system's cache.
    """
    cold = f"{OURS}, empty cache"
    peers = {RUNTIMES[name].package: name for name in reversed(names) if name != OURS}
    found: dict[str, list[Worker]] = {name: [] for name in [OURS, cold, *reversed(peers.values())]}
    for _ in range(rounds):
        for name in list(found):
            try:
                with tempfile.TemporaryDirectory() as folder:
                    empty = {"NPMOBILENET_CACHE_DIR": folder, "NUMBA_CACHE_DIR": ""} if name == cold else None
                    with Worker(OURS if name == cold else name, network, 1, threads, empty) as worker:
                        found[name].append(worker)
            except PeerError as error:
                _leave_out(name, error, say)
                del found[name]
    return [
        {
            "runtime": name,
            "network": network.name,
            "threads": threads,
            "startup_seconds": median(worker.startup for worker in workers),
            "peak_bytes": median(worker.memory for worker in workers) if workers[0].memory else None,
        }
        for name, workers in found.items()
    ]

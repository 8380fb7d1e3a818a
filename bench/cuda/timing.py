"""Time on the device: launches recorded as a CUDA graph, between two events, on inputs that no cache still holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from npmobilenet.cuda import graphs as cuda_graphs
from npmobilenet.cuda import memory as cuda_memory
from npmobilenet.kernels.cuda.device import SIMULATED, cuda

CACHE_BYTES = 200 << 20  # several times the last-level cache of any GPU: 50 MB on an H100, 60 MB on an H200
SECONDS = 0.02  # of one measurement, so that a launch of microseconds is repeated often enough
REPEATS = 15  # measurements, of which the median counts


def sets_for(size: int, smoke: bool = False) -> int:
    """How many sets of arrays of so many bytes must take turns, so that none is in the cache when its turn comes."""
    return 1 if smoke else max(2, min(512, -(-CACHE_BYTES // max(1, size))))


def random_array(elements: int, dtype: np.dtype, seed: int = 0) -> Any:
    """Return a flat device array of random numbers: with zeros some devices are faster."""
    some = np.random.default_rng(seed).standard_normal(min(elements, 1 << 20)).astype(dtype)
    array = cuda_memory.empty(elements, dtype)
    for start in range(0, elements, len(some)):
        part = array[start : start + len(some)]
        part.copy_to_device(some[: part.shape[0]])
    return array


def seconds_per_launch(launches: Sequence[Callable[[Any], None]], repeats: int = REPEATS) -> float:
    """Return the median seconds of launches that are made in turn, each a function of a stream.

    They are recorded, so that the device, not the host, sets the pace.
    """
    stream = cuda_memory.stream()
    if SIMULATED:
        return _host_seconds(lambda: launches[0](stream))
    for launch in launches:  # compiles, loads, warms up
        launch(stream)
    stream.synchronize()

    def all_launches(stream: Any, rounds: int) -> None:
        for _ in range(rounds):
            for launch in launches:
                launch(stream)

    once = _event_seconds(lambda: all_launches(stream, 1), stream, 3)
    rounds = max(1, min(50, int(SECONDS / once), 2000 // len(launches)))
    graph = cuda_graphs.record(lambda handle: all_launches(cuda_memory.external_stream(handle), rounds))
    if graph:
        number = cuda_memory.handle(stream)
        return _event_seconds(lambda: graph.launch(number), stream, repeats) / (rounds * len(launches))
    return _event_seconds(lambda: all_launches(stream, rounds), stream, repeats) / (rounds * len(launches))


def seconds_per_call(call: Callable[[int], Any], wait: Callable[[], None], calls: int, repeats: int = REPEATS) -> float:
    """Return the median seconds of calls that follow each other without waiting, by events on the default stream.

    ``call`` takes its number. The default stream waits for all others that do not refuse it, so this counts what is
    computed on PyTorch's stream and on ours alike.
    """
    if SIMULATED:
        return _host_seconds(lambda: call(0))
    for number in range(3):
        call(number)
    wait()

    def some() -> None:
        for number in range(calls):
            call(number)

    return _event_seconds(some, 0, repeats) / calls


def latency(call: Callable[[int], Any], wait: Callable[[], None], calls: int = 200) -> float:
    """Return the median seconds, on the host's clock, from a call until its result is complete."""
    if SIMULATED:
        return _host_seconds(lambda: call(0))
    for number in range(3):
        call(number)
    wait()
    times = []
    for number in range(calls):
        start = time.perf_counter()
        call(number)
        wait()
        times.append(time.perf_counter() - start)
    return median(times)


def _event_seconds(work: Callable[[], Any], stream: Any, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start, end = cuda_memory.event(), cuda_memory.event()
        start.record(stream)
        work()
        end.record(stream)
        end.synchronize()
        times.append(1e-3 * start.elapsed_time(end))
    return median(times[1:])


def _host_seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def copy_bandwidth(size: int, smoke: bool = False) -> float:
    """Return the bytes per second of the driver's copy from device to device, those read and those written."""
    count = 2 if smoke or size > CACHE_BYTES else sets_for(2 * size)
    pairs = [(random_array(size // 4, np.float32, i), cuda_memory.empty(size // 4, np.float32)) for i in range(count)]
    launches = [lambda stream, x=x, y=y: y.copy_to_device(x, stream=stream) for x, y in pairs]
    return 2 * (size // 4 * 4) / seconds_per_launch(launches)


def synchronize() -> None:
    """Wait until the device has nothing to do."""
    cuda.synchronize()

"""What this machine can do at most: multiply-adds and memory traffic, by kernels that do nothing else.

python -m npmobilenet.bench.machine_limits
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cache

import numpy as np

from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.vector.library import Library
from npmobilenet.kernels.vector.simd import Code, Integer, Pointer
from npmobilenet.kernels.vector.target import Target, host
from npmobilenet.machine import available_cpus, cpu_name, vector_set

UNROLL = 4  # so that counting trips costs nothing
STREAMS = 8  # vectors that a trip through memory moves
BUFFER_BYTES = 256 << 20  # well above the last-level cache of most machines
LEVELS = tuple(1 << power for power in (16, 18, 20, 22, 24)) + (BUFFER_BYTES,)  # from the nearest cache to memory
PASS_BYTES = 128 << 20  # of a call: a small buffer is gone through several times


def accumulators(target: Target) -> int:
    """How many sums are under way at once: enough to hide their latency, and two registers are the factors."""
    return target.registers - 4


def multiply_add(code: Code, trips: Integer, data: Pointer) -> None:
    """Kernel: multiply-adds on registers alone, of numbers in ``data``."""
    size = code.target.bytes
    x, y = data.vector(), data.vector(size)
    sums = [data.vector(i * size) for i in range(accumulators(code.target))]

    def trip(_: Integer, *sums) -> list:
        for _ in range(UNROLL):
            sums = [total.fma(x, y) for total in sums]
        return list(sums)

    for i, total in enumerate(code.loop(trips, trip, sums)):
        data.store(total, i * size)


def byte_products(code: Code, trips: Integer, data: Pointer) -> None:
    """Kernel: products of bytes, added up, on registers alone."""
    size = code.target.bytes
    x, y = data.integers(), data.integers(size)
    sums = [data.integers(i * size) for i in range(accumulators(code.target))]

    def trip(_: Integer, *sums) -> list:
        for _ in range(UNROLL):
            sums = [total.dot4(x, y) for total in sums]
        return list(sums)

    for i, total in enumerate(code.loop(trips, trip, sums)):
        data.store(total, i * size)


def read(code: Code, passes: Integer, count: Integer, data: Pointer, other: Pointer) -> None:
    """Kernel: add up ``count`` bytes of ``data``, again and again; the sums go to ``other``."""
    size = code.target.bytes

    def trip(at: Integer, *sums) -> list:
        return [total + (data + at).vector(i * size) for i, total in enumerate(sums)]

    def one(_: Integer, *sums) -> list:
        return code.loop(count, trip, sums, step=STREAMS * size)

    for i, total in enumerate(code.loop(passes, one, [code.splat(0.0)] * STREAMS)):
        other.store(total, i * size)


def copy(code: Code, passes: Integer, count: Integer, data: Pointer, other: Pointer) -> None:
    """Kernel: copy ``count`` bytes of ``data`` to ``other``, again and again."""
    size = code.target.bytes

    def trip(at: Integer) -> None:
        for i in range(STREAMS):
            (other + at).store((data + at).vector(i * size), i * size)

    code.loop(passes, lambda _: code.loop(count, trip, step=STREAMS * size))


def _define(library: Library) -> None:
    for kernel in (multiply_add, byte_products, read, copy):
        library.add(kernel.__name__, kernel)


@cache
def _kernel(name: str, arguments: int) -> Callable[..., None]:
    """A kernel as a function that other Python threads run beside (ctypes releases the lock)."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)(_library().address(name))


@cache
def _library() -> Library:
    return Library("machine_limits", host(), _define, None)  # half a second would not pay for a file


def _seconds(calls: Sequence[Callable[[], None]], repeats: int) -> float:
    """The least time of all calls together, each on a thread of its own; several, on CPUs of their own."""
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in calls]
        if len(calls) > 1:
            for number, pool in enumerate(pools):
                pool.submit(_pin, number).result()

        def once() -> float:
            start = time.perf_counter()
            for done in [pool.submit(call) for pool, call in zip(pools, calls, strict=True)]:
                done.result()
            return time.perf_counter() - start

        once()
        return min(once() for _ in range(repeats))


def _pin(number: int) -> None:
    """Keep the calling thread on one CPU, where the system can: Linux may leave two that never wait on the same one."""
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setaffinity(0, {cpus[number % len(cpus)]})


def multiply_add_rate(threads: int = 1, trips: int = 300_000, repeats: int = 20) -> float:
    """Return the floating-point operations per second of so many threads: two for a multiply-add."""
    return 2 * _register_rate("multiply_add", threads, trips, repeats)


def byte_product_rate(threads: int = 1, trips: int = 300_000, repeats: int = 20) -> float:
    """Return the operations per second on bytes of so many threads: two for a product and its addition."""
    return 2 * 4 * _register_rate("byte_products", threads, trips, repeats)


def product_rate(dtype: str, threads: int = 1, **how: int) -> float:
    """Return the highest rate that a network of this type could reach: one of the two above."""
    return multiply_add_rate(threads, **how) if dtype == "float32" else byte_product_rate(threads, **how)


def _register_rate(name: str, threads: int, trips: int, repeats: int) -> float:
    """How many lanes are computed per second."""
    target, kernel = host(), _kernel(name, 2)
    data = [aligned(accumulators(target) * target.lanes, np.float32) for _ in range(threads)]
    for values in data:
        values[:] = 0.5
    seconds = _seconds([lambda x=x: kernel(trips, x.ctypes.data) for x in data], repeats)
    return threads * trips * UNROLL * accumulators(target) * target.lanes / seconds


def bandwidth(threads: int = 1, repeats: int = 20, size: int = BUFFER_BYTES) -> dict[str, float]:
    """Return bytes per second of ``read`` and ``copy``, which counts what it reads and what it writes.

    Parameters
    ----------
    size : int
        Bytes that all threads together go through: a small buffer stays in a cache.
    """
    unit, rates = STREAMS * host().bytes, {}
    for name, arrays in (("read", 1), ("copy", 2)):
        share = max(unit, size // arrays // threads // unit * unit)
        passes = max(1, PASS_BYTES // threads // arrays // share)
        calls = [_mover(name, passes, share) for _ in range(threads)]
        rates[name] = arrays * threads * passes * share / _seconds(calls, repeats)
    return rates


def _mover(name: str, passes: int, count: int) -> Callable[[], None]:
    """A call that goes through buffers of its own."""
    kernel = _kernel(name, 4)
    x, y = (aligned(count // 4, np.float32) for _ in range(2))
    x[:], y[:] = 1, 1  # memory that was never written is one page of zeros
    return lambda: kernel(passes, count, x.ctypes.data, y.ctypes.data)


def levels(threads: int = 1, repeats: int = 5) -> list[dict]:
    """Return ``bytes`` and the higher rate, ``gbytes`` per second, of buffers from the nearest cache to memory."""
    return [{"bytes": size, "gbytes": max(bandwidth(threads, repeats, size).values()) / 1e9} for size in LEVELS]


def limits(threads: Sequence[int]) -> list[dict]:
    """Return all rates for each number of threads, in 10^9 per second."""
    found = []
    for number in threads:
        rates = {f"{name}_gbytes": rate / 1e9 for name, rate in bandwidth(number).items()}
        rates |= {"gflops": multiply_add_rate(number) / 1e9, "int8_gops": byte_product_rate(number) / 1e9}
        found.append({"threads": number, **rates, "levels": levels(number)})
    return found


def describe(found: Sequence[dict]) -> list[str]:
    """Return limits as lines of text."""
    return [
        f"{row['threads']} thread{'s' * (row['threads'] > 1)}: {row['gflops']:.0f} GFLOP/s, "
        f"{row['int8_gops']:.0f} Gop/s of bytes, "
        f"reading {row['read_gbytes']:.0f} GB/s, copying {row['copy_gbytes']:.0f} GB/s (both ways)"
        for row in found
    ]


if __name__ == "__main__":
    print(f"{cpu_name()}, {vector_set()}")
    print("\n".join(describe(limits(sorted({1, available_cpus()})))))

"""Options and fixtures of the benchmarks."""

from functools import cache

import numpy as np
import pytest

from npmobilenet.bench import machine_limits
from npmobilenet.bench.layers import Call
from npmobilenet.bench.roofline import Roofline
from npmobilenet.kernels.memory import aligned
from npmobilenet.machine import available_cpus

COLD_ROUNDS = 30


def pytest_addoption(parser):
    parser.addoption("--threads", default=f"1,{available_cpus()}", help="numbers of threads, such as 1,2")
    parser.addoption("--cold", action="store_true", help="empty the caches before every call")


def pytest_generate_tests(metafunc):
    if "threads" in metafunc.fixturenames:
        chosen = sorted({int(number) for number in metafunc.config.getoption("--threads").split(",")})
        metafunc.parametrize("threads", chosen, ids=lambda number: f"{number}threads")


@cache
def roofline(threads: int) -> Roofline:
    """What is possible on this machine, probed once in this run."""
    return Roofline.of(machine_limits.limits([threads])[0])


@cache
def flood() -> np.ndarray:
    """More memory than the caches hold."""
    return aligned(machine_limits.BUFFER_BYTES // 4)


@pytest.fixture
def timed(benchmark, request):
    """Time a call; multiply-adds and bytes become rates of the median, and shares of what is possible."""

    def run(call, threads, macs=0, bytes_moved=0):
        if request.config.getoption("--cold"):
            benchmark.pedantic(call, setup=lambda: flood().fill(1), rounds=COLD_ROUNDS, warmup_rounds=1)
            benchmark.extra_info["cold"] = True
        else:
            benchmark(call)
        if benchmark.stats and bytes_moved:
            place = roofline(threads).place(macs, bytes_moved, benchmark.stats.stats.median)
            benchmark.extra_info["GFLOP/s"] = round(place["gflops"], 2)
            benchmark.extra_info["% of peak"] = round(100 * place["of_peak"], 1)
            benchmark.extra_info["GB/s"] = round(place["gbytes"], 2)
            benchmark.extra_info["% of bandwidth"] = round(100 * place["of_bandwidth"], 1)
            benchmark.extra_info["% of possible"] = round(100 * place["of_possible"], 1)

    return run


@pytest.fixture
def on_layer(timed, benchmark):
    """Time a kernel on a layer, once it has been compared with the reference; packing is not counted."""

    def run(kernel, layer, threads):
        call = Call.of(kernel, layer, threads)
        benchmark.extra_info["error"] = call.error
        if call.prepared:
            benchmark.extra_info["packing"] = "not counted"
        timed(call.run, threads, layer.macs, layer.bytes)

    return run

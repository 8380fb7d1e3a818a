"""Options and fixtures of the benchmarks."""

import pytest

from npmobilenet.machine import available_cpus


def pytest_addoption(parser):
    parser.addoption("--threads", default=f"1,{available_cpus()}", help="numbers of threads, such as 1,2")


def pytest_generate_tests(metafunc):
    if "threads" in metafunc.fixturenames:
        chosen = sorted({int(number) for number in metafunc.config.getoption("--threads").split(",")})
        metafunc.parametrize("threads", chosen, ids=lambda number: f"{number}threads")


@pytest.fixture
def timed(benchmark):
    """Time a call; multiply-adds and bytes become rates of the median."""

    def run(function, *arguments, macs=0, bytes_moved=0, **options):
        benchmark(function, *arguments, **options)
        if benchmark.stats:
            seconds = benchmark.stats.stats.median
            benchmark.extra_info["GFLOP/s"] = round(2 * macs / seconds / 1e9, 2)
            benchmark.extra_info["GB/s"] = round(bytes_moved / seconds / 1e9, 2)

    return run

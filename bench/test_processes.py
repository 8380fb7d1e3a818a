"""Start-up and memory: a fresh process that loads a network and computes one image.

pytest bench/test_processes.py --benchmark-only

With kernels already compiled, and with an empty folder of compiled kernels. The memory stands in the extra
information: the most that the process had until then, and what the plan gives to activations.
"""

import pytest

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.peers.measure import OURS
from npmobilenet.bench.peers.networks import Network
from npmobilenet.bench.peers.workers import Worker
from npmobilenet.engine import Engine

ROUNDS = 3


@pytest.mark.parametrize("cache", ["compiled", "emptycache"])
@pytest.mark.parametrize("name", ["mobilenet_v2-1.0-224", "mobilenet_v2-0.35-96", "mixnet_s-1.0-224"])
def test_startup(name, cache, benchmark, tmp_path):
    benchmark.group = f"start-up of {name}"
    network = Network.parse(name, tmp_path)
    memory = []

    def start():
        folder = tmp_path / f"cache{len(memory)}"
        empty = {"NPMOBILENET_CACHE_DIR": str(folder), "NUMBA_CACHE_DIR": ""} if cache == "emptycache" else None
        with Worker(OURS, network, 1, 1, empty) as worker:
            memory.append(worker.memory)

    benchmark.pedantic(start, rounds=ROUNDS, warmup_rounds=1)
    graph = get_architecture(network.architecture).graph(network.width)
    plan = Engine(graph, random_weights(graph)).plan((network.size, network.size))
    benchmark.extra_info["activations MB"] = round(plan.memory / 1e6, 2)
    if all(memory):
        benchmark.extra_info["process MB"] = round(max(memory) / 1e6)

"""Compile the kernels of whole networks in several processes, into the cache from which this one then takes them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.engine import Engine
from npmobilenet.machine import available_cpus

NETWORKS = ("mobilenet_v2", "mobilenet_v1", "mixnet_s", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0")
BATCHES = (1, 32, 256)


def compile_network(name: str, dtype: str, batch: int, size: int = 224) -> int:
    """Compile every kernel of a network at one batch size; return how many launches it has."""
    graph = get_architecture(name).graph()
    program = Engine(graph, random_weights(graph), "cuda", dtype).program
    kernels = {step.launch for fused in (True, False) for step in program.plan((size, size), None, batch, fused).steps}
    for launch in kernels:
        launch.compile()
    return len(kernels)


def compile_all() -> Iterator[dict]:
    """Compile all networks, types and batch sizes that are measured, as many at a time as there are CPUs."""
    spawn = multiprocessing.get_context("spawn")  # a forked process cannot use the device
    with ProcessPoolExecutor(min(12, available_cpus()), spawn) as pool:
        tasks = {
            pool.submit(compile_network, name, dtype, batch): (name, dtype, batch)
            for name in NETWORKS
            for dtype in ("float32", "float16")
            for batch in BATCHES
        }
        for task in as_completed(tasks):
            name, dtype, batch = tasks[task]
            yield {"network": name, "dtype": dtype, "batch": batch, "launches": task.result()}

"""Whole networks: latency of one image, throughput of a batch, and how both grow with images and threads.

pytest bench/test_networks.py --benchmark-only
pytest bench/test_networks.py --benchmark-only -k scaling --threads 1,2,4
"""

from functools import partial

import numpy as np
import pytest

import npmobilenet
from npmobilenet.architectures import get_architecture, random_weights
from npmobilenet.bench.layers import largest_error

NETWORKS = [
    ("mobilenet_v2", 1.0, 224),
    ("mobilenet_v2", 0.5, 160),
    ("mobilenet_v2", 0.35, 96),
    ("mobilenet_v1", 1.0, 224),
    ("mobilenet_v3_large", 1.0, 224),
    ("mixnet_s", 1.0, 224),
    ("efficientnet_b0", 1.0, 224),
]


@pytest.fixture
def network(timed, benchmark):
    """Time a network on a batch, once its first image has been compared with the reference."""

    def run(architecture, width, size, batch, threads):
        graph = get_architecture(architecture).graph(width)
        weights = random_weights(graph)
        model, definition = (
            npmobilenet.Model(graph, weights, architecture=architecture, width=width, backend=backend)
            for backend in ("auto", "reference")
        )
        x = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)
        largest_error(model(x[:1]), definition(x[:1]))
        counts = model.count(size)
        traffic = 4 * (batch * counts.block_traffic + counts.weights)
        timed(partial(model, x, threads=threads), threads, batch * counts.macs, traffic)
        if benchmark.stats:
            benchmark.extra_info["images/s"] = round(batch / benchmark.stats.stats.median, 1)

    return run


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(("architecture", "width", "size"), NETWORKS)
def test_network(architecture, width, size, batch, threads, benchmark, network):
    benchmark.group = f"{architecture} {width:g} at {size}, batch {batch}"
    network(architecture, width, size, batch, threads)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 16, 32], ids=lambda batch: f"batch{batch}")
def test_scaling(batch, threads, benchmark, network):
    benchmark.group = "scaling of mobilenet_v2 1 at 224 (images/s in the JSON file)"
    network("mobilenet_v2", 1.0, 224, batch, threads)

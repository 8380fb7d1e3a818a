"""Whole networks: latency of one image and throughput of a batch.

pytest bench/test_networks.py --benchmark-only
"""

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


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(("architecture", "width", "size"), NETWORKS)
def test_network(architecture, width, size, batch, threads, benchmark, timed):
    benchmark.group = f"{architecture} {width:g} at {size}, batch {batch}"
    graph = get_architecture(architecture).graph(width)
    weights = random_weights(graph)
    model, definition = (
        npmobilenet.Model(graph, weights, architecture=architecture, width=width, backend=backend)
        for backend in ("cpu", "reference")
    )
    x = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)
    largest_error(model(x[:1]), definition(x[:1]))
    timed(model, x, threads=threads, macs=batch * model.count(size).macs)

"""Every kernel on every layer of MobileNetV2 and MobileNetV1, and on what newer networks have besides.

pytest bench/test_kernels.py --benchmark-only -k "depthwise and 1threads"
pytest bench/test_kernels.py --benchmark-only -k "mixed or 2groups or squeeze"
"""

import pytest

from npmobilenet.bench.layers import Layer, layers

NETWORKS, NEWER = ("mobilenet_v2", "mobilenet_v1"), ("mobilenet_v3_large", "mixnet_s", "efficientnet_b0")


def chosen() -> list[Layer]:
    """All layers of the first networks; of the newer ones those of a kind that the first do not have."""
    first = [layer for network in NETWORKS for layer in layers(network)]
    known = {(layer.operation, layer.variation) for layer in first}
    newer = [layer for network in NEWER for layer in layers(network)]
    return first + [layer for layer in newer if (layer.operation, layer.variation) not in known]


CASES = [
    pytest.param(layer, kernel, id=f"{layer.network}-{layer.title}-{kernel.variant}")
    for layer in chosen()
    for kernel in layer.kernels()
]


@pytest.mark.parametrize(("layer", "kernel"), CASES)
def test_kernel(layer, kernel, threads, benchmark, on_layer):
    benchmark.group = f"{layer.operation} {layer.network} {layer.title}"
    on_layer(kernel, layer, threads)

"""Every kernel on every layer of MobileNetV2 and MobileNetV1.

pytest bench/test_kernels.py --benchmark-only -k "depthwise and 1threads"
"""

import numpy as np
import pytest

from npmobilenet.bench.layers import layers
from npmobilenet.kernels import registry

CASES = [
    pytest.param(layer, kernel, id=f"{layer.network}-{layer.title}-{kernel.variant}")
    for network in ("mobilenet_v2", "mobilenet_v1")
    for layer in layers(network)
    for kernel in layer.kernels()
]


@pytest.mark.parametrize(("layer", "kernel"), CASES)
def test_kernel(layer, kernel, threads, benchmark, timed):
    benchmark.group = f"{layer.operation} {layer.network} {layer.title}"
    arguments = layer.arguments()
    expected = registry.best(layer.operation, "reference").function(*arguments, **layer.options)
    out = kernel.function(*arguments, **layer.options, threads=threads)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    timed(
        kernel.function,
        *arguments,
        **layer.options,
        out=out,
        threads=threads,
        macs=layer.macs,
        bytes_moved=layer.bytes,
    )

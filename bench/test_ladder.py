"""Every rung of every ladder on a layer of a real network; a slow one on some of its channels.

pytest bench/test_ladder.py --benchmark-only -k "depthwise and 1threads"

A slow one has a group of its own, since it is no match for those that compute the whole layer.
"""

from functools import cache

import pytest

from npmobilenet.bench.ladder import LAYERS, PATIENCE, try_part
from npmobilenet.bench.layers import Layer, find_layer
from npmobilenet.kernels import registry

RUNGS = [rung for rung in registry.kernels(backend="ladder") if rung.operation in LAYERS]


@cache
def layer_of(operation: str) -> Layer:
    return find_layer(operation, LAYERS[operation])


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: f"{rung.operation}-{rung.rank}-{rung.variant}")
def test_rung(rung, threads, benchmark, on_layer):
    layer = layer_of(rung.operation)
    if not rung.supports(**layer.options):
        pytest.skip(f"{rung.variant} does not support this layer")
    benchmark.group = f"ladder of {rung.operation} on {layer.network} {layer.title}, {threads} threads"
    part = try_part(layer, rung, threads)
    if part.seconds > PATIENCE:
        benchmark.group += f", only {part.channels} of {layer.channels} channels"
        layer = layer.narrowed(part.macs)
    on_layer(rung, layer, threads)

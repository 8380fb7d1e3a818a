"""Right answers: every CUDA kernel against the NumPy definition, whole networks against stored outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import npmobilenet
from npmobilenet.architectures import Architecture, get_architecture, random_weights
from npmobilenet.bench.layers import layers
from npmobilenet.engine import Engine
from npmobilenet.kernels import registry
from npmobilenet.kernels.geometry import equal_partition

# The largest error that passes, as a part of the largest value. A sum of a thousand products in float32 is off by some
# 1e-6 of that, one in float16 by a rounding of what is stored, 5e-4; sixty layers add such errors up.
KERNEL = {"float32": 1e-5, "float16": 4e-3}
NETWORK = {"float32": 5e-5, "float16": 5e-2}

STORED = Path(__file__).parents[2] / "tests/data/reference"  # in a checkout
NETWORKS = ("mobilenet_v2", "mobilenet_v1", "mixnet_s", "mobilenet_v3_large", "efficientnet_b0")
REAL = ("mobilenet_v2", "mixnet_s", "mobilenet_v3_small")  # whose layers are compared one by one

# For smoke tests, since in the simulator every thread is one of Python.
TINY = Architecture("tiny", "", ("conv_k3_s2_c8", "inverted_r1_k3_s1_e2_c8", "pool", "linear"), "relu6")

Case = tuple[str, str, tuple[Any, ...], dict[str, Any]]  # title, operation, arrays, options


def error(result: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, as a part of the largest expected value; infinity if one is not a number."""
    if result.shape != expected.shape:
        raise ValueError(f"shape {result.shape} instead of {expected.shape}")
    scale = np.abs(expected).max(initial=0) or 1.0
    found = float(np.abs(result.astype(np.float64) - expected).max(initial=0) / scale)
    return found if np.isfinite(found) else float("inf")


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    """Random numbers of the sizes that a network's have."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cases(smoke: bool) -> Iterator[Case]:
    """The layers of real networks (one small network if ``smoke``), and windows that these do not have."""
    for network in () if smoke else REAL:
        for layer in layers(network):
            yield f"{network} {layer.title}", layer.operation, tuple(layer.arguments().values()), layer.options
    n, size, channels = (1, 7, 8) if smoke else (3, 28, 90)
    x = normal(n, size, size + 1, channels)
    for kernel in (3,) if smoke else (3, 5, 7, 9, 11):
        for stride in (1, 2):
            weight = normal(kernel, kernel, channels, seed=2)
            options = {"stride": stride, "padding": "symmetric", "activation": "relu6"}
            yield f"{kernel}x{kernel} stride {stride}", "depthwise_conv2d", (x, weight, normal(channels)), options
    kernels = (3, 5) if smoke else (3, 5, 7, 9)
    weights = [normal(k, k, c, seed=k) for k, c in zip(kernels, equal_partition(channels, len(kernels)), strict=True)]
    yield "all windows in one", "mixed_depthwise_conv2d", (x, weights, normal(channels)), {"activation": "swish"}
    weight = normal(channels // 2, channels + 2, seed=3)
    yield (
        "in two groups",
        "pointwise_conv2d",
        (x, weight, normal(channels + 2)),
        {"groups": 2, "activation": "hard_swish"},
    )
    weight = normal(3, 3, 3, 8, seed=4)
    yield "stem", "conv2d", (x[..., :3].copy(), weight, normal(8)), {"stride": 2, "padding": "same"}
    gate = (normal(channels, 4), normal(4), normal(4, channels), normal(channels))
    yield "gate", "squeeze_excite", (x, *gate), {"gate": "hard_sigmoid"}
    yield "means", "global_average_pool", (x,), {}
    yield "classifier", "linear", (x[:, 0, 0].copy(), normal(channels, 10), normal(10)), {}
    yield "sum", "add", (x, normal(*x.shape, seed=5)), {"activation": "relu"}
    yield "classes", "softmax", (x[:, 0, 0].copy(),), {}
    yield "largest", "max_pool2d", (x, 3), {"stride": 2, "padding": 1}
    yield "mean", "average_pool2d", (x, 3), {"stride": 2, "padding": 1}
    functions = ("relu", "relu6", "hard_swish", "swish", "sigmoid", "hard_sigmoid", "leaky_relu", "elu", "tanh")
    for function in functions:
        yield "each value", function, (x,), {}
    yield from _rarer(x)


def _rarer(x: np.ndarray) -> Iterator[Case]:
    """Operations that networks for ImageNet do not have."""
    n, height, width, channels = x.shape
    vector = normal(channels, seed=6)
    for title, shape in (("of channels", (channels,)), ("one", (1,)), ("of elements", x.shape[1:])):
        yield f"slopes, {title}", "prelu", (x, normal(*shape, seed=7)), {}
    for operation in ("multiply", "broadcast_add"):
        for shape in ((n, channels), (n, height, width, 1), (n, 1, width, channels), x.shape):
            yield f"with {shape}", operation, (x, normal(*shape, seed=8)), {}
    yield "statistics", "batch_norm", (x, vector, vector, vector, np.abs(vector) + np.float32(0.1)), {}
    yield "largest of all", "global_max_pool", (x,), {}
    yield "side by side", "concat", ([x, x[..., :3].copy(), x[..., :4].copy()],), {}
    yield "more channels", "channel_pad", (x,), {"before": 4, "after": 30}
    yield "to a vector", "flatten", (x,), {}
    for kernel, options in (((2, 2), {"stride": 2}), ((4, 3), {"stride": (3, 2), "padding": (1, 0)})):
        weight = normal(*kernel, channels, 12, seed=9)
        yield f"to {kernel}", "conv_transpose2d", (x, weight, normal(12)), options
    for size in ((2 * height, 2 * width), (height // 2, 2 * width + 3)):
        for mode, coordinates in (
            *(("bilinear", coordinates) for coordinates in ("half_pixel", "align_corners", "asymmetric")),
            *(("nearest", coordinates) for coordinates in ("half_pixel", "asymmetric")),
        ):
            yield f"{coordinates} to {size}", "resize2d", (x, size), {"mode": mode, "coordinates": coordinates}
    weight = normal(3, 3, channels // 2, 8, seed=10)
    yield "dilated, in groups", "conv2d", (x, weight, normal(8)), {"padding": 2, "dilation": 2, "groups": 2}
    weight = normal(3, 3, channels, seed=11)
    yield "dilated", "depthwise_conv2d", (x, weight, vector), {"padding": 2, "dilation": 2, "activation": "relu"}


def stored(values: Any, dtype: str) -> Any:
    """The same arrays in the type in which the device stores them; what is no array as it is."""
    if isinstance(values, (list, tuple)):
        return type(values)(stored(value, dtype) for value in values)
    return values.astype(dtype) if isinstance(values, np.ndarray) else values


def kernels(smoke: bool, sanitizer: bool = False) -> Iterator[dict]:
    """Compare every registered CUDA kernel; with ``sanitizer`` only run them, since it makes them slow."""
    for title, operation, arrays, options in cases(smoke or sanitizer):
        for dtype in ("float32",) if title.startswith(REAL) else KERNEL:  # whole networks are compared in both
            values = stored(arrays, dtype)
            expected = (
                None
                if sanitizer
                else registry.kernels(operation, "reference")[0].function(*stored(values, "float32"), **options)
            )
            for kernel in registry.kernels(operation, "cuda"):
                if kernel.supports(**options):
                    result = kernel.function(*values, **options)
                    worst = 0.0 if sanitizer else error(result, expected)
                    yield {
                        "what": f"{kernel.name}, {title}",
                        "dtype": dtype,
                        "error": worst,
                        "allowed": KERNEL[dtype],
                        "right": worst <= KERNEL[dtype],
                    }


def networks(smoke: bool) -> Iterator[dict]:
    """Compare whole networks: shipped weights with stored outputs where these are, else with the reference backend."""
    for dtype, allowed in NETWORK.items():
        yield _several_outputs(TINY if smoke else get_architecture("mobilenet_v3_small"), (7, 8), dtype)
        if smoke:
            yield _random_network(TINY, (7, 8), dtype, allowed)
            continue
        for name in NETWORKS:
            files = sorted(STORED.glob(f"{name}_imagenet_*.npz"))
            photographs = [file for file in files if "blocks" not in file.name]
            if photographs:
                model = npmobilenet.load(name, backend="cuda", dtype=dtype)
                for file in photographs:
                    with np.load(file) as arrays:
                        worst = error(model(arrays["input"]), arrays["logits_f64"])
                    yield _network_row(f"{file.stem} (stored)", dtype, worst, allowed)
            else:
                yield _random_network(get_architecture(name), (97, 128), dtype, allowed)


def _random_network(architecture: Architecture, size: tuple[int, int], dtype: str, allowed: float) -> dict:
    graph = architecture.graph(1.0, 10)
    weights, x = random_weights(graph, 1), normal(2, 3, *size)
    expected = Engine(graph, weights, "reference").run(x)
    result = Engine(graph, weights, "cuda", dtype).run(x)
    return _network_row(
        f"{architecture.name} at {size[0]}x{size[1]}, random weights", dtype, error(result, expected), allowed
    )


def _several_outputs(architecture: Architecture, size: tuple[int, int], dtype: str) -> dict:
    """Every block and the expansions inside at once, thrice, the last time recorded: the bits that each has alone."""
    graph = architecture.graph(1.0, 10)
    engine, x = Engine(graph, random_weights(graph, 1), "cuda", dtype), normal(2, 3, *size)
    names = [*graph.blocks, *(node.name for node in graph if node.name.endswith(".expand")), "logits"]
    for _ in range(3):
        found = engine.outputs(x, names)
    worst = max(float(np.abs(engine.run(x, output=name) - one).max()) for name, one in found.items())
    return _network_row(f"{architecture.name}, {len(names)} outputs at once", dtype, worst, 0.0)


def _network_row(what: str, dtype: str, worst: float, allowed: float) -> dict:
    return {"what": what, "dtype": dtype, "error": worst, "allowed": allowed, "right": worst <= allowed}

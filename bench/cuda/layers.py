"""Single layers: how near the depthwise kernels come to a copy of the same bytes, and the pointwise ones to cuBLAS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from npmobilenet.bench.cuda import timing
from npmobilenet.kernels import registry
from npmobilenet.kernels.cuda import depthwise, inverted_residual, mixed, pointwise
from npmobilenet.kernels.cuda.launch import Launch
from npmobilenet.kernels.geometry import equal_partition

BATCH = 32

# MobileNetV2's at 224x224: height and width, channels, stride.
DEPTHWISE_3X3 = (
    *((112, 32, 1), (112, 96, 2), (56, 144, 1), (56, 144, 2), (28, 192, 1)),
    *((28, 192, 2), (14, 384, 1), (14, 576, 1), (14, 576, 2), (7, 960, 1)),
)
# The other windows where MobileNetV3, EfficientNet and MixNet have them: kernel, height and width, channels, stride.
DEPTHWISE_LARGE = (
    *((5, 56, 72, 2), (5, 28, 120, 1), (5, 14, 672, 1), (7, 28, 240, 1), (7, 14, 480, 1)),
    *((9, 28, 240, 1), (9, 14, 480, 1), (11, 28, 240, 1), (11, 14, 480, 1)),
)
MIXED = ((28, 240, 1), (28, 240, 2), (14, 480, 1), (14, 720, 1))  # with {3, 5, 7, 9}, in equal parts
MIXED_KERNELS = (3, 5, 7, 9)
# Height and width, channels in and out: MobileNetV2's, and a large square product.
POINTWISE = (
    *((112, 32, 16), (112, 16, 96), (56, 96, 24), (56, 24, 144), (28, 144, 32), (28, 32, 192)),
    *((14, 192, 64), (14, 64, 384), (14, 384, 64), (14, 96, 576), (7, 160, 960), (7, 960, 320), (7, 320, 1280)),
    (56, 1024, 1024),
)
BLOCKS = (  # height and width, channels in, expanded and out, stride
    *((112, 16, 96, 24, 2), (56, 24, 144, 24, 1), (28, 32, 192, 32, 1), (14, 64, 384, 64, 1), (7, 160, 960, 160, 1)),
)


def _measured(launch: Launch, shapes: Sequence[tuple[int, ...]], size: int, dtype: np.dtype, smoke: bool) -> float:
    """Seconds of a launch, arrays of these shapes in their order, as many sets of them as the cache cannot hold."""
    sets = timing.sets_for(size, smoke)
    weights = [timing.random_array(prod(shape), dtype, place) for place, shape in enumerate(shapes[1:-1], 1)]

    def prepared(number: int) -> Callable[[Any], None]:
        x = timing.random_array(prod(shapes[0]), dtype, number)
        out = timing.random_array(prod(shapes[-1]), dtype, number)
        return lambda stream: launch(stream, x, *weights, out)

    return timing.seconds_per_launch([prepared(number) for number in range(sets)])


def _memory_row(
    title: str, operation: str, launch: Launch, arguments: dict[str, Any], copy: float, dtype: np.dtype, smoke: bool
) -> dict:
    """What a layer without much arithmetic achieves; ``copy`` is the bandwidth of a large copy."""
    size = registry.bytes_moved(operation, **arguments) * dtype.itemsize // 4
    weights = arguments.get("weights") or [arguments["weight"]]
    shapes = [arguments["x"], (sum(map(prod, weights)),), (arguments["x"][-1],), launch.shape]
    seconds = _measured(launch, shapes, size, dtype, smoke)
    same = timing.copy_bandwidth(size // 2, smoke)
    return {
        "layer": title,
        "operation": operation,
        "dtype": dtype.name,
        "microseconds": 1e6 * seconds,
        "bytes": size,
        "gbytes": size / seconds / 1e9,
        "of_copy": size / seconds / copy,
        "of_copy_of_as_many_bytes": size / seconds / same,
        "gflops": 2 * registry.macs(operation, **arguments) / seconds / 1e9,
        "grid": launch.grid,
        "block": launch.block,
    }


def depthwise_layers(copy: float, dtype: str = "float32", smoke: bool = False) -> Iterator[dict]:
    """Depthwise convolutions of one window."""
    kind = np.dtype(dtype)
    layers = [(3, *layer) for layer in DEPTHWISE_3X3] + list(DEPTHWISE_LARGE)
    for kernel, size, channels, stride in [(3, 6, 8, 1), (5, 7, 4, 2)] if smoke else layers:
        x = (1 if smoke else BATCH, size, size, channels)
        geometry = {"stride": stride, "padding": "symmetric", "activation": "relu6"}
        launch = depthwise.prepare_depthwise_conv2d(x, (kernel, kernel, channels), **geometry, dtype=kind)
        arguments = {"x": x, "weight": (kernel, kernel, channels), "bias": (channels,), **geometry}
        title = f"{kernel}x{kernel} stride {stride}, {size}x{size}x{channels}"
        yield _memory_row(title, "depthwise_conv2d", launch, arguments, copy, kind, smoke)


def mixed_layers(copy: float, dtype: str = "float32", smoke: bool = False) -> Iterator[dict]:
    """Mixed convolutions in one pass."""
    kind = np.dtype(dtype)
    for size, channels, stride in [(6, 8, 1)] if smoke else MIXED:
        x = (1 if smoke else BATCH, size, size, channels)
        parts = equal_partition(channels, len(MIXED_KERNELS))
        weights = [(kernel, kernel, part) for kernel, part in zip(MIXED_KERNELS, parts, strict=True)]
        geometry = {"stride": stride, "padding": "symmetric", "activation": "swish"}
        launch = mixed.prepare_mixed_depthwise_conv2d(x, weights, **geometry, dtype=kind)
        arguments = {"x": x, "weights": weights, "bias": (channels,), **geometry}
        title = f"{{3,5,7,9}} stride {stride}, {size}x{size}x{channels}"
        yield _memory_row(title, "mixed_depthwise_conv2d", launch, arguments, copy, kind, smoke)


def pointwise_layers(dtype: str = "float32", smoke: bool = False) -> Iterator[dict]:
    """Matrix products, beside PyTorch's (cuBLAS) where it is: float32 without its shorter formats."""
    kind = np.dtype(dtype)
    for size, c_in, c_out in [(4, 8, 12)] if smoke else POINTWISE:
        x, weight = (1 if smoke else BATCH, size, size, c_in), (c_in, c_out)
        launch = pointwise.prepare_pointwise_conv2d(x, weight, activation="relu6", dtype=kind)
        arguments = {"x": x, "weight": weight, "bias": (c_out,)}
        moved = registry.bytes_moved("pointwise_conv2d", **arguments) * kind.itemsize // 4
        seconds = _measured(launch, [x, weight, (c_out,), launch.shape], moved, kind, smoke)
        work = 2 * registry.macs("pointwise_conv2d", **arguments)
        row = {
            "layer": f"{size}x{size}, {c_in} to {c_out}",
            "operation": "pointwise_conv2d",
            "dtype": dtype,
            "microseconds": 1e6 * seconds,
            "tflops": work / seconds / 1e12,
            "gbytes": moved / seconds / 1e9,
            "grid": launch.grid,
            "block": launch.block,
        }
        theirs = None if smoke else cublas_seconds(prod(x[:3]), c_in, c_out, dtype, timing.sets_for(moved))
        if theirs:
            row |= {"cublas_microseconds": 1e6 * theirs, "cublas_tflops": work / theirs / 1e12}
            row["cublas_over_ours"] = theirs / seconds
        yield row


def cublas_seconds(rows: int, c_in: int, c_out: int, dtype: str, sets: int) -> float | None:
    """Return the seconds of PyTorch's product with bias, without an activation; None without PyTorch on a GPU."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    kind = getattr(torch, dtype)
    weight = torch.randn(c_in, c_out, device="cuda", dtype=kind)
    bias = torch.randn(c_out, device="cuda", dtype=kind)
    inputs = [torch.randn(rows, c_in, device="cuda", dtype=kind) for _ in range(sets)]
    outputs = [torch.empty(rows, c_out, device="cuda", dtype=kind) for _ in range(sets)]

    def all_products() -> None:
        for x, y in zip(inputs, outputs, strict=True):
            torch.addmm(bias, x, weight, out=y)

    all_products()  # a recording must not be the first
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        all_products()
    return timing.seconds_per_call(lambda _: graph.replay(), torch.cuda.synchronize, max(1, 60 // sets)) / sets


def blocks(dtype: str = "float32", smoke: bool = False) -> Iterator[dict]:
    """Inverted residuals as one launch and as three."""
    kind = np.dtype(dtype)
    for size, c_in, expanded, c_out, stride in [(6, 8, 16, 8, 1)] if smoke else BLOCKS:
        x = (1 if smoke else BATCH, size, size, c_in)
        kinds = {"dtype": kind}
        fused = inverted_residual.prepare_inverted_residual(
            x, expanded, (3, 3), c_out, stride=stride, padding=1, expand_activation="relu6",
            depthwise_activation="relu6", **kinds
        )  # fmt: skip
        expand = pointwise.prepare_pointwise_conv2d(x, (c_in, expanded), activation="relu6", **kinds)
        window = (3, 3, expanded)
        middle = depthwise.prepare_depthwise_conv2d(
            expand.shape, window, stride=stride, padding=1, activation="relu6", **kinds
        )
        project = pointwise.prepare_pointwise_conv2d(middle.shape, (expanded, c_out), **kinds)
        shapes = [(c_in, expanded), (expanded,), window, (expanded,), (expanded, c_out), (c_out,)]
        we, be, wd, bd, wp, bp = (timing.random_array(prod(shape), kind, i) for i, shape in enumerate(shapes))
        large = [timing.random_array(prod(launch.shape), kind) for launch in (expand, middle)]

        def three(stream: Any, x: Any, out: Any) -> None:
            expand(stream, x, we, be, large[0])  # noqa: B023 - called before the next block
            middle(stream, large[0], wd, bd, large[1])  # noqa: B023
            project(stream, large[1], wp, bp, out)  # noqa: B023

        def one(stream: Any, x: Any, out: Any) -> None:
            fused(stream, x, we, be, wd, bd, wp, bp, out)  # noqa: B023

        sets = timing.sets_for((prod(x) + prod(project.shape)) * kind.itemsize, smoke)
        pairs = [
            (timing.random_array(prod(x), kind, i), timing.random_array(prod(project.shape), kind, i))
            for i in range(sets)
        ]
        row = {"layer": f"{size}x{size}, {c_in} to {expanded} to {c_out}, stride {stride}", "dtype": dtype}
        for name, launch in {"three_microseconds": three, "one_microseconds": fused and one}.items():
            if launch:
                launches = [lambda stream, x=x, y=y, launch=launch: launch(stream, x, y) for x, y in pairs]
                row[name] = 1e6 * timing.seconds_per_launch(launches)
        yield row

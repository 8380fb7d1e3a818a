"""A network in PyTorch on the GPU: batch norms folded, activations in place, as fast as PyTorch's own layers go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npmobilenet.bench.peers.folded import Layer

CUDA_GRAPHS = {"mode": "reduce-overhead"}
# How PyTorch is run: name, dtype, channels_last, what torch.compile is told (None: not compiled), TF32 allowed.
VARIANTS = (
    ("torch eager", "float32", False, None, False),
    ("torch channels_last", "float32", True, None, False),
    ("torch.compile", "float32", True, {}, False),
    ("torch.compile, CUDA graphs", "float32", True, CUDA_GRAPHS, False),
    ("torch channels_last, TF32", "float32", True, None, True),
    ("torch channels_last", "float16", True, None, False),
    ("torch.compile", "float16", True, {}, False),
)


def network(layers: list[Layer], dtype: str, channels_last: bool, place: str = "cuda") -> Callable[[Any], Any]:
    """Return a function from images (N, 3, H, W) to logits, both on the device that PyTorch calls ``place``."""
    import torch
    from torch.nn import functional as f

    kind = getattr(torch, dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    activations = {
        None: lambda y: y,
        "relu": f.relu_,
        "relu6": lambda y: f.relu6(y, inplace=True),
        "swish": lambda y: f.silu(y, inplace=True),
        "hard_swish": lambda y: f.hardswish(y, inplace=True),
        "sigmoid": torch.sigmoid,
        "hard_sigmoid": lambda y: f.hardsigmoid(y, inplace=True),
    }

    def weight(layer: Layer) -> Any:
        value = torch.from_numpy(layer.weight).to(place, kind)
        return value.contiguous(memory_format=layout) if value.ndim == 4 else value

    weights = {
        layer.name: (weight(layer), torch.from_numpy(layer.bias).to(place, kind))
        for layer in layers
        if layer.weight is not None
    }

    def convolution(layer: Layer, x: Any) -> Any:
        (top, bottom), (left, right) = layer.pads
        pads = (top, left)
        if (top, left) != (bottom, right):  # conv2d itself pads alike on both sides
            x, pads = f.pad(x, (left, right, top, bottom)), (0, 0)
        return f.conv2d(x, *weights[layer.name], layer.stride, pads, layer.dilation, layer.groups)

    kinds = {
        "convolution": convolution,
        "linear": lambda layer, x: f.linear(x, *weights[layer.name]),
        "pool": lambda layer, x: x.mean((2, 3)),
        "squeeze": lambda layer, x: x.mean((2, 3), keepdim=True),
        "split": lambda layer, x: x.split(layer.parts, 1),
        "concat": lambda layer, *parts: torch.cat(parts, 1),
        "add": lambda layer, x, y: x + y,
        "multiply": lambda layer, x, y: x * y,
    }
    last_reader = {name: layer.name for layer in layers for name in layer.inputs}

    def forward(x: Any) -> Any:
        made = {"input": x}
        for layer in layers:
            y = kinds[layer.kind](layer, *(made[name] for name in layer.inputs))
            y = activations[layer.activation](y)
            for name in layer.inputs:
                if last_reader[name] == layer.name:
                    made.pop(name, None)
            made.update(zip(layer.outputs, y if layer.kind == "split" else (y,), strict=True))
        return y

    return forward


def prepared(
    layers: list[Layer], dtype: str, channels_last: bool, compile_options: dict | None, tf32: bool
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the network, and what brings NumPy images to the GPU as it likes them."""
    import torch

    torch.backends.cudnn.benchmark = True  # it tries its algorithms, and takes the fastest
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    forward = network(layers, dtype, channels_last)
    if compile_options is not None:
        torch._dynamo.reset()
        forward = torch.compile(forward, **compile_options)

    def run(x: Any) -> Any:
        with torch.inference_mode():
            return forward(x)

    layout = torch.channels_last if channels_last else torch.contiguous_format
    return run, lambda x: torch.from_numpy(x).to("cuda", getattr(torch, dtype)).contiguous(memory_format=layout)

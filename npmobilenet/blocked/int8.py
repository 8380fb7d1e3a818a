"""The nodes of a quantised graph: what the blocked kernels compute of them, their weights, tensors and calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np

from npmobilenet.graph import INPUT, Node
from npmobilenet.kernels.blocked import stem as float_stem
from npmobilenet.kernels.blocked.activation import CLAMPS
from npmobilenet.kernels.blocked.layout import Packed
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target
from npmobilenet.operations import INT8_OPERATIONS
from npmobilenet.passes import kernel_arguments

# Kernels are imported where they are needed: networks of float32 start without them.

ENTERED = ("quantized", "scales")  # what a layer that quantises its input holds beside it
HALVES = "halves"  # the image in 16 bits


def is_int8(node: Node) -> bool:
    """Whether it is an operation of a quantised graph."""
    return node.operation in INT8_OPERATIONS


def problem(node: Node) -> str | None:
    """What these kernels cannot compute."""
    operation, function = node.operation, node.attributes.get("activation", "none")
    if operation in ("global_average_pool_int8", "dequantize"):
        return None
    if operation not in ("quantize", "conv2d_int8", "depthwise_conv2d_int8", "pointwise_conv2d_int8", "linear_int8"):
        return operation
    if function not in CLAMPS or (
        function != "none" and node.attributes.get("dtype") == "uint8" and operation != "quantize"
    ):
        return f"{operation} with the activation {function}"
    if operation == "depthwise_conv2d_int8" and "zero_point" in node.parameters:
        return f"{operation} with a zero point"
    if operation == "conv2d_int8":
        if node.inputs[0] != INPUT or node["dilation"] != (1, 1) or node["groups"] != 1:
            return f"{operation} of other than the image, with dilation or groups"
        if prod(node["kernel"]) > float_stem.MOST_TAPS:
            return f"a convolution of the image with more than {float_stem.MOST_TAPS} taps"
    return None


def pack(target: Target, node: Node, weights: Mapping[str, np.ndarray]) -> Packed:
    """Bring a node's parameters into the layout of its kernel."""
    from npmobilenet.kernels.blocked.int8 import depthwise, entry, pointwise, pooling, stem

    given = kernel_arguments(node, weights)
    if node.operation == "global_average_pool_int8":
        return pooling.pack(target, given["scale"], given.get("zero_point", 0))
    if node.operation in ("quantize", "dequantize"):
        return {"quantize": entry.pack_quantize, "dequantize": entry.pack_dequantize}[node.operation](target, **given)
    layers = given["weight"], given["scale"], given["bias"]
    if node.operation == "conv2d_int8":
        return stem.pack(target, *layers, node["stride"])
    if node.operation == "depthwise_conv2d_int8":
        return depthwise.pack(target, *layers, 0, node["stride"], node["dilation"])
    zero_point = node["zero_point"] if enters(node) else given.get("zero_point", 0)
    return pointwise.pack(target, *layers, zero_point, node.attributes.get("groups", 1))


def enters(node: Node) -> bool:
    """Whether it quantises an input of float32, each pixel with its own scale."""
    return node.operation == "linear_int8" or (
        node.operation == "pointwise_conv2d_int8" and node["zero_point"] is not None
    )


def is_block(nodes: Sequence[Node]) -> bool:
    """Whether one call can compute the three, if they are a chain: expansion, depthwise and projection."""
    expand, middle, project = nodes
    if [node.operation for node in nodes[1:]] != ["depthwise_conv2d_int8", "pointwise_conv2d_int8"]:
        return False
    of_image = expand.operation == "conv2d_int8" and expand.inputs[0] == INPUT
    expands = of_image or (expand.operation == "pointwise_conv2d_int8" and enters(expand))
    whole = len(expand.inputs) == 1 and expand["dtype"] == middle["dtype"] == "uint8"
    return expands and whole and not enters(project)


def beside(target: Target, group: Sequence[Node], x: Tensor) -> dict[str, Tensor]:
    """The tensors that a group needs while it computes from ``x``, without memory, by name."""
    first = group[0]
    if not is_int8(first):
        return {}
    from npmobilenet.kernels.blocked.int8 import entry

    if enters(first) and len(group) == 1:  # in a block they are in the scratch
        return dict(zip(_names(first, *ENTERED), entry.quantized(target, x), strict=True))
    return {_names(first, HALVES)[0]: entry.halves(x)} if first.operation == "conv2d_int8" else {}


def calls(
    target: Target,
    group: Sequence[Node],
    x: Tensor,
    out: Tensor,
    weights: Sequence[Packed],
    tensors: Mapping[str, Tensor],
    residual: Tensor | None,
    threads: int,
) -> Iterator[Call]:
    """The calls that compute a group: a node, or a block."""
    from npmobilenet.kernels.blocked.int8 import depthwise, entry, inverted_residual, pointwise, pooling, stem

    first, last = group[0], group[-1]
    function = last.attributes.get("activation", "none")
    if first.operation == "conv2d_int8":
        (name,) = _names(first, HALVES)
        yield entry.image_call(target, x, tensors[name], first["steps"])
        x = tensors[name]
    if len(group) > 1:
        zero_point = first["zero_point"] if enters(first) else 0
        about = {"zero_point": zero_point, "activation": function, "residual": residual, "threads": threads}
        yield inverted_residual.call(x, tensors[first.name], out, tuple(weights), **about)
    elif last.operation == "global_average_pool_int8":
        yield pooling.call(x, out, *weights)
    elif last.operation in ("quantize", "dequantize"):
        yield entry.channels_call(x, out, *weights, activation=function)
    elif last.operation == "conv2d_int8":
        yield stem.call(x, out, *weights, activation=function)
    elif last.operation == "depthwise_conv2d_int8":
        yield depthwise.call(x, out, *weights, activation=function)
    else:
        scales = None
        if enters(last):
            quantized, scales = (tensors[name] for name in _names(last, *ENTERED))
            yield entry.quantize_call(target, x, quantized, scales, last["zero_point"])
            x = quantized
        yield pointwise.call(x, out, *weights, pixel_scale=scales, activation=function, residual=residual)


def _names(node: Node, *parts: str) -> list[str]:
    return [f"{node.name}.{part}" for part in parts]

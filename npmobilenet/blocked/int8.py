"""The nodes of a quantised graph: what the blocked kernels compute of them, their weights, tensors and calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np

from npmobilenet.graph import INPUT, Node
from npmobilenet.kernels.blocked import stem as float_stem
from npmobilenet.kernels.blocked.layout import Packed
from npmobilenet.kernels.call import GIVEN, Call
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target
from npmobilenet.operations import INT8_OPERATIONS, positions
from npmobilenet.passes import kernel_arguments

# Kernels are imported where they are needed: networks of float32 start without them.

ENTERED = ("quantized", "scales")  # what a layer that quantises its input holds beside it
VECTORS = ("mean", "reduced", "factor")  # of squeeze-and-excitation
UNFOLDED = "unfolded"  # of a dense convolution: some rows, with all taps
DEPTHWISE = ("depthwise_conv2d_int8", "mixed_depthwise_conv2d_int8")


def is_int8(node: Node) -> bool:
    """Whether it is an operation of a quantised graph."""
    return node.operation in INT8_OPERATIONS


def problem(node: Node) -> str | None:
    """What these kernels cannot compute."""
    if node.operation != "conv2d_int8":
        return None
    if node["steps"] is None:
        return f"{node.operation} with groups" if node["groups"] != 1 else None
    if node.inputs[0] != INPUT or node["dilation"] != (1, 1) or node["groups"] != 1:
        return f"{node.operation} of 16 bits of other than the image, with dilation or groups"
    if prod(node["kernel"]) > float_stem.MOST_TAPS:
        return f"a convolution of the image with more than {float_stem.MOST_TAPS} taps"
    return None


def pack(target: Target, node: Node, weights: Mapping[str, np.ndarray]) -> Packed:
    """Bring a node's parameters into the layout of its kernel."""
    from npmobilenet.kernels.blocked.int8 import (
        add,
        dense,
        depthwise,
        ending,
        entry,
        mixed,
        pointwise,
        pooling,
        squeeze_excite,
        stem,
    )

    given = kernel_arguments(node, weights)
    if node.operation == "global_average_pool_int8":
        return pooling.pack(target, **given)
    if node.operation == "squeeze_excite_int8":
        return squeeze_excite.pack(target, **given)
    if node.operation == "add_int8":
        return add.pack(target, **given)
    if node.operation == "quantize":
        return entry.pack_quantize(target, **given, activation=_activation(node))
    if node.operation == "dequantize":
        return entry.pack_dequantize(target, **given)
    end = ending.pack(target, _activation(node), given.get("out_steps"), given.get("out_zero_point"))
    sums, zero_point = (given["scale"], given["bias"]), given.get("zero_point", 0)
    if node.operation == "conv2d_int8" and node["steps"] is None:
        return dense.pack(target, given["weight"], *sums, zero_point, node["stride"], node["dilation"], end)
    if node.operation == "conv2d_int8":
        return stem.pack(target, given["weight"], *sums, node["stride"], end)
    if node.operation == "depthwise_conv2d_int8":
        return depthwise.pack(target, given["weight"], *sums, zero_point, node["stride"], node["dilation"], end)
    if node.operation == "mixed_depthwise_conv2d_int8":
        return mixed.pack(target, given["weights"], *sums, zero_point, node["stride"], node["dilations"], end)
    zero_point = node["zero_point"] if enters(node) else zero_point
    return pointwise.pack(target, given["weight"], *sums, zero_point, node.attributes.get("groups", 1), end)


def _activation(node: Node) -> str:
    return node.attributes.get("activation", "none")


def enters(node: Node) -> bool:
    """Whether it quantises an input of float32, each pixel with its own scale."""
    return node.operation == "linear_int8" or (
        node.operation == "pointwise_conv2d_int8" and node["zero_point"] is not None
    )


def is_block(nodes: Sequence[Node]) -> bool:
    """Whether one call can compute a chain: expansion, depthwise and projection, or only the first two of them."""
    expand, middle, *project = nodes
    of_image = expand.operation == "conv2d_int8" and expand.inputs[0] == INPUT
    expands = of_image or (expand.operation == "pointwise_conv2d_int8" and enters(expand))
    whole = len(expand.inputs) == 1 and expand.attributes.get("dtype") == middle.attributes.get("dtype") == "uint8"
    return middle.operation in DEPTHWISE and expands and whole and not any(map(enters, project))


def scales_input(nodes: Sequence[Node]) -> bool:
    """Whether the second of two is a pointwise convolution that quantises what the first, an excitation, scales."""
    if [node.operation for node in nodes] != ["squeeze_excite_int8", "pointwise_conv2d_int8"]:
        return False
    return enters(nodes[1]) and nodes[1].inputs[0] == nodes[0].name


def image(x: Tensor, node: Node) -> Tensor:
    """The image, planar and of float32, as a node reads it: one of 8 bits reads 16."""
    if node.operation != "conv2d_int8":
        return x
    from npmobilenet.kernels.blocked.int8 import entry

    return entry.halves(x)


def copy_in(target: Target, out: Tensor, node: Node) -> Call:
    """Make the image that a node reads of the array that is `GIVEN`."""
    from npmobilenet.kernels.blocked.int8 import entry

    return entry.image_call(target, GIVEN, out, node["steps"], node.attributes.get("limits"))


def entered_names(node: Node) -> list[str]:
    """Of the tensors that a node which quantises its input holds beside it."""
    return _names(node, *ENTERED)


def entered(target: Target, node: Node, x: Tensor) -> dict[str, Tensor]:
    """The tensors, without memory, of the quantised pixels of ``x`` that a node multiplies, and of their scales."""
    from npmobilenet.kernels.blocked.int8 import entry

    return dict(zip(entered_names(node), entry.quantized(target, x), strict=True))


def beside(target: Target, group: Sequence[Node], x: Tensor) -> dict[str, Tensor]:
    """The tensors that a group needs while it computes from ``x``, without memory, by name."""
    first, last = group[0], group[-1]
    if not is_int8(first):
        return {}
    from npmobilenet.kernels.blocked.int8 import dense, squeeze_excite

    made = {}
    if first.operation == "conv2d_int8" and first["steps"] is None:
        size = positions(first, (x.height, x.width), first["kernel"], first["dilation"])
        made |= dict.fromkeys(_names(first, UNFOLDED), dense.unfolded(target, x.channels, first["kernel"], size))
    if first.operation == "squeeze_excite_int8":
        vectors = squeeze_excite.vectors(target, first["channels"], first["reduced"])
        made |= zip(_names(first, *VECTORS), vectors, strict=True)
    return made | (entered(target, last, x) if enters(last) else {})  # in a block they are in the scratch


def leaves(group: Sequence[Node], reader: Node) -> bool:
    """Whether a block can quantise what it computes for the one that reads it, and for nothing else."""
    if len(group) < 3 or not is_int8(group[-1]) or reader.operation != "pointwise_conv2d_int8":
        return False
    return enters(reader) and group[-1].name not in reader.inputs[1:]


def calls(
    target: Target,
    group: Sequence[Node],
    x: Tensor,
    out: Tensor,
    weights: Sequence[Packed],
    tensors: Mapping[str, Tensor],
    residual: Tensor | None,
    left: Mapping[str, Node],
    threads: int,
) -> Iterator[Call]:
    """The calls that compute a group: a node, a block, or an excitation and the convolution of what it scales.

    ``left`` has the readers of what blocks compute and quantise for them, by the last node of the block.
    """
    from npmobilenet.kernels.blocked.int8 import (
        add,
        dense,
        depthwise,
        entry,
        inverted_residual,
        pointwise,
        pooling,
        squeeze_excite,
        stem,
    )

    first, last = group[0], group[-1]
    zero_point = first["zero_point"] if enters(first) else 0
    scales = None
    if first.inputs[0] in left:
        x, scales = _entered(tensors, first)
    if first.operation == "squeeze_excite_int8":
        vectors = [tensors[name] for name in _names(first, *VECTORS)]
        about = {"activation": first["activation"], "gate": first["gate"]}
        yield from squeeze_excite.factor_calls(x, *vectors, weights[0], **about)
        if first is last:
            yield squeeze_excite.scale_call(x, vectors[-1], out, weights[0])
        else:
            image, scales = _entered(tensors, last)
            yield squeeze_excite.quantize_call(x, vectors[-1], image, scales, weights[0], last["zero_point"])
            yield pointwise.call(image, out, weights[-1], pixel_scale=scales, residual=residual)
    elif len(group) > 1:
        reader = left.get(last.name)
        leaving = inverted_residual.Leaving(*_entered(tensors, reader), reader["zero_point"]) if reader else None
        about = {"zero_point": zero_point, "scales": scales, "residual": residual, "leaves": leaving}
        yield inverted_residual.call(x, tensors[first.name], out, tuple(weights), **about, threads=threads)
    elif last.operation == "global_average_pool_int8":
        yield pooling.call(x, out, *weights)
    elif last.operation in ("quantize", "dequantize"):
        yield entry.channels_call(x, out, *weights)
    elif last.operation == "add_int8":
        yield add.call(x, residual, out, *weights)
    elif last.operation == "conv2d_int8" and last["steps"] is None:
        yield from dense.calls(x, out, *(tensors[name] for name in _names(last, UNFOLDED)), *weights)
    elif last.operation == "conv2d_int8":
        yield stem.call(x, out, *weights)
    elif last.operation in DEPTHWISE:
        yield from depthwise.calls(x, out, *weights)
    else:
        if enters(last) and not scales:
            image, scales = _entered(tensors, last)
            yield entry.quantize_call(target, x, image, scales, zero_point)
            x = image
        yield pointwise.call(x, out, *weights, pixel_scale=scales, residual=residual)


def _entered(tensors: Mapping[str, Tensor], node: Node) -> list[Tensor]:
    return [tensors[name] for name in entered_names(node)]


def _names(node: Node, *parts: str) -> list[str]:
    return [f"{node.name}.{part}" for part in parts]

"""Networks of 8 bits: where a graph says how tensors are rounded, and which integers its weights are.

Tensors that are rounded stand between QuantizeLinear and DequantizeLinear, bytes with a sign as those without one, 128
more. What becomes of them: `npmobilenet.passes_qdq`.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.graph import WINDOWED
from npmobilenet.onnx.conversion import Region, converts, require
from npmobilenet.onnx.file import Node, OnnxGraph
from npmobilenet.onnx.integers import per_axis
from npmobilenet.onnx.operator import OPERATORS
from npmobilenet.onnx.shapes import Bound, Coming
from npmobilenet.onnx.tensors import type_name
from npmobilenet.passes_qdq import Integers
from npmobilenet.plan import Code

BYTES = ("uint8", "int8")
LEAST_SCALE, LARGEST_SCALE = 1e-30, 1e30
REARRANGED = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")


@converts("QuantizeLinear")
def _quantize(at: Region, node: Node) -> None:
    """What only DequantizeLinear reads: bytes are no numbers to anything else."""
    bound, (result,) = at.bound, node.outputs
    code = code_of(bound, node, result)
    readers = bound.readers.get(result, ())
    require(result not in bound.outputs and all(reader.operator == "DequantizeLinear" for reader in readers))
    for reader in readers:
        code_of(bound, reader, reader.inputs[0])
    at.add("quantize", [at.x(node)], {"out_scale": code.scale, "out_zero_point": code.zero_point}, dtype="uint8")


@converts("DequantizeLinear")
def _dequantize(at: Region, node: Node) -> None:
    require(node.inputs[0] in at.made)
    code = code_of(at.bound, node, node.inputs[0])
    at.add("dequantize", [at.made[node.inputs[0]]], {"scale": code.scale, "zero_point": code.zero_point})


def code_of(bound: Bound, node: Node, quantised: str) -> Code:
    """Return what the bytes stand for that a node makes or reads, for each channel of the second axis.

    Raises
    ------
    DoesNotFitError
        If they are no bytes, or their scales are not known, or not those of channels.
    """
    about, (scale, zero_point) = bound.values[quantised], _steps(bound, node)
    require(isinstance(about, Coming) and len(about.shape) in (2, 4) and about.dtype.name in BYTES)
    require(node.attributes.get("output_dtype", 0) in (0, 1, 2, 3) and zero_point.dtype == about.dtype)
    channels, axis = about.shape[1], node.attributes.get("axis", 1) % len(about.shape)
    require(scale.size == 1 or (scale.shape == (channels,) and axis == 1))
    require(zero_point.size == 1 or zero_point.shape == scale.shape)
    require(bool(np.all((scale > LEAST_SCALE) & (scale < LARGEST_SCALE))))
    shift = 128 if about.dtype == np.int8 else 0
    zero_points = (zero_point.reshape(-1).astype(np.int16) + shift).astype(np.uint8)
    return Code(*(np.broadcast_to(array, channels) for array in (np.float32(scale.reshape(-1)), zero_points)))


def _steps(bound: Bound, node: Node) -> tuple[np.ndarray, np.ndarray]:
    """The constants of a QuantizeLinear or DequantizeLinear."""
    names = [*node.inputs[1:], ""][:2]
    scale = bound.constant(names[0])
    zero_point = bound.constant(names[1]) if names[1] else np.uint8(0)
    require(scale is not None and zero_point is not None and not node.attributes.get("block_size", 0))
    return scale, np.asarray(zero_point)


def integers_of(region: Region) -> dict[str, Integers]:
    """Return which integers the weights of a region's convolutions and linear layers are, by the nodes' names."""
    operations, found = {node.name: node.operation for node in region.nodes}, {}
    for node in region.replaced:
        name = region.made.get(node.outputs[0])
        if node.operator not in ("Conv", "Gemm") or operations.get(name) not in (*WINDOWED, "linear"):
            continue
        integers = integer_weight(region.bound, node.inputs[1], _is_transposed(node))
        if integers is not None:
            found[name] = integers[0], integers[1] * node.attributes.get("alpha", 1.0)
    return found


def _is_transposed(node: Node) -> bool:
    """Whether the output channels of a layer's weights are their second axis."""
    return node.operator == "Gemm" and not node.attributes.get("transB", 0)


def integer_weight(bound: Bound, name: str, transposed: bool = False) -> Integers | None:
    """Return which integers a constant stands for, output channels first, and the scale of each of these.

    None of a constant that is no integers of a byte, or has several scales in one output channel.
    """
    found = _integers(bound, name)
    if found is None or 0 in found[0].shape:
        return None
    values, scale = (array.T for array in found) if transposed else found
    scale = scale.reshape(len(scale), -1).astype(np.float64)
    same = bool(np.all(scale == scale[:, :1]) and np.all((scale > LEAST_SCALE) & (scale < LARGEST_SCALE)))
    return (values, scale[:, 0]) if same else None


def _integers(bound: Bound, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """A constant without its zero point, and the scale of each element, if it was made of bytes."""
    made = bound.folded.get(name)
    if made is None:
        return None
    if made.operator in REARRANGED:
        arrays = _integers(bound, made.inputs[0])
        others = [bound.constant(other) for other in made.inputs[1:]]
        compute = OPERATORS[made.operator].compute
        return arrays and tuple(compute(made, [array, *others], bound.opset)[0] for array in arrays)
    if made.operator != "DequantizeLinear":
        return None
    values, scale, zero_point = (bound.constant(each) if each else None for each in [*made.inputs, ""][:3])
    if values.dtype.name not in BYTES:
        return None
    axis, block = made.attributes.get("axis", 1), made.attributes.get("block_size", 0)
    about = values.ndim, axis, values.shape[axis] if values.ndim and scale.size > 1 else 1, block
    whole = values.astype(np.int16)
    if zero_point is not None:
        whole = whole - per_axis(zero_point.astype(np.int16), *about)
    return whole, np.broadcast_to(per_axis(scale, *about), values.shape)


def rounds_to_bytes(graph: OnnxGraph) -> bool:
    """Whether a graph rounds tensors to 8 bits somewhere."""
    return any(
        node.operator == "DynamicQuantizeLinear" or (node.operator == "QuantizeLinear" and _type(graph, node) in BYTES)
        for node in graph.nodes
    )


def other_rounding(graph: OnnxGraph) -> str:
    """Return which node rounds as no kernel of 8 bits does, and how; empty if none does."""
    for node in graph.nodes:
        if node.operator not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        dtype = _type(graph, node)
        if node.attributes.get("block_size", 0):
            return f"{node.title}: has scales for blocks, and 8-bit kernels have them for channels"
        if dtype not in (*BYTES, "int32", ""):
            return f"{node.title}: is of {dtype}, and 8-bit kernels are of uint8 and int8"
    return ""


def _type(graph: OnnxGraph, node: Node) -> str:
    """To which type a node rounds, or which it reads: of a constant, or as it says; empty if nothing says it."""
    code = node.attributes.get("output_dtype", 0) if node.operator == "QuantizeLinear" else 0
    if code:
        return type_name(code)
    known = node.inputs[2:3] if node.operator == "QuantizeLinear" else (*node.inputs[:1], *node.inputs[2:3])
    arrays = [graph.constants[name] for name in known if name in graph.constants]
    return arrays[0].dtype.name if arrays else "uint8" if node.operator == "QuantizeLinear" and not any(known) else ""

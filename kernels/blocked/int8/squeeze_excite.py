"""Squeeze-and-excitation of an 8-bit tensor: its means, two products of vectors, and what scales each channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library, linear
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.int8 import entry, pooling
from npmobilenet.kernels.blocked.int8.entry import Channels
from npmobilenet.kernels.blocked.int8.pooling import Pool
from npmobilenet.kernels.blocked.layout import Fields, Packed
from npmobilenet.kernels.blocked.linear import Linear
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

VECTOR = Fields("x weights bias scale out k")  # as `LINEAR`, without an activation that is told


def widths(target: Target) -> tuple[int, ...]:
    """How many blocks of outputs are computed together: those of a float layer, or few, as vectors are reduced to."""
    return linear.panel_blocks(target), 3, 1


def vector_name(activation: str, blocks: int) -> str:
    """Of the kernel in its library."""
    return f"int8_vector_{activation}_{blocks}"


@dataclass(frozen=True)
class Layer(Packed):
    """A linear layer in panels of so many blocks, whose outputs are multiplied by a scale each."""

    blocks: int
    linear: Linear
    scale: np.ndarray


def _layer(target: Target, weight: np.ndarray, bias: np.ndarray, scale: np.ndarray) -> Layer:
    needed = -(-len(bias) // target.lanes)
    blocks = min((width for width in widths(target) if width >= needed), default=widths(target)[0])
    packed = linear.pack(target, weight, bias, blocks)
    scales = np.zeros_like(packed.bias)
    scales[: len(bias)] = scale
    return Layer(blocks, packed, scales)


@dataclass(frozen=True)
class SqueezeExcite(Packed):
    """Packed weights.

    Attributes
    ----------
    pool : Pool
        What the bytes stand for.
    reduce, expand : Layer
        The latter's outputs are multiplied by the steps of the bytes.
    values : Channels
        What each byte stands for.
    """

    target: Target
    pool: Pool
    reduce: Layer
    expand: Layer
    values: Channels


def pack(
    target: Target,
    scale: np.ndarray,
    reduce_weight: np.ndarray,
    reduce_bias: np.ndarray,
    expand_weight: np.ndarray,
    expand_bias: np.ndarray,
    zero_point: int | np.ndarray = 0,
) -> SqueezeExcite:
    """Pack (C,), (C, R), (R,), (R, C) and (C,)."""
    points = np.broadcast_to(np.uint8(zero_point), len(scale))
    return SqueezeExcite(
        target,
        pooling.pack(target, scale, zero_point),
        _layer(target, reduce_weight, reduce_bias, np.ones_like(reduce_bias)),
        _layer(target, expand_weight, expand_bias, scale),
        entry.pack_dequantize(target, scale, points),
    )


def vectors(target: Target, channels: int, reduced: int) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors, without memory, of means, what they are reduced to, and what each channel is multiplied by."""
    return tuple(linear.vector(target, count) for count in (channels, reduced, channels))


def factor_calls(
    x: Tensor, mean: Tensor, reduced: Tensor, factor: Tensor, weights: SqueezeExcite, *, activation: str, gate: str
) -> Iterator[Call]:
    """Compute what each channel of ``x``, less its zero point, is to be multiplied by."""
    yield pooling.call(x, mean, weights.pool)
    layers = (
        (mean, reduced, weights.reduce, activation),
        (reduced, factor, weights.expand, gate),
    )
    functions = library.int8_squeeze_excite(weights.target)
    for source, out, layer, function in layers:
        yield VECTOR.call(
            functions.address(vector_name(function, layer.blocks)), layer.linear.panels, x=source, out=out,
            scale=layer.scale, keep=weights, **layer.linear.arguments(),
        )  # fmt: skip


def quantize_call(
    x: Tensor, factor: Tensor, out: Tensor, scale: Tensor, weights: SqueezeExcite, zero_point: int
) -> Call:
    """Scale the channels of ``x`` and quantise its pixels, to ``out`` and their scales; none has a frame."""
    functions = library.int8_squeeze_excite(weights.target)
    return entry.pixels_call(functions, x, out, scale, zero_point, weights.values.offset, factor)


def scale_call(x: Tensor, factor: Tensor, out: Tensor, weights: SqueezeExcite) -> Call:
    """Scale the channels of ``x``, to float32."""
    return entry.channels_call(x, out, weights.values, factor)


@prepared("squeeze_excite_int8")
def squeeze_excite_int8(
    x: np.ndarray,
    scale: np.ndarray,
    reduce_weight: np.ndarray,
    reduce_bias: np.ndarray,
    expand_weight: np.ndarray,
    expand_bias: np.ndarray,
    *,
    zero_point: int | np.ndarray = 0,
    activation: str = "relu",
    gate: str = "sigmoid",
    threads: int = 1,
) -> Images:
    """Squeeze-and-excitation of 8 bits, (C, R) and (R, C) in float32: uint8 (N, H, W, C) -> float32 (N, H, W, C)."""
    g = checks.squeeze_excite_int8(
        x, scale, reduce_weight, reduce_bias, expand_weight, expand_bias, zero_point=zero_point, activation=activation,
        gate=gate,
    )  # fmt: skip
    images = Images(g.shape, threads)
    given = scale, reduce_weight, reduce_bias, expand_weight, expand_bias
    packed = pack(images.target, *map(checks.float32, given), zero_point)
    for image in images.inputs(x):
        places = [images.take(each) for each in vectors(images.target, *reduce_weight.shape)]
        images.add(*factor_calls(image, *places, packed, activation=activation, gate=gate))
        images.add(scale_call(image, places[-1], images.output(), packed))
    return images

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

VECTOR = Fields("x weights bias scale out k")  # a linear layer whose outputs are multiplied by a scale each


def vector_name(activation: str) -> str:
    """Of the kernel in its library."""
    return f"int8_vector_{activation}"


@dataclass(frozen=True)
class SqueezeExcite(Packed):
    """Packed weights.

    Attributes
    ----------
    pool : Pool
        What the bytes stand for.
    reduce, expand : Linear
    one, scale : array
        By which the results of both layers are multiplied: by nothing, and by the steps of the bytes.
    values : Channels
        What each byte stands for.
    """

    target: Target
    pool: Pool
    reduce: Linear
    expand: Linear
    one: np.ndarray
    scale: np.ndarray
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
    reduce, expand = linear.pack(target, reduce_weight, reduce_bias), linear.pack(target, expand_weight, expand_bias)
    scales = np.zeros_like(expand.bias)
    scales[: len(scale)] = scale
    points = np.broadcast_to(np.uint8(zero_point), len(scale))
    packed = pooling.pack(target, scale, zero_point), reduce, expand, np.ones_like(reduce.bias), scales
    return SqueezeExcite(target, *packed, entry.pack_dequantize(target, scale, points))


def vectors(target: Target, channels: int, reduced: int) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors, without memory, of means, what they are reduced to, and what each channel is multiplied by."""
    return tuple(linear.vector(target, count) for count in (channels, reduced, channels))


def factor_calls(
    x: Tensor, mean: Tensor, reduced: Tensor, factor: Tensor, weights: SqueezeExcite, *, activation: str, gate: str
) -> Iterator[Call]:
    """Compute what each channel of ``x``, less its zero point, is to be multiplied by."""
    yield pooling.call(x, mean, weights.pool)
    layers = (
        (mean, reduced, weights.reduce, weights.one, activation),
        (reduced, factor, weights.expand, weights.scale, gate),
    )
    functions = library.int8_squeeze_excite(weights.target)
    for source, out, layer, scale, function in layers:
        yield VECTOR.call(
            functions.address(vector_name(function)), layer.panels, x=source, out=out, scale=scale, keep=weights,
            **layer.arguments(),
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

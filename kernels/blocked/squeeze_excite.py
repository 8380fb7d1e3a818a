"""Squeeze-and-excitation of an image whose means are known: two products of vectors, and a scaling in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import library, linear
from npmobilenet.kernels.blocked.layout import Fields, Packed
from npmobilenet.kernels.blocked.linear import Linear
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

SCALE = Fields("x x_plane gate pixels")


@dataclass(frozen=True)
class SqueezeExcite(Packed):
    """Packed weights."""

    target: Target
    reduce: Linear
    expand: Linear


def pack(
    target: Target,
    reduce_weight: np.ndarray,
    expand_weight: np.ndarray,
    reduce_bias: np.ndarray | None = None,
    expand_bias: np.ndarray | None = None,
) -> SqueezeExcite:
    """Pack (C, R), (R, C), (R,) and (C,)."""
    reduced, channels = expand_weight.shape
    reduce = linear.pack(target, reduce_weight, checks.bias(reduce_bias, reduced))
    return SqueezeExcite(target, reduce, linear.pack(target, expand_weight, checks.bias(expand_bias, channels)))


def calls(
    x: Tensor, mean: Tensor, reduced: Tensor, gate: Tensor, weights: SqueezeExcite, *, activation: str, gated_by: str
) -> Iterator[Call]:
    """Scale the image ``x``, without frame, given its means; the other vectors are in between."""
    yield linear.call(mean, reduced, weights.reduce, activation=activation)
    yield linear.call(reduced, gate, weights.expand, activation=gated_by)
    yield SCALE.call(library.common(weights.target).address("scale"), x.blocks, x=x, gate=gate, pixels=x.pixels)

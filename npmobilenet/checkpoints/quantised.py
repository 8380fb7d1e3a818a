"""Quantised tensors of PyTorch: integers with a scale and a zero point, as numbers.

    number = (integer - zero point) × scale       one of each for a tensor, or one for each slice along an axis

A network that PyTorch quantised (torchvision's MobileNets for qnnpack and fbgemm) has such weights, and beside each
layer ``K.weight`` the scale and zero point of its result, ``K.scale`` and ``K.zero_point``. A linear layer keeps its
weight and bias as a pair under ``K._packed_params._packed_params``. Its batch norms are part of its convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.stored_tensor import StoredTensor, Tensor
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

_PACKED = "_packed_params"


class Quantisation(NamedTuple):
    """How a tensor was quantised.

    Attributes
    ----------
    scale, zero_point : array () or (C,)
        Of the tensor, or of each slice along ``axis``.
    axis : int or None
    values : integer array or None
        The stored integers of a weight; None for a layer's result, of which a file has the other two only.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None = None
    values: np.ndarray | None = None


@dataclass(eq=False)
class QuantisedTensor(Tensor):
    """A tensor of integers and what they mean; scale and zero point are numbers, or tensors along ``axis``."""

    integers: StoredTensor
    scale: float | StoredTensor
    zero_point: int | StoredTensor
    axis: int | None = None

    def quantisation(self, name: str, allowance: Allowance) -> Quantisation:
        """Return the integers and what they mean."""
        values = self.integers.to_array(name, allowance)
        if self.axis is None:
            scale, zero_point = np.float64(self.scale), np.float64(self.zero_point)
        else:
            scale, zero_point = (each.to_array(name, allowance) for each in (self.scale, self.zero_point))
            if not 0 <= self.axis < values.ndim or not scale.shape == zero_point.shape == (values.shape[self.axis],):
                raise CheckpointError(
                    f"tensor {quote(name)} of shape {values.shape} has scales of shape {scale.shape} along axis "
                    f"{self.axis}; the file is damaged"
                )
        if values.dtype.kind not in "iu" or not np.all(np.isfinite(scale) & (np.abs(zero_point) < 2**31)):
            raise CheckpointError(f"tensor {quote(name)} has an impossible scale or zero point; the file is damaged")
        return Quantisation(np.asarray(scale, np.float32), np.asarray(zero_point, np.int32), self.axis, values)

    def to_array(self, name: str, allowance: Allowance) -> np.ndarray:
        """Return the numbers, as float32."""
        scale, zero_point, axis, values = self.quantisation(name, allowance)
        allowance.take(4 * values.size, f"tensor {quote(name)}")
        if axis is not None:
            along = [-1 if each == axis else 1 for each in range(values.ndim)]
            scale, zero_point = scale.reshape(along), zero_point.reshape(along)
        with np.errstate(over="ignore"):
            array = np.subtract(values, zero_point, dtype=np.float32)
            array *= scale
        array.flags.writeable = False
        return array


def unpacked(name: str, value: object) -> dict[str, Tensor]:
    """Return the tensors of a quantised layer that keeps them as a pair (weight, bias)."""
    if not name.endswith(_PACKED) or type(value) is not tuple or len(value) != 2:
        return {}
    layer = name.removesuffix(_PACKED).removesuffix(_PACKED + ".")
    pair = {f"{layer}weight": value[0], f"{layer}bias": value[1]}
    return {name: tensor for name, tensor in pair.items() if isinstance(tensor, Tensor)}


def split_results(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Quantisation]]:
    """Take the scales and zero points of layers' results out of the arrays of a quantised network."""
    results = {}
    for name, scale in arrays.items():
        layer, _, last = name.rpartition(".")
        zero_point = arrays.get(f"{layer}.zero_point")
        if last == "scale" and zero_point is not None and scale.size == zero_point.size == 1:
            results[layer] = Quantisation(scale.reshape(()), zero_point.reshape(()))
    theirs = {f"{layer}.{last}" for layer in results for last in ("scale", "zero_point")}
    return {name: array for name, array in arrays.items() if name not in theirs}, results

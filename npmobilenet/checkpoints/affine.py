"""Tensors stored as integers: number = integer × scale + minimum, as TensorFlow.js quantises weights.

A file of this project keeps the integers and says in its metadata what they mean: ``{"affine": {tensor: [scale,
minimum]}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.stored_tensor import StoredTensor, Tensor
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

AFFINE = "affine"  # in the metadata
LARGEST = float(np.finfo(np.float32).max)


@dataclass(eq=False)
class AffineTensor(Tensor):
    """A tensor of integers, and what multiplies them and is added."""

    integers: StoredTensor
    scale: float
    minimum: float

    def to_array(self, name: str, allowance: Allowance) -> np.ndarray:
        """Return the numbers: computed in float64 and rounded once, as JavaScript does."""
        values = self.integers.to_array(name, allowance)
        if values.dtype.kind not in "iu":
            raise CheckpointError(f"tensor {quote(name)} is of {values.dtype}, and quantised ones are integers")
        allowance.take(4 * values.size, f"tensor {quote(name)}")
        with np.errstate(over="ignore"):
            array = (values * np.float64(self.scale) + self.minimum).astype(np.float32)
        array.flags.writeable = False
        return array

    def encoded(self, name: str, allowance: Allowance) -> tuple[np.ndarray, tuple[float, float]]:
        """Return the integers, and what they mean."""
        return self.integers.encoded(name, allowance)[0], (self.scale, self.minimum)


def affine(name: str, integers: StoredTensor, scale: Any, minimum: Any) -> AffineTensor:
    """Return the tensor that integers stand for.

    Raises
    ------
    CheckpointError
        If scale and minimum are no numbers that float32 holds.
    """
    for number in (scale, minimum):
        if not isinstance(number, (int, float)) or isinstance(number, bool) or not abs(number) <= LARGEST:
            raise CheckpointError(f"tensor {quote(name)} has an impossible scale or minimum; the file is damaged")
    return AffineTensor(integers, float(scale), float(minimum))


def with_meanings(tensors: Mapping[str, Tensor], meanings: Any) -> dict[str, Tensor]:
    """Return the tensors of a file, those of integers as what its metadata say that they mean.

    Raises
    ------
    CheckpointError
        If the metadata are not of that kind, or name a tensor that is not there.
    """
    found = dict(tensors)
    if not isinstance(meanings, dict):
        raise CheckpointError(f"its metadata {AFFINE!r} is no object; the file is damaged")
    for name, pair in meanings.items():
        if not isinstance(found.get(name), StoredTensor) or not isinstance(pair, list) or len(pair) != 2:
            raise CheckpointError(f"its metadata {AFFINE!r} do not fit the tensor {quote(name)}; the file is damaged")
        found[name] = affine(name, found[name], *pair)
    return found

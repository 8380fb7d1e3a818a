"""How kernels of 8 bits end: with a clamp, or with an activation that a library of their own is written with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked.activation import CLAMPS
from npmobilenet.kernels.blocked.layout import Packed, Value, pack_channels
from npmobilenet.kernels.blocked.library import CLAMP
from npmobilenet.kernels.vector.target import Target


@dataclass(frozen=True)
class Ending(Packed):
    """What follows the multiply-add.

    Attributes
    ----------
    activation : str
    steps, offset : array or None
        For each channel, of a result in bytes that ends with an activation: how many of its steps are a unit, and
        its zero point.
    """

    ARGUMENTS = ("steps", "offset")

    activation: str = "none"
    steps: np.ndarray | None = None
    offset: np.ndarray | None = None

    @property
    def end(self) -> str:
        """Which library has it."""
        return CLAMP if self.steps is None and self.activation in CLAMPS else self.activation

    def arguments(self, prefix: str = "") -> dict[str, Value]:
        """With the bounds of a clamp."""
        bounds = self.activation if self.activation in CLAMPS else "none"
        return {**super().arguments(prefix), f"{prefix}clamp": activations.clamp(bounds)}


NOTHING = Ending()


def pack(
    target: Target,
    activation: str = "none",
    out_steps: np.ndarray | None = None,
    out_zero_point: np.ndarray | None = None,
) -> Ending:
    """Pack what a result stands for."""
    if out_steps is None:
        return Ending(activation)
    arrays = (pack_channels(target, np.float32(array)) for array in (out_steps, out_zero_point))
    return Ending(activation, *arrays)

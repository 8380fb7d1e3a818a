"""How kernels of 8 bits end: with a clamp, or with an activation that a library of their own is written with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked.activation import CLAMPS
from npmobilenet.kernels.blocked.layout import Packed, Value, pack_channels
from npmobilenet.kernels.blocked.library import CLAMP
from npmobilenet.kernels.vector.target import Target

ONE = 0x3F800000  # the bits of 1.0


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

    @property
    def bounds(self) -> str:
        """The clamp that it is, or "none"."""
        return self.activation if self.activation in CLAMPS else "none"

    def arguments(self, prefix: str = "") -> dict[str, Value]:
        """With the address of the bounds of a clamp, 0 where there are none."""
        clamp = 0 if self.bounds == "none" else activations.clamp(self.bounds)
        return {**super().arguments(prefix), f"{prefix}clamp": clamp}

    def limit(self, largest: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> int:
        """The largest scale of a pixel with which all results are below 2**31, in bits of a float32; -1: none is.

        ``largest`` has the magnitude that no sum of a channel passes. A factor of two is left for rounding.
        """
        with np.errstate(all="ignore"):
            steps = 1.0 if self.steps is None else np.maximum(np.float64(self.steps)[: len(bias)], 1)
            room = 2.0**30 / steps - np.abs(np.float64(bias)) - 256  # also for zero points, and what is above y
            limit = np.min(room / (np.abs(np.float64(scale)) * largest + np.finfo(np.float32).tiny), initial=np.inf)
        if not limit >= 0:
            return -1
        return int(np.float32(min(limit, np.finfo(np.float32).max)).view(np.int32))


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

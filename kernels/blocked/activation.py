"""How a kernel ends: with a clamp in its registers, or a pass over what it has just written."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.vector.target import Target

CLAMPS = {"none": (-np.inf, np.inf), "relu": (0.0, np.inf), "relu6": (0.0, 6.0)}
ZERO_PRESERVING = ("hard_swish", "swish")  # passes that a convolution may end with: the zeros of a frame stay zeros
ENDS = (*CLAMPS, *ZERO_PRESERVING)  # of kernels; any other activation is a call after them

_bounds = {name: np.array(bounds, np.float32) for name, bounds in CLAMPS.items()}  # what kernels find by an address


def function_name(activation: str) -> str:
    """A pass's name in its library."""
    return f"activate_{activation}"


def clamp(activation: str = "none") -> int:
    """Return the address of a clamp's bounds."""
    return _bounds[activation].ctypes.data


def ends(target: Target, activation: str, prefix: str = "") -> dict[str, int]:
    """Return the arguments: a clamp, or one that changes nothing and the address of another activation's pass."""
    if activation in CLAMPS:
        return {f"{prefix}clamp": clamp(activation), f"{prefix}activate": 0}
    function = library.common(target).address(function_name(activation))
    return {f"{prefix}clamp": clamp(), f"{prefix}activate": function}


def check(activation: str, known: tuple[str, ...] = ENDS, name: str = "activation") -> None:
    """Refuse what a kernel cannot end with."""
    if activation not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)} in this kernel, got {activation!r}")

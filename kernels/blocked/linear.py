"""The classifier: one vector times a matrix that is read once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npmobilenet.kernels import checks
from npmobilenet.kernels.blocked import activation as activations
from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.images import Images
from npmobilenet.kernels.blocked.layout import Fields, Packed
from npmobilenet.kernels.call import Call
from npmobilenet.kernels.prepared import prepared
from npmobilenet.kernels.tensor import Tensor
from npmobilenet.kernels.vector.target import Target

LINEAR = Fields("x weights bias out k clamp activate")
UNROLL = 4
PANEL_OUTPUTS = 128


def panel_blocks(target: Target) -> int:
    """Blocks of outputs that one panel computes together: as many sums as hide the multiply-add's latency.

    But no more than `PANEL_OUTPUTS`, so that small matrices have a panel for each thread.
    """
    return min(target.registers // 2, PANEL_OUTPUTS // target.lanes)


@dataclass(frozen=True)
class Linear(Packed):
    """Packed weights."""

    ARGUMENTS = ("weights", "bias", "k")

    target: Target
    weights: np.ndarray
    bias: np.ndarray
    k: int
    panels: int


def pack(target: Target, weight: np.ndarray, bias: np.ndarray, blocks: int = 0) -> Linear:
    """Pack (C_in, C_out) as ``[panel][C_in][outputs of the panel]``, and the bias, both filled up with zeros.

    Panels are of so many blocks, `panel_blocks` unless told.
    """
    width = (blocks or panel_blocks(target)) * target.lanes
    c_in, c_out = weight.shape
    k, panels = -(-c_in // UNROLL) * UNROLL, -(-c_out // width)
    weights, full_bias = np.zeros((panels, k, width), np.float32), np.zeros(panels * width, np.float32)
    for panel, start in zip(weights, range(0, c_out, width), strict=True):
        outputs = weight[:, start : start + width]
        panel[:c_in, : outputs.shape[1]] = outputs
    full_bias[:c_out] = bias
    return Linear(target, weights.ravel(), full_bias, k, panels)


def vector(target: Target, channels: int) -> Tensor:
    """A vector with room for whole panels."""
    return Tensor(channels, lanes=target.lanes, room=panel_blocks(target))


def call(x: Tensor, out: Tensor, weights: Linear, *, activation: str = "none") -> Call:
    """Compute ``out``, a :func:`vector`."""
    kernel, ends = library.common(weights.target).address("linear"), activations.ends(weights.target, activation)
    return LINEAR.call(kernel, weights.panels, x=x, out=out, **weights.arguments(), **ends)


@prepared("linear")
def linear(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    activation: str = "none",
    threads: int = 1,
) -> Images:
    """Fully connected layer, a vector times a matrix for each row of the batch: (N, C_in) -> (N, C_out)."""
    g = checks.linear(x, weight, bias, activation=activation)
    activations.check(activation)
    images = Images(g.shape, threads)
    packed = pack(images.target, checks.float32(weight), checks.bias(bias, g.shape[1]))
    for row in images.inputs(x):
        images.add(call(row, images.output(room=panel_blocks(images.target)), packed, activation=activation))
    return images

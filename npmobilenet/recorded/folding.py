"""Weights of a file as kernels read them: batch norms folded in, channels in vectors.

What `passes.folded_parameters` computes and operations' `pack` lay out, bit for bit, of a network whose layers all are
of one form: rows of weights, one for each output channel, that go to panels of several channels side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FLOAT32 = np.dtype("<f4")


class Norm(NamedTuple):
    """A batch norm: where its parameters begin in the file, in values."""

    weight: int
    bias: int
    running_mean: int
    running_var: int
    eps: float


class Panels(NamedTuple):
    """Equal panels of channels side by side: how many, of how many channels, of which so many are there."""

    count: int
    width: int
    filled: int


class Fold(NamedTuple):
    """A layer's weights.

    Attributes
    ----------
    weight, bias : int
        Where they begin in the file, in values; no bias, but a batch norm: -1.
    channels, values : int
        Output channels, and the weights of each.
    norm : Norm or None
    to_weights, to_bias : int
        Where they go, in values.
    rows : int
        Of a panel: `values` and perhaps some zeros.
    panels : tuple of Panels
        One after the other.
    """

    weight: int
    bias: int
    channels: int
    values: int
    norm: Norm | None
    to_weights: int
    to_bias: int
    rows: int
    panels: tuple[Panels, ...]


def fold(stored: np.ndarray, folds: Sequence[Fold], into: np.ndarray) -> None:
    """Fold and pack all layers.

    Parameters
    ----------
    stored : float32 array
        All values of the file.
    folds : sequence of Fold
    into : float32 array
        Zeros.
    """
    scratch = np.empty(max(each.channels * each.values for each in folds), np.float32)
    for each in folds:
        weight = stored[each.weight : each.weight + each.channels * each.values].reshape(each.channels, each.values)
        if each.norm:
            scale, bias = _of_norm(stored, each.norm, each.channels)
            folded = scratch[: weight.size].reshape(weight.shape)
            weight = np.multiply(weight, scale[:, None], out=folded, casting="same_kind")  # rounded once
        else:
            bias = stored[each.bias : each.bias + each.channels]
        into[each.to_bias : each.to_bias + each.channels] = bias
        start, at = 0, each.to_weights
        for count, width, filled in each.panels:
            stop, end = start + count * filled, at + count * each.rows * width
            panels = into[at:end].reshape(count, each.rows, width)
            panels[:, : each.values, :filled] = weight[start:stop].reshape(count, filled, -1).transpose(0, 2, 1)
            start, at = stop, end


def _of_norm(stored: np.ndarray, norm: Norm, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """By what it multiplies each channel, and what it adds then, in float64."""
    gamma, beta, mean, variance = (stored[at : at + channels].astype(np.float64) for at in norm[:4])
    scale = gamma / np.sqrt(variance + norm.eps)
    return scale, beta + (0.0 - mean) * scale

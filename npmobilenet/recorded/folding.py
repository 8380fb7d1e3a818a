"""Weights of a file as kernels read them: batch norms folded in, channels in vectors.

What `passes.folded_parameters` computes and operations' `pack` lay out, bit for bit, of a network whose layers all are
of one form: rows of weights, one for each output channel, that go to panels of several channels side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npmobilenet.kernels.fold import run

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.functions import Functions

FLOAT32 = np.dtype("<f4")


class Panels(NamedTuple):
    """Equal panels of channels side by side: how many, of how many channels, of which so many are there."""

    count: int
    width: int
    filled: int


class Fold(NamedTuple):
    """A layer's weights. Places are in values: of the file, or of the memory of all packed weights.

    Attributes
    ----------
    weight : int
        Where they begin in the file.
    gamma, beta, mean, variance : int
        Of its batch norm, likewise. Where it has none, `beta` is its bias, and the others are -1.
    eps : float
    channels, values : int
        Output channels, and the weights of each.
    to_weights, to_bias : int
        Where they go.
    rows : int
        Of a panel: `values` and perhaps some zeros.
    panels : tuple of Panels
        One after the other.
    """

    weight: int
    gamma: int
    beta: int
    mean: int
    variance: int
    eps: float
    channels: int
    values: int
    to_weights: int
    to_bias: int
    rows: int
    panels: tuple[Panels, ...]


class Folding:
    """The folding and packing of all layers, which has begun in a thread of its own.

    Parameters
    ----------
    functions : Functions
        The library `kernels.fold`.
    stored : float32 array
        All values of the file.
    folds : sequence of Fold
    into : float32 array
        Zeros.
    """

    def __init__(self, functions: Functions, stored: np.ndarray, folds: Sequence[Fold], into: np.ndarray) -> None:
        self._functions, self._stored, self._into = functions, stored, into
        scales, self._biases, self._places, begins = _channels(stored, folds)
        layers = [
            (each.weight, each.values, begin, each.to_weights, each.rows, len(each.panels))
            for each, begin in zip(folds, begins.tolist(), strict=True)
        ]
        panels = [panels for each in folds for panels in each.panels]
        self._tables = np.array(layers, np.int64), np.array(panels, np.int64), scales
        self._thread = Thread(target=self._run)
        try:
            self._thread.start()
        except RuntimeError:  # no further thread may be started
            self._run()

    def _run(self) -> None:
        """Write all packed weights: the first that touches their memory, which takes a while."""
        run(self._functions, self._stored, *self._tables, self._into)
        self._into[self._places] = self._biases

    def wait(self) -> None:
        """Return when it is done."""
        if self._thread.ident is not None:
            self._thread.join()


def _channels(stored: np.ndarray, folds: Sequence[Fold]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scales and biases of the channels of all layers, where biases go, and where each layer's channels begin.

    In float64, as `passes.folded_parameters` computes it, but of all layers at once.
    """
    columns = zip(*((fold.gamma, fold.beta, fold.mean, fold.variance, fold.to_bias) for fold in folds), strict=True)
    channels = np.array([fold.channels for fold in folds])
    begins = np.cumsum(channels) - channels
    own = np.arange(channels.sum()) - np.repeat(begins, channels)  # a channel's number in its layer
    gamma, beta, mean, variance, places = (np.repeat(column, channels) + own for column in columns)
    has_norm = np.repeat([fold.gamma >= 0 for fold in folds], channels)
    gamma, mean, variance = (stored[at[has_norm]].astype(np.float64) for at in (gamma, mean, variance))
    scales, biases = np.ones(len(own)), stored[beta].astype(np.float64)
    scales[has_norm] = scale = gamma / np.sqrt(variance + np.repeat([fold.eps for fold in folds], channels)[has_norm])
    biases[has_norm] += (0.0 - mean) * scale
    return scales, biases, places, begins

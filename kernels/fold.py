"""Weights as a file has them, folded and packed: a loop over all layers of a network.

It is run whenever a process loads a network that is ready, which starting Numba would take longer than: like the loops
that resize photographs it is a library of its own, which Numba is needed to compile, but not to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector import lookup
from npmobilenet.kernels.vector.functions import Functions, numba_array
from npmobilenet.kernels.vector.target import Target

if TYPE_CHECKING:
    from npmobilenet.kernels.vector.library import Library

NAME = "fold"
ARGUMENTS = ("float32[1]", "int64[2]", "int64[2]", "float64[1]", "float32[1]")


def fold(stored: np.ndarray, layers: np.ndarray, panels: np.ndarray, scales: np.ndarray, into: np.ndarray) -> None:
    """Multiply each output channel's weights by its scale, and put channels side by side in panels.

    Parameters
    ----------
    stored : float32 (values,)
        A row of weights for each output channel of each layer.
    layers : int64 (layers, 6)
        Where a layer's weights begin, and how many each channel has; where its scales begin; where they go; how many
        rows a panel has; and how many panels of the table are this layer's, which follow those of the one before.
    panels : int64 (n, 3)
        How many panels, of how many channels, of which so many are there.
    scales : float64 (channels,)
    into : float32 (values,)
        Zeros.
    """
    panel = 0
    for number in range(layers.shape[0]):
        layer = layers[number]
        begin, values, scale, at = layer[0], layer[1], layer[2], layer[3]
        for _ in range(layer[5]):
            count, width, filled = panels[panel, 0], panels[panel, 1], panels[panel, 2]
            panel += 1
            for _ in range(count):
                factors = scales[scale : scale + filled]
                rows = stored[begin : begin + filled * values]
                for k in range(values):
                    out = into[at + k * width : at + k * width + filled]
                    for lane in range(filled):
                        out[lane] = rows[lane * values + k] * factors[lane]  # in float64, rounded once
                begin += filled * values
                scale += filled
                at += layer[4] * width


def run(functions: Functions, *arrays: np.ndarray) -> None:
    """Run it on C-contiguous arrays; other Python threads run meanwhile."""
    numbers = [number for array in arrays for number in numba_array(array)]
    functions.callable(NAME, len(numbers))(*numbers)


@once
def library(target: Target) -> Functions:
    """Return the loop, for a CPU."""
    return lookup.library(NAME, target, __name__, _define)


def _define(library: Library) -> None:
    library.add_numba(NAME, fold, ARGUMENTS)

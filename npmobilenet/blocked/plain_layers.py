"""Layers that the blocked kernels do not compute: plain ones do, on NHWC arrays, between the tables of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

from npmobilenet.kernels.tensor import Tensor
from npmobilenet.plan import Step


class Placed(NamedTuple):
    """A tensor of the blocked kernels in memory, as the twin of an array.

    Attributes
    ----------
    tensor : Tensor
    memory : float32 array
        Begins where the tensor does.
    """

    tensor: Tensor
    memory: np.ndarray

    def copy_to(self, array: np.ndarray) -> None:
        """Write its image to a float32 array (1, H, W, C) or (1, C)."""
        array[0] = self.tensor.read(self.memory).reshape(array.shape[1:])

    def copy_from(self, array: np.ndarray) -> None:
        """Take the image from such an array."""
        self.tensor.write(self.memory, array.reshape(self.tensor.height, self.tensor.width, -1))


class PlainLayers(NamedTuple):
    """Layers that follow one another; tensors are converted where they come from blocked kernels, or go to them.

    Attributes
    ----------
    steps : sequence of Step
    threads : int
    arrays : mapping of str to float32 array
        (1, H, W, C) or (1, C) of what they read and compute.
    reads, writes : mapping of str to Placed
    """

    steps: Sequence[Step]
    threads: int
    arrays: Mapping[str, np.ndarray]
    reads: Mapping[str, Placed]
    writes: Mapping[str, Placed]

    @property
    def bytes(self) -> int:
        """Of the arrays that they compute."""
        return sum(self.arrays[step.node.name].nbytes for step in self.steps)

    def run(self) -> None:
        """Compute all of them."""
        for name, placed in self.reads.items():
            placed.copy_to(self.arrays[name])
        for step in self.steps:
            step.run(self.arrays, self.threads)
        for name, placed in self.writes.items():
            placed.copy_from(self.arrays[name])

    def time(self, groups: Sequence[int]) -> list[float]:
        """Compute them once more and return the seconds of each; converting counts to the first and to the last."""
        times = [perf_counter()]
        for name, placed in self.reads.items():
            placed.copy_to(self.arrays[name])
        for step in self.steps:
            step.run(self.arrays, self.threads)
            times.append(perf_counter())
        for name, placed in self.writes.items():
            placed.copy_from(self.arrays[name])
        times[-1] = perf_counter()
        return np.diff(times).tolist()

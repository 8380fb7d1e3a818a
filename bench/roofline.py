"""What is possible: the roofline of a machine, and where a measurement stands below it.

Something that does so many operations for every byte it moves can run no faster than the memory hands over the
bytes, nor than the CPU multiplies. Which memory, depends on where the bytes lie: the machine is probed with buffers
of several sizes, and the bytes of a layer are given the rate of a buffer as large as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PEAKS = {"float32": "gflops", "int8": "int8_gops"}  # what `machine_limits.limits` calls the rates of multiply-adds
UNITS = {"float32": "GFLOP/s", "int8": "Gop/s"}


@dataclass(frozen=True)
class Roofline:
    """The limits of one number of threads.

    Attributes
    ----------
    gflops : float
        The highest rate of multiply-adds seen, two operations each; of bytes for networks of 8 bits.
    levels : sequence of (int, float)
        Bytes of a buffer and the GB/s at which it is gone through, from the nearest cache to memory.
    """

    gflops: float
    levels: Sequence[tuple[int, float]]

    @classmethod
    def of(cls, limits: Mapping, dtype: str = "float32") -> Roofline:
        """Make it of a row of `machine_limits.limits`, just probed or from a saved run."""
        return cls(limits[PEAKS[dtype]], [(level["bytes"], level["gbytes"]) for level in limits["levels"]])

    def bandwidth(self, size: float) -> float:
        """Return the GB/s of a buffer of so many bytes."""
        sizes, rates = zip(*self.levels, strict=True)
        return float(np.interp(np.log(size), np.log(sizes), rates))

    def possible(self, macs: int, size: int) -> float:
        """Return the GFLOP/s that so many multiply-adds on so many bytes can reach."""
        return min(self.gflops, 2 * macs / size * self.bandwidth(size))

    def place(self, macs: int, size: int, seconds: float, streamed: int = 0, among: int = 0) -> dict:
        """Return the rates of a measurement, and how much they are of what is possible.

        Parameters
        ----------
        macs, size : int
            Multiply-adds, and bytes moved.
        streamed, among : int
            So many of these bytes are weights, which come back only after all the others of the network: they are
            read at the rate of a buffer of ``among`` bytes.
        """
        moving = size / self.bandwidth(size)
        if streamed:
            moving += streamed / self.bandwidth(max(size, among)) - streamed / self.bandwidth(size)
        computing = 2 * macs / self.gflops
        gflops, nanoseconds = 2 * macs / seconds / 1e9, 1e9 * seconds
        return {
            "macs": macs,
            "bytes": size,
            "gflops": gflops,
            "of_peak": gflops / self.gflops,
            "gbytes": size / nanoseconds,
            "of_bandwidth": moving / nanoseconds,
            "of_possible": max(computing, moving) / nanoseconds,
            "bound": "arithmetic" if computing >= moving else "memory",
        }

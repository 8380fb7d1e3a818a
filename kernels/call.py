"""Kernel calls, and the table that runs them: what single operations, benchmarks and networks all compute with.

A kernel has the signature ``(arguments, first, last, scratch)``: it computes the work items ``first`` up to ``last``
of a call, whose ``arguments`` are 64-bit integers, one row of the table. `walk` has the loop that threads run over a
table.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

from npmobilenet.kernels.memory import ALIGNMENT, aligned
from npmobilenet.kernels.walk.columns import ARGUMENTS, HEAD
from npmobilenet.kernels.walk.job import Job

GIVEN = -(1 << 63)
"""In the place of an argument: the address of an array that each run is given."""

SHARES = 4  # of each thread's part of a call: small enough to even out, large enough to keep caches warm

_CLOCK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)  # as a kernel


class Call(NamedTuple):
    """One call of a kernel.

    Attributes
    ----------
    kernel : int
        Its address.
    items : int
        Work items: what threads share.
    arguments : sequence of int
        As the kernel's `layout.Fields` pack them.
    shares : int
        How often a thread takes items: as many at a time as make so many shares of its part.
    scratch_bytes : int
        Memory that the kernel needs for each thread.
    keep : object
        What the kernel finds by an address, besides tensors.
    """

    kernel: int
    items: int
    arguments: Sequence[int]
    shares: int = SHARES
    scratch_bytes: int = 0
    keep: object = None

    def row(self, threads: int) -> list[int]:
        """What a table says of it."""
        return [self.kernel, self.items, max(1, self.items // (threads * self.shares)), *self.arguments]


class Table:
    """Calls that run one after the other, each on all threads; one run at a time.

    Parameters
    ----------
    calls : sequence of Call
    threads : int
        The calling one, and helpers; none that would find no item.
    keep : object
        What the calls find by an address: the memory of tensors.
    scratch : list of array, optional
        Working memory of each thread, if that of another table will do.

    Attributes
    ----------
    slots : list of (int, int)
        Of each array that :meth:`run` is given: the call, and which of its arguments the array's address becomes.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        threads: int = 1,
        keep: object = None,
        scratch: list[np.ndarray] | None = None,
    ) -> None:
        self.calls, self.keep = calls, keep
        self.slots = [(n, at) for n, call in enumerate(calls) for at, a in enumerate(call.arguments) if a == GIVEN]
        self.threads = max(1, min(threads, max((call.items for call in calls), default=1)))
        self.scratch_bytes = max((call.scratch_bytes for call in calls), default=0)
        rows = [call.row(self.threads) for call in calls]
        self._rows = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
        for target, row in zip(self._rows, rows, strict=True):
            target[: len(row)] = row
        size = HEAD + self.scratch_bytes + ALIGNMENT
        self.scratch = scratch or [aligned(size, np.uint8) for _ in range(self.threads)]
        self._job = self._new_job()
        self._jobs = [self._job]

    def _new_job(self) -> Job:
        rows = self._rows
        slots = [rows[call, ARGUMENTS + argument :].ctypes.data for call, argument in self.slots]
        return Job(rows, self.scratch[: self.threads], (self.calls, self.keep), slots)

    @property
    def bytes(self) -> int:
        """Of the table, the job and the working memory."""
        return sum(array.nbytes for array in (self._rows, *(job.block for job in self._jobs), *self.scratch))

    def run(self, *arrays: np.ndarray) -> None:
        """Run all calls, uninterrupted, on a C-contiguous array for each argument that is `GIVEN`, in their order."""
        if len(arrays) != len(self.slots):
            raise TypeError(f"a table with {len(self.slots)} slots for arrays was given {len(arrays)}")
        while self.calls and not self._job.run(*arrays):
            free = next((job for job in self._jobs if not job.guests), None)
            if free is None:  # a helper was stopped inside of each
                free = self._new_job()
                self._jobs.append(free)
            self._job = free

    def time(self, groups: Sequence[int], *arrays: np.ndarray) -> list[float]:
        """Run all calls once more, and return the seconds of groups of so many of them.

        All in one run, on all threads, as always; but a call before each group asks for the time.
        """
        times: list[float] = []
        ask = _CLOCK(lambda *_: times.append(perf_counter()))
        clock = Call(ctypes.cast(ask, ctypes.c_void_p).value, 1, ())
        timed, start = [clock], 0
        for length in groups:
            timed += [*self.calls[start : start + length], clock]
            start += length
        Table(timed, self.threads, (self, ask), self.scratch).run(*arrays)
        return np.diff(times).tolist()

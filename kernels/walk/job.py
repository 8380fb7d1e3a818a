"""What the threads that run a table share, as they find it in memory (`columns`)."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

import numpy as np

from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.walk import threads as helpers
from npmobilenet.kernels.walk.columns import (
    ABSENT,
    ARRIVED,
    DONE,
    GUESTS,
    HEAD,
    LINE,
    OUTCOME,
    PLACE_WORDS,
    PLACES,
    SLOTS,
    THREADS,
)
from npmobilenet.kernels.walk.compiled import run_arrays, walker

WORDS = LINE // 8


class Job:
    """The running of a table.

    Helpers may come when all is done, and one may stay inside for a moment. As long as they may look at any of it,
    the job is there, and all that it leads to.

    Parameters
    ----------
    rows : int64 array
        The table.
    scratch : sequence of array
        Working memory of each thread, after `HEAD` bytes.
    keep : object
        What the table leads to.
    slots : sequence of int
        Of each array that `run` is given: where its address is to stand.

    Attributes
    ----------
    address : int
    threads : int
        The calling one, and helpers.
    """

    _left: ClassVar[deque[Job]] = deque()  # with a helper inside when nobody else needed them any more
    _guests: ClassVar[int] = GUESTS  # here, for a job that is let go of when the interpreter ends and has no globals

    def __init__(
        self, rows: np.ndarray, scratch: Sequence[np.ndarray], keep: object, slots: Sequence[int] = ()
    ) -> None:
        self.rows, self.scratch, self.keep = rows, scratch, keep
        self._slots = np.array(slots, np.int64)
        self.threads = len(scratch)
        start = -(-(PLACES + self.threads * PLACE_WORDS) // WORDS) * WORDS
        self.block = aligned(start + len(rows) * (self.threads + 1) * WORDS, np.int64)
        self.address = self.block.ctypes.data
        self._run = walker("run")
        self._run_arrays = run_arrays(self.block)
        self._words = memoryview(self.block)
        self._helpers: tuple[object, ...] = ()
        counters = self.address + 8 * start
        self.block[:THREADS] = rows.ctypes.data, rows.strides[0], len(rows)
        self.block[[THREADS, THREADS + 1]] = self.threads, counters
        self.block[SLOTS] = self._slots.ctypes.data
        self.block[ARRIVED] = self.threads  # it is not begun: nobody finds a place
        self.block[PLACES : PLACES + self.threads * PLACE_WORDS : PLACE_WORDS] = [
            array.ctypes.data + HEAD for array in scratch
        ]
        self._let_go()

    def run(self, *arrays: np.ndarray) -> bool:
        """Run the table once; one run at a time. Returns whether it was possible: not where a helper stays inside."""
        outcome = (self._run_arrays or self._run_addresses)(*arrays)
        while outcome == ABSENT:
            helpers.ask(self)
            self._run(self.address, 0)
            outcome = self._words[OUTCOME]
        return outcome == DONE

    def _run_addresses(self, *arrays: np.ndarray) -> int:
        """As `walker.run_arrays` does it."""
        for slot, array in zip(self._slots.tolist(), arrays, strict=True):
            ctypes.c_int64.from_address(slot).value = array.ctypes.data
        self._run(self.address, 1)
        return self._words[OUTCOME]

    def invite(self, comers: Sequence[helpers.Helper]) -> None:
        """Say which helpers are asked at the next run: as many as the job has places for, or fewer."""
        self._helpers = tuple(comers)  # so that there are mailboxes at these addresses, whoever is in them
        for place in range(1, self.threads):
            here = comers[place - 1].address if place <= len(comers) else 0
            self._words[PLACES + place * PLACE_WORDS + 1] = here

    @property
    def guests(self) -> int:
        """How many helpers are inside."""
        return self._words[self._guests]

    def __del__(self) -> None:
        if hasattr(self, "_words") and self.guests:
            self._left.append(self)

    def _let_go(self) -> None:
        """Of those that a helper has left meanwhile."""
        for _ in range(len(self._left)):
            with suppress(IndexError):  # another thread does the same
                job = self._left.popleft()
                if job.guests:
                    self._left.append(job)

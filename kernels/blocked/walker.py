"""Runs a table of kernel calls, on one thread or several: one walk per image, not one parallel region per layer.

A row of the table is a kernel's address, its number of work items, how many of them a thread takes at a time,
and its arguments. Every thread walks all
rows: it takes items of a row until there are none left, and goes on to the next row when all of them are done.
So any number of threads may take part, and one that comes late, or is stopped by the system for a while, delays
only the items it holds. Which thread computes an item makes no difference to the result.
"""

from __future__ import annotations

from npmobilenet.kernels.blocked.layout import ARGUMENTS, COUNTERS, ITEMS, KERNEL, SHARE
from npmobilenet.kernels.simd_numba import atomic_add, atomic_load, call, load, pause, yield_to_others

SPINS = 200  # pauses before a waiting thread lets others run


def walk(table: int, row_bytes: int, rows: int, counters: int, scratch: int) -> None:
    """Walk the table at address ``table``, alone or as one of several threads; Numba compiles this.

    ``counters`` is the address of rows * `COUNTERS` int64 zeros that all threads of this walk share, ``scratch``
    that of this thread's own buffer.
    """
    for row in range(rows):
        at = table + row * row_bytes
        items, share = load(at + 8 * ITEMS), load(at + 8 * SHARE)
        taken = counters + row * (8 * COUNTERS)
        done = taken + 4 * COUNTERS
        while True:
            first = atomic_add(taken, share)
            if first >= items:
                break
            last = min(first + share, items)
            call(load(at + 8 * KERNEL), at + 8 * ARGUMENTS, first, last, scratch)
            atomic_add(done, last - first)
        spins = 0
        while atomic_load(done) < items:
            spins += 1
            if spins < SPINS:
                pause()
            else:
                yield_to_others()

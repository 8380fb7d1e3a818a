"""Runs a table of kernel calls, on one thread or several: one walk per image, not one parallel region per layer.

A row of the table is a kernel's address, its number of work items, how many of them a thread takes at a time,
and its arguments. Every thread walks all rows: it takes items of a row until there are none left, and goes on to
the next row when all of them are done. So any number of threads may take part, and one that comes late, or is
stopped by the system for a while, delays only the items it holds. Which thread computes an item makes no
difference to the result.

A thread that has helped looks for a while whether there is more to do, for the next image often comes at once:
waking a sleeping thread takes as long as a small network. Its mailbox (`mailbox.py`) is where it is told.
"""

from __future__ import annotations

from npmobilenet.kernels.jit import inlined
from npmobilenet.kernels.vector.simd_numba import (
    atomic_add,
    atomic_load,
    atomic_replace,
    atomic_store,
    call,
    load,
    pause,
    yield_to_others,
)
from npmobilenet.kernels.walk.columns import ARGUMENTS, COUNTERS, ITEMS, KERNEL, SHARE
from npmobilenet.kernels.walk.mailbox import ACCEPTED, BUSY, JOB, POSTED, POSTING, STATE, WAITING

SPINS = 200  # pauses before a waiting thread lets others run


@inlined
def walk_rows(table: int, row_bytes: int, rows: int, counters: int, scratch: int) -> None:
    """What :func:`walk` does, as a part of whoever calls it."""
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


def walk(table: int, row_bytes: int, rows: int, counters: int, scratch: int) -> None:
    """Walk the table at address ``table``, alone or as one of several threads; Numba compiles this.

    ``counters`` is the address of rows * `COUNTERS` int64 zeros that all threads of this walk share, ``scratch``
    that of this thread's own buffer.
    """
    walk_rows(table, row_bytes, rows, counters, scratch)


def serve(mailbox: int, patience: int) -> None:
    """Take part in the walks that are posted, until none has come for ``patience`` pauses; Numba compiles this."""
    atomic_store(mailbox + 8 * STATE, WAITING)
    spins = 0
    while True:
        if atomic_load(mailbox + 8 * STATE) == POSTED:
            job = mailbox + 8 * JOB
            table, row_bytes, rows = load(job), load(job + 8), load(job + 16)
            counters, scratch = load(job + 24), load(job + 32)
            atomic_store(mailbox + 8 * STATE, BUSY)
            walk_rows(table, row_bytes, rows, counters, scratch)
            atomic_store(mailbox + 8 * STATE, WAITING)
            spins = 0
        spins += 1
        if spins % SPINS:
            pause()
        else:
            yield_to_others()
        if spins > patience and atomic_replace(mailbox + 8 * STATE, WAITING, BUSY) == WAITING:
            return


def post(mailbox: int, table: int, row_bytes: int, rows: int, counters: int, scratch: int) -> None:
    """Ask the thread of a mailbox to take part in a walk; whether it will is written there. Numba compiles this."""
    if atomic_replace(mailbox + 8 * STATE, WAITING, POSTING) != WAITING:
        atomic_store(mailbox + 8 * ACCEPTED, 0)
        return
    job = mailbox + 8 * JOB
    atomic_store(job, table)
    atomic_store(job + 8, row_bytes)
    atomic_store(job + 16, rows)
    atomic_store(job + 24, counters)
    atomic_store(job + 32, scratch)
    atomic_store(mailbox + 8 * ACCEPTED, 1)
    atomic_store(mailbox + 8 * STATE, POSTED)

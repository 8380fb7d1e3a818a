"""Runs a table of kernel calls, on one thread or several: one walk per image, not one parallel region per layer.

A row of the table is a kernel's address, its number of work items, how many of them a thread takes at a time,
and its arguments. Every thread walks all rows: it takes items of a row until there are none left, and goes on to
the next row when all of them are done. Each has a range of its own, of neighbouring items that it takes from the
front, so that what it reads is often what it wrote; when that is empty it takes from the far ends of the others'. So
any number of threads may take part, and one that comes late, or is stopped by the system for a while, delays only the
items it holds. Which thread computes an item makes no difference to the result.

A run is one call of compiled code (:func:`run`), between whose beginning and end no interrupt comes: it makes the job
ready, posts it to the helpers that wait, walks, and takes back what no helper has read. Three rules keep the job whole:

- A helper takes a job out of its mailbox by compare-and-swap: what it has only seen there may have been taken back.
- Who posted a job takes it back if no helper has read it: none comes to a job that is done and perhaps gone.
- Counters become zeros only when no helper is inside: it might still wait for the last row of the run before.

Helpers are counted (``GUESTS``): by who posts a job, before any may read it; by themselves where they come otherwise.

A thread that has helped looks for a while whether there is more to do, for the next image often comes at once:
waking a sleeping thread takes as long as a small network.
"""

from __future__ import annotations

from npmobilenet.kernels.jit import inlined
from npmobilenet.kernels.memory import HEADER
from npmobilenet.kernels.vector.simd_numba import (
    atomic_add,
    atomic_load,
    atomic_replace,
    atomic_store,
    call,
    come_back,
    leave_python,
    load,
    pause,
    store,
    yield_to_others,
)
from npmobilenet.kernels.walk.columns import (
    ABSENT,
    ARGUMENTS,
    ARRIVED,
    CLOSED,
    COUNTERS,
    DONE,
    GUESTS,
    ITEMS,
    KERNEL,
    LINE,
    MAILBOX,
    NEXT,
    OCCUPIED,
    OUTCOME,
    PLACE_WORDS,
    PLACES,
    ROW_BYTES,
    ROWS,
    SCRATCH,
    SHARE,
    SLOTS,
    TABLE,
    THREADS,
)
from npmobilenet.kernels.walk.mailbox import BUSY, WAITING

SPINS = 200  # pauses before a waiting thread lets others run
LOW_HALF = (
    1 << 32
) - 1  # of a range's counter: items taken from the front; the high half counts those from the far end


@inlined
def mailbox_of(job: int, place: int) -> int:
    """The mailbox of the helper that is asked to come, or 0."""
    return load(job + 8 * (PLACES + place * PLACE_WORDS + MAILBOX))


@inlined
def take_items(at: int, low: int, size: int, counter: int, from_front: bool, scratch: int, after: int) -> tuple:
    """Compute items of the row at ``at``, of a range that begins with ``low``, until none is left.

    Returns how many, and the item after the last one.
    """
    share = load(at + 8 * SHARE)
    amount = share if from_front else share << 32
    mine = 0
    while True:
        taken = atomic_load(counter)  # a look first: it costs others nothing
        if size - (taken & LOW_HALF) - (taken >> 32) <= 0:
            break
        taken = atomic_add(counter, amount)
        front, back = taken & LOW_HALF, taken >> 32
        count = min(share, size - front - back)
        if count <= 0:
            break
        first = low + front if from_front else low + size - back - count
        store(scratch + NEXT, after)
        after = first + count
        call(load(at + 8 * KERNEL), at + 8 * ARGUMENTS, first, after, scratch)
        mine += count
    return mine, after


@inlined
def walk(job: int, place: int) -> None:
    """Walk a job's table, alone or as one of several threads, each in a place of its own."""
    threads = load(job + 8 * THREADS)
    scratch = load(job + 8 * (PLACES + place * PLACE_WORDS + SCRATCH))
    at, counters = load(job + 8 * TABLE), load(job + 8 * COUNTERS)
    for _ in range(load(job + 8 * ROWS)):
        items = load(at + 8 * ITEMS)
        mine, after = 0, -1
        for step in range(threads):
            owner = (place + step) % threads
            low = (items * owner + threads - 1) // threads
            size = (items * (owner + 1) + threads - 1) // threads - low
            count, after = take_items(at, low, size, counters + LINE * owner, step == 0, scratch, after)
            mine += count
        done = counters + LINE * threads
        if mine:
            atomic_add(done, mine)
        spins = 0
        while atomic_load(done) < items:
            spins += 1
            if spins < SPINS:
                pause()
            else:
                yield_to_others()
        at += load(job + 8 * ROW_BYTES)
        counters += LINE * (threads + 1)


@inlined
def help_with(job: int) -> None:
    """Take part in a walk, if there is still a place, as one who is counted among the guests."""
    place = 1 + atomic_add(job + 8 * ARRIVED, 1)
    if place < load(job + 8 * THREADS):
        walk(job, place)


@inlined
def closed(job: int) -> bool:
    """Keep helpers out, unless one stays inside for longer than it takes to leave."""
    spins = 0
    while atomic_replace(job + 8 * GUESTS, 0, CLOSED) != 0:
        spins += 1
        if spins > SPINS:
            return False
        pause()
    return True


@inlined
def all_wait(job: int) -> bool:
    """Whether there is a helper for every place, and each would take a job out of its mailbox."""
    for place in range(1, load(job + 8 * THREADS)):
        mailbox = mailbox_of(job, place)
        if mailbox == 0 or atomic_load(mailbox) != WAITING:
            return False
    return True


@inlined
def make_ready(job: int) -> None:
    """Begin a closed job anew, and let helpers in."""
    counters = load(job + 8 * COUNTERS)
    for line in range(load(job + 8 * ROWS) * (load(job + 8 * THREADS) + 1)):
        store(counters + LINE * line, 0)
    store(job + 8 * ARRIVED, 0)
    atomic_store(job + 8 * GUESTS, 0)


@inlined
def run(job: int, together: int) -> None:
    """Run a job, whose ``OUTCOME`` says whether it was; with ``together`` only if all helpers wait for it."""
    if not closed(job):
        store(job + 8 * OUTCOME, OCCUPIED)
        return
    if together and not all_wait(job):
        atomic_store(job + 8 * GUESTS, 0)
        store(job + 8 * OUTCOME, ABSENT)
        return
    make_ready(job)
    threads = load(job + 8 * THREADS)
    for place in range(1, threads):
        mailbox = mailbox_of(job, place)
        if mailbox != 0:
            atomic_add(job + 8 * GUESTS, 1)
            if atomic_replace(mailbox, WAITING, job) != WAITING:
                atomic_add(job + 8 * GUESTS, -1)
    walk(job, 0)
    for place in range(1, threads):
        mailbox = mailbox_of(job, place)
        if mailbox != 0 and atomic_replace(mailbox, job, WAITING) == job:
            atomic_add(job + 8 * GUESTS, -1)
    atomic_store(job + 8 * ARRIVED, threads)  # who comes now finds no place
    store(job + 8 * OUTCOME, DONE)


def run_arrays(block: int, arrays: int, number: int) -> int:
    """Run a job, if all helpers wait for it, on so many arrays, whose addresses go where its slots say.

    What Python calls: the job is in an array, too. Returns the outcome.
    """
    job = load(block + HEADER)
    slots = load(job + 8 * SLOTS)
    for place in range(number):
        store(load(slots + 8 * place), load(load(arrays + 8 * place) + HEADER))
    state = leave_python()
    run(job, 1)
    come_back(state)
    return load(job + 8 * OUTCOME)


def join(job: int, mailbox: int) -> None:
    """Take part in a run, if one is under way, as a helper that was not asked by its mailbox.

    It waits there from now on: the next run may begin before it has come back through Python.
    """
    while True:
        guests = atomic_load(job + 8 * GUESTS)
        if guests != CLOSED and atomic_replace(job + 8 * GUESTS, guests, guests + 1) == guests:
            break
        pause()
    help_with(job)
    atomic_store(mailbox, WAITING)  # before it leaves: where no guest is inside, all of them wait
    atomic_add(job + 8 * GUESTS, -1)


def wait(mailbox: int, patience: int) -> None:
    """Take part in the runs that are posted, until none has come for ``patience`` pauses."""
    atomic_replace(mailbox, BUSY, WAITING)  # something may stand there already
    spins = 0
    while True:
        job = atomic_load(mailbox)
        if job != WAITING and atomic_replace(mailbox, job, BUSY) == job:
            help_with(job)
            atomic_store(mailbox, WAITING)
            atomic_add(job + 8 * GUESTS, -1)
            spins = 0
        spins += 1
        if spins % SPINS:
            pause()
        else:
            yield_to_others()
        if spins > patience and atomic_replace(mailbox, WAITING, BUSY) == WAITING:
            return

"""The protocol by which threads walk a table together, in every order of their steps.

What is run are the functions of `walker` as they stand; the lines of Python around them (`Job.run`, `Table.run`,
`Helper.serve`) are written here once more. One owner runs a table several times, helpers come and go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from npmobilenet.kernels.walk import columns, mailbox
from tests.conftest import compiled_only
from tests.kernels.interleavings import Broken, Interleavings, Memory, Steps, stepwise

pytestmark = compiled_only

JOB, COUNTERS, TABLE, ROW_BYTES, MAILBOXES, SCRATCH = 1 << 20, 1 << 12, 1 << 16, 64, 1 << 10, 1 << 18
# Plain reads are of what never changes, plain stores those of a job that is closed, or of nobody else's.
QUIET = {"load", "store", "pause", "yield_to_others", "start", "returned", "forget", "drop"}
REQUESTS, HELD, GONE, RUNNING = "requests", "held", "gone", "running"  # of each job, or of all


class Model:
    """An owner, helpers, and what must hold.

    Parameters
    ----------
    rows : sequence of int
        Items of each row.
    helpers, runs : int
    jobs : int
        How many the owner makes, one after the other: another where a helper stays in the one before.
    interrupts, forks : bool
        Whether the owner may be interrupted between two lines of Python, and whether it may go on as its own child.
    changes : mapping, optional
        To the source of `walker`.
    """

    def __init__(
        self,
        rows: Sequence[int],
        helpers: int = 1,
        runs: int = 2,
        jobs: int = 1,
        interrupts: bool = False,
        forks: bool = False,
        changes: dict[str, str] | None = None,
    ) -> None:
        from npmobilenet.kernels.walk import walker

        self.rows, self.helpers, self.runs, self.jobs = rows, helpers, runs, jobs
        self.interrupts, self.forks = interrupts, forks
        self.functions = stepwise(walker, changes, SPINS=1)

    def explore(self, limit: int | None = None) -> int:
        threads: list[Callable[[], Steps]] = [self.owner]
        threads += [lambda box=MAILBOXES + 64 * n: self.helper(box) for n in range(self.helpers)]
        memory = {key: value for number in range(self.jobs) for key, value in self.job(number).items()}
        for row, items in enumerate(self.rows):
            at = TABLE + row * ROW_BYTES
            memory |= {at + 8 * columns.KERNEL: row, at + 8 * columns.ITEMS: items, at + 8 * columns.SHARE: 1}
        return Interleavings(threads, memory, self.watch, QUIET, self.ended).explore(limit)

    def job(self, number: int) -> Memory:
        """As `Job` makes it; only the owner makes one, at the moment when it needs it."""
        job = JOB + number * JOB
        words = {
            columns.TABLE: TABLE, columns.ROW_BYTES: ROW_BYTES, columns.ROWS: len(self.rows),
            columns.THREADS: self.helpers + 1, columns.COUNTERS: job + COUNTERS, columns.ARRIVED: self.helpers + 1,
        }  # fmt: skip
        for place in range(self.helpers + 1):
            words[columns.PLACES + place * columns.PLACE_WORDS + columns.SCRATCH] = SCRATCH + 1024 * place
            box = MAILBOXES + 64 * (place - 1) if place else 0
            words[columns.PLACES + place * columns.PLACE_WORDS + columns.MAILBOX] = box
        return {job + 8 * word: value for word, value in words.items()}

    @staticmethod
    def ended(memory: Memory, number: int) -> bool:
        """A child has none of its parent's helpers."""
        return bool(number and memory.get("forked"))

    # Threads ----------------------------------------------------------------------------------------------------

    def owner(self) -> Steps:
        """`Table.run`, so many times, and the end of the table."""
        number, may_fork = 0, self.forks
        for _ in range(self.runs):
            together, outcome = 1, None
            while outcome != columns.DONE:
                if may_fork and (yield "choose", 2):
                    yield ("fork",)
                    may_fork = False
                job = JOB + number * JOB
                yield "start", job
                yield from self.functions["run"](job, together)
                outcome = yield "returned", job
                if outcome == columns.OCCUPIED:
                    together = 1
                    if number + 1 < self.jobs - may_fork:  # one for the child
                        yield "drop", job
                        number += 1
                elif outcome == columns.ABSENT:
                    if self.interrupts and (yield "choose", 2):
                        break
                    yield "ask", job
                    together = 0
                    if self.interrupts and (yield "choose", 2):
                        break
        yield "drop", JOB + number * JOB

    def helper(self, box: int) -> Steps:
        """`Helper.serve`: asleep, woken by a request, at work, waiting, asleep."""
        while True:
            job = yield "request", box
            if job:
                yield from self.functions["join"](job, box)
                yield "forget", job
                yield from self.functions["wait"](box, 0)

    # What must hold ---------------------------------------------------------------------------------------------

    def watch(self, memory: Memory, step: tuple) -> int | None:
        name, *arguments = step
        return getattr(self, f"on_{name}", self.on_access)(memory, *arguments)

    def on_access(self, memory: Memory, address: int | None = None, *_: int) -> None:
        for arrived in (job + 8 * columns.ARRIVED for job in range(JOB, (self.jobs + 1) * JOB, JOB)):
            memory[arrived] = min(memory[arrived], self.helpers + 1)  # the rest find no place, however many
        if isinstance(address, int) and address >= JOB and memory.get((GONE, address // JOB * JOB)):
            raise Broken("a job is looked at that is gone")

    def on_start(self, memory: Memory, job: int) -> None:
        memory[RUNNING] = job

    def on_returned(self, memory: Memory, job: int) -> int:
        """After a run everything is computed, once, and no helper can come to it any more."""
        outcome = memory.pop(job + 8 * columns.OUTCOME, columns.DONE)
        items = [(row, item) for row, count in enumerate(self.rows) for item in range(count)]
        if outcome == columns.DONE:
            for item in items:
                if memory.pop(item, 0) != 2:
                    raise Broken(f"{item} is not computed, at the end of a run")
        elif any(item in memory for item in items):
            raise Broken("items are computed of a run that is none")
        if any(memory.get(MAILBOXES + 64 * number) == job for number in range(self.helpers)):
            raise Broken("an unread job is left behind")
        memory.pop(RUNNING)
        return outcome

    def on_begin(self, memory: Memory, row: int, _: int, first: int, last: int, scratch: int) -> None:
        if RUNNING not in memory:
            raise Broken("an item is computed outside of a run")
        if any(memory.get((earlier, item)) != 2 for earlier in range(row) for item in range(self.rows[earlier])):
            raise Broken("a row is begun before the one above is done")
        if ("at work", scratch) in memory:
            raise Broken("two threads compute in the same scratch")
        memory["at work", scratch] = 1
        memory.pop(scratch + columns.NEXT, None)
        for item in range(first, last):
            if not 0 <= item < self.rows[row] or (row, item) in memory:
                raise Broken(f"item {item} of row {row} is computed twice, or none")
            memory[row, item] = 1

    def on_end(self, memory: Memory, row: int, _: int, first: int, last: int, scratch: int) -> None:
        memory.pop(("at work", scratch))
        memory.update({(row, item): 2 for item in range(first, last)})

    def on_ask(self, memory: Memory, job: int) -> None:
        """A request for each helper that does not wait, unless as many are there already."""
        for number in range(self.helpers):
            if memory.get(MAILBOXES + 64 * number) != mailbox.WAITING and self._requests(memory) < self.helpers:
                memory[REQUESTS, job] = memory.get((REQUESTS, job), 0) + 1

    def _requests(self, memory: Memory) -> int:
        return sum(value for key, value in memory.items() if isinstance(key, tuple) and key[0] == REQUESTS)

    def on_request(self, memory: Memory, box: int) -> int:
        """The job of the oldest request, or 0: a helper that sleeps on."""
        for job in range(JOB, (self.jobs + 1) * JOB, JOB):
            if memory.get((REQUESTS, job)):
                memory[REQUESTS, job] -= 1
                memory[HELD, job] = memory.get((HELD, job), 0) + 1
                return job
        return 0

    def on_fork(self, memory: Memory) -> None:
        """Nobody is in the mailboxes any more (`threads._after_fork`), and who was inside of a job stays there."""
        memory["forked"] = 1
        memory.update({MAILBOXES + 64 * number: mailbox.BUSY for number in range(self.helpers)})

    def on_forget(self, memory: Memory, job: int) -> None:
        memory[HELD, job] -= 1

    def on_drop(self, memory: Memory, job: int) -> None:
        """Nobody holds a job any more but helpers: `Job.__del__` keeps it if one is inside."""
        if not (memory.get(job + 8 * columns.GUESTS) or memory.get((REQUESTS, job)) or memory.get((HELD, job))):
            memory[GONE, job] = 1


CASES = {
    "a row, two runs": {"rows": (1,), "runs": 2},
    "two rows, two runs": {"rows": (1, 1), "runs": 2},
    "two items": {"rows": (2,), "runs": 2},
    "a second job": {"rows": (1,), "runs": 1, "jobs": 2},
    "interrupts": {"rows": (1,), "runs": 2, "interrupts": True},
    "forks": {"rows": (1,), "runs": 2, "jobs": 2, "forks": True},
}


@pytest.mark.parametrize("case", CASES)
def test_every_order_of_steps(case):
    """Each item is computed once, row after row, whoever comes when; and the owner always comes to its end."""
    assert Model(**CASES[case]).explore() > 1000


def test_many_orders_of_the_steps_of_two_helpers():
    """All would be too many."""
    assert Model((1, 1), helpers=2).explore(limit=4000) >= 4000


TAKE = "if job != WAITING and atomic_replace(mailbox, job, BUSY) == job:"
RULES = {
    "a helper takes a job by compare-and-swap": (
        "a row, two runs",
        {TAKE: "if job != WAITING:\n            atomic_store(mailbox, BUSY)"},
    ),
    "an unread job is taken back": (
        "a row, two runs",
        {"if mailbox != 0 and atomic_replace(mailbox, job, WAITING) == job:": "if False:"},
    ),
    "counters become zeros when no helper is inside": (
        "two rows, two runs",
        {"while atomic_replace(job + 8 * GUESTS, 0, CLOSED) != 0:": "while False:"},
    ),
    "a helper is counted before it may read a job": (
        "a row, two runs",
        {"            atomic_add(job + 8 * GUESTS, 1)\n": ""},
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_noticed(rule):
    case, changes = RULES[rule]
    with pytest.raises(Broken):
        Model(**CASES[case], changes=changes).explore()

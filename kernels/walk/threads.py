"""Threads that wait to take part in the running of a table (`walker`).

None is started before it is needed; all are daemons. A request is an offer: who makes it must be able to finish
alone, since the helpers may come late, or not at all where no thread may be started. A helper that has just taken
part waits in compiled code for the next job, for about as long as it takes to wake a sleeping thread, and only
then in Python. Once started it takes no lock and loads no code: a process may fork at any moment.

What a job leads to is kept until the helper has left it, whatever becomes of the call that asked for help: by the job
itself where it was in the helper's mailbox (`job.Job`), by the request where the helper slept.
"""

from __future__ import annotations

import os
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.kernels.memory import aligned
from npmobilenet.kernels.walk.compiled import walker
from npmobilenet.kernels.walk.mailbox import BUSY, LENGTH, WAITING

if TYPE_CHECKING:
    from npmobilenet.kernels.walk.job import Job

PATIENCE = 5000  # pauses, of some 20 to 40 ns each


class Helper:
    """One thread.

    Attributes
    ----------
    address : int
        Of its mailbox.
    """

    def __init__(self, requests: queue.SimpleQueue[Job]) -> None:
        self.requests = requests
        self.mailbox = aligned(LENGTH, np.int64)
        self.address = self.mailbox.ctypes.data
        self.join, self.wait = walker("join"), walker("wait")
        threading.Thread(target=self.serve, daemon=True).start()

    @property
    def waits(self) -> bool:
        """Whether it would take a job out of its mailbox."""
        return self.mailbox[0] == WAITING

    def serve(self) -> None:
        while True:
            job = self.requests.get()
            self.join(job.address, self.address)
            del job
            self.wait(self.address, PATIENCE)


class _Helpers:
    """All of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.all: list[Helper] = []

    def ask(self, job: Job) -> None:
        number = job.threads - 1
        with self._lock:
            self._start(number)
            comers = sorted(self.all, key=lambda helper: not helper.waits)[:number]
        job.invite(comers)
        for helper in comers:
            # Of requests that nobody has read there is one for each helper at most: a busy one may never read them.
            if not helper.waits and self._requests.qsize() < len(self.all):
                self._requests.put(job)

    def _start(self, number: int) -> None:
        """Start helpers until there are so many, or as many as the system allows."""
        try:
            while len(self.all) < number:
                self.all.append(Helper(self._requests))
        except RuntimeError as error:
            say_alone(error)


_helpers = _Helpers()
_said = False


def ask(job: Job) -> None:
    """Have helpers take part in a job's next run: those that wait by their mailboxes, those that sleep are woken."""
    _helpers.ask(job)


def share(compute: Callable[[int], None], number: int, threads: int) -> None:
    """Call ``compute`` for 0 to ``number`` - 1 from so many Python threads, the calling one among them.

    Where no thread may be started, the calling one does all. What a call raises is raised; none is begun after that.
    """
    todo = deque(range(number))
    raised: list[BaseException] = []

    def work() -> None:
        while todo:
            try:
                at = todo.popleft()
            except IndexError:  # another thread has taken the last one
                return
            try:
                compute(at)
            except BaseException as error:
                raised.append(error)
                todo.clear()

    others = []
    try:
        try:
            for _ in range(threads - 1):
                other = threading.Thread(target=work)
                other.start()
                others.append(other)
        except RuntimeError as error:
            say_alone(error)
        work()
    finally:
        todo.clear()
        for other in others:
            other.join()
    if raised:
        raise raised[0]


def say_alone(error: RuntimeError) -> None:
    """Warn, once, that no thread can be started: what several would do is done by fewer, with the same result."""
    global _said
    if not _said:
        _said = True
        warnings.warn(
            f"no further thread may be started here ({error}; see `ulimit -u`): computing on those there are",
            RuntimeWarning,
            stacklevel=2,
        )


def _after_fork() -> None:
    """The child has none of its parent's threads."""
    global _helpers
    for helper in _helpers.all:
        helper.mailbox[0] = BUSY  # for ever, in the jobs that know it
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

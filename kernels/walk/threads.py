"""Threads that wait to take part in the walk over a plan's table (`walker`).

None is started before it is needed; all are daemons. A request is an offer: who makes it must be able to finish
alone, since the helpers may come late, or not at all where no thread may be started. A helper that has just taken
part waits in compiled code for the next request, for about as long as it takes to wake a sleeping thread, and only
then in Python. Once started it takes no lock and loads no code: a process may fork at any moment.

What a request names is kept until the helper is done with it, whatever becomes of the call that made the request: an
interrupt may end that one at any moment.
"""

from __future__ import annotations

import os
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from npmobilenet.kernels.walk.compiled import walker
from npmobilenet.kernels.walk.mailbox import ACCEPTED, LENGTH

PATIENCE = 5000  # pauses, of some 20 to 40 ns each

Walk = tuple[int, int, int, int, int]  # the arguments of a walk


class _Helper:
    """One thread."""

    def __init__(self, requests: queue.SimpleQueue) -> None:
        self.requests = requests
        self.mailbox = np.zeros(LENGTH, np.int64)
        self.address = self.mailbox.ctypes.data
        self.keeps: deque[object] = deque()  # what it may look at: of the last request that it accepted, at least
        self.walk, self.wait, self.post = (walker(name) for name in ("walk", "serve", "post"))
        threading.Thread(target=self.serve, daemon=True).start()

    def accepts(self, walk: Walk, keep: object) -> bool:
        """Ask the helper, which must be waiting in compiled code."""
        self.keeps.append(keep)  # before it is asked, so that no interrupt comes between
        self.post(self.address, *walk)
        accepted = bool(self.mailbox[ACCEPTED])
        with suppress(IndexError):  # it clears them itself when it goes to sleep
            if not accepted:
                self.keeps.pop()
            while accepted and len(self.keeps) > 1:
                self.keeps.popleft()
        return accepted

    def serve(self) -> None:
        while True:
            walk, keep = self.requests.get()
            self.walk(*walk)
            del keep
            self.wait(self.address, PATIENCE)
            self.keeps.clear()


class _Helpers:
    """All of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._helpers: list[_Helper] = []

    def ask(self, walks: Sequence[Walk], keep: object) -> None:
        with self._lock:  # a mailbox takes one request at a time
            self._start(len(walks))
            left = list(walks[: len(self._helpers)])
            for helper in self._helpers:
                if left and helper.accepts(left[-1], keep):
                    left.pop()
        for walk in left:
            self._requests.put((walk, keep))

    def _start(self, number: int) -> None:
        """Start helpers until there are so many, or as many as the system allows."""
        try:
            while len(self._helpers) < number:
                self._helpers.append(_Helper(self._requests))
        except RuntimeError as error:
            say_alone(error)


_helpers = _Helpers()
_said = False


def ask(walks: Sequence[Walk], keep: object) -> None:
    """Have helpers take part in these walks as soon as they are free; ``keep`` is all that these name or lead to."""
    _helpers.ask(walks, keep)


def share(compute: Callable[[int], None], number: int, threads: int) -> None:
    """Call ``compute`` for 0 to ``number`` - 1 from so many Python threads, the calling one among them.

    Where no thread may be started, the calling one does all. What a call raises is raised; none is begun after that.
    """
    todo = deque(range(number))

    def work() -> None:
        while todo:
            try:
                at = todo.popleft()
            except IndexError:  # another thread has taken the last one
                return
            compute(at)

    with ThreadPoolExecutor(threads) as pool:
        try:
            others = []
            try:
                others = [pool.submit(work) for _ in range(threads - 1)]
            except RuntimeError as error:
                say_alone(error)
            work()
            for other in others:
                other.result()
        finally:
            todo.clear()


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
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""Threads that wait to take part in the walk over a plan's table (`kernels.blocked.walker`).

None is started before it is needed; all are daemons. A request is an offer: who makes it must be able to finish
alone, since the helpers may come late. A helper that has just taken part waits in compiled code for the next
request, for about as long as it takes to wake a sleeping thread, and only then in Python.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence

import numpy as np

from npmobilenet.kernels.blocked import library
from npmobilenet.kernels.blocked.mailbox import ACCEPTED, LENGTH

PATIENCE = 5000  # pauses, of some 20 to 40 ns each

Walk = tuple[int, int, int, int, int]  # the arguments of a walk


class _Helper:
    """One thread."""

    def __init__(self, requests: queue.SimpleQueue) -> None:
        self.requests = requests
        self.mailbox = np.zeros(LENGTH, np.int64)
        self.address = self.mailbox.ctypes.data
        self.keeps: object = None
        threading.Thread(target=self.serve, daemon=True).start()

    def accepts(self, walk: Walk, keep: object) -> bool:
        """Ask the helper, which must be waiting in compiled code; what it looks at is kept until it is asked again."""
        library.walker("post")(self.address, *walk)
        if not self.mailbox[ACCEPTED]:
            return False
        self.keeps = keep
        return True

    def serve(self) -> None:
        while True:
            walk, keep = self.requests.get()
            library.walker()(*walk)
            del keep
            library.walker("serve")(self.address, PATIENCE)


class _Helpers:
    """All of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._helpers: list[_Helper] = []

    def ask(self, walks: Sequence[Walk], keep: object) -> None:
        with self._lock:  # a mailbox takes one request at a time
            while len(self._helpers) < len(walks):
                self._helpers.append(_Helper(self._requests))
            left = list(walks)
            for helper in self._helpers:
                if left and helper.accepts(left[-1], keep):
                    left.pop()
        for walk in left:
            self._requests.put((walk, keep))


_helpers = _Helpers()


def ask(walks: Sequence[Walk], keep: object) -> None:
    """Have helpers take part in these walks as soon as they are free; ``keep`` is what they must not lose."""
    _helpers.ask(walks, keep)


def _after_fork() -> None:
    """The child has none of its parent's threads."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

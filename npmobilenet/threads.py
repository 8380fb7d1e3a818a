"""Threads that wait to take part in a computation.

None is started before it is needed; all are daemons. A request is an offer: who makes it must be able to finish
alone, since the helpers may come late. That is how the blocked kernels share an image (`kernels.blocked.walker`).
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable


class _Helpers:
    """Threads that take requests from one queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._count = 0

    def ask(self, request: Callable[[], None], least: int) -> None:
        if self._count < least:
            with self._lock:
                while self._count < least:
                    threading.Thread(target=self._serve, args=(self._requests,), daemon=True).start()
                    self._count += 1
        self._requests.put(request)

    @staticmethod
    def _serve(requests: queue.SimpleQueue[Callable[[], None]]) -> None:
        while True:
            requests.get()()


_helpers = _Helpers()


def ask(request: Callable[[], None], least: int) -> None:
    """Have a helper call ``request`` as soon as one is free; there are at least ``least`` of them."""
    _helpers.ask(request, least)


def _after_fork() -> None:
    """The child has none of its parent's threads."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

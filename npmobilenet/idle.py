"""Working memory between calls: kept for the next ones, up to a number of bytes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

KEEP_BYTES = 64 << 20
"""Kept by default on a CPU: MobileNetV2 needs 2 MB for an image of 224x224, 40 MB for one of 1024x1024."""

VARIABLE = "NPMOBILENET_KEEP_BYTES"


class Idle(deque):
    """The workspaces of one plan that no call is using; the last one used is at the end.

    Parameters
    ----------
    size : int
        Bytes of one.

    Attributes
    ----------
    settled : int
        How many there were when :func:`let_go` was last called.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.settled = 0

    def take(self) -> Any:
        """Return one, or None where there is none; a call that comes to its end appends what it took or made."""
        try:
            return self.pop()
        except IndexError:
            return None

    @property
    def bytes(self) -> int:
        """Of all of them."""
        return self.size * len(self)


def let_go(stores: Iterable[Idle], keep_bytes: int) -> None:
    """Drop workspaces until at most ``keep_bytes`` are kept: the first stores' first, and the oldest of each."""
    stores = list(stores)
    kept = sum(store.bytes for store in stores)
    for store in stores:
        with suppress(IndexError):  # other threads take them too
            while kept > keep_bytes:
                store.popleft()
                kept -= store.size
        store.settled = len(store)


def checked_keep_bytes(keep_bytes: int | None) -> int | None:
    """Return how many bytes to keep: what was asked for, or what the environment says; None where neither does.

    Raises
    ------
    ValueError
        If it is not an integer of at least 0.
    """
    name, value = "keep_bytes", keep_bytes
    if value is None:
        name, value = VARIABLE, os.environ.get(VARIABLE) or None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"{name} must be a number of bytes, an integer >= 0, got {value!s:.40}")

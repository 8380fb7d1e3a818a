"""What a command is doing while it measures: on stderr, so that results can be piped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
LINES = 4  # at most, of one measurement


def progress(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield the items; show how many are done: with tqdm on a terminal that has it, else with a few plain lines."""
    tqdm = _tqdm()
    if tqdm:
        yield from tqdm(items, what, file=sys.stderr, leave=False)
        return
    step = -(-len(items) // LINES)
    for number, item in enumerate(items):
        if number % step == 0:
            say(f"{what}: {number} of {len(items)} rounds")
        yield item


def _tqdm() -> Callable | None:
    """The progress bar, where it can be shown."""
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm


def say(line: str) -> None:
    """Print a line about what comes next."""
    print(line, file=sys.stderr, flush=True)

"""Work done ahead by several threads, and handed over in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Generic, TypeVar

from npmobilenet.errors import MissingDependencyError

Item = TypeVar("Item")
Result = TypeVar("Result")


def prepared_ahead(
    prepare: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    length: int,
    weight: Callable[[Item], int] = lambda item: 0,
    most_weight: int = 0,
) -> Iterator[tuple[Item, Result | Exception]]:
    """Yield each item with what ``prepare`` makes of it, or the exception that it raises, in their order.

    Up to ``length`` are prepared ahead, by threads that nothing waits for at exit; fewer, if those on the way weigh
    more than ``most_weight`` together. What no thread has begun when it is needed the caller does itself: all, where
    no thread may be started.

    Raises
    ------
    MissingDependencyError
        If ``prepare`` does: a missing package is missing for all that follow, too.
    """
    tasks: SimpleQueue[_Task[Item, Result] | None] = SimpleQueue()
    helpers = 0
    for _ in range(threads):
        try:
            Thread(target=_work, args=(tasks,), daemon=True).start()
        except RuntimeError:  # the system allows no more
            break
        helpers += 1
    ahead: deque[_Task[Item, Result]] = deque()
    weights: deque[int] = deque()
    coming = iter(items)
    carried, there_are_more = 0, True
    try:
        while True:
            while there_are_more and (not ahead or (len(ahead) <= length and carried <= most_weight)):
                try:
                    item = next(coming)
                except StopIteration:
                    there_are_more = False
                    break
                weights.append(weight(item))
                carried += weights[-1]
                ahead.append(_Task(prepare, item))
                tasks.put(ahead[-1])
            if not ahead:
                return
            done = ahead.popleft().finish()
            carried -= weights.popleft()
            yield done
    finally:
        for task in ahead:
            task.claim()  # so that nobody begins what is not wanted any more
        for _ in range(helpers):
            tasks.put(None)


class _Task(Generic[Item, Result]):
    """An item to be prepared by whoever claims it first."""

    def __init__(self, prepare: Callable[[Item], Result], item: Item) -> None:
        self._prepare, self._item = prepare, item
        self._claimed, self._done = Lock(), Event()

    def claim(self) -> bool:
        return self._claimed.acquire(blocking=False)

    def work(self) -> None:
        if self.claim():
            try:
                self._result: Result | Exception = self._prepare(self._item)
            except Exception as error:
                self._result = error.with_traceback(None)  # which would keep the whole picture
            self._done.set()

    def finish(self) -> tuple[Item, Result | Exception]:
        """Return the result; a missing package is missing for all that follow, too."""
        self.work()
        self._done.wait()
        if isinstance(self._result, MissingDependencyError):
            raise self._result
        return self._item, self._result


def _work(tasks: SimpleQueue[_Task | None]) -> None:
    while task := tasks.get():
        task.work()

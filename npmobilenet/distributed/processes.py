"""Batches computed by processes of Python's own, where there is no engine."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from npmobilenet.distributed.cpus import grant
from npmobilenet.errors import NpmobilenetError
from npmobilenet.machine import available_cpus
from npmobilenet.text import plural

AHEAD = 2  # batches that each process has before it


class WorkerDiedError(NpmobilenetError):
    """Processes died again and again over the same batches."""


def map_batches(
    predictor: Callable[[Any], Any],
    batches: Iterable[Any],
    *,
    processes: int | None = None,
    start: str = "spawn",
    retries: int = 3,
) -> Iterator[Any]:
    """Yield what ``predictor`` makes of each batch, in their order, by processes that share the CPUs.

    Where a process dies, for want of memory or because somebody kills it, what it and its sisters had begun is done
    again by new ones: every result comes once.

    Parameters
    ----------
    predictor : Predictor, or any callable that pickles
    batches : iterable
        Read as they are needed: a few batches for each process are on their way.
    processes : int, optional
        One for each CPU if None.
    start : {"spawn", "fork", "forkserver"}
        How a process begins. With "spawn" and "forkserver" the program that calls this needs the usual
        ``if __name__ == "__main__":``.
    retries : int
        How many times in a row processes may die before any result comes.

    Raises
    ------
    WorkerDiedError
        If they die once more.
    ValueError
        If an option is out of range.
    """
    cpus = available_cpus()
    processes = cpus if processes is None else processes
    if not (isinstance(processes, int) and processes >= 1):
        raise ValueError(f"processes must be an integer >= 1, got {processes!r}")
    if start not in multiprocessing.get_all_start_methods():
        raise ValueError(
            f"start must be one of {', '.join(multiprocessing.get_all_start_methods())}, got {start!r:.40}"
        )
    return _map(predictor, iter(batches), processes, (start, max(1, cpus // processes)), retries)


def _map(
    predictor: Callable[[Any], Any], batches: Iterator[Any], processes: int, how: tuple[str, int], retries: int
) -> Iterator[Any]:
    pool = _pool(processes, *how)
    ahead: deque[_Task] = deque()
    deaths = 0
    try:
        while True:
            ahead += map(_Task, islice(batches, AHEAD * processes - len(ahead)))
            if not ahead:
                return
            try:
                for task in ahead:
                    if not task.is_under_way:
                        task.future = pool.submit(predictor, task.batch)
                result = ahead[0].future.result()
            except BrokenProcessPool:
                deaths += 1
                pool.shutdown(wait=False, cancel_futures=True)
                if deaths > retries:
                    raise WorkerDiedError(
                        f"processes died {plural(deaths, 'time')} in a row over the same batches: is there memory for "
                        f"{plural(processes, 'process', 'processes')}? Take fewer, or smaller batches"
                    ) from None
                for task in ahead:
                    task.forget_unless_done()
                pool = _pool(processes, *how)
                continue
            ahead.popleft()
            deaths = 0
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Task:
    """A batch, and what will be its result; none while no process knows of it."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.future: Future[Any] | None = None

    @property
    def is_under_way(self) -> bool:
        return self.future is not None

    def forget_unless_done(self) -> None:
        """Forget a process that died before it was done; an exception of the predictor's own is a result."""
        future = self.future
        if future and (not future.done() or future.cancelled() or isinstance(future.exception(), BrokenProcessPool)):
            self.future = None


def _pool(processes: int, start: str, cpus: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context(start)
    return ProcessPoolExecutor(processes, context, initializer=grant, initargs=(cpus,))

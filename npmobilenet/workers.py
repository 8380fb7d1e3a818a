"""Threads that read photographs and compute them in batches, as many as there are CPUs for it and no more.

Each thread does either, whichever is due: it prepares photographs until a batch is full, the first of the batch has
waited long enough, or nothing is left to be prepared; then it computes that batch, while others prepare the next one.
Threads that have nothing to do lend their CPU: alone, a photograph is computed on all of them. So nothing waits for a
batch to fill, no CPU idles while there is work, and no more threads run at a time than were asked for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from npmobilenet.errors import NpmobilenetError
from npmobilenet.kernels.walk.threads import say_alone
from npmobilenet.text import plural

if TYPE_CHECKING:
    from npmobilenet.image import ImageSource
    from npmobilenet.pipelines import Pipeline, Prepared

SMOOTHING = 0.1  # of a running mean: how much of it is the newest value


class BusyError(NpmobilenetError):
    """So much waits already that nothing more is taken on."""


class _Job:
    """A photograph on its way."""

    def __init__(self, pipeline: Pipeline, source: ImageSource) -> None:
        self.pipeline, self.source = pipeline, source
        self.future: Future[Any] = Future()
        self.prepared: Prepared | None = None
        self.since = 0.0  # when it was prepared


class Workers:
    """So many threads.

    Parameters
    ----------
    threads : int
    batch : int
        Photographs that are computed together, at most.
    latency : float
        Seconds: for how long a prepared photograph waits for others, and, as far as one can tell from those before,
        how long a batch takes to compute.
    most : int, optional
        How many photographs may wait.
    watch : callable, optional
        Called with the length of each batch.
    """

    def __init__(
        self,
        threads: int,
        batch: int = 16,
        latency: float = 0.05,
        most: int | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        for name, value, least in (("threads", threads, 1), ("batch", batch, 1), ("latency", latency, 0)):
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value!r}")
        self.threads, self.batch, self.latency, self.most, self.watch = threads, batch, latency, most, watch
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._prepared: deque[_Job] = deque()
        self._idle = self._lent = 0  # threads without work; such whose CPU another one uses
        self._seconds: dict[str, float] = {}  # of one thread for one photograph, to compute: by task
        self._pace, self._last = 0.0, 0.0  # seconds between two results, under load; when the last one was there
        self._closed = False
        self._threads: list[threading.Thread] = []

    @property
    def waiting(self) -> int:
        """How many photographs nobody has begun to compute."""
        return len(self._waiting) + len(self._prepared)

    @property
    def seconds_behind(self) -> float:
        """In how much time what waits will be done, at the pace of late."""
        return self.waiting * self._pace

    def submit(self, pipeline: Pipeline, source: ImageSource) -> Future[Any]:
        """Have a photograph looked at.

        Returns
        -------
        Future
            Of the pipeline's result. Cancelled before its turn, it costs nothing.

        Raises
        ------
        BusyError
            If as many wait as may.
        """
        job = _Job(pipeline, source)
        with self._changed:
            if self._closed:
                raise BusyError("closing: nothing more is taken on")
            if self.most is not None and self.waiting >= self.most:
                raise BusyError(f"{plural(self.waiting, 'photograph')} waiting already: try again later")
            self._start()
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def map(
        self, pipeline: Pipeline, sources: Iterable[ImageSource], ahead: int = 64
    ) -> Iterator[tuple[ImageSource, Any]]:
        """Yield each photograph with its result, or the exception that there is instead, in their order.

        So many are under way at a time; ``sources`` are read no faster.
        """
        under_way: deque[tuple[ImageSource, Future[Any]]] = deque()
        sources = iter(sources)
        try:
            while True:
                for source in islice(sources, max(1, ahead) - len(under_way)):
                    under_way.append((source, self.submit(pipeline, source)))
                if not under_way:
                    return
                source, future = under_way.popleft()
                yield source, future.exception() or future.result()
        finally:
            for _, future in under_way:
                future.cancel()

    def close(self) -> None:
        """Take on nothing more, and wait until all is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        """Start the threads, or as many as the system allows, when they are needed first."""
        try:
            while len(self._threads) < self.threads:
                thread = threading.Thread(target=self._work, name="npmobilenet-worker", daemon=True)
                thread.start()
                self._threads.append(thread)
        except RuntimeError as error:
            if not self._threads:
                raise
            self.threads = len(self._threads)
            say_alone(error)

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            jobs, threads = turn
            if threads:
                self._compute(jobs, threads)
            else:
                self._prepare(jobs[0])
            del turn, jobs  # pictures: not to be kept while waiting

    def _next(self) -> tuple[list[_Job], int] | None:
        """Wait for work: jobs to be computed on so many threads, or (0) one to be prepared; None at the end."""
        with self._changed:
            while True:
                if self._lent <= self._idle:  # else the CPU of this thread is lent
                    if self._is_due():
                        jobs = self._take()
                        lent = min(self._idle - self._lent, self.threads - 1)
                        self._lent += lent
                        return jobs, 1 + lent
                    if self._waiting:
                        return [self._waiting.popleft()], 0
                    if self._closed:
                        return None
                self._idle += 1
                self._changed.wait()
                self._idle -= 1

    def _is_due(self) -> bool:
        if not self._prepared:
            return False
        first = self._prepared[0]
        return (
            not self._waiting
            or len(self._prepared) >= self._length(first.pipeline)
            or monotonic() - first.since >= self.latency
        )

    def _length(self, pipeline: Pipeline) -> int:
        """How many photographs make a batch that is computed in time."""
        seconds = self._seconds.get(pipeline.task)
        return self.batch if not seconds else max(1, min(self.batch, int(self.latency / seconds)))

    def _take(self) -> list[_Job]:
        """A batch: the first that is prepared, and others of its kind."""
        kind = self._prepared[0].pipeline
        length, jobs, others = self._length(kind), [], []
        while self._prepared and len(jobs) < length:
            job = self._prepared.popleft()
            (jobs if job.pipeline is kind else others).append(job)
        self._prepared.extendleft(reversed(others))
        return jobs

    def _prepare(self, job: _Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            job.prepared = job.pipeline.prepare(job.source)
        except Exception as error:
            job.future.set_exception(error.with_traceback(None))  # which would keep the picture
            return
        finally:
            job.source = None
        with self._changed:
            job.since = monotonic()
            self._prepared.append(job)
            self._changed.notify()

    def _compute(self, jobs: list[_Job], threads: int) -> None:
        begun = monotonic()
        try:
            results = jobs[0].pipeline.compute([job.prepared for job in jobs], threads)
        except Exception as error:
            results = [error.with_traceback(None)] * len(jobs)
        finally:
            with self._changed:
                self._lent -= threads - 1
                self._note(jobs, threads, begun)
                self._changed.notify_all()
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    def _note(self, jobs: list[_Job], threads: int, begun: float) -> None:
        """Keep in mind how long a photograph takes."""
        now, task = monotonic(), jobs[0].pipeline.task
        each = (now - begun) * min(threads, len(jobs)) / len(jobs)
        self._seconds[task] = _mean(self._seconds.get(task), each)
        if self._waiting:
            self._pace = _mean(self._pace or None, (now - max(self._last, begun)) / len(jobs))
        self._last = now
        if self.watch:
            self.watch(len(jobs))


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else before + SMOOTHING * (newest - before)

"""What a server answers: photographs in, what JSON says of them out, within limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from npmobilenet.errors import ImageError, LargeImageError
from npmobilenet.pipelines import PIPELINES, Pipeline, Prepared
from npmobilenet.serving.metrics import Metrics
from npmobilenet.text import printable
from npmobilenet.workers import BusyError, Workers

if TYPE_CHECKING:
    from npmobilenet.model import Model


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes
    ----------
    body : int
        Bytes of a request.
    pixels : int
        Of a photograph, before it is decoded.
    queue : int
        Photographs that wait.
    uploads : int
        Bytes of all requests that are not answered yet.
    patience : float
        Seconds for a request to arrive.
    """

    body: int = 20 << 20
    pixels: int = 50_000_000
    queue: int = 256
    uploads: int = 1 << 29
    patience: float = 60.0


class Answer(NamedTuple):
    """An answer's status as in HTTP, what its JSON says, and after how many seconds one may ask again."""

    status: int
    told: dict[str, Any]
    retry_after: int | None = None


class Service:
    """A model that answers.

    Parameters
    ----------
    model : Model
    threads : int, optional
        That decode and compute; the model's if None.
    batch, latency
        As for :class:`~npmobilenet.workers.Workers`.
    limits : Limits
    options : dict of str to dict, optional
        Of the pipelines, by task, such as ``{"classify": {"top": 5}}``.

    Attributes
    ----------
    tasks : dict of str to Pipeline
        What the model can do.
    problems : dict of str to str
        Why it cannot do the others.
    """

    def __init__(
        self,
        model: Model,
        *,
        threads: int | None = None,
        batch: int = 16,
        latency: float = 0.05,
        limits: Limits | None = None,
        options: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.model, self.limits = model, limits or Limits()
        self.tasks: dict[str, Pipeline] = {}
        self.problems: dict[str, str] = {}
        for task, kind in PIPELINES.items():
            try:
                self.tasks[task] = _Told(kind(model, self.limits.pixels, **(options or {}).get(task, {})))
            except ValueError as error:
                self.problems[task] = printable(error)
        self.in_flight = 0
        self.metrics = Metrics(lambda: self.workers.waiting, lambda: self.in_flight)
        self.workers = Workers(threads or model.threads, batch, latency, self.limits.queue, self.metrics.computed)

    def about(self) -> dict[str, Any]:
        """Return what may be asked of it."""
        return {"status": "ok", "model": printable(self.model.architecture), "tasks": list(self.tasks)}

    def warm_up(self) -> None:
        """Compute once all that will be, so that the first request is as quick as the others."""
        size = self.model.preprocessing.crop
        picture = np.zeros((*size, 3), np.uint8)
        for told in self.tasks.values():
            prepared = told.prepare(picture)
            for threads in {1, self.workers.threads}:
                told.compute([prepared], threads)

    async def answer(self, task: str, content: bytes, name: str | None = None) -> Answer:
        """Look at a photograph.

        Parameters
        ----------
        task : str
        content : bytes
            Of a file.
        name : str, optional
            What it is called.
        """
        try:
            told = await self._result(task, content)
            return Answer(200, {"image": name, **told})
        except _Refused as error:
            return Answer(404, {"error": str(error)})
        except BusyError as error:
            return Answer(429, {"error": str(error)}, self.retry_after())
        except LargeImageError as error:
            return Answer(413, {"image": name, "error": printable(error)})
        except ImageError as error:
            return Answer(400, {"image": name, "error": printable(error)})
        except Exception as error:
            text = printable(error) if isinstance(error, ValueError) else printable(f"{type(error).__name__}: {error}")
            return Answer(500, {"image": name, "error": text})

    def retry_after(self) -> int:
        """In how many seconds there is room again."""
        return max(1, min(60, math.ceil(self.workers.seconds_behind)))

    def close(self) -> None:
        """Finish what waits, and take on nothing more."""
        self.workers.close()

    async def _result(self, task: str, content: bytes) -> dict[str, Any]:
        if task not in self.tasks:
            can = ", ".join(f"/{other}" for other in self.tasks)
            raise _Refused(f"{self.problems.get(task, f'no such task: {printable(task)}')}; this server has {can}")
        future = self.workers.submit(self.tasks[task], content)
        try:
            return await asyncio.wrap_future(future)
        finally:
            future.cancel()  # who asked is gone: if it has not begun, it costs nothing


class _Refused(Exception):
    """The model cannot do it."""


class _Told:
    """A pipeline whose results are what JSON says of them, made by the threads that compute."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self.task, self.prepare = pipeline, pipeline.task, pipeline.prepare

    def compute(self, prepared: Sequence[Prepared], threads: int) -> list[dict[str, Any] | Exception]:
        results = self._pipeline.compute(prepared, threads)
        return [one if isinstance(one, Exception) else self._pipeline.item(one) for one in results]

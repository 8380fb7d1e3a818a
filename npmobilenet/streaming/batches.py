"""Sources through a network: :func:`stream`.

How cores are shared out: each takes an image and goes with it all the way, reading, decoding, resizing, computing, on
one thread of the engine. Decoders and the engine release Python's lock, so that as many threads as there are cores keep
these busy without anyone having to guess how many decode and how many compute; no input waits in memory for a batch,
and what a core reads it has written itself. A GPU computes batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from npmobilenet.errors import MissingDependencyError
from npmobilenet.image.formats import let_pillow_keep
from npmobilenet.machine import available_cpus
from npmobilenet.pipelines import PIPELINES, Outputs, Pipeline
from npmobilenet.streaming.ahead import prepared_ahead
from npmobilenet.streaming.entries import Entry, NamedBytes
from npmobilenet.streaming.sources import Source, Sources
from npmobilenet.text import quote

if TYPE_CHECKING:
    from npmobilenet.image import ImageSource
    from npmobilenet.model import Model

BATCH = 32
CPU_BATCH, CPU_BATCH_BYTES = 8, 1 << 24  # of inputs: a thread prepares some, then computes them, for its caches' sake
CPU_SECONDS = 0.1  # that a thread takes for these: of slow ones it takes fewer, so that all come to their end together
GPU_BATCH = 64
AHEAD = 10  # batches, besides what the threads are at: one that takes as long as these is waited for without a pause
AHEAD_BYTES = 1 << 29  # of images that came out of streams

TASKS: dict[str, type[Pipeline]] = {Outputs.task: Outputs, **PIPELINES}

Outcome = tuple[str, Any]  # an image's name, and its result or the exception that there is instead


class Batch(NamedTuple):
    """Some images that follow each other.

    Attributes
    ----------
    names : list of str
        Of the images that have a result.
    outputs : array (N, ...), dict of such arrays, or list
        Their results, in the same order.
    errors : list of (name, Exception)
        Of the others.
    """

    names: list[str]
    outputs: Any
    errors: list[tuple[str, Exception]]


def stream(
    paths: Source | Iterable[Source],
    model: Model,
    *,
    batch_size: int = BATCH,
    task: str | Pipeline = "outputs",
    workers: int | None = None,
    part: tuple[int, int] = (1, 1),
    **options: Any,
) -> Iterator[Batch]:
    """Compute all images of some sources, in their order; decoding, resizing and computing overlap on all cores.

    Memory does not grow with their number. Results have the bits that each image has alone.

    Parameters
    ----------
    paths : path, or iterable of paths
        Images, folders, globs, ``"@list.txt"``, tar archives (such as WebDataset's shards; read as a stream) and zip
        archives; see :class:`~npmobilenet.streaming.sources.Sources`.
    model : Model
    batch_size : int
        Images of a batch, failed ones among them; the last one is shorter.
    task : {"outputs", "classify", "features", "detect", "segment"}
        What a batch's ``outputs`` are: what calling the model gives; lists of predictions (option ``top``); the output
        of a block (``block``); lists of detections (``threshold``); segmentations.
    workers : int, optional
        Threads, each with an image of its own; `model.threads` if None.
    part : (int, int)
        ``(2, 8)``: the second of eight processes, each of which takes other images.
    **options
        Of the task.

    Yields
    ------
    Batch

    Raises
    ------
    ValueError
        If an option is out of range, or the network cannot do this task. An image that cannot be read is no error: it
        is in the batch's ``errors``.
    MissingDependencyError
        If files are to be decoded and Pillow is not installed.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}")
    if workers is not None and (type(workers) is not int or workers < 1):
        raise ValueError(f"workers must be an integer >= 1, got {workers!r}")
    if not isinstance(task, Pipeline):
        if task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {quote(task)}")
        known = TASKS[task].options()
        for name in options:
            if name not in known:
                there = ", ".join(known) or "none"
                raise ValueError(f"the task {task!r} has no option {quote(name)}; it has: {there}")
        task = TASKS[task](model, **options)
    return _batches(outcomes(Sources(paths, part), task, workers), task, batch_size)


def _batches(found: Iterator[Outcome], task: Pipeline, batch_size: int) -> Iterator[Batch]:
    like = None
    while some := list(islice(found, batch_size)):
        good = [(name, result) for name, result in some if not isinstance(result, Exception)]
        errors = [(name, result) for name, result in some if isinstance(result, Exception)]
        like = good[-1][1] if good else like
        yield Batch([name for name, _ in good], task.together([result for _, result in good], like), errors)


def outcomes(entries: Iterable[Entry], task: Pipeline, workers: int | None = None) -> Iterator[Outcome]:
    """Yield the name of each image with its result, or with the exception that there is instead, in their order."""
    on_gpu = task.model.backend == "cuda"
    workers = min(workers or task.model.threads, available_cpus())
    height, width = task.model.preprocessing.crop
    most = GPU_BATCH if on_gpu else max(1, min(CPU_BATCH, CPU_BATCH_BYTES // (12 * height * width)))
    pace = most / CPU_SECONDS if on_gpu else 0.0  # images a second of a thread, lately

    def lengths() -> Iterator[int]:
        while True:
            yield max(1, min(most, int(pace * CPU_SECONDS)))

    def work(chunk: list[_Taken]) -> list[Any]:
        nonlocal pace
        start = time.perf_counter()
        prepared = [_prepared(task, taken) for taken in chunk]
        good = [one for one in prepared if not isinstance(one, Exception)]
        # A CPU's engine takes one after the other: a batch would be a copy for nothing, which no cache has room for.
        batches = [good] * bool(good) if on_gpu else ([one] for one in good)
        computed = chain.from_iterable(task.compute(some, 1) for some in batches)
        results = [one if isinstance(one, Exception) else next(computed) for one in prepared]
        if not on_gpu:
            pace = len(chunk) / max(time.perf_counter() - start, 1e-6)
        return results

    def size(chunk: list[_Taken]) -> int:
        return sum(len(taken.content) for taken in chunk if isinstance(taken.content, NamedBytes))

    let_pillow_keep(workers + 1)
    chunks = _chunks(map(_taken, entries), lengths())
    for chunk, results in prepared_ahead(work, chunks, workers, AHEAD + workers, size, AHEAD_BYTES):
        if isinstance(results, Exception):  # of no image in particular
            raise results
        yield from zip((taken.name for taken in chunk), results, strict=True)


class _Taken(NamedTuple):
    """An entry that may wait: what comes out of a stream is in memory."""

    name: str
    content: Any


def _taken(entry: Entry) -> _Taken:
    if not entry.passing:
        return _Taken(entry.name, entry.content)
    try:
        return _Taken(entry.name, entry.content())
    except Exception as error:
        return _Taken(entry.name, error)


def _prepared(task: Pipeline, taken: _Taken) -> Any:
    """What is made of a picture, or why there is none."""
    content: ImageSource | Exception = taken.content
    if isinstance(content, Exception):
        return content
    try:
        content = content() if callable(content) else content
        return task.prepare(content, lend=True)
    except MissingDependencyError:
        raise
    except Exception as error:
        return error.with_traceback(None)  # which would keep the whole picture


def _chunks(items: Iterator[_Taken], lengths: Iterator[int]) -> Iterator[list[_Taken]]:
    while some := list(islice(items, next(lengths))):
        yield some

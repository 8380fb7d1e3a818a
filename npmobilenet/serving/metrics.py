"""Counts and distributions, in the text that Prometheus reads (version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from threading import Lock

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)

Labels = tuple[tuple[str, str], ...]


class Count:
    """How often something happened, by labels."""

    kind = "counter"

    def __init__(self) -> None:
        self._counts: Counter[Labels] = Counter()

    def add(self, **labels: str) -> None:
        self._counts[tuple(labels.items())] += 1

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """Yield what is appended to the name, labels and value."""
        yield from (("", labels, count) for labels, count in sorted(self._counts.items()))


class Gauge:
    """What something is now."""

    kind = "gauge"

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        yield "", (), self._read()


class Histogram:
    """How values are distributed, by labels: how many are up to each bound."""

    kind = "histogram"

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self._counts: dict[Labels, list[int]] = {}
        self._sums: Counter[Labels] = Counter()

    def add(self, value: float, **labels: str) -> None:
        key = tuple(labels.items())
        counts = self._counts.setdefault(key, [0] * (len(self.bounds) + 1))
        counts[bisect_left(self.bounds, value)] += 1
        self._sums[key] += value

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        for labels, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip([*self.bounds, "+Inf"], counts, strict=True):
                total += count
                yield "_bucket", (*labels, ("le", str(bound))), total
            yield "_sum", labels, self._sums[labels]
            yield "_count", labels, total


class Metrics:
    """All that a server counts."""

    def __init__(self, waiting: Callable[[], int], in_flight: Callable[[], int]) -> None:
        self._lock = Lock()
        self._requests, self._errors = Count(), Count()
        self._seconds, self._lengths = Histogram(SECONDS), Histogram(LENGTHS)
        self._all = (
            ("requests_total", "Requests that were answered.", self._requests),
            ("errors_total", "Requests that were answered by an error.", self._errors),
            ("in_flight", "Requests that are not answered yet.", Gauge(in_flight)),
            ("queue_length", "Photographs that nobody has begun to compute.", Gauge(waiting)),
            ("request_seconds", "From a request's first byte to its answer.", self._seconds),
            ("batch_size", "Photographs that were computed together.", self._lengths),
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        with self._lock:
            self._requests.add(path=path, status=str(status))
            self._seconds.add(seconds, path=path)
            if status >= 400:
                self._errors.add(path=path)

    def computed(self, length: int) -> None:
        """Count a batch."""
        with self._lock:
            self._lengths.add(length)

    def text(self) -> str:
        """Return all of it."""
        with self._lock:
            return "".join(_lines(self._all))


def _lines(metrics: Sequence[tuple[str, str, Count | Gauge | Histogram]]) -> Iterator[str]:
    for name, about, metric in metrics:
        yield f"# HELP npmobilenet_{name} {about}\n# TYPE npmobilenet_{name} {metric.kind}\n"
        for end, labels, value in metric.samples():
            inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
            braced = f"{{{inside}}}" if inside else ""
            yield f"npmobilenet_{name}{end}{braced} {round(value, 9)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

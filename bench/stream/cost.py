"""What an image costs on one core, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npmobilenet.backends import DEFAULT
from npmobilenet.image import preprocess, read_image
from npmobilenet.image.formats import let_pillow_keep
from npmobilenet.loading import load
from npmobilenet.machine import numba_is_on

SECONDS = 0.5  # of measuring each step


class Cost(NamedTuple):
    """CPU seconds of one thread for one image.

    Attributes
    ----------
    decoding, resizing, network : float
    """

    decoding: float
    resizing: float
    network: float

    @property
    def total(self) -> float:
        return sum(self)

    @staticmethod
    def least(costs: Sequence[Cost]) -> Cost:
        """Of each step."""
        return Cost(*map(min, zip(*costs, strict=True)))


def measured(photograph: Path, source: str = "mobilenet_v2") -> Cost:
    """Measure each step by itself, again and again on the same data: the least that it can cost."""
    model = load(source, threads=1, backend=DEFAULT if numba_is_on() else "reference")
    let_pillow_keep(1)
    content = photograph.read_bytes()
    picture = read_image(content, lend=True)
    x = preprocess(picture, model.preprocessing)[None]
    return Cost(
        _seconds(lambda: read_image(content, lend=True)),
        _seconds(lambda: preprocess(picture, model.preprocessing)),
        _seconds(lambda: model(x)),
    )


def _seconds(step: Callable[[], object]) -> float:
    """The median of CPU time."""
    step()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 3:
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return float(np.median(times))

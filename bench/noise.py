"""How far measurements vary: what makes a run noisy, and when a difference is none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from npmobilenet.machine import available_cpus

NOISY = 1.15  # ratio of the 90th to the 10th percentile of the rounds
LEAST = 1.02  # below this ratio two runs of the same program differ anyway: code and data lie elsewhere in memory
BUSY = 0.25  # load average per CPU


def spread(values: Sequence[float]) -> float:
    """Return the ratio of the 90th to the 10th percentile."""
    low, high = np.percentile(values, [10, 90])
    return float(high / low)


def load() -> float | None:
    """Return the load average of the last minute, or None where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def warnings(spreads: Sequence[float], peak_spread: float, before: float | None) -> Iterator[str]:
    """What makes the figures of a run doubtful, in plain words.

    Parameters
    ----------
    spreads : sequence of float
        Of the times of the whole networks, or whatever was measured.
    peak_spread : float
        Of the machine's peak, probed in every round.
    before : float or None
        The load average before the run.
    """
    if before is not None and before > BUSY * available_cpus():
        yield f"load average {before:.1f} before the start: other programs, or an earlier run, kept the CPUs busy"
    if spreads and max(spreads) > NOISY:
        yield f"times vary by up to {max(spreads):.2f}x between rounds"
    if peak_spread > NOISY:
        yield f"the machine's own peak varies by {peak_spread:.2f}x between rounds"


def threshold(*spreads: float) -> float:
    """Return the ratio of two medians up to which they do not differ, given the spreads of their rounds.

    A median times or by the root of its spread is about where the middle 80 percent of its rounds lie: two medians
    differ if these ranges do not meet.
    """
    return max(LEAST, float(np.sqrt(np.prod(spreads))))


def verdict(ratio: float, noise: float) -> str:
    """Return what a ratio of times, new to old, says."""
    if 1 / noise <= ratio <= noise:
        return "no difference within noise"
    return "faster" if ratio < 1 else "slower"

"""The class of every pixel of a photograph, from scores on a grid of the network's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from npmobilenet.kernels.geometry import resize_taps

ROWS = 64  # of a photograph that are computed at once
ONE_CLASS = 0.5  # above this score a pixel is of the only class


@dataclass(frozen=True)
class Segmentation:
    """What every pixel of a photograph shows.

    Attributes
    ----------
    mask : uint8 array (H, W), uint16 of more than 256 labels
        Which of the labels each pixel has; where there is one label alone, 1 where its score is above 0.5, else 0.
    labels : tuple of str
    grid : float32 array (K, h, w)
        The scores where the network computes them.
    """

    mask: np.ndarray
    labels: tuple[str, ...]
    grid: np.ndarray = field(repr=False)

    @cached_property
    def scores(self) -> np.ndarray:
        """Probabilities: float32 (K, H, W), between those of the grid. Made when they are asked for first."""
        scores = np.empty((len(self.grid), *self.mask.shape), np.float32)
        for rows, part in _resized(self.grid, self.mask.shape):
            scores[:, rows] = part
        return scores

    @property
    def share(self) -> dict[str, float]:
        """Which part of the pixels has each label."""
        counts = np.bincount(self.mask.ravel(), minlength=max(2, len(self.labels))) / self.mask.size
        parts = counts[1:] if len(self.labels) == 1 else counts
        return dict(zip(self.labels, parts.tolist(), strict=True))

    def __iter__(self) -> Iterator[Any]:
        """Yield mask, scores and labels: ``mask, scores, labels = model.segment(photo)``."""
        yield from (self.mask, self.scores, self.labels)


def segmentation(grid: np.ndarray, labels: Sequence[str], size: tuple[int, int]) -> Segmentation:
    """Return what the pixels of a photograph of (height, width) show.

    Parameters
    ----------
    grid : float32 array (K, h, w)
        Probabilities.
    labels : sequence of str
    size : (height, width)
    """
    mask = np.empty(size, np.uint8 if len(labels) <= 256 else np.uint16)
    for rows, part in _resized(grid, size):
        mask[rows] = part[0] > ONE_CLASS if len(grid) == 1 else part.argmax(axis=0)
    return Segmentation(mask, tuple(labels), grid)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the classes of float32 scores (N, K, H, W)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _resized(grid: np.ndarray, size: tuple[int, int]) -> Iterator[tuple[slice, np.ndarray]]:
    """Some rows after the others of scores (K, h, w) at another size, bilinear between the pixels' centres."""
    down, across = resize_taps(grid.shape[1:], size, None, "bilinear", "half_pixel")
    left, right, along = (np.array(values) for values in zip(*across, strict=True))
    along = along.astype(np.float32)
    for start in range(0, size[0], ROWS):
        rows = slice(start, min(start + ROWS, size[0]))
        above, below, part = (np.array(values) for values in zip(*down[rows], strict=True))
        part = part.astype(np.float32)[:, None]
        lines = grid[:, above] + (grid[:, below] - grid[:, above]) * part
        first = lines[:, :, left]
        yield rows, first + (lines[:, :, right] - first) * along

"""What detectors are made of. Boxes are float arrays (N, 4): x0, y0, x1, y1, in any unit; ties go to the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from npmobilenet.graph import Graph

COMPARED = 256  # boxes at once with all others
TOGETHER = 32  # classes with so many boxes or fewer are computed in one go


class Place(NamedTuple):
    """Where a photograph lies in a network's input, as parts of that."""

    x: float
    y: float
    width: float
    height: float


WHOLE = Place(0, 0, 1, 1)


class Found(NamedTuple):
    """What there is in an image, the surest first: boxes as parts of it, scores, and which class each is."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    uncertainties: np.ndarray | None = None
    """Of centre x and y, width and height, 0 to 1, NaN of a head without; None of a network without."""


class Detector:
    """How the outputs of a network are read as boxes.

    Attributes
    ----------
    outputs : tuple of str
        What `collect` gives.
    """

    outputs: tuple[str, ...]

    def reads(self, graph: Graph) -> bool:
        """Whether these are the outputs of a network."""
        raise NotImplementedError

    def count_classes(self, graph: Graph) -> int:
        """How many classes its scores are for; with the background, if they have one for that."""
        raise NotImplementedError

    def collect(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the network's outputs in the form in which people read them; as they are unless it says otherwise."""
        return dict(outputs)

    def find(self, outputs: Mapping[str, np.ndarray], threshold: float) -> list[Found]:
        """Return what there is in each of several images, of scores above the threshold."""
        read = self._read(outputs)
        number = len(next(iter(outputs.values())))
        return [self._of_image({name: y[at] for name, y in read.items()}, threshold) for at in range(number)]

    def _read(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What `_of_image` takes, of all images."""
        return self.collect(outputs)

    def _of_image(self, read: Mapping[str, np.ndarray], threshold: float) -> Found:
        raise NotImplementedError


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))


def logit(probability: float) -> np.float32:
    """Return the logit of a probability; it may be infinite."""
    with np.errstate(divide="ignore"):
        return np.log(np.float32(probability) / (1 - np.float32(probability)))


def in_photograph(boxes: np.ndarray, place: Place, size: tuple[float, float]) -> np.ndarray:
    """Return boxes, parts of a network's input, in pixels of the photograph of (height, width) that lies there."""
    of_picture = (boxes.astype(np.float64) - (place[:2] * 2)) / (place[2:] * 2)
    return clipped(of_picture, 1, 1) * np.array([size[1], size[0]] * 2)


def clipped(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Return boxes cut off at the borders of an image."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (..., N, 4) with others (..., M, 4): (..., N, M).

    0 where both are empty.
    """
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]
    low = np.maximum(boxes[..., :2], others[..., :2])
    sides = np.maximum(np.minimum(boxes[..., 2:], others[..., 2:]) - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    areas = [(each[..., 2] - each[..., 0]) * (each[..., 3] - each[..., 1]) for each in (boxes, others)]
    union = areas[0] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def suppressed(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, most_overlap: float, most_of_class: int, most: int
) -> np.ndarray:
    """Return the indices of boxes that remain, the highest score first: greedy non-maximum suppression.

    Parameters
    ----------
    boxes : float array (N, 4)
    scores : float array (N,)
    classes : int array (N,)
        A class suppresses its own boxes alone.
    most_overlap : float
        A box goes that shares more of the union with one that remains.
    most_of_class, most : int
        So many remain at most, of each class and of all.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, classes = boxes[order], classes[order]
    remains = np.zeros(len(order), bool)
    numbers, rows, counts = np.unique(classes, return_inverse=True, return_counts=True)
    for each in numbers[counts > TOGETHER]:
        places = np.flatnonzero(classes == each)
        remains[places[_suppressed(boxes[places], most_overlap, most_of_class)]] = True
    few = np.flatnonzero(counts[rows] <= TOGETHER)
    remains[few] = _suppressed_together(boxes[few], rows[few], most_overlap, most_of_class)
    return order[np.flatnonzero(remains)[:most]]


def _suppressed_together(boxes: np.ndarray, classes: np.ndarray, most_overlap: float, most: int) -> np.ndarray:
    """Which of the boxes of several small classes remain: bool (N,).

    What a box suppresses depends on those before it alone, so that the first box of every class is right at once, the
    second one a round later, and all of them when a round changes nothing.
    """
    remains = np.ones(len(boxes), bool)
    _, rows, counts = np.unique(classes, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[rows] > 1)
    if len(several):
        by_class = several[np.argsort(rows[several], kind="stable")]
        rows, counts = np.repeat(np.arange((counts > 1).sum()), counts[counts > 1]), counts[counts > 1]
        columns = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        table = np.zeros((len(counts), counts.max(), 4), boxes.dtype)
        there = np.zeros(table.shape[:2], bool)
        table[rows, columns], there[rows, columns] = boxes[by_class], True
        suppresses = np.triu(overlaps(table, table) > most_overlap, 1) & there[:, None]
        before, kept = None, there
        while before is None or not np.array_equal(before, kept):
            before, kept = kept, there & ~(kept[:, :, None] & suppresses).any(axis=1)
        kept &= np.cumsum(kept, axis=1) <= most
        remains[by_class] = kept[rows, columns]
    return remains


def _suppressed(boxes: np.ndarray, most_overlap: float, most: int) -> list[int]:
    """Which of one class' boxes remain, of which the first ones have the highest scores."""
    remains, kept = np.ones(len(boxes), bool), []
    for start in range(0, len(boxes), COMPARED):
        left = start + np.flatnonzero(remains[start : start + COMPARED])
        gone = overlaps(boxes[left], boxes[start:]) > most_overlap
        for at, of in zip(left, gone, strict=True):
            if remains[at]:
                remains[start:] &= ~of
                kept.append(at)
                if len(kept) >= most:
                    return kept
    return kept


def grid(sizes: Sequence[tuple[int, int]], shapes: Sequence[np.ndarray]) -> np.ndarray:
    """Return anchors, the same at every pixel of a feature map: float32 (N, 4), centre x, y, width, height.

    All are parts of the image. The order is that of the maps, then rows, columns and anchors of a pixel.

    Parameters
    ----------
    sizes : sequence of (height, width)
        Of the feature maps.
    shapes : sequence of float array (A, 2)
        Width and height of each map's anchors.
    """
    anchors = []
    for (height, width), shape in zip(sizes, shapes, strict=True):
        y, x, anchor = np.indices((height, width, len(shape))).reshape(3, -1)
        centres = np.stack([(x + 0.5) / width, (y + 0.5) / height], axis=1)
        anchors.append(np.concatenate([centres, shape[anchor]], axis=1))
    return np.concatenate(anchors).astype(np.float32)


def decoded(codes: np.ndarray, anchors: np.ndarray, scales: tuple[float, float], largest: float = inf) -> np.ndarray:
    """Return the boxes that codes make of anchors (1311.2524, appendix C), as parts of the image: float32 (N, 4).

    Parameters
    ----------
    codes : float array (N, 4)
        For centre x, y, and the logarithms of width and height.
    anchors : float array (N, 4)
        As :func:`grid` makes them.
    scales : (of centres, of sizes)
        What the codes are divided by.
    largest : float
        Boxes are at most so many times as long as their anchors.
    """
    centres = codes[:, :2] / np.float32(scales[0]) * anchors[:, 2:] + anchors[:, :2]
    sizes = np.exp(np.minimum(codes[:, 2:] / np.float32(scales[1]), np.float32(np.log(largest)))) * anchors[:, 2:]
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)

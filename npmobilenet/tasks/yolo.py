"""Boxes around things, from the outputs of YOLOv3 (1804.02767) and Gaussian YOLOv3 (1904.04620)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from npmobilenet.architectures.yolo import Head
from npmobilenet.tasks.boxes import Place, in_photograph, suppressed
from npmobilenet.tasks.detection import Detection, Detector

LARGEST = 1000  # times the input: what a box's logarithm may reach before it stops to be a number
MOST_OF_CLASS = 1000  # boxes that are looked at


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    return np.exp(-np.logaddexp(0, -x))


@dataclass(frozen=True)
class YOLO(Detector):
    """How the outputs of detecting layers are read.

    Attributes
    ----------
    heads : tuple of Head
    least : float
        Lower scores are never looked at.
    """

    heads: tuple[Head, ...]
    least: float = 0.001

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the network's outputs."""
        return tuple(head.output for head in self.heads)

    @property
    def classes(self) -> int:
        """How many classes there are; none of them is the background."""
        return self.heads[0].classes

    def _of_image(
        self,
        read: Mapping[str, np.ndarray],
        classes: Sequence[str],
        size: tuple[int, int],
        threshold: float,
        place: Place,
    ) -> list[Detection]:
        parts = [self._of_head(head, read[head.output], max(threshold, self.least)) for head in self.heads]
        boxes, scores, labels, uncertainties = (np.concatenate(each) for each in zip(*parts, strict=True))
        kept = suppressed(boxes, scores, labels, self.heads[0].most_overlap, MOST_OF_CLASS, len(scores))
        found = in_photograph(boxes[kept], place, size)
        return [
            Detection(classes[label], score, tuple(box), None if np.isnan(unsure[0]) else tuple(unsure))
            for label, score, box, unsure in zip(
                labels[kept], scores[kept].tolist(), found.tolist(), uncertainties[kept].tolist(), strict=True
            )
        ]

    def _of_head(self, head: Head, y: np.ndarray, least: float) -> tuple[np.ndarray, ...]:
        """Boxes as parts of the input, scores, classes and uncertainties (NaN of a head without) above a score."""
        boxes, sure, scores, unsure = decoded(head, y)
        near = np.flatnonzero(sure > least)  # no class' score is more than that
        scores = sure[near, None] * scores[near]
        at, label = np.nonzero(scores > least)
        return boxes[near[at]], scores[at, label], label, unsure[near[at]]


def decoded(head: Head, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what a detecting layer says of every anchor: of the first one's pixels row by row, then the next one's.

    Parameters
    ----------
    head : Head
    y : float array (A * values, H, W)

    Returns
    -------
    boxes : float32 array (A * H * W, 4)
        x0, y0, x1, y1, as parts of the network's input.
    sure : float32 array (A * H * W,)
        How sure it is that there is a thing; of a Gaussian head times one minus the mean of the uncertainties.
    scores : float32 array (A * H * W, classes)
        Of the classes, if there is one.
    uncertainties : float32 array (A * H * W, 4)
        Of x, y, width and height, 0 to 1; NaN of a head that has none.
    """
    height, width = y.shape[1:]
    values = y.reshape(len(head.anchors), -1, height * width).transpose(0, 2, 1).astype(np.float32)
    coordinates = 8 if head.gaussian else 4
    codes = values[..., 0:coordinates:2] if head.gaussian else values[..., :4]
    row, column = np.divmod(np.arange(height * width), width)
    across = sigmoid(codes[..., 0]) * head.spread - (head.spread - 1) / 2
    down = sigmoid(codes[..., 1]) * head.spread - (head.spread - 1) / 2
    centres = np.stack([(column + across) / width, (row + down) / height], axis=-1)
    parts = np.array(head.anchors) / (width * head.stride[1], height * head.stride[0])
    sides = np.exp(np.minimum(codes[..., 2:4], np.log(LARGEST))) * parts[:, None]
    sure = sigmoid(values[..., coordinates])
    unsure = np.full(codes.shape, np.nan, np.float32)
    if head.gaussian:
        unsure = sigmoid(values[..., 1:coordinates:2])
        sure = sure * (1 - unsure.mean(axis=-1))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1).astype(np.float32)
    return (
        boxes.reshape(-1, 4),
        sure.reshape(-1),
        sigmoid(values[..., coordinates + 1 :]).reshape(boxes.size // 4, -1),
        unsure.reshape(-1, 4),
    )

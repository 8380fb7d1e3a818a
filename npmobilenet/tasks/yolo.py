"""Boxes around things, from outputs of YOLOv2 (1612.08242), YOLOv3 (1804.02767) and Gaussian YOLOv3 (1904.04620)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from npmobilenet.tasks.boxes import Detector, Found, clipped, logit, sigmoid, suppressed

if TYPE_CHECKING:
    from npmobilenet.architectures.yolo import Head
    from npmobilenet.graph import Graph

LARGEST = 1000  # times the input: what a box's logarithm may reach before it stops to be a number
MOST_OF_CLASS = 1000  # boxes that are looked at
VALUES = 5  # of each anchor of a YOLOv2 for one class: x, y, width, height, score


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

    def reads(self, graph: Graph) -> bool:
        """Whether these are the outputs of a network."""
        return graph.output_names == self.outputs

    def count_classes(self, graph: Graph) -> int:
        """How many classes there are; none of them is the background."""
        return self.heads[0].classes

    def _of_image(self, read: Mapping[str, np.ndarray], threshold: float) -> Found:
        parts = [self._of_head(head, read[head.output], max(threshold, self.least)) for head in self.heads]
        boxes, scores, labels, unsure = (np.concatenate(each) for each in zip(*parts, strict=True))
        kept = suppressed(boxes, scores, labels, self.heads[0].most_overlap, MOST_OF_CLASS, len(scores))
        tells = any(head.gaussian for head in self.heads)
        return Found(boxes[kept], scores[kept], labels[kept], unsure[kept] if tells else None)

    def _of_head(self, head: Head, y: np.ndarray, least: float) -> tuple[np.ndarray, ...]:
        """Boxes as parts of the input, scores, classes and uncertainties (NaN of a head without) above a score."""
        boxes, sure, scores, unsure = decoded(head, y)
        near = np.flatnonzero(sure > least)  # no class' score is more than that
        scores = sure[near, None] * scores[near]
        at, label = np.nonzero(scores > least)
        return boxes[near[at]], scores[at, label], label, unsure[near[at]]


@dataclass(frozen=True)
class YOLOv2(Detector):
    """How the output of a YOLOv2 for one class is read, which has boxes and scores for anchors at every pixel.

    Attributes
    ----------
    anchors : tuple of (width, height)
        In pixels of the feature map.
    most_overlap : float
        Of boxes that remain.
    """

    anchors: tuple[tuple[float, float], ...]
    most_overlap: float
    outputs: ClassVar = ("boxes", "scores")

    def reads(self, graph: Graph) -> bool:
        """Whether this is the output of a network."""
        return graph.output_names == ("cells",)

    def count_classes(self, graph: Graph) -> int:
        """How many scores there are for each box."""
        return 1

    def collect(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return codes and scores in the order of rows, columns and anchors.

        Parameters
        ----------
        outputs : mapping of str to float32 array
            ``cells`` (N, 5 A, H, W).

        Returns
        -------
        dict of str to float32 array
            ``boxes`` (N, anchors, 4), codes as they are, and ``scores`` (N, anchors, 1), logits.
        """
        cells = outputs["cells"].transpose(0, 2, 3, 1)
        values = np.ascontiguousarray(cells).reshape(len(cells), -1, VALUES)
        return {"boxes": values[..., :4], "scores": values[..., 4:]}

    def _read(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.collect(outputs) | outputs

    def _of_image(self, read: Mapping[str, np.ndarray], threshold: float) -> Found:
        codes, logits = read["boxes"], read["scores"][:, 0]
        height, width = read["cells"].shape[1:]
        (at,) = np.nonzero(logits > logit(threshold))
        y, x, anchor = np.unravel_index(at, (height, width, len(self.anchors)))
        places = np.stack([x, y], axis=1)
        size = np.float32([width, height])
        centres = (places + sigmoid(codes[at, :2])) / size
        with np.errstate(over="ignore"):
            sides = np.exp(codes[at, 2:]) * np.float32(self.anchors)[anchor] / size
        boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)
        scores, labels = sigmoid(logits[at]), np.zeros(len(at), int)
        kept = suppressed(boxes, scores, labels, self.most_overlap, len(at), len(at))
        return Found(clipped(boxes[kept], 1, 1), scores[kept], labels[kept])


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

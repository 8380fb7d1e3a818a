"""Boxes from the outputs of YOLOv2 (1612.08242, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.tasks.boxes import Found, clipped, logit, sigmoid, suppressed

if TYPE_CHECKING:
    from npmobilenet.graph import Graph

VALUES = 5  # of each anchor: x, y, width, height, score


@dataclass(frozen=True)
class Yolo:
    """How the output of a YOLO for one class is read, which has boxes and scores for anchors at every pixel.

    Attributes
    ----------
    anchors : tuple of (width, height)
        In pixels of the feature map.
    most_overlap : float
        Of boxes that remain.
    """

    anchors: tuple[tuple[float, float], ...]
    most_overlap: float

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

    def find(self, outputs: Mapping[str, np.ndarray], threshold: float) -> list[Found]:
        """Return what there is in each of several images, of scores above the threshold."""
        height, width = outputs["cells"].shape[2:]
        found = self.collect(outputs)
        return [
            self._of_image(codes, scores[:, 0], height, width, threshold)
            for codes, scores in zip(found["boxes"], found["scores"], strict=True)
        ]

    def _of_image(self, codes: np.ndarray, logits: np.ndarray, height: int, width: int, threshold: float) -> Found:
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

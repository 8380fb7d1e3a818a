"""Boxes from the outputs of CenterNet (1904.07850, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from npmobilenet.tasks.boxes import Detector, Found, clipped

if TYPE_CHECKING:
    from npmobilenet.graph import Graph


@dataclass(frozen=True)
class CenterNet(Detector):
    """How the outputs of a CenterNet are read, which has a score of each class and four distances at every pixel.

    Attributes
    ----------
    stride : int
        Of its feature map.
    most : int
        Boxes in all.
    """

    stride: int
    most: int
    outputs: ClassVar = ("boxes", "scores")

    def reads(self, graph: Graph) -> bool:
        """Whether these are the outputs of a network."""
        return graph.output_names == ("center_boxes", "center_scores")

    def count_classes(self, graph: Graph) -> int:
        """How many scores there are for each box."""
        return graph.channels_of(graph.node_of("center_scores"))

    def collect(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return distances and scores in the order of rows and columns.

        Parameters
        ----------
        outputs : mapping of str to float32 array
            ``center_boxes`` (N, 4, H, W), and ``center_scores`` (N, K, H, W).

        Returns
        -------
        dict of str to float32 array
            ``boxes`` (N, pixels, 4): from a pixel to the left, upper, right and lower edge, in pixels of the image;
            ``scores`` (N, pixels, K), probabilities.
        """
        return {
            what: np.ascontiguousarray(y.transpose(0, 2, 3, 1)).reshape(len(y), -1, y.shape[1])
            for what, y in (("boxes", outputs["center_boxes"]), ("scores", outputs["center_scores"]))
        }

    def _read(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(outputs)

    def _of_image(self, read: Mapping[str, np.ndarray], threshold: float) -> Found:
        distances, scores = read["center_boxes"], read["center_scores"]
        _, height, width = scores.shape
        labels, y, x = np.nonzero((scores == _highest_around(scores)) & (scores > threshold))
        values = scores[labels, y, x]
        order = np.lexsort((labels, x, y, -values))[: self.most]
        labels, y, x = labels[order], y[order], x[order]
        near = distances[:, y, x].T
        places = np.stack([x, y], axis=1) * np.float32(self.stride)
        boxes = np.concatenate([places - near[:, :2], places + near[:, 2:]], axis=1)
        size = np.float32([width, height, width, height]) * self.stride
        return Found(clipped(boxes / size, 1, 1), values[order], labels)


def _highest_around(scores: np.ndarray) -> np.ndarray:
    """The maximum of each pixel and its eight neighbours, of (K, H, W)."""
    highest = scores.copy()
    for axis in (1, 2):
        before, here, there = highest.copy(), [slice(None)] * 3, [slice(None)] * 3
        here[axis], there[axis] = slice(1, None), slice(None, -1)
        np.maximum(highest[tuple(here)], before[tuple(there)], out=highest[tuple(here)])
        np.maximum(highest[tuple(there)], before[tuple(here)], out=highest[tuple(there)])
    return highest

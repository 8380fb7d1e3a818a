"""Boxes around things, from the outputs of SSD and SSDLite (1512.02325; 1801.04381, section 6.2) and of YOLO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npmobilenet.tasks.boxes import Found, clipped, decoded, grid, logit, sigmoid, suppressed
from npmobilenet.tasks.centers import CenterNet
from npmobilenet.tasks.yolo import Yolo

if TYPE_CHECKING:
    from npmobilenet.graph import Graph

OUTPUTS = ("boxes", "scores")
Size = tuple[float, float]


class Detection(NamedTuple):
    """One thing: what it is, how sure the network is, and where, in pixels of the photograph as a viewer shows it."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1: left, top, right, bottom."""


@dataclass(frozen=True)
class SSD:
    """How the outputs of an SSD are read, which has boxes and scores for anchors on several feature maps.

    Attributes
    ----------
    scales : tuple of float
        Of the anchors of each feature map, as parts of the image; the last one ends the series.
    ratios : tuple of float or None
        Width to height of anchors; None: a square between this scale and the next. Those of the first map are three:
        ratio 1 at 0.1, then 2 and 1/2.
    code_scales : (of centres, of sizes)
    code_order : tuple of int
        Where a code has x, y, width and height.
    most_overlap : float
        Of boxes of a class that remain.
    most : int
        Boxes of a class, and of all.
    things : (first, last)
        Which of its scores are of things: others are the background's, or of no use. None: all that follow.
    clipped_first : bool
        Whether boxes are cut off at the borders of the image before they are compared.
    """

    scales: tuple[float, ...]
    ratios: tuple[float | None, ...]
    code_scales: tuple[float, float]
    code_order: tuple[int, int, int, int]
    most_overlap: float
    most: int
    things: tuple[int, int | None] = (1, None)
    clipped_first: bool = True

    def reads(self, graph: Graph) -> bool:
        """Whether these are the outputs of a network."""
        return graph.output_names[0] == "boxes0"

    def count_classes(self, graph: Graph) -> int:
        """How many scores there are for each box."""
        return graph.channels_of(graph.node_of("scores0")) * 4 // graph.channels_of(graph.node_of("boxes0"))

    def collect(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of all feature maps together, in the order of the anchors.

        Parameters
        ----------
        outputs : mapping of str to float32 array
            ``boxes0`` (N, 4 A, H, W), ..., ``scores0`` (N, K A, H, W), ...

        Returns
        -------
        dict of str to float32 array
            ``boxes`` (N, anchors, 4), codes as they are, and ``scores`` (N, anchors, K), logits.
        """
        number = len(outputs) // 2
        anchors = [outputs[f"boxes{at}"].shape[1] // 4 for at in range(number)]

        def together(what: str) -> np.ndarray:
            maps = [outputs[f"{what}{at}"] for at in range(number)]
            values = maps[0].shape[1] // anchors[0]
            return np.concatenate([y.transpose(0, 2, 3, 1).reshape(len(y), -1, values) for y in maps], axis=1)

        return {what: together(what) for what in OUTPUTS}

    def anchors(self, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the anchors for feature maps of (height, width): float32 (anchors, 4), centre x, y, width, height."""
        return _anchors(self, tuple(sizes))

    def find(self, outputs: Mapping[str, np.ndarray], threshold: float) -> list[Found]:
        """Return what there is in each of several images, of scores above the threshold."""
        maps = [outputs[f"boxes{at}"].shape[2:] for at in range(len(outputs) // 2)]
        anchors, found = self.anchors(maps), self.collect(outputs)
        return [
            self._of_image(codes, scores, anchors, threshold)
            for codes, scores in zip(found["boxes"], found["scores"], strict=True)
        ]

    def _of_image(self, codes: np.ndarray, logits: np.ndarray, anchors: np.ndarray, threshold: float) -> Found:
        first, last = self.things
        # What is not above suppresses nothing that is
        at, label = np.nonzero(logits[:, first : last and last + 1] > logit(threshold))
        label += first
        scores = sigmoid(logits[at, label])
        boxes = decoded(codes[at][:, self.code_order], anchors[at], self.code_scales)
        boxes = clipped(boxes, 1, 1) if self.clipped_first else boxes
        kept = suppressed(boxes, scores, label, self.most_overlap, self.most, self.most)
        return Found(clipped(boxes[kept], 1, 1), scores[kept], label[kept])


@lru_cache(maxsize=16)
def _anchors(ssd: SSD, sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    shapes = [[(0.1, 0.1), *(_shape(ssd.scales[0], ratio) for ratio in (2, 1 / 2))]]
    for scale, following in zip(ssd.scales[1:-1], ssd.scales[2:], strict=True):
        between = sqrt(scale * following)
        shapes.append([_shape(scale, ratio) if ratio else (between, between) for ratio in ssd.ratios])
    anchors = grid(sizes, [np.array(shape) for shape in shapes])
    anchors.flags.writeable = False
    return anchors


def _shape(scale: float, ratio: float) -> tuple[float, float]:
    """Width and height of an anchor."""
    return scale * sqrt(ratio), scale / sqrt(ratio)


def detections(
    found: Sequence[Found], classes: Sequence[str], sizes: Sequence[Size], shown: Sequence[Size]
) -> list[list[Detection]]:
    """Return the things in each of several photographs, the surest first.

    Parameters
    ----------
    found : sequence of Found
    classes : sequence of str
    sizes, shown : sequence of (height, width)
        Of the photographs; and what the images show of each, from its top left.
    """
    things = []
    for one, (height, width), (high, wide) in zip(found, sizes, shown, strict=True):
        boxes = clipped(one.boxes * np.array([wide, high] * 2, np.float64), width, height)
        things.append(
            [
                Detection(classes[label], score, tuple(box))
                for label, score, box in zip(one.labels, one.scores.tolist(), boxes.tolist(), strict=True)
            ]
        )
    return things


RATIOS = (1, 2, 1 / 2, 3, 0.3333)
TENSORFLOW = SSD(
    scales=(0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
    ratios=(*RATIOS, None),
    code_scales=(10, 5),
    code_order=(1, 0, 3, 2),
    most_overlap=0.6,
    most=100,
)
"""TensorFlow's SSDLite on MobileNetV2: object_detection/samples/configs/ssdlite_mobilenet_v2_coco."""

DETECTORS: dict[str, SSD | Yolo | CenterNet] = {
    "ssdlite_mobilenet_v2": TENSORFLOW,
    "ssd_mobilenet_v2": TENSORFLOW,
    "ssd_mobilenet_v1_face": replace(
        TENSORFLOW, ratios=(1, None, *RATIOS[1:]), most_overlap=0.5, things=(1, 1), clipped_first=False
    ),
    "tiny_face_detector": Yolo(
        anchors=(
            (1.603231, 2.094468),
            (6.041143, 7.080126),
            (2.882459, 3.518061),
            (4.266906, 5.178857),
            (9.041765, 10.66308),
        ),
        most_overlap=0.4,
    ),
    "centernet_mobilenet_v3_large": CenterNet(stride=4, most=100),
}
"""By architecture. The two of faces are face-api.js's."""

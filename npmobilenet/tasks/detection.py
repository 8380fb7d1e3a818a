"""Boxes around things, from the outputs of SSDLite (1512.02325; 1801.04381, section 6.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import sqrt
from typing import NamedTuple

import numpy as np

from npmobilenet.tasks.boxes import clipped, decoded, grid, suppressed

OUTPUTS = ("boxes", "scores")


class Detection(NamedTuple):
    """One thing: what it is, how sure the network is, and where, in pixels of the photograph as a viewer shows it."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1: left, top, right, bottom."""


class SSD(NamedTuple):
    """How the outputs of an SSD are read, which has boxes and scores for anchors on several feature maps.

    Attributes
    ----------
    scales : tuple of float
        Of the anchors of each feature map, as parts of the image; the last one ends the series.
    ratios : tuple of float
        Width to height of anchors. Those of the first map are three: ratio 1 at 0.1, then 2 and 1/2.
    code_scales : (of centres, of sizes)
    code_order : tuple of int
        Where a code has x, y, width and height.
    most_overlap : float
        Of boxes of a class that remain.
    most : int
        Boxes of a class, and of all.
    """

    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    code_scales: tuple[float, float]
    code_order: tuple[int, int, int, int]
    most_overlap: float
    most: int

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

    def detect(
        self,
        outputs: Mapping[str, np.ndarray],
        classes: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        threshold: float,
    ) -> list[list[Detection]]:
        """Return the things in each of several photographs of (height, width), the surest first.

        Parameters
        ----------
        outputs : mapping of str to float32 array
            Of the network.
        classes : sequence of str
            Of which the first is the background.
        threshold : float
            Lower scores are left out.
        """
        maps = [outputs[f"boxes{at}"].shape[2:] for at in range(len(outputs) // 2)]
        anchors, found = self.anchors(maps), self.collect(outputs)
        return [
            self._of_image(codes, scores, anchors, classes, size, threshold)
            for codes, scores, size in zip(found["boxes"], found["scores"], sizes, strict=True)
        ]

    def _of_image(
        self,
        codes: np.ndarray,
        logits: np.ndarray,
        anchors: np.ndarray,
        classes: Sequence[str],
        size: tuple[int, int],
        threshold: float,
    ) -> list[Detection]:
        with np.errstate(divide="ignore"):
            least = np.log(np.float32(threshold) / (1 - np.float32(threshold)))
        at, label = np.nonzero(logits[:, 1:] > least)  # what is not above suppresses nothing that is
        scores = 1 / (1 + np.exp(-logits[at, 1 + label]))
        boxes = clipped(decoded(codes[at][:, self.code_order], anchors[at], self.code_scales), 1, 1)
        kept = suppressed(boxes, scores, label, self.most_overlap, self.most, self.most)
        scaled = boxes[kept] * np.array([size[1], size[0]] * 2, np.float32)
        return [
            Detection(classes[1 + of], score, tuple(box))
            for of, score, box in zip(label[kept], scores[kept].tolist(), scaled.tolist(), strict=True)
        ]


@lru_cache(maxsize=16)
def _anchors(ssd: SSD, sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    shapes = [[(0.1, 0.1), *(_shape(ssd.scales[0], ratio) for ratio in (2, 1 / 2))]]
    for scale, following in zip(ssd.scales[1:-1], ssd.scales[2:], strict=True):
        between = sqrt(scale * following)
        shapes.append([*(_shape(scale, ratio) for ratio in ssd.ratios), (between, between)])
    anchors = grid(sizes, [np.array(shape) for shape in shapes])
    anchors.flags.writeable = False
    return anchors


def _shape(scale: float, ratio: float) -> tuple[float, float]:
    """Width and height of an anchor."""
    return scale * sqrt(ratio), scale / sqrt(ratio)


DETECTORS = {
    "ssdlite_mobilenet_v2": SSD(
        scales=(0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
        ratios=(1, 2, 1 / 2, 3, 0.3333),
        code_scales=(10, 5),
        code_order=(1, 0, 3, 2),
        most_overlap=0.6,
        most=100,
    ),
}
"""By architecture. TensorFlow's SSDLite on MobileNetV2: object_detection/samples/configs/ssdlite_mobilenet_v2_coco."""

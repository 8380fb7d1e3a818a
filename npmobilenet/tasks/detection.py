"""Boxes around things, from the outputs of SSD and SSDLite (1512.02325; 1801.04381, section 6.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import inf, sqrt
from typing import ClassVar, NamedTuple

import numpy as np

from npmobilenet.tasks.boxes import WHOLE, Place, clipped, decoded, grid, in_photograph, suppressed


class Detection(NamedTuple):
    """One thing: what it is, how sure the network is, and where, in pixels of the photograph as a viewer shows it."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1: left, top, right, bottom."""
    uncertainty: tuple[float, float, float, float] | None = None
    """Of the centre's x and y, of width and height, 0 to 1: of a network that tells (Gaussian YOLO)."""


class Detector:
    """How the outputs of a network are read as boxes.

    Attributes
    ----------
    outputs : tuple of str
        What `collect` gives.
    """

    outputs: tuple[str, ...]

    def collect(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the network's outputs in the form in which people read them; as they are unless it says otherwise."""
        return dict(outputs)

    def detect(
        self,
        outputs: Mapping[str, np.ndarray],
        classes: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        threshold: float,
        places: Sequence[Place] | None = None,
    ) -> list[list[Detection]]:
        """Return the things in each of several photographs of (height, width), the surest first.

        Parameters
        ----------
        outputs : mapping of str to float32 array
            Of the network.
        classes : sequence of str
            Of an SSD the first is the background.
        threshold : float
            Lower scores are left out.
        places : sequence of Place, optional
            Where each photograph lies in the input; it is all of it if None.
        """
        read = self._read(outputs)
        return [
            self._of_image({name: y[at] for name, y in read.items()}, classes, size, threshold, place)
            for at, (size, place) in enumerate(zip(sizes, places or [WHOLE] * len(sizes), strict=True))
        ]

    def _read(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What `_of_image` takes, of all images."""
        return self.collect(outputs)

    def _of_image(
        self,
        read: Mapping[str, np.ndarray],
        classes: Sequence[str],
        size: tuple[int, int],
        threshold: float,
        place: Place,
    ) -> list[Detection]:
        raise NotImplementedError


@dataclass(frozen=True)
class SSD(Detector):
    """How the outputs of an SSD are read, which has boxes and scores for anchors on several feature maps.

    Attributes
    ----------
    shapes : tuple of tuple of (width, height)
        Of the anchors of each feature map, as parts of the image.
    code_scales : (of centres, of sizes)
    code_order : tuple of int
        Where a code has x, y, width and height.
    most_overlap : float
        Of boxes of a class that remain.
    most_of_class, most : int
        Boxes of a class, and of all, that remain.
    exclusive : bool
        Whether one class is right of an anchor, or the background: scores are softmaxes, else sigmoids.
    least : float
        Lower scores are never looked at.
    candidates : int
        So many boxes of a class are looked at, those of the highest scores.
    largest : float
        `boxes.decoded`.
    """

    shapes: tuple[tuple[tuple[float, float], ...], ...]
    code_scales: tuple[float, float]
    code_order: tuple[int, int, int, int]
    most_overlap: float
    most_of_class: int
    most: int
    exclusive: bool = False
    least: float = 0.0
    candidates: int = 10**9
    largest: float = inf
    outputs: ClassVar = ("boxes", "scores")

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

        return {what: together(what) for what in self.outputs}

    def anchors(self, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the anchors for feature maps of (height, width): float32 (anchors, 4), centre x, y, width, height."""
        return _anchors(self, tuple(sizes))

    def _read(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        anchors = self.anchors([outputs[f"boxes{at}"].shape[2:] for at in range(len(outputs) // 2)])
        return self.collect(outputs) | {"anchors": np.broadcast_to(anchors, (len(outputs["boxes0"]), *anchors.shape))}

    def _of_image(
        self,
        read: Mapping[str, np.ndarray],
        classes: Sequence[str],
        size: tuple[int, int],
        threshold: float,
        place: Place,
    ) -> list[Detection]:
        codes, logits, anchors = (read[name] for name in ("boxes", "scores", "anchors"))
        at, label, scores = self._candidates(logits, max(threshold, self.least))
        boxes = decoded(codes[at][:, self.code_order], anchors[at], self.code_scales, self.largest)
        boxes = clipped(boxes, 1, 1)
        kept = suppressed(boxes, scores, label, self.most_overlap, self.most_of_class, self.most)
        scaled = in_photograph(boxes[kept], place, size)
        return [
            Detection(classes[1 + of], score, tuple(box))
            for of, score, box in zip(label[kept], scores[kept].tolist(), scaled.tolist(), strict=True)
        ]

    def _candidates(self, logits: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The anchors, classes and scores above a score: what is not above suppresses nothing that is."""
        if self.exclusive:
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            every = (powers / powers.sum(axis=1, keepdims=True))[:, 1:]
            at, label = np.nonzero(every > least)
            scores = every[at, label]
        else:
            with np.errstate(divide="ignore"):
                lowest = np.log(np.float32(least) / (1 - np.float32(least)))
            at, label = np.nonzero(logits[:, 1:] > lowest)
            scores = 1 / (1 + np.exp(-logits[at, 1 + label]))
        if len(at) > self.candidates:
            order = np.lexsort((-scores, label))
            first = np.searchsorted(label[order], label[order])  # of its class
            chosen = np.sort(order[np.arange(len(order)) - first < self.candidates])
            at, label, scores = at[chosen], label[chosen], scores[chosen]
        return at, label, scores


@lru_cache(maxsize=16)
def _anchors(ssd: SSD, sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    anchors = grid(sizes, [np.array(shapes) for shapes in ssd.shapes])
    anchors.flags.writeable = False
    return anchors


SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)  # of the anchors of each feature map; the last one ends the series


def _shape(scale: float, ratio: float) -> tuple[float, float]:
    """Width and height of an anchor."""
    return scale * sqrt(ratio), scale / sqrt(ratio)


def _between(scale: float, following: float) -> tuple[float, float]:
    """A square between those of two feature maps."""
    return (sqrt(scale * following),) * 2


def tensorflow_anchors() -> tuple[tuple[tuple[float, float], ...], ...]:
    """Those of object_detection/samples/configs/ssd_mobilenet_v1_coco: three on the first feature map, then six."""
    first = ((0.1, 0.1), *(_shape(SCALES[0], ratio) for ratio in (2, 1 / 2)))
    others = (
        (*(_shape(scale, ratio) for ratio in (1, 2, 1 / 2, 3, 0.3333)), _between(scale, following))
        for scale, following in pairwise(SCALES[1:])
    )
    return (first, *others)


def torchvision_anchors() -> tuple[tuple[tuple[float, float], ...], ...]:
    """Those of ``DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)``, none larger than the image."""
    return tuple(
        tuple(
            (min(width, 1), min(height, 1))
            for width, height in (
                (scale, scale),
                _between(scale, following),
                *(_shape(scale, ratio) for ratio in (2, 1 / 2, 3, 1 / 3)),
            )
        )
        for scale, following in pairwise(SCALES)
    )


TENSORFLOW = SSD(
    shapes=tensorflow_anchors(),
    code_scales=(10, 5),
    code_order=(1, 0, 3, 2),
    most_overlap=0.6,
    most_of_class=100,
    most=100,
)
TORCHVISION = SSD(
    shapes=torchvision_anchors(),
    code_scales=(10, 5),
    code_order=(0, 1, 2, 3),
    most_overlap=0.55,
    most_of_class=300,
    most=300,
    exclusive=True,
    least=0.001,
    candidates=300,
    largest=1000 / 16,
)
DETECTORS = {
    "ssdlite_mobilenet_v2": TENSORFLOW,
    "ssdlite_mobilenet_v3_large": TORCHVISION,
    "ssdlite_mobilenet_v1": TENSORFLOW,
    "ssd_mobilenet_v1": TENSORFLOW,
}
"""By architecture."""

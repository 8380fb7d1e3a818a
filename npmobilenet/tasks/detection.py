"""Boxes around things, from the outputs of SSD and SSDLite (1512.02325; 1801.04381, section 6.2) and of YOLO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import inf, isnan, nan, sqrt
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from npmobilenet.tasks.boxes import (
    Detector,
    Found,
    Place,
    clipped,
    decoded,
    grid,
    in_photograph,
    logit,
    sigmoid,
    suppressed,
)
from npmobilenet.tasks.centers import CenterNet
from npmobilenet.tasks.yolo import YOLOv2

if TYPE_CHECKING:
    from npmobilenet.graph import Graph


Box = tuple[float, float, float, float]


class Detection(NamedTuple):
    """One thing: what it is, how sure the network is, and where, in pixels of the photograph as a viewer shows it."""

    label: str
    score: float
    box: Box
    """x0, y0, x1, y1: left, top, right, bottom."""

    @property
    def uncertainty(self) -> Box | None:
        """None: `UncertainDetection` has one."""
        return None


class UncertainDetection(Detection):
    """One of a head that tells how far its boxes may be off (Gaussian YOLO): ``uncertainty`` beside the tuple."""

    uncertainty: Box | None = None
    """Of the centre's x and y, of width and height, 0 to 1."""

    def __new__(cls, label: str, score: float, box: Box, uncertainty: Box | None = None) -> UncertainDetection:
        """Make a tuple of the first three."""
        made = super().__new__(cls, label, score, box)
        made.uncertainty = uncertainty
        return made

    def __repr__(self) -> str:
        """Both the tuple and what is beside it."""
        return f"{super().__repr__()[:-1]}, uncertainty={self.uncertainty})"

    def _asdict(self) -> dict[str, Any]:
        return {**super()._asdict(), "uncertainty": self.uncertainty}


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
    things : (first, last)
        Which of its scores are of things: others are the background's, or of no use. None: all that follow.
    clipped_first : bool
        Whether boxes are cut off at the borders of the image before they are compared.
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
    things: tuple[int, int | None] = (1, None)
    clipped_first: bool = True
    outputs: ClassVar = ("boxes", "scores")

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

        return {what: together(what) for what in self.outputs}

    def anchors(self, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the anchors for feature maps of (height, width): float32 (anchors, 4), centre x, y, width, height."""
        return _anchors(self, tuple(sizes))

    def _read(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        anchors = self.anchors([outputs[f"boxes{at}"].shape[2:] for at in range(len(outputs) // 2)])
        return self.collect(outputs) | {"anchors": np.broadcast_to(anchors, (len(outputs["boxes0"]), *anchors.shape))}

    def _of_image(self, read: Mapping[str, np.ndarray], threshold: float) -> Found:
        codes, logits, anchors = (read[name] for name in ("boxes", "scores", "anchors"))
        at, label, scores = self._candidates(logits, max(threshold, self.least))
        boxes = decoded(codes[at][:, self.code_order], anchors[at], self.code_scales, self.largest)
        boxes = clipped(boxes, 1, 1) if self.clipped_first else boxes
        kept = suppressed(boxes, scores, label, self.most_overlap, self.most_of_class, self.most)
        return Found(clipped(boxes[kept], 1, 1), scores[kept], label[kept])

    def _candidates(self, logits: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The anchors, classes and scores above a score: what is not above suppresses nothing that is."""
        first, last = self.things
        of_things = slice(first, None if last is None else last + 1)
        if self.exclusive:
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            every = (powers / powers.sum(axis=1, keepdims=True))[:, of_things]
            at, label = np.nonzero(every > least)
            scores = every[at, label]
        else:
            at, label = np.nonzero(logits[:, of_things] > logit(least))
            scores = sigmoid(logits[at, first + label])
        if len(at) > self.candidates:
            order = np.lexsort((-scores, label))
            of_class = np.searchsorted(label[order], label[order])  # the first one
            chosen = np.sort(order[np.arange(len(order)) - of_class < self.candidates])
            at, label, scores = at[chosen], label[chosen], scores[chosen]
        return at, first + label, scores


@lru_cache(maxsize=16)
def _anchors(ssd: SSD, sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    anchors = grid(sizes, [np.array(shapes) for shapes in ssd.shapes])
    anchors.flags.writeable = False
    return anchors


def detections(
    found: Sequence[Found], classes: Sequence[str], sizes: Sequence[tuple[int, int]], places: Sequence[Place]
) -> list[list[Detection]]:
    """Return the things in each of several photographs, the surest first.

    Parameters
    ----------
    found : sequence of Found
    classes : sequence of str
    sizes : sequence of (height, width)
        Of the photographs.
    places : sequence of Place
        Where each lies in the network's input.
    """
    return [
        [
            Detection(classes[label], score, tuple(box))
            if isnan(unsure[0])
            else UncertainDetection(classes[label], score, tuple(box), tuple(unsure))
            for label, score, box, unsure in zip(
                one.labels,
                one.scores.tolist(),
                in_photograph(one.boxes, place, size).tolist(),
                [(nan,)] * len(one.labels) if one.uncertainties is None else one.uncertainties.tolist(),
                strict=True,
            )
        ]
        for one, size, place in zip(found, sizes, places, strict=True)
    ]


SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)  # of the anchors of each feature map; the last one ends the series


def _shape(scale: float, ratio: float) -> tuple[float, float]:
    """Width and height of an anchor."""
    return scale * sqrt(ratio), scale / sqrt(ratio)


def _between(scale: float, following: float) -> tuple[float, float]:
    """A square between those of two feature maps."""
    return (sqrt(scale * following),) * 2


def tensorflow_anchors(square_second: bool = False) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Those of object_detection/samples/configs/ssd_mobilenet_v1_coco: three on the first feature map, then six.

    The square between two feature maps is the last one, or the second (face-api.js).
    """
    first = ((0.1, 0.1), *(_shape(SCALES[0], ratio) for ratio in (2, 1 / 2)))
    others = []
    for scale, following in pairwise(SCALES[1:]):
        shapes = [_shape(scale, ratio) for ratio in (1, 2, 1 / 2, 3, 0.3333)]
        shapes.insert(1 if square_second else len(shapes), _between(scale, following))
        others.append(tuple(shapes))
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
DETECTORS: dict[str, Detector] = {
    "ssdlite_mobilenet_v2": TENSORFLOW,
    "ssdlite_mobilenet_v3_large": TORCHVISION,
    "ssdlite_mobilenet_v1": TENSORFLOW,
    "ssd_mobilenet_v1": TENSORFLOW,
    "ssd_mobilenet_v2": TENSORFLOW,
    "ssd_mobilenet_v1_face": replace(
        TENSORFLOW, shapes=tensorflow_anchors(square_second=True), most_overlap=0.5, things=(1, 1), clipped_first=False
    ),
    "tiny_face_detector": YOLOv2(
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

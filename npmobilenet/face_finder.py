"""Faces in photographs and what they express: a detector, then a classifier on each box."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npmobilenet.errors import CheckpointError
from npmobilenet.image.network_input import preprocess
from npmobilenet.image.reading import read_image
from npmobilenet.model import IMAGES_AT_ONCE, Model, checked_threshold
from npmobilenet.text import printable

if TYPE_CHECKING:
    from npmobilenet.image import ImageSource

FACE = "face"  # the class of a detector of faces
DETECTOR, EXPRESSIONS = "ssd_mobilenet_v1_face", "face_expression"


class Face(NamedTuple):
    """One face: where, in pixels of the photograph as a viewer shows it, how sure that is, and what it expresses."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1: left, top, right, bottom."""
    score: float
    expression: str
    """The most probable one."""
    expressions: dict[str, float]
    """Every expression's probability."""


class FaceFinder:
    """Finds faces and reads their expressions.

    Parameters
    ----------
    detector : Model
        Of faces.
    expressions : Model
        A classifier of faces.

    Raises
    ------
    CheckpointError
        If the first finds no faces, or the second classifies nothing.
    """

    def __init__(self, detector: Model, expressions: Model) -> None:
        detector.require_detector()
        if FACE not in detector.classes:
            raise CheckpointError(
                f"{printable(detector.source)}: finds {', '.join(map(printable, detector.classes[:3]))} and no class "
                f"{FACE!r}; what finds faces: {DETECTOR}, tiny_face_detector"
            )
        expressions.require_classifier()
        self.detector, self.expressions = detector, expressions

    def find(
        self, images: ImageSource | Sequence[ImageSource], threshold: float = 0.5, *, threads: int | None = None
    ) -> list[Face] | list[list[Face]]:
        """Find faces: see :func:`faces`."""
        checked_threshold(threshold)
        if not isinstance(images, (list, tuple)):
            return self.find([images], threshold, threads=threads)[0]
        found = []
        for start in range(0, len(images), IMAGES_AT_ONCE):
            how = self.detector.preprocessing
            pictures = [read_image(image, decode=how.decode) for image in images[start : start + IMAGES_AT_ONCE]]
            batch = np.stack([preprocess(picture, how) for picture in pictures])
            found += self.in_pictures(batch, pictures, threshold, threads=threads)
        return found

    def in_pictures(
        self, x: np.ndarray, pictures: Sequence[np.ndarray], threshold: float = 0.5, *, threads: int | None = None
    ) -> list[list[Face]]:
        """Find faces in pictures, uint8 (H, W, 3), of which ``x`` has the detector's inputs; see :func:`faces`."""
        sizes = [picture.shape[:2] for picture in pictures]
        found = self.detector.detections(x, sizes, threshold, threads=threads)
        things = [[one for one in of_one if one.label == FACE] for of_one in found]
        return [
            [
                Face(one.box, one.score, *expressed)
                for one, expressed in zip(faces, self._expressions(picture, faces, threads), strict=True)
            ]
            for picture, faces in zip(pictures, things, strict=True)
        ]

    def _expressions(self, picture: np.ndarray, faces: Sequence, threads: int | None) -> list[tuple[str, dict]]:
        """The most probable expression of each face, and all of them."""
        expressed = []
        for start in range(0, len(faces), IMAGES_AT_ONCE):
            cut = [cut_out(picture, face.box) for face in faces[start : start + IMAGES_AT_ONCE]]
            batch = np.stack([preprocess(part, self.expressions.preprocessing) for part in cut])
            names = self.expressions.classes
            for best in self.expressions.top(self.expressions(batch, threads=threads), len(names)):
                by_name = {one.label: one.probability for one in sorted(best, key=lambda one: one.index)}
                expressed.append((best[0].label, by_name))
        return expressed


def cut_out(picture: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the pixels in a box: of whole pixels, rounded down, as face-api.js cuts; one at least."""
    height, width = picture.shape[:2]
    left, top = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
    across, down = max(1, int(box[2] - box[0])), max(1, int(box[3] - box[1]))
    return picture[top : top + down, left : left + across]


@lru_cache(maxsize=4)
def _shipped(name: str, threads: int | None) -> Model:
    """A network known by name, loaded once."""
    from npmobilenet.loading import load  # here, as below: a pack loads none

    return load(name, threads=threads)


def faces(
    images: ImageSource | Sequence[ImageSource],
    threshold: float = 0.5,
    *,
    model: str | os.PathLike | Model = DETECTOR,
    threads: int | None = None,
) -> list[Face] | list[list[Face]]:
    """Find faces in photographs and say what they express.

    Parameters
    ----------
    images : photograph, or list of photographs
        Each a path, bytes, a file object, a PIL image or a uint8 array (H, W, 3), RGB.
    threshold : float
        From 0 to 1: faces with lower scores are left out.
    model : str, path or Model
        What finds them: ``"ssd_mobilenet_v1_face"``; ``"tiny_face_detector"``, which is much faster and finds fewer; or
        another detector with a class "face".
    threads : int, optional
        All CPUs that this process may use if None.

    Returns
    -------
    list of Face, or a list of these lists if a list was given
        The surest first.

    Raises
    ------
    ImageError
        If something cannot be read as an image.
    CheckpointError
        If the network finds no faces.
    ValueError
        If the threshold is out of range.
    """
    if not isinstance(model, Model):
        from npmobilenet.loading import load
        from npmobilenet.weights import CATALOGUE

        model = _shipped(model, threads) if model in CATALOGUE else load(model, threads=threads)
    return FaceFinder(model, _shipped(EXPRESSIONS, threads)).find(images, threshold, threads=threads)

"""A photograph's way through a network: read, prepared, computed in a batch, told in JSON or as rows of a table.

One class for each task. Whoever has many photographs to be looked at, a server or a worker of an engine, needs to know
no more of a task than :class:`Pipeline` says.
"""

from __future__ import annotations

import base64
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from npmobilenet.image import preprocess, read_image
from npmobilenet.model import Model, Prediction, checked_threshold
from npmobilenet.text import quote

if TYPE_CHECKING:
    from npmobilenet.image import ImageSource
    from npmobilenet.tasks.detection import Detection
    from npmobilenet.tasks.segmentation import Segmentation


class Prepared(NamedTuple):
    """A network's input, and the (height, width) of the photograph that it was made of."""

    input: np.ndarray
    size: tuple[int, int]


class Pipeline(ABC):
    """What is done with photographs for one task.

    Parameters
    ----------
    model : Model
    max_pixels : int, optional
        Of a photograph, as for :func:`~npmobilenet.image.read_image`.

    Raises
    ------
    ValueError
        If the model cannot do it, or an option is out of range.
    """

    task: ClassVar[str]
    columns: ClassVar[dict[str, type]]
    """Of the rows: their names and types; ``list`` is a vector of float32."""

    def __init__(self, model: Model, max_pixels: int | None = None) -> None:
        self.model, self.max_pixels = model, max_pixels
        self.require()

    @abstractmethod
    def require(self) -> None:
        """Raise an error unless the model can do it."""

    def prepare(self, source: ImageSource) -> Prepared:
        """Read a photograph and make an input of it.

        Raises
        ------
        ImageError
            If it cannot be read.
        """
        picture = read_image(source, decode=self.model.preprocessing.decode, max_pixels=self.max_pixels)
        return Prepared(self.input(picture), picture.shape[:2])

    def input(self, picture: np.ndarray) -> np.ndarray:
        """Turn a picture, uint8 (H, W, 3), into an input, float32 (3, height, width)."""
        return preprocess(picture, self.model.preprocessing)

    @abstractmethod
    def compute(self, prepared: Sequence[Prepared], threads: int) -> list[Any]:
        """Return the result of each, or the exception that there is instead; the same bits in every batch."""

    @abstractmethod
    def item(self, result: Any) -> dict[str, Any]:
        """Return what JSON says of a result, as the command of this name prints it."""

    @classmethod
    @abstractmethod
    def rows(cls, result: Any) -> list[tuple]:
        """Return the rows of a table for a result, one at least: what :attr:`columns` are."""


class Classify(Pipeline):
    """The most probable classes."""

    task = "classify"
    columns: ClassVar = {"rank": int, "label": str, "probability": float, "index": int}

    def __init__(self, model: Model, max_pixels: int | None = None, *, top: int = 5) -> None:
        super().__init__(model, max_pixels)
        self.top = top

    def require(self) -> None:
        self.model.require_classifier()

    def compute(self, prepared: Sequence[Prepared], threads: int) -> list[list[Prediction] | ValueError]:
        logits = self.model(np.stack([one.input for one in prepared]), threads=threads)
        return [self._top(row) for row in np.asarray(logits)]

    def _top(self, logits: np.ndarray) -> list[Prediction] | ValueError:
        try:
            return self.model.top(logits[None], self.top)[0]
        except ValueError as error:  # the logits are not finite: a matter of this photograph alone
            return error

    def item(self, result: list[Prediction]) -> dict[str, Any]:
        return {"predictions": [prediction._asdict() for prediction in result]}

    @classmethod
    def rows(cls, result: list[Prediction]) -> list[tuple]:
        return [(rank, *prediction) for rank, prediction in enumerate(result, 1)]


class Features(Pipeline):
    """What the network computes before it names a class."""

    task = "features"
    columns: ClassVar = {"features": list}

    def __init__(self, model: Model, max_pixels: int | None = None, *, block: str = "pool") -> None:
        self.block = block
        super().__init__(model, max_pixels)

    def require(self) -> None:
        self.model.graph.node_of(self.block)

    @property
    def length(self) -> int:
        """How many features there are."""
        graph = self.model.graph
        return math.prod(graph.shapes(self.model.preprocessing.crop)[graph.node_of(self.block)])

    def compute(self, prepared: Sequence[Prepared], threads: int) -> list[np.ndarray | ValueError]:
        features = self.model.features(np.stack([one.input for one in prepared]), self.block, threads=threads)
        return [
            row if np.isfinite(row).all() else ValueError("its features are not finite; are the weights damaged?")
            for row in np.asarray(features)
        ]

    def item(self, result: np.ndarray) -> dict[str, Any]:
        return {"features": result.tolist()}

    @classmethod
    def rows(cls, result: np.ndarray) -> list[tuple]:
        return [(result.ravel(),)]


class Detect(Pipeline):
    """Things, and where they are."""

    task = "detect"
    columns: ClassVar = {"label": str, "score": float, "x0": float, "y0": float, "x1": float, "y1": float}

    def __init__(self, model: Model, max_pixels: int | None = None, *, threshold: float = 0.5) -> None:
        checked_threshold(threshold)
        super().__init__(model, max_pixels)
        self.threshold = threshold

    def require(self) -> None:
        self.model.require_detector()

    def compute(self, prepared: Sequence[Prepared], threads: int) -> list[list[Detection]]:
        batch = np.stack([one.input for one in prepared])
        return self.model.detections(batch, [one.size for one in prepared], self.threshold, threads=threads)

    def item(self, result: list[Detection]) -> dict[str, Any]:
        told = [one._asdict() for one in result]
        return {"detections": [{name: value for name, value in one.items() if value is not None} for one in told]}

    @classmethod
    def rows(cls, result: list[Detection]) -> list[tuple]:
        nothing = [("", *[float("nan")] * 5)]  # so that it can be told from a photograph that got lost
        return [(one.label, one.score, *one.box) for one in result] or nothing


class Segment(Pipeline):
    """What every pixel shows."""

    task = "segment"
    columns: ClassVar = {"label": str, "share": float}

    def require(self) -> None:
        self.model.require_segmenter()

    def input(self, picture: np.ndarray) -> np.ndarray:
        return self.model.whole_input(picture)

    def compute(self, prepared: Sequence[Prepared], threads: int) -> list[Segmentation]:
        inputs, sizes = zip(*prepared, strict=True)
        return self.model.segmentations(inputs, sizes, threads=threads)

    def item(self, result: Segmentation) -> dict[str, Any]:
        return {"mask": _png(result.mask), "labels": list(result.labels), "share": result.share}

    @classmethod
    def rows(cls, result: Segmentation) -> list[tuple]:
        return list(result.share.items())


def _png(mask: np.ndarray) -> str:
    """The mask as a URL that holds a picture: the number of each pixel's label, 8 bits, or 16 of many labels."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG", compress_level=1)  # which takes a fifth of the default's time
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


PIPELINES: dict[str, type[Pipeline]] = {kind.task: kind for kind in (Classify, Features, Detect, Segment)}


def get_pipeline(task: str) -> type[Pipeline]:
    """Return the pipeline of a task.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    kind = PIPELINES.get(task) if isinstance(task, str) else None
    if kind is None:
        raise ValueError(f"task must be one of {', '.join(PIPELINES)}, got {quote(task)}")
    return kind

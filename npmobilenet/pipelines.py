"""A photograph's way through a network: read, prepared, computed in a batch, told in JSON or as rows of a table.

One class for each task. Whoever has many photographs to be looked at, a stream, a server or a worker of an engine,
needs to know no more of a task than :class:`Pipeline` says.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import io
import json
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
    results: ClassVar[str]
    """What comes of it, for people."""
    columns: ClassVar[dict[str, type]] = {}
    """Of the rows: their names and types; ``list`` is a vector of float32. None if it is for no table."""

    def __init__(self, model: Model, max_pixels: int | None = None) -> None:
        self.model, self.max_pixels = model, max_pixels
        self.require()

    @abstractmethod
    def require(self) -> None:
        """Raise an error unless the model can do it."""

    @classmethod
    def options(cls) -> list[str]:
        """Return the names of the options that a task has."""
        parameters = inspect.signature(cls).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]

    def prepare(self, source: ImageSource, *, lend: bool = False) -> Prepared:
        """Read a photograph and make an input of it; with ``lend`` Pillow's pixels are read where they lie.

        Raises
        ------
        ImageError
            If it cannot be read.
        """
        decode = self.model.preprocessing.decode
        picture = read_image(source, decode=decode, max_pixels=self.max_pixels, lend=lend)
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
    def rows(cls, result: Any) -> list[tuple]:
        """Return the rows of a table for a result: what :attr:`columns` are."""
        raise NotImplementedError

    def together(self, results: list[Any], like: Any = None) -> Any:
        """Return the results of a batch as they are handed over; of none, as of a ``like`` result that came before."""
        return results

    def fingerprint(self) -> dict[str, str]:
        """Return what a table made by this depends on, by name: rows of two that are alike can stand in one table."""
        options = {name: str(getattr(self, name)) for name in self.options()}
        return {"command": self.task, "model": digest(self.model), "backend": self.model.backend, **options}


class Outputs(Pipeline):
    """The network's outputs: what calling the model gives."""

    task, results = "outputs", "outputs"

    def require(self) -> None:
        pass

    def compute(self, prepared: Sequence[Prepared], threads: int) -> list[Any]:
        found = self.model(_batch(prepared), threads=threads)
        if isinstance(found, dict):
            return [{name: values[at] for name, values in found.items()} for at in range(len(prepared))]
        return [*np.asarray(found)]

    def item(self, result: Any) -> dict[str, Any]:
        named = result if isinstance(result, dict) else {"outputs": result}
        return {name: values.tolist() for name, values in named.items()}

    def together(self, results: list[Any], like: Any = None) -> Any:
        if like is None:
            like = np.empty(len(self.model.classes), np.float32)
        if isinstance(like, dict):
            return {name: _stacked([result[name] for result in results], like[name]) for name in like}
        return _stacked(results, like)


class Classify(Pipeline):
    """The most probable classes."""

    task, results = "classify", "classes"
    columns: ClassVar = {"rank": int, "label": str, "probability": float, "index": int}

    def __init__(self, model: Model, max_pixels: int | None = None, *, top: int = 5) -> None:
        if not (isinstance(top, (int, np.integer)) and top >= 1):
            raise ValueError(f"top must be an integer >= 1, got {top!r}")
        super().__init__(model, max_pixels)
        self.top = top

    def require(self) -> None:
        self.model.require_classifier()

    def compute(self, prepared: Sequence[Prepared], threads: int) -> list[list[Prediction] | ValueError]:
        logits = self.model(_batch(prepared), threads=threads)
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

    task, results = "features", "features"
    columns: ClassVar = {"features": list}

    def __init__(self, model: Model, max_pixels: int | None = None, *, block: str = "pool") -> None:
        self.block = block
        super().__init__(model, max_pixels)

    def require(self) -> None:
        self.model.graph.node_of(self.block)  # an unknown one before all work

    @property
    def length(self) -> int:
        """How many features there are."""
        return math.prod(self._shape)

    @property
    def _shape(self) -> tuple[int, ...]:
        graph = self.model.graph
        return graph.shapes(self.model.preprocessing.crop)[graph.node_of(self.block)]

    def compute(self, prepared: Sequence[Prepared], threads: int) -> list[np.ndarray | ValueError]:
        features = self.model.features(_batch(prepared), self.block, threads=threads)
        return [
            row if np.isfinite(row).all() else ValueError("its features are not finite; are the weights damaged?")
            for row in np.asarray(features)
        ]

    def item(self, result: np.ndarray) -> dict[str, Any]:
        return {"features": result.tolist()}

    @classmethod
    def rows(cls, result: np.ndarray) -> list[tuple]:
        return [(result.ravel(),)]

    def together(self, results: list[np.ndarray], like: np.ndarray | None = None) -> np.ndarray:
        return _stacked(results, np.empty(self._shape, np.float32) if like is None else like)


class Detect(Pipeline):
    """Things, and where they are."""

    task, results = "detect", "detections"
    columns: ClassVar = {"label": str, "score": float, "x0": float, "y0": float, "x1": float, "y1": float}

    def __init__(self, model: Model, max_pixels: int | None = None, *, threshold: float = 0.5) -> None:
        checked_threshold(threshold)
        super().__init__(model, max_pixels)
        self.threshold = threshold

    def require(self) -> None:
        self.model.require_detector()

    def compute(self, prepared: Sequence[Prepared], threads: int) -> list[list[Detection]]:
        sizes = [one.size for one in prepared]
        return self.model.detections(_batch(prepared), sizes, self.threshold, threads=threads)

    def item(self, result: list[Detection]) -> dict[str, Any]:
        return {"detections": [one._asdict() for one in result]}

    @classmethod
    def rows(cls, result: list[Detection]) -> list[tuple]:
        return [(one.label, one.score, *one.box) for one in result]


class Segment(Pipeline):
    """What every pixel shows."""

    task, results = "segment", "masks"
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


def _batch(prepared: Sequence[Prepared]) -> np.ndarray:
    inputs = [one.input for one in prepared]
    return inputs[0][None] if len(inputs) == 1 else np.stack(inputs)


def _stacked(arrays: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    return np.stack(arrays) if arrays else np.empty((0, *like.shape), like.dtype)


def digest(model: Model) -> str:
    """Return a hash of all that results depend on but for the machine: numbers, graph, classes, preprocessing."""
    from npmobilenet import __version__

    arrays, about = model.stored()
    found = hashlib.sha256(json.dumps([__version__, about], sort_keys=True, default=str).encode())
    for name, array in sorted(arrays.items()):
        found.update(f"\0{name}\0{array.dtype}\0{array.shape}\0".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


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

"""What is computed of each picture, and the rows of a table that come of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from npmobilenet.model import checked_threshold

if TYPE_CHECKING:
    from npmobilenet.model import Model, Prediction
    from npmobilenet.tasks.detection import Detection

VECTOR = "float32 (N,)"  # a column's type, beside str, int and float


@dataclass(frozen=True)
class Task:
    """The network's outputs: what calling the model gives.

    Called by several threads at once, each computing images of its own, so that every core goes with an image all the
    way from its file to its result.

    Attributes
    ----------
    name : str
        Of the command that does this.
    results : str
        What comes of it, for people.
    columns : tuple of (name, type)
        Of its rows, after ``image``; none if it is for no table.
    """

    model: Model
    name: ClassVar[str] = "outputs"
    results: ClassVar[str] = "outputs"
    columns: ClassVar[tuple[tuple[str, Any], ...]] = ()

    def prepare(self, picture: np.ndarray) -> Any:
        """Make of a picture, uint8 (H, W, 3), what :meth:`compute` takes."""
        return self.model.preprocess(picture)

    def compute(self, prepared: Sequence[Any]) -> Iterable[Any]:
        """Yield the result of each, or the exception that there is instead."""
        found = self.model(_batch(prepared), threads=1)
        if isinstance(found, dict):
            return ({name: values[index] for name, values in found.items()} for index in range(len(prepared)))
        return np.asarray(found)

    def together(self, results: list[Any], like: Any = None) -> Any:
        """The results of a batch as they are handed over; there may be none, of a ``like`` result that came before."""
        if like is None:
            like = np.empty(len(self.model.classes), np.float32)
        if isinstance(like, dict):
            return {name: _stacked([result[name] for result in results], like[name]) for name in like}
        return _stacked(results, like)

    def rows(self, result: Any) -> Iterator[tuple]:
        """The rows of a result, without the image's name."""
        raise NotImplementedError

    def fingerprint(self) -> dict[str, str]:
        """What a table made by this depends on, by name: of two that are alike in it, rows can stand in one table."""
        options = {name: str(value) for name, value in vars(self).items() if name != "model"}
        return {"command": self.name, "model": digest(self.model), "backend": self.model.backend, **options}


@dataclass(frozen=True)
class Classify(Task):
    """The most probable classes, as :meth:`Model.classify` has them."""

    top: int = 5
    name, results = "classify", "classes"
    columns = (("rank", int), ("label", str), ("probability", float), ("index", int))

    def __post_init__(self) -> None:
        if not (isinstance(self.top, (int, np.integer)) and self.top >= 1):
            raise ValueError(f"top must be an integer >= 1, got {self.top!r}")
        self.model.require_classifier()

    def compute(self, prepared: Sequence[Any]) -> Iterable[list[Prediction] | ValueError]:
        logits = np.asarray(self.model(_batch(prepared), threads=1))
        try:
            return self.model.top(logits, self.top)
        except ValueError:  # some are not finite
            return [self._top(row) for row in logits]

    def _top(self, logits: np.ndarray) -> list[Prediction] | ValueError:
        try:
            return self.model.top(logits[None], self.top)[0]
        except ValueError as error:
            return error

    def together(self, results: list[Any], like: Any = None) -> list[list[Prediction]]:
        return results

    def rows(self, result: list[Prediction]) -> Iterator[tuple]:
        for rank, (label, probability, index) in enumerate(result, 1):
            yield rank, label, probability, index


@dataclass(frozen=True)
class Features(Task):
    """The output of a block, as :meth:`Model.features` has it."""

    block: str = "pool"
    name, results = "features", "features"
    columns = (("features", VECTOR),)

    def __post_init__(self) -> None:
        self.model.graph.node_of(self.block)  # an unknown one before all work

    def compute(self, prepared: Sequence[Any]) -> Iterator[np.ndarray | ValueError]:
        for features in np.asarray(self.model.features(_batch(prepared), self.block, threads=1)):
            finite = np.isfinite(features).all()
            yield features if finite else ValueError("its features are not finite; are the weights damaged?")

    def rows(self, result: np.ndarray) -> Iterator[tuple]:
        yield (result,)


@dataclass(frozen=True)
class Detect(Task):
    """Things and where they are, as :meth:`Model.detect` has them."""

    threshold: float = 0.5
    name, results = "detect", "detections"
    columns = (("label", str), ("score", float), *((edge, float) for edge in ("x0", "y0", "x1", "y1")))

    def __post_init__(self) -> None:
        checked_threshold(self.threshold)
        self.model.require_detector()

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        return self.model.preprocess(picture), picture.shape[:2]

    def compute(self, prepared: Sequence[Any]) -> Iterable[list[Detection]]:
        inputs, sizes = zip(*prepared, strict=True)
        return self.model.detections(_batch(inputs), sizes, self.threshold, threads=1)

    def together(self, results: list[Any], like: Any = None) -> list[list[Detection]]:
        return results

    def rows(self, result: list[Detection]) -> Iterator[tuple]:
        for label, score, box, _ in result:
            yield label, score, *box


TASKS: dict[str, type[Task]] = {task.name: task for task in (Task, Classify, Features, Detect)}
"""By name."""


def _batch(inputs: Sequence[np.ndarray]) -> np.ndarray:
    return inputs[0][None] if len(inputs) == 1 else np.stack(inputs)


def _stacked(arrays: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    return np.stack(arrays) if arrays else np.empty((0, *like.shape), like.dtype)


def digest(model: Model) -> str:
    """A hash of all that a model's results depend on but for the machine: numbers, graph, classes, preprocessing."""
    from npmobilenet import __version__

    arrays, about = model.stored()
    found = hashlib.sha256(json.dumps([__version__, about], sort_keys=True, default=str).encode())
    for name, array in sorted(arrays.items()):
        found.update(f"\0{name}\0{array.dtype}\0{array.shape}\0".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()

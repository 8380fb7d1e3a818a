"""What belongs to weights beside the tensors: preprocessing, class names, padding, origin, licence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from npmobilenet.errors import CheckpointError
from npmobilenet.image import Preprocessing
from npmobilenet.text import printable, quote

MAX_CLASSES, MAX_NAME = 1_000_000, 1000  # names of classes, and characters of each
MAX_TEXT = 100_000  # a licence
MIN_EPS, MAX_EPS = 1e-12, 0.5  # float32 knows no difference to 0 below, and no network was trained with more


@dataclass(frozen=True)
class WeightsInfo:
    """The metadata of a checkpoint; every field may be unknown.

    It travels in ``.safetensors`` and ``.npz`` files (``export_weights(..., metadata=info.to_dict())``).

    Attributes
    ----------
    padding : {"symmetric", "same"}
        Of the convolutions: PyTorch's or TensorFlow's.
    bn_eps : float
        Of the batch norms, 1e-12 to 0.5.
    preprocessing : Preprocessing
    layout : {"imagenet", "cifar"}
        The strides, where names do not tell them.
    multi_label : bool
        Whether several outputs may be right of one photograph.
    classes : tuple of str
        One name per output, each up to 1000 characters. They are as the file has them: `npmobilenet.text.printable`
        before a terminal sees them.
    title, source, licence : str
    top1, top5 : float
        Published accuracy on ImageNet's validation set, percent.
    """

    padding: str | None = None
    bn_eps: float | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
    layout: str | None = None
    multi_label: bool | None = None
    title: str | None = None
    source: str | None = None
    licence: str | None = None
    top1: float | None = None
    top5: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the known fields as JSON values."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        if self.preprocessing is not None:
            known["preprocessing"] = self.preprocessing.to_dict()
        if self.classes is not None:
            known["classes"] = list(self.classes)
        return known

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "metadata") -> WeightsInfo:
        """Read the metadata of a checkpoint; unknown fields are passed over.

        Raises
        ------
        CheckpointError
            If a field is not of its type.
        """
        known = {field.name: values[field.name] for field in fields(cls) if values.get(field.name) is not None}
        for name in known:
            expected, right = _TYPES[name]
            if not right(known[name]):
                raise CheckpointError(f"{where}: metadata {name!r} must be {expected}, got {_show(known[name])}")
        if "classes" in known:
            known["classes"] = tuple(known["classes"])
        if "preprocessing" in known:
            try:
                known["preprocessing"] = Preprocessing.from_dict(known["preprocessing"])
            except ValueError as error:
                raise CheckpointError(f"{where}: metadata 'preprocessing': {error}") from None
        return cls(**known)


def _show(value: Any) -> str:
    """A short form of a JSON value, which is not written out in full first."""
    if isinstance(value, (Mapping, list)):
        return f"{'an object' if isinstance(value, Mapping) else 'a list'} of {len(value)}"
    return quote(value) if isinstance(value, str) else printable(repr(value), 80)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_number_between(low: float, high: float) -> Callable[[Any], bool]:
    # Comparing takes integers of any length, which float() would not; of NaN nothing is true.
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_CLASSES
        and all(isinstance(name, str) and len(name) <= MAX_NAME for name in value)
    )


_TEXT = (f"text of at most {MAX_TEXT} characters", _is_text)
_PERCENT = ("a number from 0 to 100", _is_number_between(0, 100))
_TYPES = {
    "padding": ("'symmetric' or 'same'", lambda value: value in ("symmetric", "same")),
    "bn_eps": (f"a number from {MIN_EPS:g} to {MAX_EPS:g}", _is_number_between(MIN_EPS, MAX_EPS)),
    "preprocessing": ("an object", lambda value: isinstance(value, Mapping)),
    "classes": (f"a list of at most {MAX_CLASSES} names of at most {MAX_NAME} characters", _are_names),
    "layout": ("'imagenet' or 'cifar'", lambda value: value in ("imagenet", "cifar")),
    "multi_label": ("true or false", lambda value: isinstance(value, bool)),
    "title": _TEXT,
    "source": _TEXT,
    "licence": _TEXT,
    "top1": _PERCENT,
    "top5": _PERCENT,
}

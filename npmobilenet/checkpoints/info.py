"""What belongs to weights beside the tensors: preprocessing, class names, padding, origin, licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from npmobilenet.errors import CheckpointError
from npmobilenet.image import Preprocessing


@dataclass(frozen=True)
class WeightsInfo:
    """The metadata of a checkpoint; every field may be unknown.

    It travels in ``.safetensors`` and ``.npz`` files (``export_weights(..., metadata=info.to_dict())``).

    Attributes
    ----------
    padding : {"symmetric", "same"}
        Of the convolutions: PyTorch's or TensorFlow's.
    bn_eps : float
        Of the batch norms.
    preprocessing : Preprocessing
    multi_label : bool
        Whether several outputs may be right of one photograph.
    classes : tuple of str
        One name per output.
    title, source, licence : str
    top1, top5 : float
        Published accuracy on ImageNet's validation set, percent.
    """

    padding: str | None = None
    bn_eps: float | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
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
                raise CheckpointError(f"{where}: metadata {name!r} must be {expected}, got {known[name]!r:.80}")
        if "classes" in known:
            known["classes"] = tuple(known["classes"])
        if "preprocessing" in known:
            try:
                known["preprocessing"] = Preprocessing.from_dict(known["preprocessing"])
            except ValueError as error:
                raise CheckpointError(f"{where}: metadata 'preprocessing': {error}") from None
        return cls(**known)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_TYPES = {
    "padding": ("'symmetric' or 'same'", lambda value: value in ("symmetric", "same")),
    "bn_eps": ("a number between 0 and 1", lambda value: _is_number(value) and 0 < value < 1),
    "preprocessing": ("an object", lambda value: isinstance(value, Mapping)),
    "classes": ("a list of names", lambda value: isinstance(value, list) and all(map(_is_text, value))),
    "multi_label": ("true or false", lambda value: isinstance(value, bool)),
    "title": ("text", _is_text),
    "source": ("text", _is_text),
    "licence": ("text", _is_text),
    "top1": ("a number", _is_number),
    "top5": ("a number", _is_number),
}

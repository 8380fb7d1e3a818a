"""What publishers write beside their weights: ``config.json``, ``preprocessor_config.json``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from npmobilenet.architectures.architecture import OUTPUT_STRIDES
from npmobilenet.errors import CheckpointError
from npmobilenet.image import IMAGENET, Preprocessing, has_preprocessing
from npmobilenet.text import quote

ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "silu": "swish",
    "swish": "swish",
    "hardswish": "hard_swish",
    "hard_swish": "hard_swish",
}
TRANSFORMERS = ("mobilenet_v1", "mobilenet_v2")  # model_type
FROM_TENSORFLOW = "tf_"  # how timm begins the names of what it took from there, in files' names too
# EfficientNets that learned from noisy students: side of the image, and the part of the picture that it is
NOISY_STUDENT = re.compile(r"tf_efficientnet_(b[0-7]|l2)[_.]ns(?:_jft_in1k)?(_475)?(?![0-9a-z])")
NOISY_STUDENTS = {
    "b0": (224, 0.875),
    "b1": (240, 0.882),
    "b2": (260, 0.89),
    "b3": (300, 0.904),
    "b4": (380, 0.922),
    "b5": (456, 0.934),
    "b6": (528, 0.942),
    "b7": (600, 0.949),
    "l2": (800, 0.96),
    "l2_475": (475, 0.936),
}
USUAL_STRIDE = 32  # of a classifier; others are for dense prediction, with dilated convolutions


class PublisherConfig(NamedTuple):
    """What such files say of a network; all of it may be unknown.

    Attributes
    ----------
    padding : {"symmetric", "same"}
    bn_eps : float
    activation : str
    output_stride : int
        None of the usual one.
    preprocessing : Preprocessing
    classes : tuple of str
    multi_label : bool
    """

    padding: str | None = None
    bn_eps: float | None = None
    activation: str | None = None
    output_stride: int | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
    multi_label: bool | None = None

    @classmethod
    def read(
        cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any], where: str, file: str = ""
    ) -> PublisherConfig:
        """Return what these two objects say, of timm's or Hugging Face's kind; what is of no use here is passed over.

        Where they say nothing of it, the weights' own file may have the name that timm gave it: ``file``.

        Raises
        ------
        CheckpointError
            If a field is not what it should be, or asks for what is not known here.
        """
        known: dict[str, Any] = {}
        if config.get("model_type") in TRANSFORMERS:
            known = _transformers(config, where)
        elif "pretrained_cfg" in config or "architecture" in config:
            known = _timm(config)
        for name, values in (("preprocessor_config.json", preprocessor), ("config.json", config)):
            if "preprocessing" not in known and has_preprocessing(values):
                try:
                    known["preprocessing"] = Preprocessing.from_config(values)
                except CheckpointError as error:
                    raise CheckpointError(f"{where}: {name} beside it: {error}") from None
        return cls(**(_of_name(config.get("architecture", file)) | known))


def _transformers(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    def field(name: str, right: Callable[[Any], bool], expected: str) -> Any:
        value = config.get(name)
        if value is not None and not right(value):
            raise CheckpointError(f"{where}: config.json beside it: {name} must be {expected}, got {_show(value)}")
        return value

    strides = ", ".join(map(str, OUTPUT_STRIDES))
    stride = field("output_stride", lambda value: type(value) is int and value in OUTPUT_STRIDES, f"one of {strides}")
    same = field("tf_padding", lambda value: isinstance(value, bool), "true or false")
    act = field(
        "hidden_act", lambda value: isinstance(value, str) and value in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}"
    )
    return {
        "padding": None if same is None else "same" if same else "symmetric",
        "bn_eps": field("layer_norm_eps", _is_eps, "a number between 0 and 1"),
        "activation": None if act is None else ACTIVATIONS[act],
        "output_stride": None if stride == USUAL_STRIDE else stride,
        "classes": _labels(config.get("id2label")),
        "multi_label": config.get("problem_type") == "multi_label_classification" or None,
    }


def _of_name(name: Any) -> dict[str, Any]:
    """What timm's name of a network, or of its file, tells."""
    if not isinstance(name, str) or not name.startswith(FROM_TENSORFLOW):
        return {}
    known: dict[str, Any] = {"padding": "same", "bn_eps": 1e-3}
    found = NOISY_STUDENT.match(name)
    if found:
        size, fraction = NOISY_STUDENTS[found[1] + (found[2] or "")]
        known["preprocessing"] = replace(IMAGENET, resize=int(size / fraction), crop=(size, size), filter="bicubic")
    return known


def _timm(config: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    architecture, labels = config.get("architecture"), config.get("label_names")
    if isinstance(architecture, str) and not architecture.startswith(FROM_TENSORFLOW):
        known |= {"padding": "symmetric", "bn_eps": 1e-5}
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        known["classes"] = tuple(labels)
    return known


def _labels(names: Any) -> tuple[str, ...] | None:
    """The names of ``{"0": name, "1": name, ...}``."""
    if not isinstance(names, Mapping) or not names:
        return None
    numbers = {str(number): name for number, name in names.items()}
    found = [numbers.get(str(number)) for number in range(len(numbers))]
    return tuple(found) if all(isinstance(name, str) for name in found) else None


def _is_eps(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1


def _show(value: Any) -> str:
    return quote(value) if isinstance(value, str) else quote(repr(value)[:80])[1:-1]

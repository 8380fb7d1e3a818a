"""Preprocessing as others write it down: timm's ``config.json``, Hugging Face's ``preprocessor_config.json``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from npmobilenet.errors import CheckpointError
from npmobilenet.files import read_all
from npmobilenet.image.preprocessing import (
    IMAGENET,
    MAX_SIDE,
    Preprocessing,
    is_number,
    is_one_of,
    is_side,
    is_tuple_of,
)
from npmobilenet.image.resizing import FILTERS, NEAREST
from npmobilenet.text import printable, shown

LARGEST_FILE = 16 << 20  # bytes; a config.json with the names of 22,000 classes has one
TIMM_FIELDS = ("input_size", "interpolation", "crop_pct", "crop_mode")
HUGGING_FACE_FIELDS = ("do_resize", "do_center_crop", "do_normalize", "image_mean", "image_std", "crop_size")
CROP_MODES = ("center", "squash", "border")
PILLOW_FILTERS = (NEAREST, "lanczos", "bilinear", "bicubic", "box", "hamming")  # by their numbers in Pillow
SECOND_NORMALISATION = "EfficientNetImageProcessor"  # the class in whose files a missing "include_top" means true
KNOWN_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
IDLE_STEPS = ("do_convert_rgb", "do_reduce_labels")  # what files say of pictures that are RGB, or of segmentation maps


def read_preprocessing(path: str | os.PathLike) -> Preprocessing:
    """Read a JSON file: of :meth:`Preprocessing.to_dict`, or of timm's or Hugging Face's kind.

    Raises
    ------
    CheckpointError
        If it cannot be read, or is none of these; the text names the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = read_all(file, LARGEST_FILE)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise CheckpointError(
            f"{printable(path)}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:  # ValueError: of JSON, of UTF-8, or a number of thousands of digits
        raise CheckpointError(f"{printable(path)}: not JSON ({error})") from None
    try:
        if isinstance(values, Mapping) and isinstance(values.get("preprocessing"), Mapping):  # our metadata
            values = values["preprocessing"]
        own = isinstance(values, Mapping) and "crop" in values
        return Preprocessing.from_dict(values) if own else from_config(values)
    except CheckpointError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from None


def has_preprocessing(config: object) -> bool:
    """Whether a configuration of timm's or Hugging Face's says anything about preprocessing."""
    return _kind(config) is not None


def from_config(config: Mapping[str, Any]) -> Preprocessing:
    """Return what such a configuration describes: see :meth:`Preprocessing.from_config`."""
    kind = _kind(config)
    if kind is None:
        raise CheckpointError(
            "no preprocessing: expected timm's fields (input_size, interpolation, crop_pct, mean, std) or Hugging "
            f"Face's (size, crop_size, resample, image_mean, image_std), got {shown(_names(config))}"
        )
    try:
        return kind(_Fields(config))
    except CheckpointError:
        raise
    except ValueError as error:  # numbers that are possible one by one, but not together
        raise CheckpointError(str(error)) from None


def _names(config: object) -> object:
    return list(config) if isinstance(config, Mapping) else config


def _kind(config: object) -> Callable[[_Fields], Preprocessing] | None:
    if not isinstance(config, Mapping):
        return None
    if isinstance(config.get("pretrained_cfg"), Mapping):
        return _of_timm
    if any(name in config for name in HUGGING_FACE_FIELDS):
        return _of_hugging_face
    return _of_timm if any(name in config for name in TIMM_FIELDS) else None


_NEEDED = object()


class _Fields:
    """A mapping that nobody checked."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def get(self, name: str, check: Callable[[Any], bool], expected: str, default: Any = _NEEDED) -> Any:
        """Return a field, lists as tuples; the default if it is not there or null."""
        value = self.values.get(name)
        if value is None and default is not _NEEDED:
            return default
        value = tuple(value) if isinstance(value, list) else value
        if not check(value):
            raise CheckpointError(f"preprocessing: {name} must be {expected}, got {shown(self.values.get(name))}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        return self.get(name, lambda value: isinstance(value, bool), "true or false", default)

    def colour(self, name: str, default: Any = _NEEDED) -> tuple[float, float, float]:
        """Three numbers, or one for all channels."""
        value = self.get(name, lambda v: is_number(v) or is_tuple_of(v, 3, is_number), "three numbers", default)
        return value if isinstance(value, tuple) else (value,) * 3


# --- timm: what its `transforms_imagenet_eval` does with these fields --------------------------------------


def _of_timm(fields: _Fields) -> Preprocessing:
    inner = fields.values.get("pretrained_cfg")
    fields = _Fields(inner) if isinstance(inner, Mapping) else fields
    _, *crop = fields.get("input_size", _is_input_size, "[3, height, width]", (3, 224, 224))
    fraction = fields.get("crop_pct", lambda v: is_number(v) and v >= 0, "a positive number", 0.875) or 0.875
    mode = fields.get("crop_mode", lambda v: is_one_of(v, CROP_MODES), f"one of {', '.join(CROP_MODES)}", "center")
    filters = f"one of {', '.join(FILTERS)}"
    filter_ = fields.get("interpolation", lambda v: is_one_of(v, FILTERS), filters, "bicubic")
    mean = fields.colour("mean", IMAGENET.mean)
    std = fields.colour("std", IMAGENET.std)
    sides = [side / fraction for side in crop]
    if not all(1 <= side < MAX_SIDE + 1 for side in sides):
        raise CheckpointError(f"preprocessing: crop_pct {shown(fraction)} of {crop[0]}x{crop[1]} is no possible size")
    resize = tuple(math.floor(side) for side in sides)
    about = {"filter": filter_}
    if mode == "border":
        about |= {"fit": "contain", "border": tuple(round(255 * min(max(value, 0), 1)) for value in mean)}
    elif mode == "center" and resize[0] == resize[1]:
        resize = resize[0]
    elif mode == "center":
        about |= {"fit": "cover"}
    return Preprocessing(resize, tuple(crop), None, mean, std, **about)


def _is_input_size(value: Any) -> bool:
    return is_tuple_of(value, 3, is_side) and value[0] == 3


# --- Hugging Face: what its image processors do with these fields ------------------------------------------


def _of_hugging_face(fields: _Fields) -> Preprocessing:
    for name in fields.values:
        if str(name).startswith("do_") and name not in KNOWN_STEPS + IDLE_STEPS:
            fields.get(name, lambda value: value is False, "false: this step is not known here", False)
    fields.get("crop_pct", lambda value: False, "null: it is not known here beside a size", None)
    cut = fields.flag("do_center_crop", "crop_size" in fields.values)
    size = fields.get("size", _is_hugging_face_size, 'a number, {"shortest_edge"} or {"height", "width"}')
    fields.get("do_resize", lambda value: value is True, "true: inputs of any size are not known here", True)
    if isinstance(size, Mapping) and "shortest_edge" in size:
        resize = size["shortest_edge"]
    elif isinstance(size, Mapping):
        resize = (size["height"], size["width"])
    else:
        resize = size if cut else (size, size)
    if cut:
        crop = fields.get("crop_size", _is_hugging_face_crop, 'a number or {"height", "width"}')
        crop = (crop["height"], crop["width"]) if isinstance(crop, Mapping) else (crop, crop)
    elif isinstance(resize, tuple):
        resize, crop = None, resize
    else:
        raise CheckpointError(
            "preprocessing: size gives the shorter side only and do_center_crop is false: inputs of any size are not "
            "known here"
        )
    numbers = f"one of Pillow's numbers 0 to {len(PILLOW_FILTERS) - 1}"
    resample = fields.get("resample", lambda v: type(v) is int and 0 <= v < len(PILLOW_FILTERS), numbers, 2)
    mean, std = _normalisation(fields)
    about = {"filter": PILLOW_FILTERS[resample], "crop_rounding": "down"}
    return Preprocessing(resize, crop, None, mean, std, **about)


def _normalisation(fields: _Fields) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return all that is done to values, one step after the other, as one ``(value / 255 - mean) / std``."""
    mean, std = (0.0,) * 3, (1.0,) * 3
    if fields.flag("do_rescale", True):
        positive = "a positive number"
        factor = 255 * fields.get("rescale_factor", lambda v: is_number(v) and v > 0, positive, 1 / 255)
        factor = 1.0 if math.isclose(factor, 1.0, rel_tol=1e-6) else factor
    else:
        factor = 255.0
    std = tuple(s / factor for s in std)
    if fields.flag("rescale_offset", False):  # the result less 1
        mean = tuple(m + s for m, s in zip(mean, std, strict=True))
    if fields.flag("do_normalize", True):
        its_std = fields.colour("image_std")
        mean = tuple(m + i * s for m, i, s in zip(mean, fields.colour("image_mean"), std, strict=True))
        std = tuple(s * i for s, i in zip(std, its_std, strict=True))
    names = [fields.values.get(name) for name in ("image_processor_type", "feature_extractor_type")]
    if fields.flag("include_top", SECOND_NORMALISATION in names):  # divided by the standard deviation once more
        std = tuple(s * i for s, i in zip(std, fields.colour("image_std"), strict=True))
    return mean, std


def _is_hugging_face_size(value: Any) -> bool:
    if isinstance(value, Mapping):
        return (set(value) == {"shortest_edge"} and is_side(value["shortest_edge"])) or _is_hugging_face_crop(value)
    return is_side(value)


def _is_hugging_face_crop(value: Any) -> bool:
    if isinstance(value, Mapping):
        return set(value) == {"height", "width"} and all(map(is_side, value.values()))
    return is_side(value)

"""How pictures become inputs: what belongs to the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from math import floor
from numbers import Integral, Real
from typing import Any

from npmobilenet.errors import CheckpointError
from npmobilenet.image.resizing import FILTERS
from npmobilenet.image.sampling import SAMPLED
from npmobilenet.text import shown

MAX_SIDE = 16384
MAX_PIXELS_OF_INPUT = 4096 * 4096  # 200 MB of float32, and a network needs three times as much beside it
SMALLEST_STD, LARGEST_NUMBER = 1e-6, 1e6
IN_SQUARE = ("corner", "middle")
FITS = ("fill", "cover", "contain", *IN_SQUARE)
ROUNDINGS = ("even", "down")
LONGEST = 4
DECODINGS = ("viewer", "torchvision")


@dataclass(frozen=True)
class Preprocessing:
    """How pictures were prepared when a network was trained; it belongs to the weights.

    A side is at most 16384 pixels, a size at most 4096 x 4096 in all.

    Parameters
    ----------
    resize : int, (height, width) or None
        What the picture is resized to before ``crop`` is cut out of the centre. An integer: length of the shorter side
        (torchvision's ``Resize(int)``). Two: a size, as ``fit`` says. None: ``crop`` itself.
    crop : (height, width)
        Size of the network's input.
    crop_fraction : float or None
        Side of the centre square that is used, as a fraction of the shorter side (TensorFlow's
        ``central_fraction``). None: the whole picture. Not together with ``resize``.
    mean, std : (red, green, blue)
        What ``value / 255`` is reduced and divided by. ``std`` is at least 1e-6.
    filter : {"bilinear", "bicubic", "nearest", "lanczos", "box", "hamming", "sampled", "sampled_corner"}
        Pillow's, antialiased but for "nearest". "sampled": bilinear between the four pixels around each place, however
        small the picture becomes, and not rounded, as tensors are resized (PyTorch's ``interpolate``);
        "sampled_corner": likewise, with the places counted from the first pixel's centre (TensorFlow 1);
        "sampled_ends": with the first and the last pixels on each other (Darknet, which cuts what is left of a pixel
         where others round the shorter side of a picture that lies within).
    fit : {"fill", "cover", "contain", "corner", "middle"}
        How two numbers of ``resize`` are meant: exactly that size, whatever the proportions of the picture (timm's
        "squash"); or in its own proportions, so that it covers the size, or lies within (timm's "border"). "corner" and
        "middle": the picture lies at the top left, or in the middle, of the smallest square of ``border`` that holds
        it, and this becomes that size (face-api.js); for the sampled filters.
    border : (red, green, blue)
        Colour around a picture that is smaller than ``crop``, 0 to 255; half values with sampled filters alone.
    crop_rounding : {"even", "down"}
        Where the centre lies that is half a pixel off: at an even distance from the edge (torchvision and timm), or at
        the smaller one (transformers).
    decode : {"viewer", "torchvision"}
        How files are read: as a viewer shows them, or as torchvision's datasets do; :func:`read_image` has the
        differences.
    grey : bool
        Whether the input is one channel, the picture's luminance (Rec. 601, as Pillow's "L"); ``mean`` and ``std`` are
        then their first numbers.

    Examples
    --------
    torchvision: ``Preprocessing(256, (224, 224), None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))``

    TensorFlow, centre 87.5 %: ``Preprocessing(None, (224, 224), 0.875, (0.5,) * 3, (0.5,) * 3)``

    The whole picture, squeezed: ``Preprocessing(None, (224, 224), None, (0.5,) * 3, (0.5,) * 3)``

    timm, crop_pct 0.9: ``Preprocessing(248, (224, 224), None, (0.5,) * 3, (0.5,) * 3, filter="bicubic")``
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int]
    crop_fraction: float | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    filter: str = "bilinear"
    fit: str = "fill"
    border: tuple[float, float, float] = (0, 0, 0)
    crop_rounding: str = "even"
    decode: str = "viewer"
    grey: bool = False

    def __post_init__(self) -> None:
        for name in ("resize", "crop", "mean", "std", "border"):  # JSON has lists, and a frozen class must be hashable
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        resize, fraction = self.resize, self.crop_fraction
        self._require(
            "resize",
            resize is None or is_side(resize) or is_size(resize),
            f"a positive integer up to {MAX_SIDE}, two of them (height, width), or None",
        )
        self._require("crop", is_size(self.crop), f"(height, width), {SIZE}")
        self._require(
            "crop_fraction",
            fraction is None or (is_number(fraction) and 0 < fraction <= 1),
            "a number above 0 and up to 1, or None",
        )
        numbers = f"three finite numbers up to {LARGEST_NUMBER:,.0f}"
        self._require("mean", is_tuple_of(self.mean, 3, is_number), numbers)
        self._require(
            "std",
            is_tuple_of(self.std, 3, is_number) and all(s >= SMALLEST_STD for s in self.std),
            f"three positive numbers, {SMALLEST_STD:g} or more",
        )
        filters = (*FILTERS, *SAMPLED)
        self._require("filter", is_one_of(self.filter, filters), f"one of {', '.join(filters)}")
        self._require("fit", is_one_of(self.fit, FITS), f"one of {', '.join(FITS)}")
        sampled = is_one_of(self.filter, SAMPLED)  # whose pixels are not rounded
        level, levels = (_is_brightness, "numbers") if sampled else (_is_level, "integers")
        self._require("border", is_tuple_of(self.border, 3, level), f"three {levels} from 0 to 255")
        self._require("crop_rounding", is_one_of(self.crop_rounding, ROUNDINGS), f"one of {', '.join(ROUNDINGS)}")
        self._require("grey", isinstance(self.grey, bool), "true or false")
        self._require("decode", is_one_of(self.decode, DECODINGS), f"one of {', '.join(DECODINGS)}")
        if self.fit in IN_SQUARE and (self.filter not in SAMPLED or not is_size(resize)):
            raise ValueError(
                f"preprocessing: fit {self.fit!r} needs a resize of two numbers and one of the filters "
                f"{', '.join(SAMPLED)}, got {shown(resize)} and {self.filter!r}"
            )
        if resize is not None and fraction is not None:
            raise ValueError("preprocessing: resize and crop_fraction exclude each other, one must be None")

    def _require(self, name: str, condition: bool, expected: str) -> None:
        if not condition:
            raise ValueError(f"preprocessing: {name} must be {expected}, got {shown(getattr(self, name))}")

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value that an input can have."""
        scaled = [(end - mean) / std for end in (0, 1) for mean, std in zip(self.mean, self.std, strict=True)]
        return min(scaled), max(scaled)

    @property
    def whole(self) -> bool:
        """Whether the input holds the whole picture: stretched, or in its proportions with a border."""
        exact = self.resize == self.crop and self.fit in ("fill", "contain", "corner")
        return self.crop_fraction is None and (self.resize is None or exact)

    def shown(self, height: int, width: int) -> tuple[float, float]:
        """Return what an input that is `whole` shows of a picture: so many pixels, from the top left.

        As much as the picture has, or beside it or below more, in a square. face-api.js, whose this is, has a whole
        number of the input's pixels for the picture, and so the square is a little more or less than one.
        """
        if self.fit != "corner":
            return height, width
        scales = [length / max(height, width) for length in self.crop]
        inside = [max(1, floor(side * scale + 0.5)) for side, scale in zip((height, width), scales, strict=True)]
        return height * self.crop[0] / inside[0], width * self.crop[1] / inside[1]

    def uncropped(self, height: int, width: int) -> Preprocessing:
        """Return the same for all of a picture: in its own proportions, where only the centre was used.

        The longer side is at most `LONGEST` times the shorter one then.
        """
        if self.whole and self.fit == "fill":
            return self
        shorter = self.resize if isinstance(self.resize, Integral) else min(self.crop)
        scale = shorter / min(height, width)
        size = tuple(max(1, min(round(side * scale), LONGEST * shorter)) for side in (height, width))
        return replace(self, resize=None, crop_fraction=None, crop=size, fit="fill")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them (lists for tuples), those with a default only where they differ."""
        usual = {field.name: field.default for field in fields(self)}
        told = {name: value for name, value in asdict(self).items() if value != usual[name] or name in _REQUIRED}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the inverse of :meth:`to_dict`.

        Raises
        ------
        CheckpointError
            If a field is missing, unknown or impossible.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or not set(_REQUIRED) <= set(values) <= set(names):
            got = list(values) if isinstance(values, Mapping) else values
            optional = ", ".join(names[len(_REQUIRED) :])
            raise CheckpointError(
                f"preprocessing must have exactly the fields {', '.join(_REQUIRED)}, and may have {optional}; "
                f"got {shown(got)}"
            )
        try:
            return cls(**values)
        except ValueError as error:
            raise CheckpointError(str(error)) from None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Return what timm's ``config.json`` or Hugging Face's ``preprocessor_config.json`` describes.

        Raises
        ------
        CheckpointError
            If it is neither, or something in it cannot be done here; the text names the field.
        """
        from npmobilenet.image.configs import from_config

        return from_config(config)


_REQUIRED = tuple(field.name for field in fields(Preprocessing) if field.default is MISSING)
SIZE = f"two positive integers up to {MAX_SIDE} and {MAX_PIXELS_OF_INPUT:,} pixels in all"

# Metadata may hold anything: no number is trusted before it passed one of these.


def is_side(value: object) -> bool:
    """Whether this is a possible length in pixels."""
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 < value <= MAX_SIDE


def is_size(value: object) -> bool:
    """Whether this is a possible (height, width)."""
    return is_tuple_of(value, 2, is_side) and int(value[0]) * int(value[1]) <= MAX_PIXELS_OF_INPUT


def is_number(value: object) -> bool:
    """Whether this is a number of sensible magnitude; NaN is not, nor an integer of hundreds of digits."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER


def is_one_of(value: object, choices: Any) -> bool:
    """Whether this is one of the names."""
    return isinstance(value, str) and value in choices


def is_tuple_of(values: object, length: int, check: Callable[[object], bool]) -> bool:
    """Whether this is a tuple of so many things that pass the check."""
    return isinstance(values, tuple) and len(values) == length and all(map(check, values))


def _is_brightness(value: object) -> bool:
    return is_number(value) and 0 <= value <= 255


def _is_level(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= value <= 255


def letterboxed(size: tuple[int, int], grey: bool = False) -> Preprocessing:
    """Return Darknet's preprocessing: the whole picture in its proportions, grey around it, values from 0 to 1."""
    fit = {"fit": "contain", "border": (127.5,) * 3, "crop_rounding": "down"}
    return Preprocessing(size, size, None, (0.0,) * 3, (1.0,) * 3, filter="sampled_ends", grey=grey, **fit)


IMAGENET = Preprocessing(256, (224, 224), None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""torchvision's, of its ImageNet weights."""

"""Reading pictures and turning them into a network's input.

Pillow only decodes files. The resampling is this project's own and equals Pillow's bit for bit, so a network
sees exactly what torchvision's transforms would have shown it, and arrays need no image library at all.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from npmobilenet.errors import CheckpointError, ImageError, MissingDependencyError

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[float, float, float, float]
ImageSource = "str | os.PathLike | bytes | BinaryIO | Image | np.ndarray"


@dataclass(frozen=True)
class Preprocessing:
    """How pictures were prepared when a network was trained; it belongs to the weights.

    Parameters
    ----------
    resize : int or None
        Length the shorter side is resized to before ``crop`` is cut out of the centre (torchvision's
        ``Resize(int)`` and ``CenterCrop``). None: the picture is resized to ``crop`` itself.
    crop : (height, width)
        Size of the network's input.
    crop_fraction : float or None
        Side of the centre square that is used, as a fraction of the shorter side (TensorFlow's
        ``central_fraction``). None: the whole picture. Not together with ``resize``.
    mean, std : (red, green, blue)
        What ``value / 255`` is reduced and divided by.

    Examples
    --------
    torchvision: ``Preprocessing(256, (224, 224), None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))``

    TensorFlow, centre 87.5 %: ``Preprocessing(None, (224, 224), 0.875, (0.5,) * 3, (0.5,) * 3)``

    The whole picture, squeezed: ``Preprocessing(None, (224, 224), None, (0.5,) * 3, (0.5,) * 3)``
    """

    resize: int | None
    crop: tuple[int, int]
    crop_fraction: float | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name in ("crop", "mean", "std"):  # JSON has lists, and a frozen class must be hashable
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        self._require("resize", self.resize is None or _is_size(self.resize), "a positive integer or None")
        self._require("crop", _is_tuple_of(self.crop, 2, _is_size), "(height, width), two positive integers")
        fraction = self.crop_fraction
        self._require(
            "crop_fraction",
            fraction is None or (_is_finite(fraction) and 0 < fraction <= 1),
            "a number above 0 and up to 1, or None",
        )
        self._require("mean", _is_tuple_of(self.mean, 3, _is_finite), "three finite numbers")
        self._require(
            "std",
            _is_tuple_of(self.std, 3, _is_finite) and all(s > 0 for s in self.std),
            "three positive numbers",
        )
        if self.resize is not None and fraction is not None:
            raise ValueError("preprocessing: resize and crop_fraction exclude each other, one must be None")

    def _require(self, name: str, condition: bool, expected: str) -> None:
        if not condition:
            raise ValueError(f"preprocessing: {name} must be {expected}, got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them (lists for tuples)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the inverse of :meth:`to_dict`.

        Raises
        ------
        CheckpointError
            If a field is missing, unknown or impossible.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or set(values) != set(names):
            got = ", ".join(map(str, values)) if isinstance(values, Mapping) else repr(values)
            raise CheckpointError(f"preprocessing must have exactly the fields {', '.join(names)}, got {got}")
        try:
            return cls(**values)
        except ValueError as error:
            raise CheckpointError(str(error)) from None


def _is_size(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_tuple_of(values: object, length: int, check: Callable[[object], bool]) -> bool:
    return isinstance(values, tuple) and len(values) == length and all(map(check, values))


IMAGENET = Preprocessing(256, (224, 224), None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""torchvision's, of its ImageNet weights."""


# --- Reading -----------------------------------------------------------------------------------------------


def read_image(source: str | os.PathLike | bytes | BinaryIO | Image | np.ndarray) -> np.ndarray:
    """Return the picture as a viewer shows it.

    The orientation noted by a camera (EXIF) is applied, transparency lies over white, of an animation the
    first frame counts, 16-bit grey is scaled to 8 bits. Colour profiles are ignored, as in torchvision.

    Parameters
    ----------
    source : path, bytes, binary file object, PIL image or uint8 array
        Arrays are grey (H, W) or (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4), and need no Pillow.

    Returns
    -------
    uint8 (H, W, 3)
        RGB. An RGB array comes back as it is, not copied.

    Raises
    ------
    ImageError
        If this is no picture, or not one whose colours are known; the text names the source.
    MissingDependencyError
        If a file is to be decoded and Pillow is not installed.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    pil = sys.modules.get("PIL.Image")  # without Pillow imported, nobody can hand over one of its images
    if pil is not None and isinstance(source, pil.Image):
        with _one_clear_error("PIL image"):
            return _from_pillow(source, "PIL image")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), "image bytes")
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        name = path if path.isprintable() else repr(path)
        try:
            file = Path(path).open("rb")  # noqa: SIM115 (closed below)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise ImageError(f"{name}: cannot be opened: {_reason(error)}") from None
        with file:
            return _decode(file, name)
    if hasattr(source, "read"):
        if isinstance(source, io.TextIOBase):
            raise ImageError("the image file object is open as text: open it in binary mode, 'rb'")
        return _decode(source, str(getattr(source, "name", "image file object")))
    raise ImageError(f"expected a path, bytes, a binary file object, a PIL image or a uint8 array, got {_type(source)}")


_EXPECTED = "expected a uint8 array (height, width, 3), RGB"


def _from_array(array: np.ndarray) -> np.ndarray:
    shape = array.shape
    if array.dtype != np.uint8:
        hint = ""
        if array.dtype.kind == "f":
            hint = ": for values from 0 to 1 use (array * 255).round().astype('uint8')"
        elif array.dtype == np.uint16:
            hint = ": for values from 0 to 65535 use (array / 257).round().astype('uint8')"
        raise ImageError(f"{_EXPECTED}, got dtype {array.dtype}{hint}")
    if array.ndim == 4:
        raise ImageError(f"{_EXPECTED}, got shape {shape}: give the images of a batch one by one")
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 3 and shape[0] in (1, 3, 4) and shape[2] > 4:
            hint = ": the channels come first; use array.transpose(1, 2, 0)"
        raise ImageError(f"{_EXPECTED}, got shape {shape}{hint}")
    if 0 in shape:
        raise ImageError(f"{_EXPECTED}, got an empty array of shape {shape}")
    if array.ndim == 2 or shape[2] == 1:
        return _grey_to_rgb(array.reshape(shape[:2]))
    return _over_white(array) if shape[2] == 4 else array


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _over_white(rgba: np.ndarray) -> np.ndarray:
    """Lay uint8 (H, W, 4) over white: ``colour * a + white * (1 - a)``, rounded."""
    alpha = rgba[:, :, 3:].astype(np.uint16)
    return ((rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _decode(file: BinaryIO, name: str) -> np.ndarray:
    try:
        import PIL.Image
    except ImportError:
        raise MissingDependencyError(
            f'{name}: decoding image files needs Pillow: pip install "npmobilenet[image]" '
            "(uint8 arrays (height, width, 3) work without it)"
        ) from None
    with _one_clear_error(name, file), PIL.Image.open(file) as image:
        return _from_pillow(image, name)


@contextmanager
def _one_clear_error(name: str, file: BinaryIO | None = None) -> Iterator[None]:
    """Turn whatever Pillow raises into an :class:`ImageError` of one line."""
    import PIL.Image

    try:
        yield
    except ImageError:
        raise
    except PIL.UnidentifiedImageError:
        empty = file is not None and file.seekable() and file.seek(0, io.SEEK_END) == 0
        problem = "the file is empty" if empty else "not an image in a format that Pillow can read"
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        problem = f"{_reason(error)} If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS or shrink it first."
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        problem = f"cannot be decoded; is it damaged or cut short? ({_reason(error)})"
    else:
        return
    raise ImageError(f"{name}: {problem}") from None


def _reason(error: Exception) -> str:
    """Return the error's text on one line."""
    return " ".join(str(getattr(error, "strerror", None) or error or _type(error)).split())


def _type(value: object) -> str:
    return type(value).__name__


# What undoes each EXIF orientation (TIFF 6.0, tag 274) on an array (H, W, 3).
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 274, 258, 262, 0


def _from_pillow(image: Image, name: str) -> np.ndarray:
    if 0 in image.size:
        raise ImageError(f"{name}: an image of {image.width}x{image.height} pixels has nothing in it")
    if image.format in ("EPS", "WMF"):
        raise ImageError(f"{name}: a vector picture ({image.format}); convert it to PNG first")
    image.load()
    pixels = _to_rgb(image, name)
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged metadata do not spoil the picture
        orientation = None
    return np.ascontiguousarray(_UPRIGHT.get(orientation, lambda a: a)(pixels))


def _to_rgb(image: Image, name: str) -> np.ndarray:
    # Pillow before 11.3 opens 16-bit grey PNG, and any version 16-bit PGM, in its mode for 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _grey_to_rgb(_sixteen_to_eight(image))
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed integer"
        raise ImageError(f"{name}: {kind} pixels do not tell which value is white; save it with 8 bits first")
    if image.mode in ("La", "RGBa"):  # colours already multiplied by alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return _over_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _sixteen_to_eight(image: Image) -> np.ndarray:
    """Scale 16-bit grey to uint8 (H, W); Pillow's own ``convert`` cuts everything above 255 off."""
    grey = np.asarray(image).astype(np.int64)
    tags = getattr(image, "tag_v2", {})  # TIFF: Pillow stores 12 bits as they are, in 16
    white = (1 << tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 1
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = white - grey
    if isinstance(transparent := image.info.get("transparency"), int):  # PNG: one grey that is transparent
        grey[grey == transparent] = white
    return ((grey * 255 + white // 2) // white).astype(np.uint8)


# --- Resizing ----------------------------------------------------------------------------------------------


def resize(image: np.ndarray, size: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """Resize an RGB image, bilinear and antialiased, with the very bits of ``PIL.Image.Image.resize``.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    size : (height, width)
    box : (left, upper, right, lower), optional
        The part of the image that is scaled to ``size``; edges may be fractions of a pixel.

    Returns
    -------
    uint8 (height, width, 3)

    Notes
    -----
    The algorithm is that of Pillow's ``Resample.c``: a triangle filter, as wide as two output pixels where
    the image shrinks, with weights in fixed point; first along x, then along y, 8 bits in between. Where the
    height loses more than twice as many pixels as the width, y comes first: so does Pillow since version 13
    (before, x always came first; a few values differ by 1).
    """
    image = _from_array(image)
    height, width = image.shape[:2]
    if not _is_tuple_of(tuple(size), 2, _is_size):
        raise ValueError(f"size must be (height, width), two positive integers, got {size!r}")
    left, upper, right, lower = (0, 0, width, height) if box is None else box
    if not (0 <= left < right <= width and 0 <= upper < lower <= height):
        whole = (0, 0, width, height)
        raise ValueError(f"box must be (left, upper, right, lower) within {whole}, not empty, got {box!r}")
    return _resize(image, size, (left, upper, right, lower), (0, 0, *size))


def _resize(image: np.ndarray, size: tuple[int, int], box: Box, window: tuple[int, int, int, int]) -> np.ndarray:
    """Return rows ``top:bottom``, columns ``start:stop`` of the resized image, and compute no others."""
    height, width = image.shape[:2]
    left, upper, right, lower = box
    top, start, bottom, stop = window
    columns = _weights(width, left, right, size[1], start, stop)
    first, weights = _weights(height, upper, lower, size[0], top, bottom)
    if height > size[0] and height - size[0] > 2 * (width - size[1]):
        return _along_x(_along_y(image, first, weights), *columns)
    used = image[first[0] : first[-1] + weights.shape[1]]
    return _along_y(_along_x(used, *columns), first - first[0], weights)


def _along_x(image: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from npmobilenet.kernels.cpu.resize import run  # loads LLVM, which takes a while

    out = np.empty((image.shape[0], len(first), 3), np.uint8)
    run("horizontal", np.ascontiguousarray(image), first, weights, out)
    return out


def _along_y(image: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from npmobilenet.kernels.cpu.resize import run

    rows = np.ascontiguousarray(image).reshape(len(image), -1)
    out = np.empty((len(first), rows.shape[1]), np.uint8)
    run("vertical", rows, first, weights, np.empty(rows.shape[1], np.int32), out)
    return out.reshape(len(first), *image.shape[1:])


def _weights(length: int, low: float, high: float, size: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what outputs ``start:stop`` of ``size`` are made of, along one axis.

    Parameters
    ----------
    length : int
        Input pixels.
    low, high : float
        The part of them that is scaled to ``size`` pixels.

    Returns
    -------
    first : int64 (stop - start,)
        First input pixel of each output.
    weights : int32 (stop - start, taps)
        Fixed-point weights of ``first`` and its successors, all of them within the input.
    """
    from npmobilenet.kernels.cpu.resize import PRECISION_BITS

    low, high = np.float32(low), np.float32(high)  # as Pillow keeps its box
    scale = float(high - low) / size
    support = max(scale, 1.0)
    centre = float(low) + (np.arange(start, stop) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), length)
    taps = (last - first).max()
    shifted = np.minimum(first, length - taps)  # every row has as many taps: at the end they begin earlier
    pixel = shifted[:, None] + np.arange(taps)
    triangle = np.maximum(1.0 - np.abs((pixel - centre[:, None] + 0.5) * (1.0 / support)), 0.0)
    triangle[(pixel < first[:, None]) | (pixel >= last[:, None])] = 0.0
    # `cumsum` adds one by one as Pillow does; `sum` adds pairwise, with another last bit.
    triangle /= triangle.cumsum(axis=1)[:, -1:]
    return shifted, (0.5 + triangle * (1 << PRECISION_BITS)).astype(np.int32)


# --- The network's input -----------------------------------------------------------------------------------


def preprocess(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Turn a picture into the input of the network whose ``preprocessing`` this is.

    Parameters
    ----------
    image : uint8 (H, W, 3)
        RGB; see :func:`read_image`.

    Returns
    -------
    float32 (3, height, width)
        C-contiguous, ``height, width = preprocessing.crop``.

    Notes
    -----
    Sizes, rounding and the black border of pictures smaller than the crop are those of torchvision's
    ``Resize(int)`` and ``CenterCrop``; the arithmetic is that of ``ToTensor`` and ``Normalize`` in float32,
    bit for bit. With mean and std 0.5 it lies within 1.2e-7 of TensorFlow's ``v / 127.5 - 1`` (one unit in
    the last place of 1).
    """
    image = _from_array(image)
    height, width = image.shape[:2]
    if preprocessing.crop_fraction is not None:
        side = max(int(preprocessing.crop_fraction * min(height, width)), 1)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
        height = width = side
    if preprocessing.resize is None:
        size = preprocessing.crop
    else:
        short = preprocessing.resize
        long = int(short * max(height, width) / min(height, width))
        size = (long, short) if width <= height else (short, long)

    (top, bottom, above), (start, stop, before) = map(_centre, size, preprocessing.crop)
    pixels = _resize(image, size, (0, 0, width, height), (top, start, bottom, stop))
    if pixels.shape[:2] != preprocessing.crop:
        cropped = np.zeros((*preprocessing.crop, 3), np.uint8)
        cropped[above : above + bottom - top, before : before + stop - start] = pixels
        pixels = cropped
    return _normalise(pixels, preprocessing)


def _centre(size: int, crop: int) -> tuple[int, int, int]:
    """Return the start and stop of the centre crop, and the padding before it where ``size`` is less."""
    if size < crop:
        return 0, size, (crop - size) // 2
    start = round((size - crop) / 2.0)  # halves to even, as torchvision
    return start, start + crop, 0


def _normalise(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return float32 (3, H, W): a table of what each of the 256 values becomes makes it a look-up."""
    mean, std = np.float32(preprocessing.mean), np.float32(preprocessing.std)
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    out = np.empty((3, *pixels.shape[:2]), np.float32)
    for channel in range(3):
        table = (values - mean[channel]) / std[channel]
        np.take(table, pixels[:, :, channel], out=out[channel], mode="clip")  # "raise" would copy `out` first
    return out

"""Pillow's decoded images as RGB arrays, converted block by block: beside the two there is little in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.errors import ImageError
from npmobilenet.image.arrays import BLOCK_PIXELS, blocks, over_white
from npmobilenet.image.lending import lent_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

# An upright picture (H, W, 3) as a camera of each EXIF orientation stored it (TIFF 6.0, tag 274): a view.
_AS_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[:, ::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[::-1].transpose(1, 0, 2),
}
_LYING = (5, 6, 7, 8)  # orientations in which width and height are exchanged
LYING_COLUMNS = 1024  # of their blocks: then the lines that are read and those that are written both fit in a cache
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 274, 258, 262, 0


def rgb_of(image: Image, name: str, decode: str, lend: bool = False) -> np.ndarray:
    """Return uint8 (H, W, 3) of an image that is decoded; ``decode`` and ``lend`` as for :func:`read_image`.

    Raises
    ------
    ImageError
        If it is not known which colours its values are; the text begins with ``name``.
    """
    width, height = image.size
    if decode == "torchvision":
        orientation, convert = None, _as_torchvision if "transparency" in image.info else _as_rgb
    else:
        orientation, convert = _orientation(image), _as_viewer(image, name)
    lying = orientation in _LYING
    lent = lent_pixels(image) if convert is _as_rgb and orientation not in _AS_STORED else None
    if lent is not None and lend:
        return lent[:, :, :3]
    upright = np.empty((width, height, 3) if lying else (height, width, 3), np.uint8)
    if lent is not None:
        from npmobilenet.image.loops import run

        run("without_fourth", lent, upright)
        return upright
    stored = _AS_STORED[orientation](upright) if orientation in _AS_STORED else upright
    for rows, columns in blocks(height, width, LYING_COLUMNS if lying else BLOCK_PIXELS):
        part = image.crop((columns.start, rows.start, columns.stop, rows.stop))
        stored[rows, columns] = convert(part)
    return upright


def _orientation(image: Image) -> int | None:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged metadata do not spoil the picture
        return None
    return orientation if isinstance(orientation, int) else None


def _as_torchvision(part: Image) -> np.ndarray:
    part.info.pop("transparency", None)  # Pillow would warn that it is lost
    return _as_rgb(part)


def _as_viewer(image: Image, name: str) -> Callable[[Image], np.ndarray]:
    """Return what makes RGB, or one channel of grey, of parts of this image."""
    # Pillow before 11.3 opens 16-bit grey PNG, and any version 16-bit PGM, in its mode for 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return partial(_looked_up, _sixteen_to_eight(image))
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed integer"
        raise ImageError(f"{name}: {kind} pixels do not tell which value is white; save it with 8 bits first")
    if image.mode in ("La", "RGBa"):  # colours already multiplied by alpha
        straight = "LA" if image.mode == "La" else "RGBA"
        return lambda part: over_white(np.asarray(part.convert(straight).convert("RGBA")))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return lambda part: over_white(np.asarray(part.convert("RGBA")))
    return _as_rgb


def _as_rgb(part: Image) -> np.ndarray:
    return np.asarray(part if part.mode == "RGB" else part.convert("RGB"))  # `convert` always copies


def _looked_up(table: np.ndarray, part: Image) -> np.ndarray:
    return table[np.asarray(part)][:, :, None]


def _sixteen_to_eight(image: Image) -> np.ndarray:
    """Return the uint8 of each 16-bit grey of this image; Pillow's own ``convert`` cuts everything above 255 off."""
    tags = getattr(image, "tag_v2", {})  # TIFF: Pillow stores 12 bits as they are, in 16
    white = (1 << tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 1
    grey = np.arange(1 << 16)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = white - grey
    table = ((grey.clip(0, white) * 255 + white // 2) // white).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):  # PNG: one grey that is transparent
        table[transparent] = 255
    return table

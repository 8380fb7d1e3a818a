"""A picture as the input of a network."""

from __future__ import annotations

from functools import lru_cache
from numbers import Integral

import numpy as np

from npmobilenet.image.arrays import rgb_array
from npmobilenet.image.preprocessing import IN_SQUARE, Preprocessing
from npmobilenet.image.resizing import resized_window
from npmobilenet.image.sampling import SAMPLED, sampled_window, square_around

LUMINANCE = np.array([19595, 38470, 7471], np.uint32)  # of red, green and blue, times 2**16


def preprocess(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Turn a picture into the input of the network whose ``preprocessing`` this is.

    Parameters
    ----------
    image : uint8 (H, W, 3)
        RGB; see :func:`read_image`.

    Returns
    -------
    float32 (3, height, width), or (1, height, width) if ``preprocessing.grey``
        C-contiguous, ``height, width = preprocessing.crop``.

    Notes
    -----
    Sizes, rounding and the border of pictures smaller than the crop are those of torchvision's ``Resize`` and
    ``CenterCrop``, for ``fit`` other than "fill" those of timm's ``ResizeKeepRatio`` and ``CenterCropOrPad``; the
    arithmetic is that of ``ToTensor`` and ``Normalize`` in float32, bit for bit. With mean and std 0.5 it lies within
    1.2e-7 of TensorFlow's ``v / 127.5 - 1`` (one unit in the last place of 1).
    """
    image = rgb_array(image, preprocessing.decode)
    if preprocessing.grey:
        image = np.repeat(((image @ LUMINANCE + 2**15) >> 16).astype(np.uint8)[..., None], 3, axis=2)
    height, width = image.shape[:2]
    if preprocessing.crop_fraction is not None:
        side = max(int(preprocessing.crop_fraction * min(height, width)), 1)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
        height = width = side
    size = resized_size(height, width, preprocessing)
    (top, bottom, above), (start, stop, before) = (
        _centre(length, crop, preprocessing.crop_rounding)
        for length, crop in zip(size, preprocessing.crop, strict=True)
    )
    window = (top, start, bottom, stop)
    if preprocessing.filter in SAMPLED:
        square = square_around(height, width, preprocessing.fit) if preprocessing.fit in IN_SQUARE else None
        pixels = sampled_window(image, size, window, preprocessing.filter, square, preprocessing.border)
    else:
        pixels = resized_window(image, size, (0, 0, width, height), window, preprocessing.filter)
    if pixels.shape[:2] != preprocessing.crop:
        cropped = np.full((*preprocessing.crop, 3), preprocessing.border, pixels.dtype)
        cropped[above : above + bottom - top, before : before + stop - start] = pixels
        pixels = cropped
    return _normalise(pixels, preprocessing)[: 1 if preprocessing.grey else 3]


def place_of(height: int, width: int, preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Return where a whole picture lies in the input: left, top, width and height, as parts of it."""
    if preprocessing.fit == "corner":
        high, wide = preprocessing.shown(height, width)
        return 0, 0, width / wide, height / high
    size = resized_size(height, width, preprocessing)
    (_, _, top), (_, _, left) = (
        _centre(length, crop, preprocessing.crop_rounding)
        for length, crop in zip(size, preprocessing.crop, strict=True)
    )
    rows, columns = preprocessing.crop
    return left / columns, top / rows, size[1] / columns, size[0] / rows


def resized_size(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the height and width to which a picture is resized before the centre is cut out."""
    resize = preprocessing.resize
    if resize is None:
        return preprocessing.crop
    if isinstance(resize, Integral):
        long = int(resize * max(height, width) / min(height, width))
        return (long, resize) if width <= height else (resize, long)
    if preprocessing.fit in ("fill", *IN_SQUARE):
        return resize
    if preprocessing.fit == "contain" and preprocessing.filter == "sampled_ends":
        if resize[1] * height < resize[0] * width:
            return max(1, height * resize[1] // width), resize[1]
        return resize[0], max(1, width * resize[0] // height)
    ratio = (min if preprocessing.fit == "cover" else max)(height / resize[0], width / resize[1])
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _centre(size: int, crop: int, rounding: str) -> tuple[int, int, int]:
    """Return the start and stop of the centre crop, and the padding before it where ``size`` is less."""
    if size < crop:
        return 0, size, (crop - size) // 2
    start = round((size - crop) / 2.0) if rounding == "even" else (size - crop) // 2
    return start, start + crop, 0


def _normalise(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return float32 (3, H, W): of integers a table of what each of the 256 values becomes makes it a look-up."""
    mean, std = tuple(preprocessing.mean), tuple(preprocessing.std)
    if pixels.dtype != np.uint8:
        scaled = (pixels / np.float32(255) - np.float32(mean)) / np.float32(std)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))
    from npmobilenet.image.loops import run  # loads LLVM, which takes a while

    out = np.empty((3, *pixels.shape[:2]), np.float32)
    run("looked_up", np.ascontiguousarray(pixels), _table(mean, std), out)
    return out


@lru_cache(8)
def _table(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """What each channel's values become, float32 (3, 256); not to be written to."""
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    return (values - np.float32(mean)[:, None]) / np.float32(std)[:, None]

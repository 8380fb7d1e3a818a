"""Pictures from any source, as RGB arrays."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from npmobilenet.errors import ImageError, LargeImageError, NpmobilenetError
from npmobilenet.files import read_all
from npmobilenet.image import array_files
from npmobilenet.image.arrays import rgb_array
from npmobilenet.image.formats import is_pillow_image, let_pillow_open, open_image
from npmobilenet.image.pixels import rgb_of
from npmobilenet.image.preprocessing import DECODINGS
from npmobilenet.kernels.compilers import NoCompilerError
from npmobilenet.text import shown

if TYPE_CHECKING:
    from PIL.Image import Image

ImageSource = "str | os.PathLike | bytes | BinaryIO | Image | np.ndarray"

MAX_PIXELS = 89_478_485
"""Of a picture that is decoded, unless told otherwise. Pillow, too, holds larger ones for suspicious."""

MAX_PIXELS_VARIABLE = "NPMOBILENET_MAX_PIXELS"

LARGEST_STREAM = 1 << 28  # bytes of what cannot seek; it has to be kept in memory
PIPE_PATIENCE = 10.0  # seconds, until somebody begins to write to a named pipe


def read_image(
    source: str | os.PathLike | bytes | BinaryIO | Image | np.ndarray,
    *,
    decode: str = "viewer",
    max_pixels: int | None = None,
    lend: bool = False,
) -> np.ndarray:
    """Return a picture as a viewer shows it, or as torchvision reads it.

    Of an animation the first frame counts. Colour profiles are ignored, as in torchvision.

    Parameters
    ----------
    source : path, bytes, binary file object, PIL image or uint8 array
        Arrays are grey (H, W) or (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4), and need no Pillow. Nor do files that
        NumPy's ``save`` has written.
    decode : {"viewer", "torchvision"}
        "viewer": the orientation noted by a camera (EXIF) is applied, transparency lies over white, 16-bit grey is
        scaled to 8 bits. "torchvision": what its datasets do, ``PIL.Image.open(file).convert("RGB")``: a photograph
        stays as the camera lay, transparency is dropped and whatever colour was hidden by it appears, 16-bit grey is
        cut off at 255.
    max_pixels : int, optional
        Larger pictures are refused before anything is decoded. If None: what the environment variable
        NPMOBILENET_MAX_PIXELS says, else 89,478,485. Arrays, which are in memory already, have no limit. A limit above
        Pillow's own (``PIL.Image.MAX_IMAGE_PIXELS``) raises that, for the whole process.
    lend : bool
        Whether the result may be Pillow's own memory where that is possible: read-only, with a gap after each pixel,
        and there without a copy.

    Returns
    -------
    uint8 (H, W, 3)
        RGB. An RGB array comes back as it is, not copied.

    Raises
    ------
    ImageError
        If this is no picture, or not one whose colours are known, or too large (:class:`LargeImageError`); the text
        names the source.
    MissingDependencyError
        If a file is to be decoded and Pillow is not installed.

    Notes
    -----
    In memory are Pillow's image, 4 bytes a pixel (palettes and grey 1, 16-bit grey 2), the result, 3 bytes a pixel, and
    what Pillow's decoder of that format needs for itself.
    """
    if decode not in DECODINGS:
        raise ValueError(f"decode must be one of {', '.join(DECODINGS)}, got {shown(decode)}")
    if isinstance(source, np.ndarray):
        return rgb_array(source, decode)
    limit = _limit(max_pixels)
    if is_pillow_image(source):
        with _one_clear_error("PIL image"):
            return _decoded(source, "PIL image", decode, limit, lend)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), "image bytes", decode, limit, lend)
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        name = path if path.isprintable() else repr(path)
        try:
            file = _open(path)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise ImageError(f"{name}: cannot be opened: {_reason(error)}") from None
        with file:
            return _decode(file, name, decode, limit, lend)
    if hasattr(source, "read"):
        if isinstance(source, io.TextIOBase):
            raise ImageError("the image file object is open as text: open it in binary mode, 'rb'")
        return _decode(source, str(getattr(source, "name", "image file object")), decode, limit, lend)
    raise ImageError(
        "expected a path, bytes, a binary file object, a PIL image or a uint8 array, got " + type(source).__name__
    )


def _open(path: str) -> BinaryIO:
    """Open a file; a named pipe to which nobody writes is an error, where `open` would wait for ever."""
    if os.name != "posix" or not stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116 - Path drops a last slash
        return open(path, "rb")  # noqa: PTH123
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not select.select([file], [], [], PIPE_PATIENCE)[0]:
        file.close()
        raise TimeoutError(errno.ETIMEDOUT, "a pipe to which nobody writes")
    os.set_blocking(file.fileno(), True)
    return file


def _whole(file: BinaryIO, name: str) -> bytes:
    try:
        return read_all(file, LARGEST_STREAM)
    except OSError as error:
        if isinstance(error, NpmobilenetError):
            raise
        raise ImageError(f"{name}: cannot be read: {_reason(error)}") from None


def _limit(max_pixels: int | None) -> int:
    """Return the most pixels that may be decoded; Pillow is told to open as many where that was asked for."""
    asked, who = max_pixels, "max_pixels"
    if asked is None:
        asked, who = os.environ.get(MAX_PIXELS_VARIABLE), f"the environment variable {MAX_PIXELS_VARIABLE}"
    if not asked and max_pixels is None:
        return MAX_PIXELS
    try:
        limit = int(asked)
    except (TypeError, ValueError):
        limit = 0
    if limit <= 0:
        raise ValueError(f"{who} must be a positive integer, got {shown(asked)}")
    let_pillow_open(limit)
    return limit


def _decode(file: BinaryIO, name: str, decode: str, limit: int, lend: bool) -> np.ndarray:
    with _one_clear_error(name):
        if not (hasattr(file, "seekable") and file.seekable()):
            file = io.BytesIO(_whole(file, name))
        if _begins_with(file, array_files.BEGINNING):
            return _picture(array_files.read_array(file, name, limit), name, decode)
        with open_image(file, name) as image:
            return _decoded(image, name, decode, limit, lend)


def _begins_with(file: BinaryIO, beginning: bytes) -> bool:
    file.seek(0)
    return file.read(len(beginning)) == beginning


def _picture(array: np.ndarray, name: str, decode: str) -> np.ndarray:
    try:
        return rgb_array(array, decode)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None


def _decoded(image: Image, name: str, decode: str, limit: int, lend: bool) -> np.ndarray:
    if 0 in image.size:
        raise ImageError(f"{name}: an image of {image.width}x{image.height} pixels has nothing in it")
    if image.format in ("EPS", "WMF"):
        raise ImageError(f"{name}: a vector picture ({image.format}); convert it to PNG first")
    _check_size(image, name, limit)
    image.load()
    _check_size(image, name, limit)  # icons only now tell how large they are
    return rgb_of(image, name, decode, lend)


_WHAT_TO_DO = f"if you trust it, raise the limit: max_pixels=..., or the environment variable {MAX_PIXELS_VARIABLE}"


def _check_size(image: Image, name: str, limit: int) -> None:
    width, height = image.size
    if width * height > limit:
        raise LargeImageError(
            f"{name}: {width}x{height} = {width * height} pixels are more than the limit of {limit}; {_WHAT_TO_DO}"
        )


@contextmanager
def _one_clear_error(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises into an :class:`ImageError` of one line."""
    try:
        yield
    except (NpmobilenetError, NoCompilerError):
        raise
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        too_large = type(error).__name__ in ("DecompressionBombError", "DecompressionBombWarning")
        reason = _reason(error)
        if too_large:
            raise LargeImageError(f"{name}: {reason} {_WHAT_TO_DO[:1].upper()}{_WHAT_TO_DO[1:]}") from None
        raise ImageError(f"{name}: cannot be decoded; is it damaged or cut short? ({reason})") from None


def _reason(error: Exception) -> str:
    """Return the error's text on one line."""
    text = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
    return text if len(text) <= 300 else text[:299] + "…"

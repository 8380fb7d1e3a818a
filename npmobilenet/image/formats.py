"""Which files are photographs, and what opens them: Pillow, and plugins that teach it further formats.

Pillow fills its table of formats while it is used, without a lock: of two threads that open their first photographs at
once, one may search the table that the other is filling. So here the table is filled under a lock, and searched as it
was at its end.
"""

from __future__ import annotations

import importlib
import struct
import threading
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from npmobilenet.errors import ImageError, MissingDependencyError

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image


class Plugin(NamedTuple):
    """A package that teaches Pillow a format.

    Attributes
    ----------
    kind : str
        The format's usual name.
    suffixes : tuple of str
    beginnings : tuple of (offset, bytes)
        One of them is in every such file.
    package : str
        What pip installs.
    module, function : str
        What to import, and what to call then; importing is enough where that is empty.
    """

    kind: str
    suffixes: tuple[str, ...]
    beginnings: tuple[tuple[int, bytes], ...]
    package: str
    module: str
    function: str = ""

    def is_of(self, header: bytes) -> bool:
        """Whether a file that begins so is of this format."""
        return any(header[at : at + len(text)] == text for at, text in self.beginnings)

    def is_installed(self) -> bool:
        """Whether the module is there; nothing is imported."""
        return find_spec(self.module) is not None

    def register(self) -> None:
        """Teach Pillow the format, if the package is there."""
        with suppress(ImportError):
            module = importlib.import_module(self.module)
            if self.function:
                getattr(module, self.function)()


def _brands(*names: str) -> tuple[tuple[int, bytes], ...]:
    """The beginnings of ISO base media files (ISO/IEC 14496-12) whose major brand is one of these."""
    return tuple((4, b"ftyp" + name.encode()) for name in names)


PLUGINS = (
    Plugin(
        "HEIC",
        (".heic", ".heif", ".hif"),
        _brands("heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"),
        "pillow-heif",
        "pillow_heif",
        "register_heif_opener",
    ),
    Plugin("AVIF", (".avif",), _brands("avif", "avis"), "pillow-avif-plugin", "pillow_avif"),
    Plugin("JPEG XL", (".jxl",), ((0, b"\xff\x0a"), (4, b"JXL \r\n\x87\n")), "pillow-jxl-plugin", "pillow_jxl"),
)
HEADER_BYTES = 16
LARGEST_PIECE = 1 << 29  # bytes


class OwnModule(NamedTuple):
    """A module of Pillow's that opens what begins so. Importing those of all usual formats takes as long again."""

    beginning: bytes
    module: str
    function: str


OWN_MODULES = (
    OwnModule(b"\xff\xd8\xff", "PIL.JpegImagePlugin", "jpeg_factory"),
    OwnModule(b"\x89PNG\r\n\x1a\n", "PIL.PngImagePlugin", "PngImageFile"),
)

IMAGE_SUFFIXES = frozenset(
    (
        *(".apng", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
        *(suffix for plugin in PLUGINS for suffix in plugin.suffixes),
    )
)
"""Suffixes of files that are taken for photographs, in small letters."""

_FILLING = threading.RLock()  # held while what Pillow has for the whole process changes


def pillow() -> ModuleType | None:
    """Return the module ``PIL.Image``, completely imported, or None where Pillow is not installed."""
    try:
        import PIL.Image
    except ImportError:
        return None
    return PIL.Image


def is_pillow_image(source: object) -> bool:
    """Whether this is one of Pillow's images; Pillow is not imported to find out, nor looked up half imported."""
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(source).__mro__)


def let_pillow_open(pixels: int) -> None:
    """Raise Pillow's own limit, if it is lower: at twice its limit Pillow refuses by itself."""
    image_module = pillow()
    if image_module is not None:
        with _FILLING:
            own = image_module.MAX_IMAGE_PIXELS
            image_module.MAX_IMAGE_PIXELS = own if own is None else max(own, pixels)


def let_pillow_keep(images: int) -> None:
    """Have Pillow keep the memory of so many images for the next ones, each in one piece so that it can be lent.

    New memory costs a third of the time in which a large photograph is decoded, and several threads that take and give
    it back wait for each other.
    """
    image_module = pillow()
    if image_module is not None:
        with _FILLING, suppress(AttributeError, ValueError):  # an implementation without this
            core = image_module.core
            core.set_block_size(max(core.get_block_size(), LARGEST_PIECE))
            core.set_blocks_max(max(core.get_blocks_max(), images))


def open_image(file: BinaryIO, name: str) -> Image:
    """Open an image file that can seek; nothing but its header is decoded.

    Raises
    ------
    ImageError
        If nothing here reads such a file.
    MissingDependencyError
        If Pillow is not installed.
    """
    image_module = pillow()
    if image_module is None:
        raise MissingDependencyError(
            f"{name}: decoding image files needs Pillow: pip install pillow "
            "(uint8 arrays (height, width, 3) work without it)"
        )
    file.seek(0)
    header = file.read(HEADER_BYTES)
    if not header:
        raise ImageError(f"{name}: the file is empty")
    plugin = next((plugin for plugin in PLUGINS if plugin.is_of(header)), None)
    if own := next((own for own in OWN_MODULES if header.startswith(own.beginning)), None):
        with _FILLING:
            opener = getattr(importlib.import_module(own.module), own.function)
        file.seek(0)
        with suppress(SyntaxError, IndexError, TypeError, struct.error):  # which Pillow takes for another format
            image = opener(file, "")
            most = image_module.MAX_IMAGE_PIXELS
            if most is None or image.width * image.height <= most:  # Pillow's own check is below
                return image
    # The usual formats; all of Pillow's, whose modules take a while to import; a plugin's.
    for register in (image_module.preinit, image_module.init, *([plugin.register] if plugin else [])):
        with _FILLING:
            register()
            formats = tuple(image_module.ID)
        with suppress(image_module.UnidentifiedImageError):
            return image_module.open(file, formats=formats)
    if plugin:
        problem = f"{plugin.kind} is read with the package {plugin.package}: pip install {plugin.package}"
        if plugin.is_installed():
            problem = f"not a {plugin.kind} image that {plugin.package} can read"
    else:
        problem = "not an image in a format that Pillow can read"
    raise ImageError(f"{name}: {problem}")


def unreadable_suffixes() -> set[str]:
    """Return those of `IMAGE_SUFFIXES` whose files cannot be read here, for want of a package."""
    image_module = pillow()
    if image_module is None:
        return set(IMAGE_SUFFIXES)
    with _FILLING:
        readable = set(image_module.registered_extensions())
    readable.update(suffix for plugin in PLUGINS if plugin.is_installed() for suffix in plugin.suffixes)
    return set(IMAGE_SUFFIXES) - readable


def package_for(suffix: str) -> str:
    """Return what to install so that Pillow reads files with this suffix: a plugin, else Pillow itself."""
    return next((plugin.package for plugin in PLUGINS if suffix.lower() in plugin.suffixes), "pillow")

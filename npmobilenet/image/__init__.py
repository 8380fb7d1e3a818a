"""Reading pictures and turning them into a network's input.

Pillow only decodes files. The resampling is this project's own and equals Pillow's bit for bit, so a network
sees exactly what torchvision's transforms would have shown it, and arrays need no image library at all.

``preprocessing``
    :class:`Preprocessing`: how pictures become inputs, which belongs to the weights.
``configs``
    The same as timm and Hugging Face write it.
``formats``, ``reading``, ``pixels``, ``lending``, ``arrays``, ``array_files``
    Files that are photographs; any source; Pillow's images as RGB, without a copy; uint8 arrays; NumPy's files.
``resizing``, ``network_input``
    Pillow's resampling, with its compiled ``loops``; resize, crop, normalise.
"""

from typing import TYPE_CHECKING

from npmobilenet import lazily

if TYPE_CHECKING:
    from npmobilenet.image.configs import has_preprocessing, read_preprocessing
    from npmobilenet.image.formats import IMAGE_SUFFIXES, package_for, unreadable_suffixes
    from npmobilenet.image.network_input import place_of, preprocess
    from npmobilenet.image.preprocessing import DECODINGS, IMAGENET, Preprocessing, letterboxed
    from npmobilenet.image.reading import MAX_PIXELS, ImageSource, read_image
    from npmobilenet.image.resizing import FILTERS, resize

__all__ = [
    "DECODINGS",
    "FILTERS",
    "IMAGENET",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageSource",
    "Preprocessing",
    "has_preprocessing",
    "letterboxed",
    "package_for",
    "place_of",
    "preprocess",
    "read_image",
    "read_preprocessing",
    "resize",
    "unreadable_suffixes",
]

__getattr__ = lazily(
    __name__,
    DECODINGS="preprocessing",
    FILTERS="resizing",
    IMAGENET="preprocessing",
    IMAGE_SUFFIXES="formats",
    MAX_PIXELS="reading",
    ImageSource="reading",
    Preprocessing="preprocessing",
    has_preprocessing="configs",
    letterboxed="preprocessing",
    package_for="formats",
    place_of="network_input",
    preprocess="network_input",
    read_image="reading",
    read_preprocessing="configs",
    resize="resizing",
    unreadable_suffixes="formats",
)

"""Shared by the tests of pictures: photographs, preprocessings, random pixels and files; skipped without Pillow."""

import dataclasses
import io
import struct
import zlib
from pathlib import Path

import numba
import numpy as np
import pytest

from npmobilenet.image import Preprocessing, read_image

Image = pytest.importorskip("PIL.Image")

PILLOW = int(Image.__version__.split(".")[0])
ROOT = Path(__file__).parent.parent
PHOTOGRAPHS = {
    "coffee": ROOT / "examples/coffee.png",
    "chelsea": ROOT / "tests/data/images/chelsea.png",
    "astronaut": ROOT / "tests/data/images/astronaut.png",
    "rocket": ROOT / "tests/data/images/rocket.jpg",
    "grace_hopper": ROOT / "tests/data/images/grace_hopper.jpg",
}
TORCHVISION = Preprocessing(256, (224, 224), None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CENTRE = Preprocessing(None, (224, 224), 0.875, (0.5,) * 3, (0.5,) * 3)
WHOLE = dataclasses.replace(CENTRE, crop_fraction=None)
COLOUR = Image.new("RGB", (2, 1), (200, 100, 50))
COLOUR.putpixel((1, 0), (10, 20, 250))
GREY16 = np.array([[0, 1000, 32896, 65535]], np.uint16)

compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="takes minutes where Numba does not compile")


def noise(height, width, seed=0):
    """Return random pixels, half of them black or white: extremes show rounding and overflow best."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(rng.random(image.shape) < 0.5, image, np.where(image < 128, 0, 255)).astype(np.uint8)


def pillow_resize(image, size, box=None, filter="bilinear"):
    """Resize with Pillow, in the order of passes of Pillow 13 whatever the version."""
    pil, filter = Image.fromarray(image), Image.Resampling[filter.upper()]
    height, width = size
    vertical_first = pil.height > height and pil.height - height > 2 * (pil.width - width)
    if PILLOW < 13 and vertical_first and filter != Image.Resampling.NEAREST:
        left, upper, right, lower = box or (0, 0, *pil.size)
        pil = pil.resize((pil.width, height), filter, (0, upper, pil.width, lower))
        box = (left, 0, right, height)
    return np.asarray(pil.resize((width, height), filter, box))


def encode(image, file_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, bits, colour_type, rows, *chunks):
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def assert_pixels(source, expected, tolerance=0):
    """Compare one row of pixels; a number stands for grey."""
    result = read_image(source)
    expected = [[v] * 3 if isinstance(v, int) else list(v) for v in expected]
    assert result.dtype == np.uint8 and result.shape == (1, len(expected), 3) and result.flags.c_contiguous
    np.testing.assert_allclose(result[0].astype(int), expected, rtol=0, atol=tolerance)

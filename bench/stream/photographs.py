"""Photographs to measure with: files of any size, made of the README's photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import npmobilenet
from npmobilenet.image import read_image, resize

SIZES = ((500, 375), (4000, 3000))
NOISE = 6  # largest, added to each value: an enlarged photograph would have no details
QUALITY = 90


def photograph(size: tuple[int, int], path: Path) -> Path:
    """Write a JPEG file of (width, height).

    Raises
    ------
    ValueError
        If there is no checkout, which has the photograph.
    """
    from PIL import Image

    source = Path(npmobilenet.__file__).parents[1] / "examples" / "coffee.png"
    if not source.is_file():
        raise ValueError("there is no photograph to measure with: the project's own are in its checkout alone")
    large = resize(read_image(source), size[::-1]).astype(np.int16)
    large += np.random.default_rng(0).integers(-NOISE, NOISE + 1, large.shape, dtype=np.int16)
    Image.fromarray(large.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
    return path

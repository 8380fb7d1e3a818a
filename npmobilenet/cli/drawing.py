"""Photographs with what was found in them drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.cli.photographs import STANDARD_INPUT, Photograph
from npmobilenet.errors import MissingDependencyError
from npmobilenet.files import replacing
from npmobilenet.text import printable

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

    from npmobilenet.tasks.detection import Detection

# Apart from each other for most eyes, too, that see fewer colours (Okabe and Ito); each is drawn upon black.
COLOURS = ("#f0e442", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#ffffff")
QUALITY = 92
LINES_PER_IMAGE = 40  # of text, in the height of a photograph
SMALLEST_TEXT = 11  # pixels


class Drawings:
    """Writes photographs into a folder.

    Those of folders that were given keep their subfolders; of two that would have one name the second is numbered.

    Parameters
    ----------
    folder : Path
    arguments : sequence of str
        The files, folders and globs that the photographs were found by.
    """

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        if STANDARD_INPUT in arguments:
            raise ValueError("a photograph on standard input is read once, and cannot be drawn on: give a file")
        try:
            import PIL.ImageDraw  # noqa: F401 - before anything is computed
        except ImportError as error:
            raise MissingDependencyError('drawing needs Pillow: pip install "npmobilenet[image]"') from error
        self.folder = folder
        self.roots = [Path(argument) for argument in arguments]
        self._written: set[Path] = set()

    def boxes(self, photograph: Photograph, found: Sequence[Detection]) -> None:
        """Write a photograph with boxes and names: ``NAME.boxes.jpg``."""
        from PIL import Image, ImageDraw, ImageFont

        picture = Image.fromarray(photograph.read())
        text = max(SMALLEST_TEXT, min(picture.size) // LINES_PER_IMAGE)
        draw = ImageDraw.Draw(picture)
        try:
            font = ImageFont.load_default(text)
        except (ImportError, TypeError):  # before Pillow 10.1, or without FreeType: small letters
            font = ImageFont.load_default()
        labels, line = list(dict.fromkeys(one.label for one in found)), max(2, text // 6)
        colours = [COLOURS[labels.index(one.label) % len(COLOURS)] for one in found]
        for one, colour in zip(found[::-1], colours[::-1], strict=True):  # the surest last, above the others
            _draw_frame(draw, one.box, colour, line)
        for one, colour in zip(found[::-1], colours[::-1], strict=True):
            _draw_name(draw, one.box, f"{printable(one.label)} {one.score:.0%}", colour, font, line)
        with replacing(self._place(photograph, ".boxes.jpg")) as file:
            picture.save(file, "JPEG", quality=QUALITY)

    def _place(self, photograph: Photograph, suffix: str) -> Path:
        path = Path(photograph.name)
        root = next((root for root in self.roots if root in path.parents), path.parent)
        inside = self.folder / path.relative_to(root)
        place, number = inside.with_name(inside.stem + suffix), 2
        while place in self._written:
            place, number = inside.with_name(f"{inside.stem}-{number}{suffix}"), number + 1
        self._written.add(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def _draw_frame(draw: ImageDraw, box: tuple[float, float, float, float], colour: str, line: int) -> None:
    """In colour, between two black ones."""
    draw.rectangle(box, outline="black", width=line + 2)
    inner = [box[0] + 1, box[1] + 1, max(box[0] + 1, box[2] - 1), max(box[1] + 1, box[3] - 1)]
    draw.rectangle(inner, outline=colour, width=line)


def _draw_name(
    draw: ImageDraw, box: tuple[float, float, float, float], text: str, colour: str, font: FreeTypeFont, line: int
) -> None:
    """Black on colour, above a box, or at its top inside."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * line, bottom - top + 2 * line
    x = min(max(box[0], 0), max(draw.im.size[0] - width, 0))
    y = box[1] - height if box[1] >= height else box[1]
    draw.rectangle([x, y, x + width, y + height], fill=colour, outline="black")
    draw.text((x + line - left, y + line - top), text, fill="black", font=font)

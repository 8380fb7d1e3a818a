"""Photographs with what was found in them drawn on, and masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from npmobilenet.cli.photographs import STANDARD_INPUT, Photograph
from npmobilenet.errors import MissingDependencyError
from npmobilenet.files import replacing
from npmobilenet.text import printable

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

    from npmobilenet.tasks.detection import Detection
    from npmobilenet.tasks.segmentation import Segmentation

Box = tuple[float, float, float, float]

# Apart from each other for most eyes, too, that see fewer colours (Okabe and Ito); each is drawn upon black.
COLOURS = ("#f0e442", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#ffffff")
QUALITY = 92
LINES_PER_IMAGE = 40  # of text, in the height of a photograph
LINES_PER_BOX = 4
SMALLEST_TEXT = 11  # pixels
ROWS = 256  # of a photograph that are tinted at once
TINT = 0.45  # of a pixel's colour, its label's
NOTHING = "background"  # a label that is not drawn


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
        self._labels: dict[str, int] = {}  # as they came: a label has one colour in all photographs

    def boxes(self, photograph: Photograph, found: Sequence[Detection]) -> None:
        """Write a photograph with boxes and names: ``NAME.boxes.jpg``."""
        from PIL import Image, ImageDraw

        picture = Image.fromarray(photograph.read())
        draw, boxes = ImageDraw.Draw(picture), [one.box for one in found]
        font, line = _letters(picture.size, boxes)
        numbers = [self._labels.setdefault(one.label, len(self._labels)) for one in found]
        colours = [COLOURS[number % len(COLOURS)] for number in numbers]
        for box, colour in zip(boxes[::-1], colours[::-1], strict=True):  # the surest last, above the others
            _draw_frame(draw, box, colour, line)
        taken: list[Box] = []
        for one, colour in zip(found, colours, strict=True):
            name = _Name(draw, f"{printable(one.label)} {one.score:.0%}", font, line)
            taken.append(name.draw(*name.place(one.box, taken), colour))
        self._save(picture, photograph, ".boxes.jpg")

    def mask(self, photograph: Photograph, found: Segmentation) -> Path:
        """Write a picture whose pixels are the indices of labels, shown in colours: ``NAME.mask.png``."""
        from PIL import Image

        picture = Image.fromarray(found.mask.astype("uint8"))
        picture.putpalette(_palette(found.labels).tobytes())
        place = self._place(photograph, ".mask.png")
        with replacing(place) as file:
            picture.save(file, "PNG")
        return place

    def overlay(self, photograph: Photograph, found: Segmentation) -> None:
        """Write a photograph in which what has a label is tinted and has an edge: ``NAME.overlay.jpg``."""
        import numpy as np
        from PIL import Image, ImageDraw

        pixels, palette = photograph.read(), _palette(found.labels, single=COLOURS[1])
        labels = ("", *found.labels) if len(found.labels) == 1 else found.labels
        drawn = np.array([label not in ("", NOTHING) for label in labels])
        for rows in range(0, len(pixels), ROWS):
            part, mask = pixels[rows : rows + ROWS], found.mask[rows : rows + ROWS]
            tinted = part + TINT * (palette[mask] - part.astype(np.float32))
            part[...] = np.where(drawn[mask][..., None], tinted, part)
        font, line = _letters(pixels.shape[:2])
        _draw_edges(pixels, found.mask, max(1, line // 2))
        picture = Image.fromarray(pixels)
        draw, top = ImageDraw.Draw(picture), 0.0
        for label, part in sorted(found.share.items(), key=lambda each: -each[1]):
            if label != NOTHING and part:
                colour = "#" + palette[labels.index(label)].tobytes().hex()
                top = _Name(draw, f"{printable(label)} {part:.0%}", font, line).draw(0, top, colour)[3]
        self._save(picture, photograph, ".overlay.jpg")

    def _save(self, picture: Image, photograph: Photograph, suffix: str) -> None:
        with replacing(self._place(photograph, suffix)) as file:
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


def _letters(size: tuple[int, int], boxes: Sequence[Box] = ()) -> tuple[FreeTypeFont, int]:
    """Letters for a picture of this size, and boxes in it; and how thick lines are beside them."""
    from PIL import ImageFont

    text = min(size) // LINES_PER_IMAGE
    if boxes:
        text = min(text, int(median(box[3] - box[1] for box in boxes)) // LINES_PER_BOX)
    text = max(SMALLEST_TEXT, text)
    try:
        font = ImageFont.load_default(text)
    except (ImportError, TypeError):  # before Pillow 10.1, or without FreeType: small letters
        font = ImageFont.load_default()
    return font, max(2, text // 6)


def _palette(labels: Sequence[str], single: str = "#ffffff") -> np.ndarray:
    """Colours of labels, uint8 (labels, 3): black for the background, and for what has not the only label."""
    import numpy as np

    colours = [single] if len(labels) == 1 else [COLOURS[at % len(COLOURS)] for at in range(len(labels) - 1)]
    if len(labels) > 1 and labels[0] != NOTHING:
        colours.insert(0, COLOURS[-1])
    else:
        colours.insert(0, "#000000")
    return np.array([tuple(bytes.fromhex(colour[1:])) for colour in colours], np.uint8)


def _draw_edges(pixels: np.ndarray, mask: np.ndarray, width: int) -> None:
    """White inside of black lines where the labels of neighbours differ."""
    import numpy as np

    edges = np.zeros(mask.shape, bool)
    edges[:-1] |= mask[:-1] != mask[1:]
    edges[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    for reach, value in ((2 * width, 0), (width, 255)):
        pixels[_grown(edges, reach)] = value


def _grown(marks: np.ndarray, reach: int) -> np.ndarray:
    """Marks with all pixels around them, so many up, down and to the sides."""
    grown = marks
    for axis in (0, 1):
        before, grown = grown, grown.copy()
        for step in range(1, reach):
            here, there = [slice(None)] * 2, [slice(None)] * 2
            here[axis], there[axis] = slice(step, None), slice(None, -step)
            grown[tuple(here)] |= before[tuple(there)]
            grown[tuple(there)] |= before[tuple(here)]
    return grown


def _draw_frame(draw: ImageDraw, box: Box, colour: str, line: int) -> None:
    """In colour, between two black ones."""
    draw.rectangle(box, outline="black", width=line + 2)
    inner = [box[0] + 1, box[1] + 1, max(box[0] + 1, box[2] - 1), max(box[1] + 1, box[3] - 1)]
    draw.rectangle(inner, outline=colour, width=line)


class _Name:
    """A text, to be written black on a colour."""

    def __init__(self, draw: ImageDraw, text: str, font: FreeTypeFont, line: int) -> None:
        self.drawing, self.text, self.font = draw, text, font
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        self.width, self.height = right - left + 2 * line, bottom - top + 2 * line
        self.inset = line - left, line - top

    def place(self, box: Box, taken: Sequence[Box]) -> tuple[float, float]:
        """Where it covers the least of other names: above a box, below it, or inside at its top."""
        across, down = self.drawing.im.size
        x = min(max(box[0], 0), max(across - self.width, 0))
        places = [y for y in (box[1] - self.height, box[3], box[1]) if 0 <= y <= down - self.height] or [box[1]]
        return x, min(places, key=lambda y: sum(_shared((x, y, x + self.width, y + self.height), one) for one in taken))

    def draw(self, x: float, y: float, colour: str) -> Box:
        """Write it there, and return what it covers."""
        covered = x, y, x + self.width, y + self.height
        self.drawing.rectangle(covered, fill=colour, outline="black")
        self.drawing.text((x + self.inset[0], y + self.inset[1]), self.text, fill="black", font=self.font)
        return covered


def _shared(one: Box, other: Box) -> float:
    """How many pixels two boxes share."""
    sides = (min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1]))
    return max(sides[0], 0) * max(sides[1], 0)

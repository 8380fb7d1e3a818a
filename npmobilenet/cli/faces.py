"""``npmobilenet faces``: faces in photographs, and what they express."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.cli.photographs import IMAGES_HELP, Photograph, Run, find_images
from npmobilenet.text import printable

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from npmobilenet.face_finder import Face, FaceFinder


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    from npmobilenet.cli.options import add_backend_options, probability

    parser = commands.add_parser(
        "faces",
        help="find faces in photographs, and their expressions",
        description="Print the faces in each photograph: score, most probable expression, and the box: left, top, "
        "right and bottom in pixels. One that cannot be read costs a line on standard error and the exit code 1; all "
        "others are looked at.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=IMAGES_HELP)
    parser.add_argument(
        "--threshold", type=probability, default=0.5, metavar="T", help="lowest score (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object per image")
    parser.add_argument(
        "--draw", type=Path, metavar="FOLDER", help="write every photograph there with the boxes, as NAME.boxes.jpg"
    )
    parser.add_argument(
        "--model",
        default="ssd_mobilenet_v1_face",
        metavar="NAME|CHECKPOINT",
        help="what finds faces (default %(default)s; tiny_face_detector is faster and finds fewer)",
    )
    parser.add_argument(
        "--expressions",
        default="face_expression",
        metavar="NAME|CHECKPOINT",
        help="what classifies their expressions (default %(default)s)",
    )
    add_backend_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Look at every image; one that cannot be read is reported and makes the exit code 1."""
    from npmobilenet.face_finder import FaceFinder
    from npmobilenet.loading import load

    how = {"threads": options.threads, "backend": options.backend}
    return show(FaceFinder(load(options.model, **how), load(options.expressions, **how)), options)


def show(finder: FaceFinder, options: argparse.Namespace) -> int:
    """Print which faces are found in the images."""
    import numpy as np

    drawn = _drawn(options.draw, options.images) if options.draw else None

    def prepare(picture: np.ndarray) -> list[np.ndarray]:
        return [finder.detector.preprocess(picture), picture]

    def compute(inputs: Sequence[np.ndarray], pictures: Sequence[np.ndarray]) -> list[list[Face]]:
        return finder.in_pictures(np.stack(inputs), pictures, options.threshold)

    images = Run(find_images(options.images), [finder.detector], compute, prepare, in_lists=True)
    images.show(options.json, _lines, lambda found: {"faces": [face._asdict() for face in found]}, drawn)
    return images.exit_code()


def _drawn(folder: Path, arguments: Sequence[str]) -> Callable[[Photograph, Sequence[Face]], None]:
    """What draws faces, each with its expression and how sure that is."""
    from npmobilenet.cli.drawing import Drawings
    from npmobilenet.tasks.detection import Detection

    drawings = Drawings(folder, arguments)

    def draw(photograph: Photograph, found: Sequence[Face]) -> None:
        named = [Detection(face.expression, face.expressions[face.expression], face.box) for face in found]
        drawings.boxes(photograph, named)

    return draw


def _lines(found: list[Face]) -> Iterator[str]:
    for box, score, expression, expressions in found:
        named = f"{printable(expression)} {expressions[expression]:.0%}"
        yield f"  {score:.3f}  {named:<16}  {' '.join(f'{edge:.0f}' for edge in box)}"
    if not found:
        yield "  no face"

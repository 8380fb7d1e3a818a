"""``npmobilenet segment``: what every pixel of photographs shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.cli.photographs import IMAGES_HELP, Photograph, Run, find_images
from npmobilenet.cli.terminal import on_a_line
from npmobilenet.text import printable

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from npmobilenet.model import Model
    from npmobilenet.tasks.segmentation import Segmentation


@dataclass
class Result:
    """What a photograph shows, and the file in which that is."""

    found: Segmentation
    mask: Path | None = None


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    from npmobilenet.cli.options import add_model_options

    parser = commands.add_parser(
        "segment",
        help="say what every pixel of photographs shows",
        description="Print which part of each photograph has which label, and write masks. One that cannot be read "
        "costs a line on standard error and the exit code 1; all others are looked at.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=IMAGES_HELP)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write masks there, as NAME.mask.png: the number of each pixel's label, which viewers show in colours",
    )
    parser.add_argument(
        "--overlay", action="store_true", help="write the photographs there too, tinted, as NAME.overlay.jpg"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object per image")
    add_model_options(parser, "selfie_segmentation", "persons")
    return parser


def run(options: argparse.Namespace) -> int:
    """Look at every image; one that cannot be read is reported and makes the exit code 1."""
    if options.overlay and not options.out:
        raise ValueError("--overlay writes files: say where with --out FOLDER")
    from npmobilenet.cli.options import load_model

    return show(load_model(options), options)


def show(model: Model, options: argparse.Namespace) -> int:
    """Print what a model sees in the images."""
    model.require_segmenter()
    drawings = None
    if options.out:
        from npmobilenet.cli.drawing import Drawings

        drawings = Drawings(options.out, options.images)

    def prepare(picture: np.ndarray) -> list:
        return [model.whole_input(picture), picture.shape[:2]]

    def compute(inputs: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[Result]:
        return [Result(found) for found in model.segmentations(inputs, sizes)]

    def write(photograph: Photograph, result: Result) -> None:
        result.mask = drawings.mask(photograph, result.found)
        if options.overlay:
            drawings.overlay(photograph, result.found)

    images = Run(find_images(options.images), [model], compute, prepare, in_lists=True)
    images.show(options.json, _lines, _item, write if drawings else None)
    return images.exit_code()


def _item(result: Result) -> dict:
    mask = None if result.mask is None else str(result.mask)
    return {"mask": mask, "labels": list(result.found.labels), "share": result.found.share}


def _lines(result: Result) -> Iterator[str]:
    shares = sorted(result.found.share.items(), key=lambda each: -each[1])
    for label, part in shares:
        if part or len(shares) == 1:
            yield f"  {100 * part:6.2f} %  {printable(label)}"
    if result.mask:
        yield f"  mask: {on_a_line(str(result.mask))}"
